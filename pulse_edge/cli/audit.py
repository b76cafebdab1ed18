"""`pulse-edge log`: look at the record of answers. Needs no kit and no engine."""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pulse_edge.audit_log import log as logs
from pulse_edge.cli.console import Screen, say
from pulse_edge.common.text import counted, json_text, one_line, spreadsheet_cell
from pulse_edge.errors import AuditLogError, UsageError

_FOLDER = click.option(
    "--audit-log",
    "folder",
    type=click.Path(path_type=Path),
    help="Its folder. Default: $PULSE_EDGE_AUDIT_LOG, or this user's.",
)
_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
COLUMNS = (
    "entry", "time", "local_time", "file_hash", "page_sha256", "kit", "question_sha256", "answer_sha256", "tokens",
    "complete", "hash",
)  # fmt: skip
_HASH = re.compile("[0-9a-f]{8,64}")


@click.group()
def audit() -> None:
    """The record of every answer: page, kit, settings, time, and hashes, in a chain that shows any change.

    It holds no names, texts or pictures, except where --retain asked for them.
    """


@audit.command("list")
@_FOLDER
@click.option(
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many, the newest at the end.",
)
@click.option(
    "--page",
    metavar="FILE|HASH",
    help="Only entries of this page: its file, its file name, or 8 or more digits of a hash that the list shows.",
)
@_DEBUG
def list_(folder: Path | None, last: int, page: str | None, debug: bool) -> None:
    """The latest entries, one a line: number, time in UTC and where it was answered, hashes of file name and page, kit.

    Nothing in the folder is changed.
    """
    from collections import deque

    record = logs.AuditLog(folder)
    wanted = (lambda _item: True) if page is None else _about(record, page)
    found = 0
    for item in deque(filter(wanted, record.entries()), last):
        found += 1
        say(f"{_line(item)}{' retained' if record.retained(item) else ''}\n")
    if not found and page is not None:
        raise AuditLogError(
            f"{record.folder}: no entry is about {one_line(page)}. See `pulse-edge audit list`."
        )


def _line(item: logs.Entry) -> str:
    """One entry, whichever version wrote it."""
    f = item.fields
    kit = f["kit"] if isinstance(f.get("kit"), dict) else {}
    name = one_line(str(kit.get("id", "?")))[:60] + (
        " (demonstration)" if kit.get("demonstration") else ""
    )
    ended = (
        "whole"
        if f.get("complete")
        else "cut off"
        if f.get("ended") == "whole"
        else one_line(str(f.get("ended")))
    )
    file, page = (one_line(str(f.get(key) or "-"))[:12] for key in ("file_hash", "page_sha256"))
    return f"{item.number:>6} {_times(f)} file {file} page {page} {name}, {one_line(str(f.get('tokens')))} tokens, {ended}"


def _times(fields: dict[str, Any]) -> str:
    """UTC, and the local time of the machine that answered; of this one for an entry that does not say it."""
    utc, local = one_line(str(fields.get("time"))), str(fields.get("local_time", ""))
    with_offset = local or utc.removesuffix("Z") + "+00:00"
    try:
        moment = datetime.datetime.fromisoformat(with_offset)
    except ValueError:
        return utc
    return f"{utc} ({(moment if local else moment.astimezone()).strftime('%Y-%m-%d %H:%M:%S %z')})"


def _about(record: logs.AuditLog, page: str) -> Callable[[logs.Entry], bool]:
    """Whether an entry is about a page: by the content of the file that `page` names, its name, or the start of a hash.

    Raises UsageError where it can be none of them.
    """
    begins: set[str] = {page.lower()} if _HASH.fullmatch(page.lower()) else set()
    if (name := record.file_hash(one_line(page))) is not None:
        begins.add(name)
    path = Path(page)
    if path.is_file():
        try:
            with open(path, "rb") as file:
                digest = hashlib.sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as e:
            raise UsageError(
                f"{page}: cannot be read ({e.strerror}). Name it by its hash."
            ) from None
        begins.add(digest.hexdigest())
    if not begins:
        raise UsageError(
            f"{page}: is no file and no hash, and {record.folder} has no mark, without which names cannot be found. "
            "Give the page's file, or 8 digits or more of its hash."
        )

    def matches(item: logs.Entry) -> bool:
        hashes = [str(item.fields.get(key) or "") for key in ("page_sha256", "file_hash")]
        return any(value.startswith(start) for value in hashes for start in begins)

    return matches


@audit.command()
@click.argument("number", type=click.IntRange(1), metavar="ENTRY")
@_FOLDER
@_DEBUG
def show(number: int, folder: Path | None, debug: bool) -> None:
    """Everything about one entry, with its texts while they are kept. Nothing in the folder is changed."""
    record = logs.AuditLog(folder)
    item = next((item for item in record.entries() if item.number == number), None)
    if item is None:
        raise UsageError(f"{record.folder}: has no entry {number}. See `pulse-edge audit list`.")
    say(json_text({"entry": item.number, "hash": item.hash, **item.fields}, indent=1) + "\n")
    for kind, path in record.retained(item).items():
        say(f"{kind} retained until {item.fields['retained']['until']}: {path}\n")
        if kind == "texts":
            say(path.read_text("utf-8", "replace") + "\n")


@audit.command()
@_FOLDER
@click.option(
    "--expect",
    metavar="HASH",
    help="A hash that an earlier verify gave: the record must still contain it.",
)
@_DEBUG
def verify(folder: Path | None, expect: str | None, debug: bool) -> None:
    """Find any change, removal or reordering, and say where. Nothing in the folder is changed.

    Note the hash that it prints somewhere else: who may write the record's files could replace all of them.
    """
    record = logs.AuditLog(folder)
    head = record.verify(expect)
    entries = counted(head.entries, "entry is as it was", "entries are as they were")
    say(f"{record.folder}: {entries} written; the last hash is {head.hash}\n")


@audit.command()
@_FOLDER
@_DEBUG
def forget(folder: Path | None, debug: bool) -> None:
    """Remove texts and pictures whose last day (--retain) is over; every command that answers does so too."""
    record = logs.AuditLog(folder)
    say(f"{record.folder}: {record.forget()} texts and pictures removed\n")


@audit.command()
@_FOLDER
@click.option(
    "--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="A new file. Default: standard output."
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@_DEBUG
def export(folder: Path | None, kind: str, out: Path | None, overwrite: bool, debug: bool) -> None:
    """The whole record, after verifying it, as JSON lines or as a table."""
    from pulse_edge.common.files import write_whole

    record = logs.AuditLog(folder)
    record.verify()
    lines = (_table if kind == "csv" else _jsonl)(record)
    if out is None:
        for line in lines:
            click.echo(
                line, nl=False
            )  # cells are harmless already, and a table's lines end with CR and LF
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
    Screen().note(f"written: {out}")


def _jsonl(record: logs.AuditLog) -> Iterator[str]:
    for item in record.entries():
        yield json.dumps({"entry": item.number, "hash": item.hash, **item.fields}) + "\n"


def _table(record: logs.AuditLog) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\r\n"
    for item in record.entries():
        kit = item.fields.get("kit")
        row = {**item.fields, "entry": item.number, "hash": item.hash}
        row["kit"] = kit.get("id") if isinstance(kit, dict) else kit
        line = io.StringIO()
        csv.writer(line).writerow([spreadsheet_cell(row.get(name, "")) for name in COLUMNS])
        yield line.getvalue()
