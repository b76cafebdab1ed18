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
from pulse_edge.common.files import replacing, write_whole
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
@click.option(
    "--pdf",
    "page",
    type=PATH,
    metavar="PAGE",
    help="Write a PDF of the confirmed report too, with the picture of PAGE, the file that was read.",
)
@options.audit_log
@options.retain
def confirm(
    file: Path, page: Path | None, folder: Path | None, retain: int | None, **decisions: Any
) -> None:
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
    contents = {".json": result.to_json().encode() + b"\n"}
    if page is not None:
        contents[".pdf"] = _pdf(result, page)
    logger = ConfirmationLogger(AuditLog(folder), retain)
    paths = _write(file, contents, lambda: logger(dataclasses.asdict(result)))
    say("".join(f"{line}\n" for line in (result.overread, *paths)))


def _pdf(report: Report, file: Path) -> bytes:
    """Return the PDF of a report with the picture of its page.

    Raises UsageError for another page than the report's, ScanError for one that cannot be read.
    """
    from pulse_edge.audit_log.entries import page_number
    from pulse_edge.page import admission
    from pulse_edge.page.reader import Document, UnreadablePage
    from pulse_edge.report import pdf

    pdf.require_typst()
    number = page_number(report.file) or 1
    with Document(file) as document:
        page = next(itertools.islice(document, number - 1, None), None)
        if page is None or document.sha256 != report.page_sha256:
            raise UsageError(
                f"--pdf {file}: is not the page of this report, {one_line(report.file)}. Name the "
                "file that was read."
            )
    if isinstance(page, UnreadablePage):
        raise page.error
    if report.quality is None:
        return pdf.to_pdf(report, page.image)
    checked = admission.check(page, straighten=report.quality["changed"])
    return pdf.to_pdf(report, checked.flat.image)


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


def _write(file: Path, contents: Mapping[str, bytes], log: Callable[[], object]) -> list[Path]:
    """Write the confirmed report next to `file` and log it; return the paths, by their endings.

    The JSON file gets its name when the entry is in the log: without an entry there is no file.
    Raises OutputError.
    """
    stem = _CONFIRMED.sub("", file.stem)
    for number in itertools.count(1):
        name = f"{stem}-confirmed{'' if number == 1 else f'-{number}'}"
        paths = [file.with_name(f"{name}{ending}") for ending in contents]
        if not any(map(os.path.lexists, paths)):
            break
    try:
        with replacing(paths[0], overwrite=False) as out:
            out.write(contents[".json"])
            out.flush()
            log()
        for path in paths[1:]:
            write_whole(path, (contents[path.suffix],))
    except OSError as e:
        raise OutputError(
            f"{e.filename or paths[0]}: cannot be written ({e.strerror}). Make room, or copy the "
            "report to another folder and confirm it there."
        ) from e
    return paths
