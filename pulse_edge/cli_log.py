"""`pulse-edge log`: look at the record of answers. Needs no kit and no engine."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import click

from . import log as logs
from .report import printable, spreadsheet_cell

_FOLDER = click.option(
    "--log", "folder", type=click.Path(path_type=Path), help="Its folder. Default: $PULSE_EDGE_LOG, or this user's."
)
_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
COLUMNS = ("entry", "time", "page_sha256", "kit", "question_sha256", "answer_sha256", "tokens", "complete", "hash")


@click.group()
def log() -> None:
    """The record of every answer: page, kit, settings, time, and hashes, in a chain that shows any change.

    It holds no names, texts or pictures, except where --keep asked for them.
    """


@log.command("list")
@_FOLDER
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest at the end.")
@_DEBUG
def list_(folder: Path | None, last: int, debug: bool) -> None:
    """The latest entries, one a line."""
    from collections import deque

    record = logs.Log(folder)
    record.forget()
    for item in deque(record.entries(), last):
        f = item.fields
        whole = "whole" if f["complete"] else "cut off" if f["ended"] == "whole" else f["ended"]
        kept = " kept" if record.kept(item) else ""
        kit = printable(f["kit"]["id"]) + (" (demonstration)" if f["kit"]["demonstration"] else "")
        click.echo(
            f"{item.number:>6} {f['time']} page {f['page_sha256'][:12]} {kit}, {f['tokens']} tokens, {whole}{kept}"
        )


@log.command()
@click.argument("number", type=click.IntRange(1), metavar="ENTRY")
@_FOLDER
@_DEBUG
def show(number: int, folder: Path | None, debug: bool) -> None:
    """Everything about one entry, with its texts while they are kept."""
    from .errors import UsageError

    record = logs.Log(folder)
    record.forget()
    item = next((item for item in record.entries() if item.number == number), None)
    if item is None:
        raise UsageError(f"{record.folder}: has no entry {number}. See `pulse-edge log list`.")
    click.echo(json.dumps({"entry": item.number, "hash": item.hash, **item.fields}, indent=1))
    for kind, path in record.kept(item).items():
        click.echo(f"{kind} kept until {item.fields['kept']['until']}: {path}")
        if kind == "texts":
            click.echo(printable(path.read_text("utf-8", "replace")))


@log.command()
@_FOLDER
@click.option("--expect", metavar="HASH", help="A hash that an earlier verify gave: the record must still contain it.")
@_DEBUG
def verify(folder: Path | None, expect: str | None, debug: bool) -> None:
    """Find any change, removal or reordering, and say where.

    Note the hash that it prints somewhere else: who may write the record's files could replace all of them.
    """
    record = logs.Log(folder)
    record.forget()
    head = record.verify(expect)
    click.echo(f"{record.folder}: {head.entries} entries are as they were written; the last hash is {head.hash}")


@log.command()
@_FOLDER
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A new file. Default: standard output.")
@_DEBUG
def export(folder: Path | None, kind: str, out: Path | None, debug: bool) -> None:
    """The whole record, after verifying it, as JSON lines or as a table."""
    from .report import write_whole

    record = logs.Log(folder)
    record.verify()
    lines = (_table if kind == "csv" else _jsonl)(record)
    if out is None:
        for line in lines:
            click.echo(line, nl=False)
    else:
        write_whole(out, (line.encode() for line in lines))


def _jsonl(record: logs.Log) -> Iterator[str]:
    for item in record.entries():
        yield json.dumps({"entry": item.number, "hash": item.hash, **item.fields}) + "\n"


def _table(record: logs.Log) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\r\n"
    for item in record.entries():
        row = {**item.fields, "entry": item.number, "hash": item.hash, "kit": item.fields["kit"]["id"]}
        line = io.StringIO()
        csv.writer(line).writerow([spreadsheet_cell(row[name]) for name in COLUMNS])
        yield line.getvalue()
