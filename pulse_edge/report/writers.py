"""A report in the formats that were asked for, as files that are complete or absent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from pulse_edge.common.files import write_set
from pulse_edge.common.text import visible
from pulse_edge.errors import OutputError
from pulse_edge.measurement.signal import TracedSignal
from pulse_edge.report import fhir, html, pdf, text
from pulse_edge.report.fhir import Patient
from pulse_edge.report.report import Report

ENDINGS = {"text": "txt", "json": "json", "html": "html", "pdf": "pdf", "fhir": "fhir.json"}
"""Format -> how its files end."""
MAX_STEM_BYTES = 80
"""Bytes of a page's name in the names of its outputs."""


@dataclass(frozen=True)
class Target:
    """Where the files of one report go."""

    folder: Path
    """Folder, made if it is absent."""
    stem: str
    """Name of the files without their endings."""
    overwrite: bool = False
    """Replace files of that name; False gives the new ones a number."""


def render(
    form: str,
    report: Report,
    page: Image.Image,
    patient: Patient | None = None,
    signal: TracedSignal | None = None,
) -> bytes:
    """Return the report in one of the formats of ENDINGS; FHIR also holds the traced `signal`."""
    if form == "html":
        return html.to_html(report, page)
    if form == "pdf":
        return pdf.to_pdf(report, page)
    if form == "fhir":
        return fhir.to_fhir(report, page, patient, signal)
    return (report.to_json() + "\n" if form == "json" else visible(text.to_text(report))).encode()


def write(
    target: Target,
    forms: Sequence[str],
    report: Report,
    page: Image.Image,
    patient: Patient | None = None,
    signal: TracedSignal | None = None,
) -> list[Path]:
    """Write the report in each format; return the paths.

    Raises OutputError where the disk does not take them.
    """
    try:
        contents = {
            f".{ENDINGS[form]}": render(form, report, page, patient, signal) for form in forms
        }
        return write_set(target.folder, target.stem, contents, overwrite=target.overwrite)
    except OSError as e:
        if e.errno is None:  # from Pillow, about the picture
            raise
        where = e.filename or target.folder
        raise OutputError(
            f"{where}: cannot be written ({e.strerror}), so there are no documents. Make room, or "
            "choose another folder "
            "with -o; then run the same command again."
        ) from e


def stem(report: Report) -> str:
    """Return a file name for a page's outputs that any system can write.

    It consists of the page's own name, page number and hash.
    """
    name, _, sheet = (
        report.file.rpartition("#") if re.search(r"#\d+$", report.file) else (report.file, "", "")
    )
    word = unicodedata.normalize("NFC", PurePosixPath(name.replace("\\", "/")).stem)
    word = not_an_option(re.sub(r"[^\w.-]+", "_", word).strip("._"))
    word = word.encode("utf-8")[:MAX_STEM_BYTES].decode("utf-8", "ignore") or "page"
    return "-".join(filter(None, (word, sheet, report.page_sha256[:8])))


def not_an_option(name: str) -> str:
    """Return a file name that no command takes for an option.

    One that begins with `-` gets `page` before it.
    """
    return f"page{name}".rstrip("-") if name.startswith("-") else name
