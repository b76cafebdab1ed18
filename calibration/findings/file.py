"""The file of `calibration findings`: fitted calibrations, their figures, and the answers page by
page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from calibration.bootstrap import Estimate
from calibration.files import lock, write_json
from calibration.records import as_json, from_json
from pulse_edge.errors import BenchError
from pulse_edge.kit.manifest import Calibration

VERSION = 1


@dataclass(frozen=True)
class KitId:
    """The kit that was asked."""

    id: str
    identity: str
    """See `results.identity`."""
    demonstration: bool


@dataclass(frozen=True)
class SplitId:
    """The split that says which pages calibrate and which test."""

    key: str
    share: float
    content: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """What must agree before a run goes on with a file."""

    version: int
    kit: KitId
    data: str
    """Name of the data's folder."""
    split: SplitId
    questions: str
    """sha256 of all statements' questions."""


@dataclass(frozen=True, kw_only=True)
class PageAnswers:
    """A page and how the kit answered about it; only statements whose truth is known are asked."""

    image: str
    side: str
    """calibration or test"""
    samples: tuple[tuple[str, str], ...]
    """(task, id) of the questions about it."""
    picture: str
    """sha256 of its file."""
    patient: str | None
    left_out: str = ""
    """Why the kit refused it; then there are no answers."""
    gold: Mapping[str, bool] = field(default_factory=dict)
    """Truth by statement."""
    log_odds: Mapping[str, float] = field(default_factory=dict)
    """Of yes against no, by statement."""
    greedy: Mapping[str, bool | None] = field(default_factory=dict)
    """The greedy answer by statement; None: neither yes nor no."""

    @property
    def group(self) -> str:
        """What a draw of the bootstrap takes as a whole: a patient's pages, or a page."""
        return f"page {self.image}" if self.patient is None else f"patient {self.patient}"


@dataclass(frozen=True)
class FittedOn:
    """The data that a calibration was fitted on, where it is measured on other data."""

    data: str
    content: str
    risk: float
    confidence: float
    pages: int


@dataclass(frozen=True)
class Counts:
    """Numbers of pages with a finding and without it."""

    present: int
    absent: int


@dataclass(frozen=True)
class PageCounts:
    """Numbers of pages of either side."""

    calibration: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What probabilities and verdicts are worth on the test pages; None: the pages cannot show it."""

    auc: Estimate | None = None
    """From probabilities."""
    auc_of_labels: Estimate | None = None
    """From greedy answers."""
    auc_difference: Estimate | None = None
    ece_before: Estimate | None = None
    """Expected calibration error of the model's own probabilities."""
    ece_after: Estimate | None = None
    """Expected calibration error of the calibrated probabilities."""
    coverage: Estimate | None = None
    """Share of pages and statements with a verdict."""
    risk: Estimate | None = None
    """Share of verdicts that are wrong."""
    risk_present: Estimate | None = None
    risk_absent: Estimate | None = None
    risk_always: Estimate | None = None
    """Share of wrong verdicts if it never abstained."""
    prior: Estimate | None = None
    """Share of pages that have the finding."""
    missed: Estimate | None = None
    """Share of the pages with the finding that are called absent."""
    alarmed: Estimate | None = None
    """Share of the pages without the finding that are called present."""


@dataclass(frozen=True, kw_only=True)
class StatementFigures(Measures):
    """A statement's calibration and figures."""

    name: str
    calibration: Calibration
    calibration_pages: Counts
    test_pages: Counts

    @property
    def measured(self) -> bool:
        """Whether the test pages hold both kinds."""
        return min(self.test_pages.present, self.test_pages.absent) > 0


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram."""

    pairs: int
    """Pages and statements in it."""
    probability: float
    """Mean probability."""
    share: Estimate
    """Share of the pairs that are true."""


@dataclass(frozen=True, kw_only=True)
class OverallFigures(Measures):
    """Figures over all statements; calibration errors count those that were fitted."""

    measured: int
    """Statements whose AUC the test pages can show."""
    bins_before: tuple[Bin, ...] = ()
    bins_after: tuple[Bin, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FindingsFile(Header):
    """The whole file."""

    risk: float
    confidence: float
    fitted_on: FittedOn | None = None
    pages: PageCounts
    calibrated_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids by task of the calibration pages; a report leaves them out."""
    content: str
    """sha256 over these ids and their pictures."""
    left_out: Mapping[str, str]
    """Refused pages and why."""
    versions: Mapping[str, str]
    all: OverallFigures
    statements: Mapping[str, StatementFigures]
    lines: tuple[PageAnswers, ...] = ()
    """The answers page by page; a report and a kit carry the file without them."""

    @property
    def header(self) -> Header:
        """What must agree before a run goes on with this file."""
        return Header(**{f.name: getattr(self, f.name) for f in fields(Header)})

    @property
    def summary(self) -> FindingsFile:
        """The file without its answers."""
        return replace(self, lines=())


def load(path: Path) -> FindingsFile:
    """Read a file of `calibration findings`. BenchError where it is something else."""
    try:
        file = from_json(FindingsFile, json.loads(path.read_text("utf-8")))
        if file.version != VERSION or not file.statements:
            raise ValueError("another version")
        return file
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{path}: is no file of `calibration findings` ({error!r}); choose another name"
        ) from error


def save(file: FindingsFile, path: Path) -> None:
    """Write the file atomically."""
    write_json(path, as_json(file))


def partial_path(target: Path) -> Path:
    """Where a run that has not ended keeps its answers."""
    return target.with_name(target.name + ".partial")


@contextmanager
def open_partial(
    target: Path, header: Header, force: bool
) -> Iterator[tuple[dict[str, PageAnswers], IO[str]]]:
    """The answers of an interrupted run by page, and the file to write on, for this process alone.

    BenchError where another process writes to it, or another run left it.
    """
    path = partial_path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    with file:
        lock(file, path)
        if force:
            file.truncate(0)
        file.seek(0)
        whole = file.read()
        whole = whole[: whole.rfind("\n") + 1]
        # A line without its end was being written when the run was killed.
        file.truncate(len(whole.encode()))
        try:
            lines = [json.loads(text) for text in whole.splitlines()]
            answers = [from_json(PageAnswers, line) for line in lines[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: is damaged ({error}); remove it to start again") from error
        if not lines:
            append(file, header)
        elif lines[0] != as_json(header):
            raise BenchError(
                f"{path}: is what another run left (other kit, data or split); "
                "remove it to start again"
            )
        yield {page.image: page for page in answers}, file


def append(file: IO[str], record: Header | PageAnswers) -> None:
    """Write a record as one line and hand it to the operating system."""
    file.write(json.dumps(as_json(record), ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()
