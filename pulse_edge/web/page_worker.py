"""The page worker, `python -m pulse_edge.web.page_worker`: everything about a page that needs no
model.

It opens uploads, judges and measures pages, draws their pictures, and renders reports. Files are
decoded in a process of their own, with limits (see page/decoder_client.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pulse_edge.common.files import write_whole
from pulse_edge.errors import PulseEdgeError, on_page
from pulse_edge.measurement import admission
from pulse_edge.measurement import overlay as trace_overlay
from pulse_edge.measurement.admission import TracedPage
from pulse_edge.measurement.page import measure_page
from pulse_edge.measurement.page_json import as_json
from pulse_edge.page import decoder_client, reader
from pulse_edge.page.admission import CheckedPage, facts
from pulse_edge.page.overlay import page_overlay
from pulse_edge.page.picture_bytes import encoded
from pulse_edge.page.quality import REFUSED
from pulse_edge.report import writers
from pulse_edge.report.stored import from_json
from pulse_edge.web.worker_pipe import Pipe, error_fields

THUMB_SIDE = 480
"""Pixels of the longer side of a page's small picture."""
THUMB_QUALITY = 80


def main() -> None:
    """Do one job after the other until the server ends."""
    pipe = Pipe()
    pipe.next()  # settings: none yet
    decoder_client.start()
    pipe.send({"event": "ready"})
    while True:
        job = pipe.next()
        try:
            answer = {"ok": _JOBS[job["do"]](job)}
        except Exception as e:
            answer = error_fields(on_page(str(job.get("name", "page")), e))
        pipe.send({"id": job["id"], **answer})


class _NamedBytes(io.BytesIO):
    """An upload's bytes under the name that the client gave."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def document(path: Path, name: str) -> reader.Document:
    """Open an upload under its own name. Raises ScanError, PageRefused, OSError."""
    return reader.Document(_NamedBytes(path.read_bytes(), name))


def read_page(path: Path, name: str, number: int) -> reader.Page:
    """Read a page of an upload. Raises ScanError, PageRefused, OSError."""
    with document(path, name) as opened:
        page = opened.page(number)
    if isinstance(page, reader.UnreadablePage):
        raise page.error
    return page


def _count(job: Mapping[str, Any]) -> int:
    with document(Path(job["file"]), job["name"]) as opened:
        return len(opened)


def _prepare(job: Mapping[str, Any]) -> dict[str, Any]:
    """Check and measure a page, and write its pictures as `PREFIX-KIND.ENDING`."""
    page = read_page(Path(job["file"]), job["name"], job["page"])
    traced = _admitted(page, job["rectify"], job["force"])
    checked = traced.checked
    refusal = _refusal(checked)
    grid = checked.flat.grid
    across, down = (grid.across, grid.down) if grid else (None, None)
    photo = checked.flat.frame is not None
    pictures = {
        "page": encoded(checked.flat.image, photo=photo),
        "overlay": encoded(
            page_overlay(checked.flat.image, checked.quality, across, down), photo=photo
        ),
        "thumb": _thumb(checked),
    }
    measurements = None
    if refusal is None and job["measure"]:
        measured = measure_page(traced, job["age_years"], job["sex"])
        measurements = as_json(measured)
        pictures["trace"] = "png", trace_overlay.png(checked.flat.image, measured)
    if job["retain"]:
        pictures["original"] = "png", page.png()
    names = {}
    for kind, (ending, content) in pictures.items():
        names[kind] = f"{kind}.{ending}"
        write_whole(Path(f"{job['prefix']}-{names[kind]}"), (content,), overwrite=True)
    return {
        "admission": facts(checked),
        "measurements": measurements,
        "pictures": names,
        "refusal": refusal,
    }


def _admitted(page: reader.Page, rectify: bool, force: bool) -> TracedPage:
    """Check a page; only one that is too narrow to be judged raises PageRefused."""
    traced = admission.admit(page, rectify, force=True)
    quality = traced.checked.quality
    if force or not quality.forced:
        return traced
    return replace(traced, checked=replace(traced.checked, quality=replace(quality, forced=False)))


def _refusal(checked: CheckedPage) -> str | None:
    """Return why a page is refused, with the advice; None for an admitted or forced page."""
    if checked.quality.verdict != REFUSED or checked.quality.forced:
        return None
    reason = next(r for r in checked.quality.reasons if r.refuses)
    return f"{checked.page.name}: {reason.advice}"


def _thumb(checked: CheckedPage) -> tuple[str, bytes]:
    small = checked.flat.image.copy()
    small.thumbnail((THUMB_SIDE, THUMB_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=THUMB_QUALITY)
    return "jpg", file.getvalue()


def _render(job: Mapping[str, Any]) -> str:
    """Write a report in one form to `out`."""
    from PIL import Image

    report = from_json(job["report"])
    signal = None
    if job["form"] == "fhir" and job["measured"]:
        page = read_page(Path(job["file"]), job["name"], job["page"])
        traced = admission.admit(page, job["rectify"], force=True)
        signal = measure_page(traced, job["age_years"], job["sex"]).signal
    with Image.open(job["picture"]) as opened:
        picture = opened.convert("RGB")
    content = writers.render(job["form"], report, picture, None, signal)
    write_whole(Path(job["out"]), (content,), overwrite=True)
    return str(job["out"])


def _check(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for each page what `check --json` prints, or its error."""
    straighten = job["rectify"]
    return _each_page(job, lambda page: facts(admission.check(page, straighten=straighten).checked))


def _measure(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for each page what `measure --json` prints, or its error."""

    def measured(page: reader.Page) -> dict[str, Any]:
        traced = admission.admit(page, straighten=True, force=job["force"])
        return as_json(measure_page(traced, job["age_years"], job["sex"]))

    return _each_page(job, measured)


def _each_page(
    job: Mapping[str, Any], about: Callable[[reader.Page], dict[str, Any]]
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    with document(Path(job["file"]), job["name"]) as opened:
        for page in opened:
            try:
                if isinstance(page, reader.UnreadablePage):
                    raise page.error
                results.append(about(page))
            except Exception as e:
                error = on_page(page.name, e)
                results.append({"file": page.name, **error_fields(error)})
    return results


_JOBS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "count": _count,
    "prepare": _prepare,
    "render": _render,
    "check": _check,
    "measure": _measure,
}


if __name__ == "__main__":
    try:
        main()
    except PulseEdgeError as e:
        raise SystemExit(f"error: {e}") from None
