"""Confirmed pages as a clinic's own test set, in the layout of ECGBench.

In: an audit log with confirmations, and pictures that were retained. Out: a folder that `python -m
calibration` reads:

    ecgqa-test.json   a question for each finding that a reader judged, with the answer yes or no
    pages.jsonl       the readers' verdicts of each page (`truths`)
    images/           the pages, named by their hashes

A page without a retained picture, or without any verdict of present or absent, is left out. The
pictures are those of patients: the folder is for its owner alone. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_edge.audit_log.confirmations import is_confirmation
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common.files import write_whole
from pulse_edge.errors import OutputError, UsageError
from pulse_edge.report.findings import BY_KEY, STATEMENTS

TASK = "ecgqa-test"
"""Task of ECGBench whose questions are those of the fixed list."""
_TRUTHS = {"present": True, "absent": False}
_NAME_DIGITS = 16
"""Digits of a picture's hash in its name: no two of a clinic's pages have the same."""


@dataclass(frozen=True)
class LocalTestSet:
    """What was written."""

    pages: int
    """Pages with a picture and a verdict."""
    questions: int
    """Questions about them."""
    without_picture: int
    """Confirmed pages that have no retained picture, and are left out."""
    without_verdict: int
    """Confirmed pages on which no finding is present or absent for the reader; left out too."""


@dataclass
class _Page:
    """What readers say about one page."""

    truths: dict[str, bool] = field(default_factory=dict)
    picture: Path | None = None


def write(log: AuditLog, folder: Path) -> LocalTestSet:
    """Write the confirmed pages of a log into a new folder.

    Raises UsageError where the folder exists and holds something, OutputError where it cannot be
    written, AuditLogError for a log that cannot be read.
    """
    pages = list(_pages(log))
    usable = [(p.picture, p.truths) for p in pages if p.picture is not None and p.truths]
    if not usable:
        raise UsageError(
            f"{log.folder}: has no confirmed page with a verdict and a retained picture. Pictures "
            "are retained by `--retain DAYS` of the command that answers."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise UsageError(f"{folder}: is not empty. Name a new folder.")
        folder.chmod(0o700)
        questions = _write(folder, usable)
    except OSError as e:
        raise OutputError(
            f"{e.filename or folder}: cannot be written ({e.strerror}). Name another folder."
        ) from None
    return LocalTestSet(
        len(usable),
        questions,
        without_picture=sum(page.picture is None for page in pages),
        without_verdict=sum(page.picture is not None and not page.truths for page in pages),
    )


def _pages(log: AuditLog) -> Iterable[_Page]:
    """Return the pages of all confirmations; a later one replaces the verdicts of an earlier."""
    pictures: dict[str, Path] = {}
    pages: dict[tuple[Any, ...], _Page] = {}
    for entry in log.entries():
        if not is_confirmation(entry):
            if (picture := log.retained(entry).get("picture")) is not None:
                pictures[entry.hash] = picture
            continue
        fields = entry.fields
        page = pages.setdefault((fields.get("page_sha256"), fields.get("page_number")), _Page())
        page.truths = dict(_truths(fields))
        retained = map(pictures.get, fields.get("refers_to", ()))
        page.picture = next(filter(None, retained), page.picture)
    return pages.values()


def _truths(fields: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the reader's verdicts on statements of the fixed list that are present or absent."""
    verdicts = {key: both["reader"] for key, both in fields.get("findings", {}).items()}
    verdicts |= {a["statement"]: a["reader"] for a in fields.get("added", ()) if a["statement"]}
    for statement in STATEMENTS:
        if (verdict := verdicts.get(statement.key)) in _TRUTHS:
            yield statement.key, _TRUTHS[verdict]


def _write(folder: Path, pages: Iterable[tuple[Path, Mapping[str, bool]]]) -> int:
    """Write pictures, then what is said about them; return the number of questions."""
    samples, facts = [], []
    (folder / "images").mkdir(mode=0o700)
    for picture, truths in pages:
        content = picture.read_bytes()
        name = f"{hashlib.sha256(content).hexdigest()[:_NAME_DIGITS]}.png"
        write_whole(folder / "images" / name, (content,), overwrite=True)
        facts.append({"image": name, "patient": None, "truths": truths})
        samples += [_sample(name, key, truth) for key, truth in truths.items()]
    lines = (json.dumps(fact).encode() + b"\n" for fact in facts)
    write_whole(folder / "pages.jsonl", lines)
    write_whole(folder / f"{TASK}.json", (json.dumps(samples, indent=1).encode(),))
    return len(samples)


def _sample(image: str, key: str, truth: bool) -> dict[str, Any]:
    """Return a question as ECGBench has it; the answer is one of the question's options."""
    question = f"<image>\n{BY_KEY[key].question}"
    conversation = [
        {"from": "human", "value": question},
        {"from": "gpt", "value": ["yes" if truth else "no"]},
    ]
    return {"id": f"{Path(image).stem}-{key}", "image": image, "conversations": conversation}
