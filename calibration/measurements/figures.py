"""The figures of a report on measurements, as its report.json has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.bootstrap import Estimate
from calibration.measurements.agreement import (
    MARKS,
    PRINTED,
    Agreement,
    Presence,
    agreements,
    middle,
    presence,
    share,
)
from calibration.measurements.results import PageResult
from calibration.measurements.sets import DESCRIPTIONS
from calibration.measurements.tracing import LeadTrace, decibels

WRONG_BELOW = 0.8
"""Correlation with the truth below which a lead is wrong."""
WORST, UNTRACED = 4, 2
"""Traced pages, and pages without a traced lead, that the report shows of a set as pictures."""


@dataclass(frozen=True, kw_only=True)
class TraceFigures:
    """How well leads, or rhythm strips, follow what was printed."""

    printed: int
    """Leads on all pages whose scale is printed."""
    reported: int
    coverage: Estimate
    """Share of the printed leads that are reported."""
    correlation: Estimate
    """Median over the reported leads."""
    wrong: Estimate
    """Share of the reported leads whose correlation lies below 0.8."""
    wrong_leads: tuple[str, ...]
    """Such leads, as `page: lead (correlation)`."""


@dataclass(frozen=True, kw_only=True)
class KindFigures:
    """The pages of one layout, distortion or scanner."""

    kind: str
    pages: int
    untraced: Estimate
    snr: Estimate
    leads: TraceFigures


@dataclass(frozen=True)
class WorstPage:
    """A page that went badly."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """One set of pages."""

    name: str
    title: str
    text: str
    """What the set is."""
    pages: int
    recordings: int
    refused: int
    """Pages that admission refused, or that could not be read."""
    refusals: Mapping[str, int]
    scale_missing: int
    """Pages whose unusual scale is not printed: they are left out of SNR, leads and values."""
    untraced: Estimate
    """Share of the pages on which no lead was traced."""
    snr: Estimate
    """Median over the pages with a traced lead, in dB."""
    snr_tenth: float | None
    """First decile."""
    leads: TraceFigures | None
    """None where the signal itself was measured."""
    strips: TraceFigures | None
    """None where no page has one."""
    kinds: tuple[KindFigures, ...]
    agreements: tuple[Agreement, ...]
    presences: tuple[Presence, ...]
    seconds: float
    """Median time of processors from the file to the measurements."""
    seconds_most: float
    clock_seconds: float
    """Median time by the clock."""
    peak_bytes: int | None
    """Largest memory above that of the program; None where it was not measured."""
    megapixels: float
    """Of the largest page, as admission passes it."""
    worst: tuple[WorstPage, ...]


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """Where and how the figures were measured."""

    data: str
    recordings: tuple[str, ...]
    pages: int | None
    seed: int
    machine: str
    versions: Mapping[str, str]
    threads: int


@dataclass(frozen=True, kw_only=True)
class MeasurementFigures:
    """Everything in report.json."""

    run: RunFigures
    sets: tuple[SetFigures, ...]
    limits: tuple[str, ...]
    """Sentences about what the figures do not show."""


def set_figures(name: str, results: Sequence[PageResult]) -> SetFigures:
    """All figures of one set."""
    judged = [result for result in results if result.scale_printed]
    paged = [result for result in judged if result.leads]
    snr = [value for r in paged if (value := _snr(r)) is not None]
    peaks = [r.peak_bytes for r in results if r.peak_bytes is not None]
    refusals: dict[str, int] = {}
    for result in results:
        if result.refused:
            why = result.refused.partition(": ")[2] or result.refused
            refusals[why] = refusals.get(why, 0) + 1
    description = DESCRIPTIONS[name]
    return SetFigures(
        name=name,
        title=description.title,
        text=description.text,
        pages=len(results),
        recordings=len({result.group for result in results}),
        refused=sum(bool(result.refused) for result in results),
        refusals=refusals,
        scale_missing=len(results) - len(judged),
        untraced=_untraced(paged),
        snr=_median_snr(paged),
        snr_tenth=float(np.quantile(snr, 0.1)) if snr else None,
        leads=_trace_figures(paged, strips=False),
        strips=_trace_figures(paged, strips=True),
        kinds=tuple(_kinds(paged)),
        agreements=agreements(judged),
        presences=tuple(p for t in (MARKS, PRINTED) if (p := presence(judged, t)) is not None),
        seconds=float(np.median([result.processor_seconds for result in results])),
        seconds_most=max(result.processor_seconds for result in results),
        clock_seconds=float(np.median([result.seconds for result in results])),
        peak_bytes=max(peaks) if peaks else None,
        megapixels=max(result.pixels for result in results) / 1e6,
        worst=worst(paged),
    )


def _kinds(results: Sequence[PageResult]) -> Iterator[KindFigures]:
    """The kinds of a set, in alphabetical order; none where all pages are of one kind."""
    kinds = sorted({result.kind for result in results})
    for kind in kinds if len(kinds) > 1 else ():
        own = [result for result in results if result.kind == kind]
        leads = _trace_figures(own, strips=False)
        if leads is not None:
            yield KindFigures(
                kind=kind,
                pages=len(own),
                untraced=_untraced(own),
                snr=_median_snr(own),
                leads=leads,
            )


def _untraced(results: Sequence[PageResult]) -> Estimate:
    return share([not _traced(r) for r in results], [r.group for r in results])


def _median_snr(results: Sequence[PageResult]) -> Estimate:
    snr = [(r.group, value) for r in results if (value := _snr(r)) is not None]
    return middle([value for _, value in snr], [group for group, _ in snr])


def _body(result: PageResult) -> list[LeadTrace]:
    return [trace for trace in result.leads if not trace.strip]


def _traced(result: PageResult) -> bool:
    return any(trace.reported for trace in _body(result))


def _snr(result: PageResult) -> float | None:
    return decibels(_body(result))


def _trace_figures(results: Sequence[PageResult], *, strips: bool) -> TraceFigures | None:
    rows = [(r, trace) for r in results for trace in r.leads if trace.strip is strips]
    if not rows:
        return None
    groups = [r.group for r, _ in rows]
    reported = [(r, trace) for r, trace in rows if trace.reported and trace.correlation is not None]
    correlations = [trace.correlation or 0.0 for _, trace in reported]
    own = [r.group for r, _ in reported]
    wrong = [value < WRONG_BELOW for value in correlations]
    return TraceFigures(
        printed=len(rows),
        reported=sum(trace.reported for _, trace in rows),
        coverage=share([trace.reported for _, trace in rows], groups),
        correlation=middle(correlations, own),
        wrong=share(wrong, own),
        wrong_leads=tuple(
            f"{r.name}: {trace.lead} ({trace.correlation:.2f})"
            for (r, trace), bad in zip(reported, wrong, strict=True)
            if bad
        ),
    )


def worst(results: Sequence[PageResult]) -> tuple[WorstPage, ...]:
    """The pages to look at: wrong leads first, then wrong rates, then the lowest SNR; after them
    pages on which no lead was traced."""
    ranked, empty = [], []
    for result in results:
        bad = [t.lead for t in result.leads if t.reported and _below(t)]
        off = _rate_error(result)
        snr = _snr(result)
        reasons = []
        if bad:
            reasons.append(f"wrong: {', '.join(bad)}")
        if off is not None and abs(off) > 5:
            reasons.append(f"rate off by {off:+.0f} bpm")
        if snr is not None:
            reasons.append(f"SNR {snr:.1f} dB")
        key = (len(bad), abs(off or 0.0), -(99.0 if snr is None else snr))
        if _traced(result):
            ranked.append((key, WorstPage(result.name, "; ".join(reasons))))
        else:
            empty.append(WorstPage(result.name, "refused" if result.refused else "no lead traced"))
    ranked.sort(key=lambda entry: entry[0], reverse=True)
    return (*(page for _, page in ranked[:WORST]), *empty[:UNTRACED])


def _below(trace: LeadTrace) -> bool:
    return trace.correlation is not None and trace.correlation < WRONG_BELOW


def _rate_error(result: PageResult) -> float | None:
    for row in result.comparisons:
        if row.key == "rate" and row.value is not None and row.printed is not None:
            return row.value - row.printed
    return None
