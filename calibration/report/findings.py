"""The report's section about `calibration findings`: one table for each kit and data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from calibration.bootstrap import Estimate
from calibration.findings import file as findings_file
from calibration.findings.file import FindingsFile, Measures, StatementFigures
from calibration.findings.platt import NOT_SHOWN, TOO_FEW
from calibration.report.numbers import points_ranged, ranged
from calibration.report.table import Table
from calibration.results import Results
from pulse_edge.errors import BenchError

HEAD = (
    "statement",
    "pages with / without",
    "AUC of probabilities",
    "AUC of greedy labels",
    "difference",
    "calibration error before",
    "after",
    "no verdict from – to",
    "verdict given",
    "wrong of present",
    "wrong of absent",
    "have it",
    "have it, called absent",
    "do not have it, called present",
)


def load(paths: Sequence[Path], results: Results) -> dict[str, FindingsFile]:
    """Files of `calibration findings` by `KIT on DATA`, without their answers and ids.

    BenchError for a kit that is not among the results, and for a second file of the same title.
    """
    names = {results.kit(name).identity: name for name in results.kits}
    files: dict[str, FindingsFile] = {}
    for path in paths:
        file = findings_file.load(path)
        if (name := names.get(file.kit.identity)) is None:
            raise BenchError(
                f"{path}: is of {file.kit.id}, which {results.path} has no answers of; "
                "evaluate it too"
            )
        title = f"{name} on {file.data}"
        if title in files:
            raise BenchError(f"{path}: there is another file of {title}; give one of them")
        files[title] = replace(file.summary, calibrated_on={})
    return files


def tables(files: Mapping[str, FindingsFile]) -> Iterator[Table]:
    """Statement by statement, for each kit whose findings were measured."""
    for name, file in files.items():
        rows = [("all", "", *_cells(file.all, fitted=True), *_verdict_cells(file.all, prior=False))]
        rows += [_row(s) for s in file.statements.values() if s.measured]
        title = f"Findings of {name}: probabilities and verdicts"
        yield Table(title, HEAD, tuple(rows), _note(file))


def _note(file: FindingsFile) -> str:
    source = file.fitted_on
    fitted = (
        f"{source.pages} of {source.data}" if source else f"{file.pages.calibration} other pages"
    )
    return (
        f"In percent, on {file.pages.test} test pages; fitted on {fitted}. A verdict is given where "
        f"three conditions held on the fitted pages with {file.confidence:.0%} confidence: at most "
        f"{file.risk:.0%} of the verdicts were wrong, at most {file.risk:.0%} of the pages of the "
        "other kind got it, and it was wrong at most a third as often as if every page got it. "
        f"Without abstaining {_percent(file.all.risk_always)} of the verdicts would be wrong. The "
        "error of few pages is too large by chance."
    )


def _row(s: StatementFigures) -> tuple[str, ...]:
    pages = f"{s.test_pages.present} / {s.test_pages.absent}"
    fitted = s.calibration.reason not in (NOT_SHOWN, TOO_FEW)
    low, high = s.calibration.uncertain_from, s.calibration.uncertain_to
    band = s.calibration.reason or f"{100 * low:.1f} – {100 * high:.1f}"
    cells = _cells(s, fitted)
    return (s.name, pages, *cells[:-1], band, *_verdict_cells(s, prior=True))


def _cells(m: Measures, fitted: bool) -> tuple[str, ...]:
    """AUC, calibration error, and an empty cell for the range without a verdict."""
    errors = (m.ece_before, m.ece_after) if fitted else (None, None)
    return (
        _percent(m.auc),
        _percent(m.auc_of_labels),
        "" if m.auc_difference is None else points_ranged(m.auc_difference),
        *map(_percent, errors),
        "",
    )


def _verdict_cells(m: Measures, prior: bool) -> tuple[str, ...]:
    """Coverage and errors; how many pages have any finding says nothing, so `all` has no prior."""
    figures = (
        m.coverage,
        m.risk_present,
        m.risk_absent,
        m.prior if prior else None,
        m.missed,
        m.alarmed,
    )
    return tuple(map(_percent, figures))


def _percent(figure: Estimate | None) -> str:
    return "" if figure is None or figure.value is None else ranged(figure)
