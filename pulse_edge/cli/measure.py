"""`pulse-edge measure`: rate, intervals, axis and levels from the trace, without a kit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console, say
from pulse_edge.common.text import json_text, spreadsheet_cell
from pulse_edge.errors import OutputError, PulseEdgeError, UsageError, on_page

if TYPE_CHECKING:
    from pulse_edge.measurement.measurements import Measurement
    from pulse_edge.measurement.page import PageMeasurement
    from pulse_edge.page.reader import Page

FOLDER = click.Path(path_type=Path, file_okay=False)
_Contents: TypeAlias = tuple[Path, Callable[[str], Mapping[str, bytes]]]


@dataclasses.dataclass(frozen=True)
class _Form:
    """The form in which each page's measurements are printed and written."""

    as_json: bool
    as_csv: bool
    wfdb: Path | None
    plot: Path | None
    overwrite: bool


@click.command()
@click.argument("pages", nargs=-1, required=True, metavar="PAGE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each page.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one CSV row for each measurement.")
@click.option(
    "--wfdb", type=FOLDER, metavar="DIR", help="Write each traced signal as a WFDB record into DIR."
)
@click.option(
    "--plot",
    type=FOLDER,
    metavar="DIR",
    help="Write each page into DIR with trace, beats and waves drawn over it.",
)
@options.age
@options.sex
@click.option(
    "--force", is_flag=True, help="Measure pages that were refused. [default: refuse them]"
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace files of earlier runs. [default: number the new ones]",
)
def measure(
    pages: tuple[str, ...], age_years: float | None, sex: Any, force: bool, **form: Any
) -> None:
    """Measure rate, intervals, axis and ST levels on the trace of each page.

    No kit is needed. Each value has an uncertainty, or the reason why it cannot be measured.
    """
    from pulse_edge.page import decoder_client

    if form["as_json"] and form["as_csv"]:
        raise UsageError("--json and --csv: choose one of them.")
    decoder_client.start()  # while the libraries are loaded
    run = _Run(_Form(**form), (age_years, sex), force=force)
    if form["as_csv"]:
        say("file,measurement,value,unit,uncertainty,leads,reason\n")
    for source in pages:
        run.file(source)
    raise SystemExit(run.worst)


class _Run:
    """Measures one page after the other; a page that fails counts for the exit code."""

    def __init__(self, form: _Form, person: tuple[float | None, Any], *, force: bool) -> None:
        self._form, self._person, self._force = form, person, force
        self._console = Console()
        self.worst = 0

    def file(self, source: str) -> None:
        """Measure every page of a file."""
        from pulse_edge.page import reader

        try:
            with reader.Document(source) as document:
                for page in document:
                    if isinstance(page, reader.UnreadablePage):
                        self._fail(page.name, page.error)
                    else:
                        self._page(page)
        except (UsageError, OutputError):
            raise
        except PulseEdgeError as e:
            self._fail(source, e)

    def _page(self, page: Page) -> None:
        from pulse_edge.measurement import admission
        from pulse_edge.measurement.page import measure_page

        try:
            traced = admission.admit(page, straighten=True, force=self._force)
            measured = measure_page(traced, *self._person)
            files = [*self._files(measured, traced.checked)]
        except (UsageError, OutputError):
            raise
        except Exception as e:
            self._fail(page.name, e)
            return
        say(_rendered(measured, self._form))
        for path in files:
            self._console.note(f"written: {path}")

    def _files(self, measured: PageMeasurement, checked: Any) -> Iterator[Path]:
        """Write the files that were asked for, and yield their paths. Raises OutputError."""
        from pulse_edge.common.files import write_named_set

        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(measured.file).name).strip("_-") or "page"
        for folder, contents_of in self._contents(measured, checked):
            try:
                yield from write_named_set(
                    folder, stem, contents_of, overwrite=self._form.overwrite
                )
            except OSError as e:
                raise OutputError(
                    f"{e.filename or folder}: cannot be written ({e.strerror or e}). Make room, or "
                    "choose another folder; then run the same command again."
                ) from e

    def _contents(self, measured: PageMeasurement, checked: Any) -> Iterator[_Contents]:
        """Yield each folder with the function that makes the files for it."""
        if self._form.wfdb is not None:
            from pulse_edge.measurement import wfdb

            source = [f"traced from {measured.file}"]
            yield self._form.wfdb, lambda name: wfdb.record(measured.signal, name, source)
        if self._form.plot is not None:
            from pulse_edge.measurement import overlay

            picture = {".png": overlay.png(checked.flat.image, measured)}
            yield self._form.plot, lambda _name: picture

    def _fail(self, name: str, error: Exception) -> None:
        failure = on_page(name, error)
        self.worst = max(self.worst, self._console.failed(name, failure, self._form.as_json))


def _rendered(measured: PageMeasurement, form: _Form) -> str:
    """Return the text, the line of JSON or the CSV rows of a page."""
    if form.as_json:
        from pulse_edge.measurement.page_json import as_json

        return json_text(as_json(measured)) + "\n"
    if form.as_csv:
        return "".join(_csv_row(measured.file, m) for m in measured.measurements)
    return "\n".join(text_lines(measured)) + "\n"


def text_lines(measured: PageMeasurement) -> list[str]:
    """Return the lines that `measure` prints about a page for people."""
    from pulse_edge.measurement.summary import summary_lines

    signal = measured.signal
    traced = sum(score > 0 for score in signal.scores)
    speed = "" if signal.speed_certain else " (assumed)"
    gain = "" if signal.gain_certain else " (assumed)"
    return [
        f"# {measured.file}",
        f"{traced} of 12 leads traced, layout {signal.layout or 'unknown'}, "
        f"{signal.millimetres_per_second:g} mm/s{speed}, "
        f"{signal.millimetres_per_millivolt:g} mm/mV{gain}",
        *signal.reasons,
        *summary_lines(measured.measurements),
    ]


def _csv_row(file: str, m: Measurement) -> str:
    import csv
    import io

    out = io.StringIO()
    value = "" if m.value is None else f"{m.value:.6g}"
    uncertainty = "" if m.uncertainty is None else f"{m.uncertainty:.6g}"
    cells = [file, m.key, value, m.unit, uncertainty, " ".join(m.leads), m.reason]
    csv.writer(out, lineterminator="\n").writerow(spreadsheet_cell(c) for c in cells)
    return out.getvalue()
