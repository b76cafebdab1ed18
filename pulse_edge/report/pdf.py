"""A report and its page as a PDF by Typst. The only module that imports typst.

Texts of the model and names of files are data: JSON strings in the template `report.typ`. The PDF
is tagged and meets PDF/UA-1 and PDF/A-2a, unless it holds a character for which no font is
installed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image

from pulse_edge.common import paths
from pulse_edge.common.text import printable
from pulse_edge.errors import EngineError, UsageError
from pulse_edge.report.content import ALTERNATIVE_TEXT, TITLE, content
from pulse_edge.report.page_picture import to_jpeg
from pulse_edge.report.report import Report

_Standards: TypeAlias = tuple[Literal["a-2a", "ua-1"], ...]
_STANDARDS: _Standards = ("a-2a", "ua-1")
_ATTEMPTS: tuple[tuple[_Standards, bool], ...] = (
    (_STANDARDS, True),
    (_STANDARDS, False),
    ((), False),
)
"""Standards, and whether only Typst's own fonts are used: then the system's fonts too, then without
the promise that every character is shown."""
_LONG_WORD = re.compile(r"\S{65,}")
"""A word longer than a hash would run out of the page."""


def to_pdf(report: Report, page: Image.Image) -> bytes:
    """Return the report on one A4 page.

    One that does not fit continues on a second page rather than lose a word.

    Raises UsageError without typst, EngineError where it fails.
    """
    require_typst()
    import typst

    data = dataclasses.asdict(content(report)) | {"title": TITLE, "alt": ALTERNATIVE_TEXT}
    texts = {"data": json.dumps(_breakable(data))}
    with tempfile.TemporaryDirectory(
        prefix="pulse-edge-"
    ) as root:  # 0700: it holds a patient's page
        source = Path(root, "report.typ")
        source.write_bytes((paths.ASSETS / "report.typ").read_bytes())
        Path(root, "page.jpg").write_bytes(to_jpeg(page))
        for standards, own_fonts in _ATTEMPTS:
            try:
                return typst.compile(
                    str(source),
                    root=root,
                    sys_inputs=texts,
                    pdf_standards=list(standards) or None,
                    ignore_system_fonts=own_fonts,
                )
            except typst.TypstError as e:
                reason = e.message
    raise EngineError(f"{report.file}: no PDF could be made ({reason}). Choose --format html.")


def require_typst() -> None:
    """Raise UsageError if the library that makes PDFs is not installed."""
    if find_spec("typst") is None:
        raise UsageError(
            "PDF reports need a library: pip install 'pulse-edge[report]', or choose --format html."
        )


def _breakable(value: Any) -> Any:
    """Return a JSON value with printable texts and zero-width spaces in long words."""
    if isinstance(value, str):
        return _LONG_WORD.sub(
            lambda word: re.sub(r"(.{40})", "\\1\u200b", word[0]), printable(value)
        )
    if isinstance(value, dict):
        return {key: _breakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_breakable(item) for item in value]
    return value
