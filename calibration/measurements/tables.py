"""The figures as tables of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibration.bootstrap import Estimate
from calibration.measurements import goals
from calibration.measurements.agreement import MARKS, PRINTED, Agreement, Presence
from calibration.measurements.figures import MeasurementFigures, SetFigures
from calibration.report.numbers import ranged
from calibration.report.table import Table

MIB = 2**20


def tables(figures: MeasurementFigures) -> list[Table]:
    """Every table: the summary, the goals, then those of each set."""
    every = [_summary(figures.sets), _goals(figures.sets)]
    every += [table for one in figures.sets for table in of_set(one)]
    return [table for table in every if table.rows]


def with_interval(figure: Estimate, digits: int = 1) -> str:
    """A value with its 95 % interval, such as `15.9 [14.2, 17.0]`."""
    if figure.value is None:
        return "-"
    low, high = figure.interval
    interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{figure.value:.{digits}f}{interval}"


def share(figure: Estimate) -> str:
    """A share in per cent with its interval."""
    return "-" if figure.value is None else f"{ranged(figure)} %"


def _summary(sets: Sequence[SetFigures]) -> Table:
    head = (
        "set",
        "pages",
        "nothing traced",
        "SNR, dB",
        "leads reported",
        "correlation",
        "wrong leads",
        "rate within 5 bpm",
        "rate not measurable",
        "processor seconds, median and most",
        "MiB",
    )
    rows = []
    for one in sets:
        rate = goals.of(one, "rate", PRINTED) or goals.of(one, "rate", MARKS)
        leads = one.leads
        rows.append(
            (
                one.title,
                str(one.pages),
                share(one.untraced),
                with_interval(one.snr),
                "-" if leads is None else share(leads.coverage),
                "-" if leads is None else with_interval(leads.correlation, 3),
                "-" if leads is None else share(leads.wrong),
                "-" if rate is None or rate.near is None else share(rate.near),
                "-" if rate is None else f"{rate.truths - rate.measured} of {rate.truths}",
                f"{one.seconds:.2f}, {one.seconds_most:.2f}",
                "-" if one.peak_bytes is None else f"{one.peak_bytes / MIB:.0f}",
            )
        )
    note = (
        "Medians and shares with 95 % intervals of a bootstrap over recordings; shares of none or "
        "all with the exact interval. Wrong: of the "
        "reported leads, those with a correlation below 0.8 to the printed signal. Rate: against "
        f"{PRINTED}, where there is one, of the rates that were measured. MiB: most resident "
        "memory above that of the program before its first page. Processor seconds: on one core "
        "without other work, from the file to the measurements."
    )
    return Table("All sets", head, tuple(rows), note)


def _goals(sets: Sequence[SetFigures]) -> Table:
    rows = []
    for figures, goal in goals.results(sets):
        value, reached = goal.value(figures), goal.reached(figures)
        sign = "at least" if goal.at_least else "at most"
        rows.append(
            (
                figures.title,
                goal.what,
                "not measured" if value is None else f"{value:.3g} {goal.unit}".strip(),
                f"{sign} {goal.limit:g} {goal.unit}".strip(),
                "-" if reached is None else "reached" if reached else "MISSED",
            )
        )
    return Table("Goals", ("set", "figure", "measured", "goal", ""), tuple(rows))


def of_set(figures: SetFigures) -> Iterator[Table]:
    """The tables of one set."""
    yield quantities(f"{figures.title}: agreement", figures.agreements, figures.text)
    yield standard(f"{figures.title}: mean and deviation from {MARKS}", figures.agreements)
    yield p_waves(f"{figures.title}: P waves", figures.presences)
    yield _tracing(figures)
    yield _kinds(figures)
    yield _reasons(figures)


def quantities(title: str, agreements: Sequence[Agreement], note: str = "") -> Table:
    """Errors of each quantity."""
    head = (
        "measurement",
        "truth",
        "measured",
        "median error",
        "95 % of errors within",
        "bias",
        "SD",
        "95 % limits of agreement",
        "truth within the stated uncertainty",
    )
    return Table(title, head, tuple(_quantity(one) for one in agreements), note)


def _quantity(one: Agreement) -> tuple[str, ...]:
    limits = "-" if one.limits is None else f"{one.limits[0]:+.1f} to {one.limits[1]:+.1f}"
    return (
        f"{one.title}, {one.unit}",
        one.truth,
        f"{one.measured} of {one.truths}",
        with_interval(one.median_error),
        "-" if one.error_95 is None else f"{one.error_95:.1f}",
        with_interval(one.bias),
        "-" if one.deviation is None else f"{one.deviation:.1f}",
        limits,
        share(one.within_uncertainty),
    )


def standard(title: str, agreements: Sequence[Agreement]) -> Table:
    """Intervals against the limits of IEC 60601-2-25."""
    head = ("interval", "outliers left out", "mean, SD (ms)", "limits of IEC 60601-2-25", "")
    rows = tuple(
        (
            one.title,
            str(one.standard.outliers),
            f"{one.standard.mean:+.1f}, {one.standard.deviation:.1f}",
            f"{one.standard.mean_limit:g}, {one.standard.deviation_limit:g}",
            "inside" if one.standard.met else "OUTSIDE",
        )
        for one in agreements
        if one.standard is not None
    )
    return Table(title, head, rows)


def p_waves(title: str, presences: Sequence[Presence]) -> Table:
    """P waves that were missed, and false ones."""
    head = ("truth", "pages with P", "missed", "pages without P", "false", "not measurable")
    rows = tuple(
        (
            one.truth,
            str(one.with_p),
            share(one.missed),
            str(one.without_p),
            share(one.false),
            f"{one.not_measurable} of {one.with_p + one.without_p}",
        )
        for one in presences
    )
    return Table(title, head, rows)


def _tracing(figures: SetFigures) -> Table:
    head = ("traces", "printed", "reported", "correlation", "wrong")
    rows = tuple(
        (name, str(t.printed), share(t.coverage), with_interval(t.correlation, 3), share(t.wrong))
        for name, t in (("leads", figures.leads), ("rhythm strips", figures.strips))
        if t is not None
    )
    note = ""
    if figures.refused or figures.scale_missing:
        note = (
            f"{figures.refused} pages were refused; {figures.scale_missing} whose unusual speed or "
            "gain is not printed are left out of SNR, leads and values."
        )
    return Table(f"{figures.title}: traces", head, rows, note)


def _kinds(figures: SetFigures) -> Table:
    head = ("pages", "count", "nothing traced", "SNR, dB", "leads reported", "correlation", "wrong")
    rows = tuple(
        (
            one.kind,
            str(one.pages),
            share(one.untraced),
            with_interval(one.snr),
            share(one.leads.coverage),
            with_interval(one.leads.correlation, 3),
            share(one.leads.wrong),
        )
        for one in figures.kinds
    )
    return Table(f"{figures.title}: by kind", head, rows)


def _reasons(figures: SetFigures) -> Table:
    rows = [
        (f"{one.title}, {one.truth}", reason, str(count))
        for one in figures.agreements
        for reason, count in one.reasons.items()
    ]
    rows += [("refused", reason, str(count)) for reason, count in figures.refusals.items()]
    if figures.leads is not None:
        rows += [("wrong lead", lead, "1") for lead in figures.leads.wrong_leads]
    head = ("what", "reason or page", "count")
    return Table(f"{figures.title}: not measurable, and why", head, tuple(rows), folded=True)
