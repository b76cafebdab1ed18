"""A report in the formats that were asked for, as files that are whole or not there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from pulse_edge.common.files import write_set
from pulse_edge.common.text import visible
from pulse_edge.errors import OutputError
from pulse_edge.report import document, fhir
from pulse_edge.report.fhir import Patient
from pulse_edge.report.report import Report

ENDINGS = {"text": "txt", "json": "json", "html": "html", "pdf": "pdf", "fhir": "fhir.json"}
"""Format -> how its files end."""


def render(form: str, report: Report, page: Image.Image, patient: Patient | None = None) -> bytes:
    """The report as one of ENDINGS."""
    if form == "html":
        return document.to_html(report, page)
    if form == "pdf":
        return document.to_pdf(report, page)
    if form == "fhir":
        return fhir.to_fhir(report, page, patient)
    text = report.to_json() + "\n" if form == "json" else visible(report.to_text())
    return text.encode("utf-8")


def write(
    folder: Path,
    stem: str,
    forms: Sequence[str],
    report: Report,
    page: Image.Image,
    patient: Patient | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write the report in each format into `folder`; return the paths. See `report.write_set` for names that are taken.

    Raises OutputError where the disk does not take them.
    """
    try:
        contents = {f".{ENDINGS[form]}": render(form, report, page, patient) for form in forms}
        return write_set(folder, stem, contents, overwrite=overwrite)
    except OSError as e:
        if e.errno is None:  # Pillow's, about the picture
            raise
        where = e.filename or folder
        raise OutputError(
            f"{where}: cannot be written ({e.strerror}), so there are no documents. Make room, or choose another folder "
            "with -o; then run the same command again."
        ) from e


def stem(report: Report) -> str:
    """A file name for a page's outputs that any system can write: what is left of its name, and the page's hash."""
    name, _, sheet = (
        report.file.rpartition("#") if re.search(r"#\d+$", report.file) else (report.file, "", "")
    )
    word = unicodedata.normalize("NFC", PurePosixPath(name.replace("\\", "/")).stem)
    word = re.sub(r"[^\w.-]+", "_", word).strip("._")
    word = word.encode("utf-8")[:80].decode("utf-8", "ignore") or "page"
    return "-".join(filter(None, (word, sheet, report.page_sha256[:8])))
