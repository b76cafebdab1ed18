"""ECGBench as published -> samples, one at a time; and the division of its ids into calibration and test.

Two layouts are read: the hub's parquet folders (`TASK/*.parquet`, row group by row group), and the unpacked one that PULSE's
README describes (`TASK.json` beside `images/`). Whatever cannot be used is handed to the caller's `note`, with its reason.

Eight reports of ptb-test-report are no reports but a translator's refusal ("Sure, please provide the ECG report"); they
are left out, and noted.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from calibration.files import write_json
from pulse_edge.errors import BenchError, UsageError
from pulse_edge.kit.prompt import IMAGE_MARK

COUNTS: Mapping[str, int] = {
    "arena": 50,
    "code15-test": 1400,
    "cpsc-test": 2061,
    "csn-test-no-cot": 1611,
    "ecgqa-test": 1317,
    "g12-test-no-cot": 2026,
    "mmmu-ecg": 200,
    "ptb-test": 2082,
    "ptb-test-report": 500,
}
"""Samples of each published configuration."""
LABELS: Mapping[str, tuple[str, ...]] = {
    "ptb-test": ("NORM", "MI", "STTC", "CD", "HYP"),
    "cpsc-test": ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
    "code15-test": ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "NORM", "ABNORMAL"),
}
"""Labels that an answer may hold; `none` stands for none of them."""
LETTERS: Mapping[str, str] = {
    "csn-test-no-cot": "ABCDEFGH",
    "g12-test-no-cot": "ABCDEFGH",
    "mmmu-ecg": "ABCD",
}
"""Letters that an answer may begin with."""
ONLY_OPTIONS = "Only answer based on the given Options without any explanation."
"""Ends ECG-QA's questions; the published scorer cuts it off to find the options."""
REFUSED = "sure, please provide the ecg report"
RECORDINGS = frozenset({"ptb-xl", "cpsc", "csn", "g12", "code15"})
"""Folders whose pictures are drawn from recordings, named `RECORD-N.png`: the same one may be drawn for several tasks."""


@dataclass(frozen=True)
class Sample:
    """A question about a page with its right answer."""

    task: str
    id: str
    image: str  # path below images/
    turns: tuple[tuple[str, str], ...]  # (question, answer); only arena has more than one
    chosen: tuple[str, ...] = ()  # ECG-QA's answer as the list it is
    picture: bytes | None = None  # the file's bytes; None where they were not asked for
    patient: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """What an ECG-QA question offers."""
        return options(self.turns[0][0])


@dataclass(frozen=True)
class Problem:
    """A sample that was left out, and why."""

    task: str
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.task} {self.id}: {self.what}"


Note = Callable[[Problem], None]


def options(question: str) -> tuple[str, ...]:
    """What follows `Options:`, as the published scorer takes it apart."""
    listed = question.split("Options:")[-1].replace(ONLY_OPTIONS, "")
    return tuple(option.strip() for option in listed.split(","))


def labels_in(text: str, known: Sequence[str], ignore_case: bool = False) -> tuple[str, ...]:
    """Which of the known labels stand in a text as words, in the order of `known`.

    `NORM` is not found in `ABNORMAL`, nor `ST` in `ST-T` or `AVB` in `I-AVB`.
    """
    found = re.findall(r"[^\W_]+(?:-[^\W_]+)*", text)
    words = {word.lower() for word in found} if ignore_case else set(found)
    return tuple(label for label in known if (label.lower() if ignore_case else label) in words)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """An opened data set."""

    path: Path
    files: Mapping[str, tuple[Path, ...]]  # by task: parquet files, or one .json

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is there, by name."""
        return tuple(sorted(self.files))

    def samples(
        self, task: str, note: Note, pictures: bool = True, only: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """The usable samples of a task in the file's order, those with `only` these ids; `note` gets every other one.

        Without `pictures` none is read or checked. BenchError where a file cannot be read at all.
        """
        if task not in self.files:
            raise UsageError(f"{self.path}: has no task {task}; there are {', '.join(self.tasks)}")
        seen: set[str] = set()
        for raw, picture in self.rows(task, pictures, only):
            name = str(raw.get("id", f"number {len(seen)}"))
            try:
                if name in seen:
                    raise ValueError("its id occurs twice")
                seen.add(name)
                sample = parse(task, raw, picture, self._patients)
                if pictures:
                    check_picture(picture, sample.image)
            except ValueError as error:
                note(Problem(task, name, str(error)))
            else:
                yield sample

    def rows(
        self, task: str, pictures: bool, only: Collection[str] | None = None
    ) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Every sample, or those with `only` these ids, as its file has it, with its picture."""
        for path in self.files[task]:
            if path.suffix == ".parquet":
                found = _parquet_rows(path, pictures)
                yield from (row for row in found if only is None or row[0].get("id") in only)
                continue
            for raw in _json_rows(path):
                if only is not None and raw.get("id") not in only:
                    continue
                picture = self.path / "images" / str(raw.get("image"))
                yield raw, picture.read_bytes() if pictures and picture.is_file() else None

    @cached_property
    def _patients(self) -> Mapping[str, str]:
        """Patients by picture, where they are told."""
        return {image: fact["patient"] for image, fact in self.facts.items() if fact["patient"]}

    @cached_property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """What `pages.jsonl` tells of each picture beyond its tasks; nothing where there is no such file."""
        try:
            lines = (self.path / "pages.jsonl").read_text(encoding="utf-8").splitlines()
            facts = [json.loads(line) for line in lines]
            return {fact["image"]: {**fact, "patient": fact["patient"]} for fact in facts}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{self.path / 'pages.jsonl'}: is not understood ({error}); make the folder anew"
            ) from error


def open_bench(path: Path) -> Bench:
    """A folder in either layout. BenchError where it is none."""
    files: dict[str, tuple[Path, ...]] = {}
    for task in (*COUNTS, "chat"):
        parquet = tuple(sorted((path / task).glob("*.parquet")))
        unpacked = path / f"{task}.json"
        if parquet and unpacked.is_file():
            raise BenchError(f"{path}: has {task} as parquet and as JSON; keep one of them")
        if parquet or unpacked.is_file():
            files[task] = parquet or (unpacked,)
    if not files:
        raise BenchError(
            f"{path}: holds no task of ECGBench; give the folder with TASK.json or TASK/*.parquet"
        )
    return Bench(path, files)


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); download it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchError(f"{path}: is not a list of samples; download it again")
    return rows


def _parquet_rows(path: Path, pictures: bool) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """One row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["id", "image_path", "conversations", *(["image"] if pictures else [])]
    try:
        file = pq.ParquetFile(path)
        if absent := sorted(set(columns) - set(file.schema_arrow.names)):
            raise BenchError(
                f"{path}: has no column {', '.join(absent)}; is it a file of ECGBench?"
            )
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group, columns).to_pylist():
                picture = row.pop("image", None) or {}
                yield {**row, "image": row["image_path"]}, picture.get("bytes")
    except (OSError, pa.ArrowException) as error:
        raise BenchError(f"{path}: cannot be read ({error}); download it again") from error


# --- one sample -------------------------------------------------------------------------------------------------------


def parse(
    task: str, raw: Mapping[str, Any], picture: bytes | None, patients: Mapping[str, str]
) -> Sample:
    """A published sample; ValueError says what is wrong with it."""
    if not all(isinstance(raw.get(key), str) and raw[key] for key in ("id", "image")):
        raise ValueError("it has no id or no picture's path")
    conversation = raw.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise ValueError("it has no conversation")
    turns, chosen = _turns(task, conversation)
    if not all(question and answer for question, answer in turns):
        raise ValueError("a question or an answer is empty")
    sample = Sample(
        task, raw["id"], raw["image"], turns, chosen, picture, patients.get(raw["image"])
    )
    _check_answer(sample)
    return sample


def _turns(
    task: str, conversation: list[Any]
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Questions without the page's mark, and answers; both are lists in ECG-QA."""
    try:
        if task == "arena":
            return tuple(
                (str(t["question"]).strip(), str(t["answer"]).strip()) for t in conversation
            ), ()
        human, answer = conversation[0]["value"], conversation[1]["value"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("its conversation is not question and answer") from None
    question = human if isinstance(human, str) else "".join(human)
    chosen = () if isinstance(answer, str) else tuple(str(part) for part in answer)
    text = answer.strip() if isinstance(answer, str) else ", ".join(chosen)
    return ((question.replace(IMAGE_MARK, "").strip(), text),), chosen


def _check_answer(sample: Sample) -> None:
    """ValueError where the right answer is none that the task knows."""
    answer = sample.turns[0][1]
    if sample.task in LABELS and not labels_in(answer, (*LABELS[sample.task], "none")):
        raise ValueError(f"its answer {answer!r} holds none of the task's labels")
    if sample.task in LETTERS and not re.match(rf"[{LETTERS[sample.task]}]\b", answer):
        raise ValueError(f"its answer {answer!r} begins with none of {LETTERS[sample.task]}")
    if sample.task == "ecgqa-test":
        offered = {option.lower() for option in sample.options}
        if not sample.chosen or not {part.lower() for part in sample.chosen} <= offered:
            raise ValueError(f"its answer {answer!r} is not among its options")
    if sample.task == "ptb-test-report" and answer.lower().startswith(REFUSED):
        raise ValueError("its report is a refused translation")


def check_picture(picture: bytes | None, name: str) -> None:
    """ValueError where there is no picture or it is damaged."""
    if not picture:
        raise ValueError(f"its picture {name} is missing")
    try:
        with Image.open(io.BytesIO(picture)) as image:
            if image.format == "PNG":
                image.verify()  # the checksums of a PNG say it all, five times faster than its pixels
            else:
                image.load()
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ValueError(f"its picture {name} is broken ({error})") from error


# --- calibration and test ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Ids by task, and what they depend on."""

    key: str
    share: float
    calibration: Mapping[str, tuple[str, ...]]  # ids in alphabetical order
    test: Mapping[str, tuple[str, ...]]
    content: str  # sha256 over all tasks, ids, pictures and patients: the same data, the same split


def split(samples: Iterable[Sample], key: str, share: float) -> Split:
    """Divide samples so that no picture, recording or patient is on both sides, and each task gives its share.

    Samples that have one of these in common form a group. Groups come in the order of HMAC-SHA256 under `key`, and one
    goes to calibration while each of its tasks has room there, so none gives more than its share. The order of the
    samples does not matter. UsageError for a share outside (0, 1) or samples without pictures, BenchError for none at all.
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
            room = {task: left - needs[task] for task, left in room.items()}
    content = hashlib.sha256(
        json.dumps(sorted((*one, *ties) for one, ties in members.items())).encode()
    ).hexdigest()
    return Split(
        key, share, _by_task(sizes, chosen), _by_task(sizes, members.keys() - chosen), content
    )


def _ties(sample: Sample) -> list[str]:
    """What a sample may have in common with others: its picture, its recording, its patient."""
    if sample.picture is None:
        raise UsageError(f"{sample.task} {sample.id}: a split needs the samples' pictures")
    ties = [f"picture {hashlib.sha256(sample.picture).hexdigest()}"]
    place = PurePosixPath(sample.image)
    if place.parts[0] in RECORDINGS:
        ties.append(f"recording {place.parts[0]} {place.stem.split('-')[0]}")
    return ties if sample.patient is None else [*ties, f"patient {sample.patient}"]


def _groups(members: Mapping[tuple[str, str], list[str]]) -> list[list[tuple[str, str]]]:
    """Samples tied to one another, directly or through others."""
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
    """Where a group stands."""
    return hmac.digest(key.encode(), "\n".join(sorted(ties)).encode(), "sha256")


def _by_task(tasks: Iterable[str], ids: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Ids in alphabetical order under their task, every task being there."""
    chosen = sorted(ids)
    return {task: tuple(name for t, name in chosen if t == task) for task in sorted(tasks)}


def save_split(made: Split, path: Path, problems: Sequence[Problem] = ()) -> None:
    """The split as JSON, with what was left out of it."""
    content = {**vars(made), "left_out": [vars(problem) for problem in problems]}
    write_json(path, content)


def load_split(path: Path) -> Split:
    """A saved split; BenchError where it is none, or where an id is on both sides."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        sides = [
            {task: tuple(ids) for task, ids in raw[side].items()}
            for side in ("calibration", "test")
        ]
        made = Split(str(raw["key"]), float(raw["share"]), sides[0], sides[1], str(raw["content"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{path}: is not a recorded split ({error}); make it with `calibration split`"
        ) from error
    if both := [
        name
        for task, ids in made.calibration.items()
        for name in set(ids) & set(made.test.get(task, ()))
    ]:
        raise BenchError(
            f"{path}: {len(both)} ids are for calibration and for test, {both[0]} first; make it anew"
        )
    return made
