"""`pulse-edge audit confirm`: a reader confirms a report's file from the terminal."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli import options
from pulse_edge.cli.console import say
from pulse_edge.cli.options import PATH
from pulse_edge.common.files import replacing
from pulse_edge.common.text import one_line
from pulse_edge.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pulse_edge.report.confirmation import (
        AddedFinding,
        Confirmation,
        FindingReview,
        Verdict,
    )
    from pulse_edge.report.report import Report

_CONFIRMED = re.compile(r"-confirmed(-\d+)?$")


@click.command()
@click.argument("file", type=PATH, metavar="REPORT.json")
@click.option("--reader", required=True, metavar="NAME", help="Your name, as it is printed.")
@click.option("--agree", is_flag=True, help="Agree with everything that no other option changes.")
@click.option(
    "--change",
    "changes",
    multiple=True,
    metavar="FINDING=VERDICT",
    help="Your verdict on a finding, such as AFIB=absent: present, absent or not-assessable. A "
    "finding that the report lacks is added, also in free text. May be repeated.",
)
@click.option("--reject-texts", is_flag=True, help="Reject the texts of the software.")
@click.option("--reject", is_flag=True, help="Reject the report as a whole.")
@click.option("--conclusion", default="", metavar="TEXT", help="Your conclusion, printed first.")
@click.option("--comment", default="", metavar="TEXT", help="Your comment on the report.")
@options.audit_log
@options.retain
def confirm(file: Path, folder: Path | None, retain: int | None, **decisions: Any) -> None:
    """Confirm a report as its reader.

    REPORT.json comes from `interpret --format json`. The confirmed report is a new file in the same
    folder, and an entry of the audit log has your name and both versions of each verdict. Confirming
    a confirmed report corrects it.
    """
    from pulse_edge.audit_log.confirmations import ConfirmationLogger
    from pulse_edge.report import stored
    from pulse_edge.report.overread import confirmed

    report = stored.read(file)
    result = confirmed(report, _confirmation(report, decisions))
    logger = ConfirmationLogger(AuditLog(folder), retain)
    target = _write(file, result, lambda: logger(dataclasses.asdict(result)))
    say(f"{result.overread}\n{target}\n")


def _confirmation(report: Report, decisions: Mapping[str, Any]) -> Confirmation:
    """Return the confirmation that the options make. Raises UsageError."""
    from pulse_edge.report import overread
    from pulse_edge.report.confirmation import Confirmation, TextReview

    reader: str = decisions["reader"]
    agreed = overread.agreement(report, reader)
    if decisions["reject"] and (decisions["agree"] or decisions["changes"]):
        raise UsageError("--reject: rejects the report as a whole; leave --agree and --change out.")
    changed, added = _changes(report, decisions["changes"])
    keys = {review.statement for review in changed}
    others = agreed.findings if decisions["agree"] else ()
    texts = agreed.texts if decisions["agree"] else ()
    if decisions["reject_texts"]:
        texts = tuple(TextReview(n, "rejected") for n in range(len(report.answers)))
    return Confirmation(
        reader,
        overall="rejected" if decisions["reject"] else None,
        findings=(*(r for r in others if r.statement not in keys), *changed),
        added=added,
        texts=texts,
        conclusion=decisions["conclusion"],
        comment=decisions["comment"],
    )


def _changes(
    report: Report, changes: tuple[str, ...]
) -> tuple[tuple[FindingReview, ...], tuple[AddedFinding, ...]]:
    """Return the findings that are changed and those that are added. Raises UsageError."""
    from pulse_edge.report.confirmation import AddedFinding, FindingReview, Verdict
    from pulse_edge.report.findings import BY_KEY

    keys = {finding.statement for finding in report.findings}
    changed, added = [], []
    for change in changes:
        name, _, word = change.rpartition("=")
        verdict = word.strip().replace("-", " ")
        name = name.strip()
        if not name or verdict not in get_args(Verdict):
            raise UsageError(
                f"--change {one_line(change)}: is not FINDING=VERDICT. Give one such as "
                "AFIB=absent; verdicts are present, absent and not-assessable."
            )
        key = name.upper()
        if key in keys:
            changed.append(FindingReview(key, "changed", cast("Verdict", verdict)))
        elif key in BY_KEY:
            added.append(AddedFinding(statement=key, verdict=cast("Verdict", verdict)))
        else:
            added.append(AddedFinding(name, verdict=cast("Verdict", verdict)))
    return tuple(changed), tuple(added)


def _write(file: Path, report: Report, log: Callable[[], object]) -> Path:
    """Write the confirmed report next to `file` and log it: both happen, or none does.

    The file gets its name when the entry is in the log. Raises OutputError.
    """
    stem = _CONFIRMED.sub("", file.stem)
    for number in itertools.count(1):
        target = file.with_name(f"{stem}-confirmed{'' if number == 1 else f'-{number}'}.json")
        if not os.path.lexists(target):
            break
    try:
        with replacing(target, overwrite=False) as out:
            out.write(report.to_json().encode() + b"\n")
            out.flush()
            log()
    except OSError as e:
        raise OutputError(
            f"{target}: cannot be written ({e.strerror}). Make room, or copy the report to another "
            "folder and confirm it there."
        ) from e
    return target
