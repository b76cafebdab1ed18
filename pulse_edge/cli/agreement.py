"""`pulse-edge audit agreement`: readers against software, from the audit log."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli import options
from pulse_edge.cli.console import say
from pulse_edge.common.text import counted, json_text, one_line, spreadsheet_cell
from pulse_edge.errors import AuditLogError, UsageError

if TYPE_CHECKING:
    from pulse_edge.audit_log.agreement import Agreement, FindingAgreement, KitAgreement, Month
    from pulse_edge.audit_log.drift import DriftCheck, DriftTest
    from pulse_edge.audit_log.proportions import Share

CAVEAT = (
    "Readers see the software's verdict before they give theirs: agreement tends to overstate "
    "accuracy."
)
SHARES = (
    "sensitivity",
    "specificity",
    "positive_predictive_value",
    "negative_predictive_value",
)
COUNTS = (
    "judged",
    "both_present",
    "software_alone",
    "reader_alone",
    "both_absent",
    "abstained",
    "not_assessable",
)
COLUMNS = (
    "kit", "kit_sha256", "statement", "calibrated", "month", "cases", "same", *COUNTS,
    *(f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")), "kappa",
)  # fmt: skip
SHOWN_DIGITS = 12
"""Digits of a kit's hash."""


def _day(_context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(
            f"--{option.name} {one_line(text)}: is no day. Give one such as 2026-03-31."
        ) from None


@click.command()
@options.audit_log
@click.option("--since", callback=_day, metavar="DAY", help="First local day of confirmation.")
@click.option("--until", callback=_day, metavar="DAY", help="Last local day of confirmation.")
@click.option("--kit", metavar="NAME|HASH", help="Name of a kit, or how its SHA-256 begins.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table of findings and months.")
def agreement(
    folder: Path | None,
    since: str | None,
    until: str | None,
    kit: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare readers' verdicts with the software's.

    For each kit, by finding and by month: counts, sensitivity, specificity, predictive values with
    95 % intervals, Cohen's kappa, and an alarm where readers change more than they did at first.
    The readers count as right. Changes no file.
    """
    from pulse_edge.audit_log import agreement as agreements

    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one of them.")
    log = AuditLog(folder)
    result = agreements.agreement(log.entries(), since=since, until=until, kit=kit)
    if not result.kits:
        raise AuditLogError(
            f"{log.folder}: has no confirmed report to compare. Confirm reports with `pulse-edge "
            "audit confirm`, or choose other days or another kit."
        )
    if as_json:
        say(json_text(agreements.as_json(result)) + "\n")
        return
    if as_csv:
        say("".join(_table(result)))
        return
    say(f"{CAVEAT}\n")
    for one in result.kits:
        say("".join(f"{line}\n" for line in _kit_lines(one)))


# --- text -----------------------------------------------------------------------------------------


def _kit_lines(kit: KitAgreement) -> Iterator[str]:
    demonstration = " (demonstration)" if kit.demonstration else ""
    name = f"{one_line(kit.kit)}{demonstration}, {kit.sha256[:SHOWN_DIGITS]}"
    readers = counted(kit.readers, "reader", "readers")
    yield ""
    yield f"# Kit {name}: {counted(kit.reports, 'report', 'reports')}, {readers}"
    yield f"Agreed without change: {_share(kit.unchanged)}; rejected as a whole: {kit.rejected}"
    yield f"Without change by month: {_by_month(kit.months)}"
    for calibrated, heading in (
        (True, "Verdicts (calibrated)"),
        (False, "Sides of the log odds (not calibrated, shown to readers as ranks)"),
    ):
        findings = [f for f in kit.findings if f.calibrated == calibrated]
        yield from [heading] if findings else []
        for finding in findings:
            yield from _finding_lines(finding)
    yield from _drift_lines(kit.drift)


def _finding_lines(f: FindingAgreement) -> Iterator[str]:
    counts = (
        f"both {f.both_present}, software alone {f.software_alone}, reader alone {f.reader_alone}, "
        f"neither {f.both_absent}"
    )
    yield f"  {f.name}: {counted(f.judged, 'page', 'pages')}: {counts}"
    if f.abstained or f.not_assessable:
        yield (
            f"    software without a verdict {f.abstained}, not assessable for the reader "
            f"{f.not_assessable}"
        )
    yield (f"    sensitivity {_share(f.sensitivity)}, specificity {_share(f.specificity)}")
    yield (
        f"    PPV {_share(f.positive_predictive_value)}, NPV "
        f"{_share(f.negative_predictive_value)}, kappa "
        f"{'not defined' if f.kappa is None else f'{f.kappa:.2f}'}"
    )
    if len(f.months) > 1:
        yield f"    agreed by month: {_by_month(f.months)}"


def _share(share: Share) -> str:
    """Return a share with its interval and cases, such as `82 % (74 to 88 %, of 123)`."""
    if share.value is None or share.low is None or share.high is None:
        return "not defined (no case)"
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}, of {share.cases})"


def _by_month(months: tuple[Month, ...]) -> str:
    return ", ".join(f"{m.month} {m.same} of {m.cases}" for m in months)


def _drift_lines(drift: DriftCheck) -> Iterator[str]:
    if drift.reference < drift.reference_needed:
        yield (
            f"Drift: not tested, too few reports: {drift.reference} of {drift.reference_needed} "
            "that later months are compared with"
        )
        return
    for test in drift.alarms:
        yield f"DRIFT ALARM {_test(test)}"
    months = list(dict.fromkeys(test.month for test in drift.tests))
    if months and not drift.alarms:
        yield f"Drift: no alarm in {', '.join(months)}"
    if drift.too_few:
        yield f"Drift: not tested, too few reports in {', '.join(drift.too_few)}"
    if not months and not drift.too_few:
        yield "Drift: not tested, no report behind those that later months are compared with"


def _test(test: DriftTest) -> str:
    from pulse_edge.report.findings import BY_KEY

    what = "reports" if test.statement is None else f"verdicts on {BY_KEY[test.statement].name}"
    return (
        f"{test.month}: readers changed {test.changed} of {test.cases} {what}; at first "
        f"{test.changed_before} of {test.cases_before} (p = {test.p:.2g}). Look at the pages, the "
        "machine that prints them, and the kit"
    )


# --- table ----------------------------------------------------------------------------------------


def _table(result: Agreement) -> Iterator[str]:
    """Yield a row for each kit and month, and for each finding as a whole and by month."""
    yield ",".join(COLUMNS) + "\r\n"
    for kit in result.kits:
        about: dict[str, object] = {"kit": kit.kit, "kit_sha256": kit.sha256}
        whole: dict[str, object] = {"cases": kit.reports, "same": sum(m.same for m in kit.months)}
        yield _row(about | whole)
        yield from (_row(about | _month(m)) for m in kit.months)
        for f in kit.findings:
            key = about | {"statement": f.statement, "calibrated": f.calibrated}
            same: dict[str, object] = {
                "cases": sum(m.cases for m in f.months),
                "same": f.both_present + f.both_absent,
            }
            yield _row(key | same | _figures(f))
            yield from (_row(key | _month(m)) for m in f.months)


def _month(month: Month) -> dict[str, object]:
    return {"month": month.month, "cases": month.cases, "same": month.same}


def _figures(f: FindingAgreement) -> dict[str, object]:
    figures: dict[str, object] = {name: getattr(f, name) for name in COUNTS}
    for name in SHARES:
        share: Share = getattr(f, name)
        ends = {"": share.value, "_low": share.low, "_high": share.high}
        figures |= {f"{name}{end}": _number(value) for end, value in ends.items()}
    return figures | {"kappa": _number(f.kappa)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _row(cells: dict[str, object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([spreadsheet_cell(cells.get(name, "")) for name in COLUMNS])
    return line.getvalue()
