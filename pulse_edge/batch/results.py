"""The results of a batch as files.

`results.jsonl` has a report on each line, `results.csv` a row for each answer.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pulse_edge.common.files import write_whole
from pulse_edge.common.text import one_line, spreadsheet_cell
from pulse_edge.errors import PageRefused
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.report import NoAnswer

REPORTS, TABLE = "results.jsonl", "results.csv"
COLUMNS = (
    "notice", "overread", "file", "page", "state", "verdict", "leads", "reasons", "contradictions", "question",
    "answer", "complete", "findings", "error", "page_sha256", "kit", "kit_sha256",
    "image_tokens_read", "intended_use",
)  # fmt: skip
BYTE_ORDER_MARK = "\ufeff"
"""Tells Excel that a table is UTF-8."""


class Result(NamedTuple):
    """What became of one page, or of a file that could not be read."""

    path: str
    """Absolute path of the file."""
    page: int
    """Page of the file, from 1; 0: the whole file."""
    report: str | None
    """The report as JSON; None: see `error`."""
    error: str | None
    """Why there is no report."""
    exit_code: int
    """0, or that of the error."""


def write(folder: Path, results: Callable[[], Iterable[Result]]) -> None:
    """Replace both files.

    `results` is called for each, so that no more than one report is in memory. Raises OSError.
    """
    for name, lines in ((REPORTS, _json_lines(results())), (TABLE, _table(results()))):
        pieces = (line.encode("utf-8", "replace") for line in lines)
        write_whole(folder / name, pieces, overwrite=True)


def _json_lines(results: Iterable[Result]) -> Iterator[str]:
    for r in results:
        text = r.report or NoAnswer(one_line(r.path), r.error or "", r.exit_code).to_json()
        yield text + "\n"


def _table(results: Iterable[Result]) -> Iterator[str]:
    """One row for each answer, and for each page or file without one."""
    yield BYTE_ORDER_MARK + ",".join(COLUMNS) + "\r\n"
    for r in results:
        state = "refused" if r.exit_code == PageRefused.exit_code else "failed"
        failure = [{"state": state, "error": r.error}]
        for row in failure if r.report is None else _rows(json.loads(r.report)):
            values = {"file": one_line(r.path), "page": r.page or ""} | row
            line = io.StringIO()
            csv.writer(line).writerow([spreadsheet_cell(values.get(name, "")) for name in COLUMNS])
            yield line.getvalue()


def _rows(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each answer about a page."""
    quality = report["quality"] or {}
    page = {
        "notice": report["notice"],
        "overread": report.get("overread", UNCONFIRMED),  # absent in an older version's report
        "state": "answered",
        "verdict": quality.get("verdict", "not checked"),
        "leads": quality.get("leads", ""),
        "reasons": "\n".join(reason["advice"] for reason in quality.get("reasons", ())),
        "contradictions": "\n".join(c["text"] for c in report["contradictions"]),
        "findings": "\n".join(map(_finding, report["findings"])),
        "page_sha256": report["page_sha256"],
        "kit": report["kit"]["id"],
        "kit_sha256": report["kit"]["sha256"],
        "image_tokens_read": report["image_tokens_read"],
        "intended_use": report["intended_use"],
    }
    for answer in report["answers"]:
        yield page | {
            "question": answer["question"],
            "answer": answer["text"],
            "complete": answer["complete"],
        }


def _finding(finding: dict[str, Any]) -> str:
    """Verdict and probability, or the rank where there are none."""
    if finding["verdict"] is None:
        return f"{finding['statement']}: no verdict, rank {finding['rank']} ({finding['reason']})"
    return f"{finding['statement']}: {finding['verdict']} {finding['probability']}"
