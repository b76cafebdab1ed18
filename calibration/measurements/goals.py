"""What the project aims at, and whether the figures reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from calibration.measurements.agreement import MARKS, PRINTED, Agreement, Presence
from calibration.measurements.figures import SetFigures

MIB = 2**20


@dataclass(frozen=True)
class Goal:
    """A limit of one figure of one set."""

    figures_of: str
    what: str
    limit: float
    at_least: bool
    value: Callable[[SetFigures], float | None]
    unit: str = ""

    def reached(self, figures: SetFigures) -> bool | None:
        """Whether the set reaches the goal; None where the figure was not measured."""
        value = self.value(figures)
        if value is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


def of(figures: SetFigures, name: str, truth: str) -> Agreement | None:
    """The agreement of a quantity with one kind of truth."""
    return next((a for a in figures.agreements if (a.name, a.truth) == (name, truth)), None)


def p_waves(figures: SetFigures, truth: str) -> Presence | None:
    """P waves against one kind of truth."""
    return next((p for p in figures.presences if p.truth == truth), None)


def _median(name: str, truth: str = MARKS) -> Callable[[SetFigures], float | None]:
    def value(figures: SetFigures) -> float | None:
        one = of(figures, name, truth)
        return None if one is None else one.median_error.value

    return value


def _near(figures: SetFigures) -> float | None:
    one = of(figures, "rate", PRINTED)
    return (
        None if one is None or one.near is None or one.near.value is None else 100 * one.near.value
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _p(kind: str) -> Callable[[SetFigures], float | None]:
    def value(figures: SetFigures) -> float | None:
        one = p_waves(figures, MARKS)
        return None if one is None else _percent(getattr(one, kind).value)

    return value


def _untraced(figures: SetFigures) -> float | None:
    return _percent(figures.untraced.value)


def _wrong(figures: SetFigures) -> float | None:
    return None if figures.leads is None else _percent(figures.leads.wrong.value)


def _correlation(figures: SetFigures) -> float | None:
    return None if figures.leads is None else figures.leads.correlation.value


def _snr(figures: SetFigures) -> float | None:
    return figures.snr.value


def _seconds(figures: SetFigures) -> float | None:
    return figures.seconds_most


def _memory(figures: SetFigures) -> float | None:
    return None if figures.peak_bytes is None else figures.peak_bytes / MIB


def _tracing(name: str, snr: float, near: float, untraced: float) -> Iterator[Goal]:
    yield Goal(name, "rates within 5 bpm, of those measured", near, True, _near, "%")
    yield Goal(name, "median SNR", snr, True, _snr, "dB")
    yield Goal(name, "pages with no lead traced", untraced, False, _untraced, "%")
    yield Goal(name, "reported leads with a correlation below 0.8", 1, False, _wrong, "%")
    yield Goal(name, "most memory above the program's", 400, False, _memory, "MiB")


GOALS: tuple[Goal, ...] = (
    Goal("synthetic", "median error of the rate", 1, False, _median("rate", PRINTED), "bpm"),
    Goal("synthetic", "median error of PR, marks", 10, False, _median("pr"), "ms"),
    Goal("synthetic", "median error of QRS, marks", 5, False, _median("qrs"), "ms"),
    Goal("synthetic", "median error of QT, marks", 8, False, _median("qt"), "ms"),
    Goal("synthetic", "P waves missed, marks", 5, False, _p("missed"), "%"),
    Goal("synthetic", "P waves false, marks", 5, False, _p("false"), "%"),
    Goal("synthetic", "median error of the QRS axis, marks", 4, False, _median("qrs_axis"), "°"),
    Goal("synthetic", "median error of ST at J + 60 ms, marks", 20, False, _median("st_j60"), "uV"),
    *_tracing("synthetic", snr=18, near=98, untraced=1),
    Goal("synthetic", "longest time of a page, one core", 1, False, _seconds, "s"),
    *_tracing("scans", snr=15, near=97, untraced=3),
    *_tracing("photos", snr=12, near=95, untraced=7),
    Goal("photos", "median correlation of the reported leads", 0.91, True, _correlation),
    Goal("photos", "longest time of a page, one core", 3, False, _seconds, "s"),
)


def results(sets: Sequence[SetFigures]) -> Iterator[tuple[SetFigures, Goal]]:
    """Every goal of the sets that were measured."""
    by_name = {figures.name: figures for figures in sets}
    for goal in GOALS:
        if goal.figures_of in by_name:
            yield by_name[goal.figures_of], goal
