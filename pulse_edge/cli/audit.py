"""`pulse-edge audit`: look at the audit log. Needs no kit and loads no engine."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pulse_edge.audit_log.confirmations import is_confirmation
from pulse_edge.audit_log.entries import Entry
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli import options
from pulse_edge.cli.agreement import agreement
from pulse_edge.cli.confirm import confirm
from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import PATH
from pulse_edge.common import times
from pulse_edge.common.files import file_sha256, write_whole
from pulse_edge.common.text import counted, json_text, one_line, spreadsheet_cell
from pulse_edge.errors import AuditLogError, UsageError

COLUMNS = (
    "entry", "time", "local_time", "file_hash", "page_sha256", "kit", "question_sha256",
    "answer_sha256", "tokens", "complete", "hash", "kind", "reader", "overall", "number",
    "refers_to", "corrects",
)  # fmt: skip
SHOWN_DIGITS = 12
"""Digits of a hash in the list."""
MAX_KIT_NAME = 60
"""Characters of a kit's name in the list."""
_HASH = re.compile("[0-9a-f]{8,64}")


@click.group()
def audit() -> None:
    """Show, verify and export the audit log, confirm reports.

    Each answer of interpret, ask and batch is an entry: page, kit, settings, time, and hashes, in a
    chain that shows any change. A confirmation is an entry with the reader's name and verdicts. The
    log holds no other names, no texts and no pictures, except where --retain asked for them.
    """


audit.add_command(agreement)
audit.add_command(confirm)


@audit.command("list")
@options.audit_log
@click.option(
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many of the latest entries to list; the newest is at the end.",
)
@click.option(
    "--page",
    metavar="FILE|HASH",
    help="List only entries about this page: its file, its name, or 8 or more digits of a hash.",
)
def list_entries(folder: Path | None, last: int, page: str | None) -> None:
    """List the latest entries, one a line.

    A line shows number, time in UTC and local time, hashes of file name and page, kit, and tokens.
    Listing changes no file.
    """
    log = AuditLog(folder)
    selected = log.entries() if page is None else filter(_about(log, page), log.entries())
    entries = deque(selected, last)
    for entry in entries:
        say(f"{_line(entry)}{' retained' if log.retained(entry) else ''}\n")
    if not entries and page is not None:
        raise AuditLogError(
            f"{log.folder}: no entry is about {one_line(page)}. See `pulse-edge audit list`."
        )


def _line(entry: Entry) -> str:
    """Return one entry as a line, whichever version wrote it."""
    fields = entry.fields
    hashes = (one_line(str(fields.get(key) or "-")) for key in ("file_hash", "page_sha256"))
    file, page = (text[:SHOWN_DIGITS] for text in hashes)
    moment = times.for_people(one_line(str(fields.get("time"))), str(fields.get("local_time", "")))
    kit = fields["kit"] if isinstance(fields.get("kit"), dict) else {}
    name = one_line(str(kit.get("id", "?")))[:MAX_KIT_NAME]
    name += " (demonstration)" if kit.get("demonstration") else ""
    outcome = _confirmed(fields) if is_confirmation(entry) else _answered(fields)
    return f"{entry.number:>6} {moment} file {file} page {page} {name}, {outcome}"


def _answered(fields: Mapping[str, Any]) -> str:
    ended = one_line(str(fields.get("ended")))
    if fields.get("complete"):
        ended = "whole"
    elif ended == "whole":
        ended = "cut off"
    return f"{one_line(str(fields.get('tokens')))} tokens, {ended}"


def _confirmed(fields: Mapping[str, Any]) -> str:
    what = "corrected" if fields.get("corrects") else "confirmed"
    reader, overall = (one_line(str(fields.get(key))) for key in ("reader", "overall"))
    return f"{what} by {reader}, {overall}"


def _about(log: AuditLog, page: str) -> Callable[[Entry], bool]:
    """Return a test whether an entry is about a page.

    The page is given by its file, its file name, or the start of a hash.

    Raises UsageError where `page` can be none of them.
    """
    beginnings: set[str] = {page.lower()} if _HASH.fullmatch(page.lower()) else set()
    if (name := log.file_hash(one_line(page))) is not None:
        beginnings.add(name)
    path = Path(page)
    if path.is_file():
        try:
            beginnings.add(file_sha256(path))
        except OSError as e:
            raise UsageError(
                f"{page}: cannot be read ({e.strerror}). Name it by its hash."
            ) from None
    if not beginnings:
        raise UsageError(
            f"{page}: is no file and no hash, and {log.folder} has no marker, without which names "
            "cannot be found. "
            "Give the page's file, or 8 digits or more of its hash."
        )

    def matches(entry: Entry) -> bool:
        hashes = [str(entry.fields.get(key) or "") for key in ("page_sha256", "file_hash")]
        return any(text.startswith(start) for text in hashes for start in beginnings)

    return matches


@audit.command()
@click.argument("number", type=click.IntRange(1), metavar="ENTRY")
@options.audit_log
def show(number: int, folder: Path | None) -> None:
    """Show everything about one entry.

    ENTRY is its number. Texts are shown where they are retained, and so is who confirmed an answer
    later. Changes no file.
    """
    log = AuditLog(folder)
    entry, later = None, []
    for one in log.entries():
        if one.number == number:
            entry = one
        elif entry is not None and is_confirmation(one):
            references = (*one.fields.get("refers_to", ()), one.fields.get("corrects"))
            later += [one] if entry.hash in references else []
    if entry is None:
        raise UsageError(f"{log.folder}: has no entry {number}. See `pulse-edge audit list`.")
    say(json_text({"entry": entry.number, "hash": entry.hash, **entry.fields}, indent=1) + "\n")
    for kind, path in log.retained(entry).items():
        say(f"{kind} retained until {entry.fields['retained']['until']}: {path}\n")
        if kind == "texts":
            say(path.read_text("utf-8", "replace") + "\n")
    for one in later:
        say(f"entry {one.number}: {_confirmed(one.fields)}\n")


@audit.command()
@options.audit_log
@click.option(
    "--expect",
    metavar="HASH",
    help="Last hash of an earlier verify, which the log must still contain.",
)
def verify(folder: Path | None, expect: str | None) -> None:
    """Verify that no entry was changed or removed.

    It says where an entry was changed, removed or moved, and changes no file itself. Note the hash
    that it prints somewhere else: whoever may write the log's files could replace all of them.
    """
    log = AuditLog(folder)
    head = log.verify(expect)
    entries = counted(head.entries, "entry is as it was", "entries are as they were")
    say(f"{log.folder}: {entries} written; the last hash is {head.hash}\n")


@audit.command()
@options.audit_log
def forget(folder: Path | None) -> None:
    """Remove texts and pictures that are no longer retained.

    Their days (--retain) are over. Every command that answers removes them too.
    """
    log = AuditLog(folder)
    say(f"{log.folder}: {log.forget()} texts and pictures removed\n")


@audit.command()
@options.audit_log
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON lines with all fields, or a table.",
)
@click.option(
    "-o", "--out", type=PATH, metavar="FILE", show_default="standard output", help="File to write."
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--local-test-set",
    "test_set",
    type=PATH,
    metavar="DIR",
    help="Write instead the confirmed pages whose pictures are retained, with the readers' "
    "verdicts, into a new folder for `python -m calibration`.",
)
def export(
    folder: Path | None, form: str, out: Path | None, overwrite: bool, test_set: Path | None
) -> None:
    """Verify the log and write all of it."""
    log = AuditLog(folder)
    log.verify()
    if test_set is not None:
        _write_test_set(log, test_set)
        return
    lines = (_table if form == "csv" else _json_lines)(log)
    if out is None:
        for line in lines:  # cells are harmless already, and a table's lines end with CR and LF
            click.echo(line, nl=False)
        return
    try:
        write_whole(out, (line.encode() for line in lines), overwrite=overwrite)
    except FileExistsError:
        raise UsageError(
            f"{out}: exists, and is not replaced. Choose another name, or add --overwrite."
        ) from None
    except OSError as e:
        raise AuditLogError(
            f"{out}: cannot be written ({e.strerror}). Choose another place."
        ) from None
    Console().note(f"written: {out}")


def _write_test_set(log: AuditLog, folder: Path) -> None:
    from pulse_edge.audit_log import local_test_set

    result = local_test_set.write(log, folder)
    pages = counted(result.pages, "page", "pages")
    say(f"{folder}: {pages}, {counted(result.questions, 'question', 'questions')}\n")
    left_out = (
        (result.without_picture, "no retained picture"),
        (result.without_verdict, "no verdict of present or absent"),
    )
    for number, reason in left_out:
        if number:
            Console().note(
                f"left out: {counted(number, 'page', 'pages')} with {reason}", always=True
            )
    Console().note("The folder holds patients' pages: keep it as you keep theirs.", always=True)


def _json_lines(log: AuditLog) -> Iterator[str]:
    for entry in log.entries():
        yield json.dumps({"entry": entry.number, "hash": entry.hash, **entry.fields}) + "\n"


def _table(log: AuditLog) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\r\n"
    for entry in log.entries():
        kit = entry.fields.get("kit")
        row = {**entry.fields, "entry": entry.number, "hash": entry.hash}
        row["kit"] = kit.get("id") if isinstance(kit, dict) else kit
        line = io.StringIO()
        csv.writer(line).writerow([spreadsheet_cell(row.get(name, "")) for name in COLUMNS])
        yield line.getvalue()
