"""Divide ECGBench's ids into calibration and test, once and for all (`calibration split`)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from calibration.ecgbench import RECORDINGS, Problem, Sample
from calibration.files import write_json
from pulse_edge.errors import BenchError, UsageError


@dataclass(frozen=True)
class Split:
    """Calibration and test ids by task, in alphabetical order."""

    key: str
    share: float
    calibration: Mapping[str, tuple[str, ...]]
    test: Mapping[str, tuple[str, ...]]
    content: str
    """sha256 over all tasks, ids, pictures and patients."""


def split(samples: Iterable[Sample], key: str, share: float) -> Split:
    """Divide samples so that no picture, recording or patient is on both sides.

    Samples with one of these in common form a group. Groups come in the order of HMAC-SHA256 under
    `key`, and one goes to calibration while each of its tasks has room there, so no task gives more
    than its share. The order of the samples does not matter. UsageError for a share outside (0, 1)
    or samples without pictures, BenchError for no sample at all.
    """
    if not 0 < share < 1 or not key:
        raise UsageError(f"a split needs a key and a share between 0 and 1, not {share:g}")
    members: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        members[sample.task, sample.id] = _ties(sample)
    if not members:
        raise BenchError("no usable sample to divide; see what was left out, and why")
    sizes = Counter(task for task, _ in members)
    room = {task: round(share * size) for task, size in sizes.items()}
    chosen: set[tuple[str, str]] = set()
    for group in sorted(
        _groups(members), key=lambda g: _order(key, {tie for one in g for tie in members[one]})
    ):
        needs = Counter(task for task, _ in group)
        if all(room[task] >= n for task, n in needs.items()):
            chosen.update(group)
            room = {task: free - needs[task] for task, free in room.items()}
    content = hashlib.sha256(
        json.dumps(sorted((*one, *ties) for one, ties in members.items())).encode()
    ).hexdigest()
    return Split(
        key, share, _by_task(sizes, chosen), _by_task(sizes, members.keys() - chosen), content
    )


def _ties(sample: Sample) -> list[str]:
    """What a sample may share with others: its picture, its recording, its patient."""
    if sample.picture is None:
        raise UsageError(f"{sample.task} {sample.id}: a split needs the samples' pictures")
    ties = [f"picture {hashlib.sha256(sample.picture).hexdigest()}"]
    place = PurePosixPath(sample.image)
    if place.parts[0] in RECORDINGS:
        ties.append(f"recording {place.parts[0]} {place.stem.split('-')[0]}")
    return ties if sample.patient is None else [*ties, f"patient {sample.patient}"]


def _groups(members: Mapping[tuple[str, str], list[str]]) -> list[list[tuple[str, str]]]:
    """Groups of samples that share something, directly or through others."""
    parent: dict[str, str] = {}

    def root(tie: str) -> str:
        while parent.setdefault(tie, tie) != tie:
            parent[tie] = parent[parent[tie]]
            tie = parent[tie]
        return tie

    for ties in members.values():
        for tie in ties[1:]:
            parent[root(tie)] = root(ties[0])
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for one, ties in members.items():
        groups[root(ties[0])].append(one)
    return list(groups.values())


def _order(key: str, ties: set[str]) -> bytes:
    """The sort key of a group."""
    return hmac.digest(key.encode(), "\n".join(sorted(ties)).encode(), "sha256")


def _by_task(tasks: Iterable[str], ids: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Ids in alphabetical order by task; a task without ids has an empty tuple."""
    chosen = sorted(ids)
    return {task: tuple(name for t, name in chosen if t == task) for task in sorted(tasks)}


def save(split: Split, path: Path, problems: Sequence[Problem] = ()) -> None:
    """Write a split as JSON, with the samples that were left out of it."""
    content = {**vars(split), "left_out": [vars(problem) for problem in problems]}
    write_json(path, content)


def load(path: Path) -> Split:
    """Read a split file. BenchError where it is something else, or where an id is on both sides."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        sides = [
            {task: tuple(ids) for task, ids in raw[side].items()}
            for side in ("calibration", "test")
        ]
        split = Split(str(raw["key"]), float(raw["share"]), sides[0], sides[1], str(raw["content"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{path}: is not a recorded split ({error}); make it with `calibration split`"
        ) from error
    if both := [
        name
        for task, ids in split.calibration.items()
        for name in set(ids) & set(split.test.get(task, ()))
    ]:
        raise BenchError(
            f"{path}: {len(both)} ids are for calibration and for test, {both[0]} first; "
            "make it again"
        )
    return split
