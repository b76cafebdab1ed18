"""Read ECGBench as published, one sample at a time.

Two layouts are read: the hub's parquet folders (`TASK/*.parquet`, row group by row group), and the
unpacked one that PULSE's README describes (`TASK.json` and `images/` in one folder). A sample that
cannot be used is handed to the caller's `note`, with its reason.

Eight samples of ptb-test-report hold a translator's refusal ("Sure, please provide the ECG report")
instead of a report; they are left out, and noted.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

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
"""Folders of pictures of recordings, named `RECORDING-N.png`; several tasks may show the same one."""


@dataclass(frozen=True)
class Sample:
    """A question about a page with its right answer."""

    task: str
    id: str
    image: str
    """Path of the picture below images/."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer); only arena has more than one."""
    chosen: tuple[str, ...] = ()
    """The right options of an ECG-QA question."""
    picture: bytes | None = None
    """The file's bytes; None where they were not asked for."""
    patient: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The options of an ECG-QA question."""
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
    """The options in a question: the text after `Options:`, split as the published scorer does."""
    listed = question.split("Options:")[-1].replace(ONLY_OPTIONS, "")
    return tuple(option.strip() for option in listed.split(","))


def labels_in(text: str, labels: Sequence[str], ignore_case: bool = False) -> tuple[str, ...]:
    """The known labels that a text contains as words, in the order of `known`.

    `NORM` is not found in `ABNORMAL`, nor `ST` in `ST-T` or `AVB` in `I-AVB`.
    """
    words = set(re.findall(r"[^\W_]+(?:-[^\W_]+)*", text))
    if ignore_case:
        words = {word.lower() for word in words}
    return tuple(label for label in labels if (label.lower() if ignore_case else label) in words)


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """An opened data set."""

    path: Path
    files: Mapping[str, tuple[Path, ...]]
    """By task: parquet files, or one .json."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the data have, sorted."""
        return tuple(sorted(self.files))

    def samples(
        self, task: str, note: Note, pictures: bool = True, only: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """The usable samples of a task in the file's order; `note` gets every other one.

        `only` restricts them to these ids. Without `pictures` no picture is read or checked.
        BenchError where a file cannot be read at all.
        """
        if task not in self.files:
            raise UsageError(f"{self.path}: has no task {task}; there are {', '.join(self.tasks)}")
        ids: set[str] = set()
        for raw, picture in self.rows(task, pictures, only):
            name = str(raw.get("id", f"number {len(ids)}"))
            try:
                if name in ids:
                    raise ValueError("its id occurs twice")
                ids.add(name)
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
        """Every sample, or those of `only` these ids, as in the file, with its picture."""
        for path in self.files[task]:
            if path.suffix == ".parquet":
                rows = _parquet_rows(path, pictures)
                yield from (row for row in rows if only is None or row[0].get("id") in only)
                continue
            for raw in _json_rows(path):
                if only is not None and raw.get("id") not in only:
                    continue
                picture = self.path / "images" / str(raw.get("image"))
                yield raw, picture.read_bytes() if pictures and picture.is_file() else None

    @cached_property
    def _patients(self) -> Mapping[str, str]:
        """Patient of each picture whose patient is known."""
        return {image: fact["patient"] for image, fact in self.facts.items() if fact["patient"]}

    @cached_property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """What `pages.jsonl` knows of each picture; empty without such a file."""
        try:
            lines = (self.path / "pages.jsonl").read_text(encoding="utf-8").splitlines()
            facts = [json.loads(line) for line in lines]
            return {fact["image"]: {**fact, "patient": fact["patient"]} for fact in facts}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{self.path / 'pages.jsonl'}: is not understood ({error}); make the folder again"
            ) from error


def open_bench(path: Path) -> Bench:
    """Open a folder in either layout. BenchError where it is something else."""
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
    """The rows of a parquet file, one row group in memory at a time."""
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


# --- one sample -------------------------------------------------------------------------------


def parse(
    task: str, raw: Mapping[str, Any], picture: bytes | None, patients: Mapping[str, str]
) -> Sample:
    """Parse a published sample; ValueError says what is wrong with it."""
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
    """Questions without the image mark, and answers; in ECG-QA both are lists."""
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
    """ValueError where the right answer is not one that the task knows."""
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
    """ValueError where the picture is missing or damaged."""
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
