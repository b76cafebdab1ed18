"""The folder that an evaluation fills: what was run, and every kit's answers, line by line.

    RESULTS/run.json                    reference kit, data, split, longest answer (RunSettings)
    RESULTS/KIT/kit.json                the kit, where it ran, the memory it took (KitRecord)
    RESULTS/KIT/TASK/step-final.jsonl   an answer a line, as PULSE's runner writes them, with more
                                        fields (AnswerRecord)
    RESULTS/KIT/TASK/seconds.jsonl      times of the same lines (Times): answers are the same in
                                        every run, times are not
    RESULTS/reference/TASK/*.npy        log-probabilities (tokens, vocabulary) float16 of the
                                        reference kit on its own answers

Each answer carries the hash of the kit that gave it, so exchanged folders or files are noticed. A
line counts once its end is written; the fragment that a killed process leaves is cut off, so the
folder is valid at any moment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.files import lock, write_json
from calibration.records import as_json, from_json
from calibration.score import ANSWERS
from pulse_edge.errors import BenchError
from pulse_edge.kit.kit import Kit, encoder_files
from pulse_edge.kit.manifest import Manifest

RUN, KIT, SECONDS, REFERENCE = "run.json", "kit.json", "seconds.jsonl", "reference"
RESERVED = frozenset({REFERENCE})
T = TypeVar("T")


# --- records ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSettings:
    """What all answers of a folder have in common."""

    reference: str
    bench: str
    split: str | None
    """Hash of the recorded split whose test ids are asked."""
    max_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class KitRecord:
    """A kit, and the machine that it ran on."""

    device: str | None = None
    machine: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name: str
    """The name of its folder."""
    id: str
    identity: str
    """See `identity`."""
    encoding: str
    """See `encoding`."""
    demonstration: bool
    language: str
    vision: str
    bytes: Mapping[str, int]
    """Sizes of the files that the engines read."""
    source: Mapping[str, str | None]
    memory_measured: bool = False
    """Whether `peak_bytes` was measured, or could not be."""
    peak_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """Size of all files that the engines read."""
        return sum(self.bytes.values())


@dataclass(frozen=True)
class Facts:
    """What the data know of a page, for scoring prose."""

    cpsc: tuple[str, ...] | None
    """CPSC's labels."""
    rate: float | None
    """Heart rate in bpm."""


@dataclass(frozen=True)
class Turn:
    """One answer of a conversation, and what teacher forcing measured."""

    tokens: list[int]
    complete: bool
    """Whether the answer came to its end before the longest length."""
    gold_tokens: int
    gold_logprob: float
    """Log-probability of the right answer."""
    kld: tuple[float, ...] = ()
    """Divergence from the reference at each token of its answer; empty for the reference."""
    same: tuple[int, ...] = ()
    """1 where the most likely token is the reference's."""


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """A line of step-final.jsonl."""

    question_id: str
    prompt: str | tuple[str, ...]
    """The question, or one a turn; so with `text`."""
    image: str
    patient: str | None
    gold: tuple[str, ...]
    """Right answers, one a turn."""
    chosen: tuple[str, ...]
    """The right options of an ECG-QA question."""
    facts: Facts
    text: str | tuple[str, ...]
    refused: str = ""
    """Why the kit refused the page or the question; then `text` is empty."""
    page: str = ""
    """sha256 of the page."""
    labels: Mapping[str, float] | None = None
    """Probability of each label of the task."""
    turns: tuple[Turn, ...]
    kit: str = ""
    """The `identity` of the kit that gave the answer."""

    @property
    def joined(self) -> str:
        """The answer as one text."""
        return self.text if isinstance(self.text, str) else "\n".join(self.text)

    @property
    def group(self) -> str:
        """What a draw of the bootstrap takes as a whole: a patient's pages, or a page."""
        return f"page {self.image}" if self.patient is None else f"patient {self.patient}"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of an answer; a refused one has none.

    `prefill` and `first_token` are its first turn's.
    """

    question_id: str
    prefill: float = 0.0
    first_token: float = 0.0
    encode: float = 0.0
    answer: float | None = None
    tokens: int = 0
    first: bool = False
    """Whether it is the first answer about its page."""


# --- what makes kits the same -----------------------------------------------------------------


def identity(manifest: Manifest) -> str:
    """sha256 over all that can change an answer; a report inside the kit does not."""
    m = dataclasses.asdict(manifest)
    used = {name: m["files"][name] for name in engine_files(manifest)}
    return _digest(
        {"files": used, **{part: m[part] for part in ("language", "vision", "packing", "prompt")}}
    )


def engine_files(manifest: Manifest) -> list[str]:
    """The files that the engines read: language model, encoder with its weights, newline token."""
    others = (manifest.language.file, manifest.packing.newline_file)
    return sorted([*encoder_files(manifest), *filter(None, others)])


def encoding(manifest: Manifest) -> str:
    """sha256 over all that can change a page's image tokens; kits with the same one share them."""
    m = dataclasses.asdict(manifest)
    used = {
        name: m["files"][name] for name in engine_files(manifest) if name != manifest.language.file
    }
    return _digest({"files": used, "vision": m["vision"], "packing": m["packing"]})


def calibrated_on(manifest: Manifest) -> tuple[Mapping[str, frozenset[str]], str | None]:
    """The ids by task that a kit was calibrated on, and the hash of them and their pictures."""
    entry = dataclasses.asdict(manifest).get("quantization") or {}
    ids = {task: frozenset(some) for task, some in entry.get("calibration", {}).items()}
    return ids, entry.get("content")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- the folder -------------------------------------------------------------------------------


@dataclass
class Results:
    """An opened folder; use `writing` to add to it."""

    path: Path

    @property
    def run(self) -> RunSettings:
        """The settings of the run. BenchError where the folder holds something else."""
        return _read(RunSettings, self.path / RUN, "make it with `calibration evaluate`")

    @property
    def kits(self) -> list[str]:
        """Names of the kits, the reference first, then by name."""
        first = self.run.reference
        names = sorted(p.parent.name for p in self.path.glob(f"*/{KIT}"))
        return [first, *(n for n in names if n != first)]

    def kit(self, name: str) -> KitRecord:
        """The record of a kit. BenchError where the folder was renamed."""
        record = _read(KitRecord, self.path / name / KIT, "evaluate the kit again")
        if record.name != name:
            raise BenchError(
                f"{self.path / name}: holds the results of {record.name}; rename the folder back"
            )
        return record

    def tasks(self, name: str) -> list[str]:
        """Tasks that a kit has answers of."""
        return sorted(p.parent.name for p in self.path.glob(f"{name}/*/{ANSWERS}"))

    def answers(self, name: str, task: str) -> list[AnswerRecord]:
        """A kit's answers to a task. BenchError where another kit gave them."""
        path, ours = self.path / name / task / ANSWERS, self.kit(name).identity
        answers = read_lines(AnswerRecord, path)[: len(self.times(name, task))]
        if foreign := next((a for a in answers if a.kit not in ("", ours)), None):
            raise BenchError(
                f"{path}: its answer {foreign.question_id} was given by another kit than {name}'s "
                f"{KIT} describes; files have changed places, put them back or evaluate again"
            )
        return answers

    def times(self, name: str, task: str) -> list[Times]:
        """The times of a kit's answers to a task, in their order."""
        return read_lines(Times, self.path / name / task / SECONDS)

    def settle(self, settings: RunSettings) -> None:
        """Record the settings; BenchError where the folder holds a run with other ones."""
        path = self.path / RUN
        if not path.exists():
            write_json(path, as_json(settings))
            return
        before, now = vars(self.run), vars(settings)
        for key in now:
            if before[key] != now[key]:
                raise BenchError(
                    f"{path}: was run with {key} {before[key]!r}, not {now[key]!r}; "
                    "choose another folder for the results"
                )

    def settle_kit(self, name: str, kit: Kit) -> KitRecord:
        """Record a kit; BenchError where the folder holds answers of another one of this name."""
        path = self.path / name / KIT
        if path.exists():
            before = self.kit(name)
            if before.identity != identity(kit.manifest):
                raise BenchError(
                    f"{path.parent}: holds answers of another kit than {kit.path}; "
                    "choose another folder"
                )
            return before
        m = kit.manifest
        record = KitRecord(
            name=name,
            id=m.id,
            identity=identity(m),
            encoding=encoding(m),
            demonstration=m.demonstration,
            language=m.language.type,
            vision=m.vision.type,
            bytes={file: m.files[file].bytes for file in engine_files(m)},
            source={key: m.source.get(key) for key in ("name", "revision", "licence")},
        )
        self.save_kit(record)
        return record

    def save_kit(self, record: KitRecord) -> None:
        """Write a kit's record."""
        write_json(self.path / record.name / KIT, as_json(record))

    def unbound(self, name: str) -> int:
        """How many answers of a kit do not name the kit that gave them."""
        return sum(not a.kit for task in self.tasks(name) for a in self.answers(name, task))

    def file(self, name: str, task: str) -> TaskAnswers:
        """A kit's answers to a task, to add to."""
        return TaskAnswers(self.path / name / task)

    # --- the reference's distributions

    def save_distribution(self, task: str, sample: str, logprobs: NDArray[np.float64]) -> None:
        """Store log-probabilities (tokens, vocabulary) of the reference as float16.

        KLD keeps six digits of it.
        """
        path = self._distribution(task, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        with open(temporary, "wb") as f:
            np.save(f, np.maximum(logprobs, -6e4).astype(np.float16))
        os.replace(temporary, path)

    def distribution(self, task: str, sample: str) -> NDArray[np.float64]:
        """Stored log-probabilities, normalised again so that each row's probabilities sum to one."""
        path = self._distribution(task, sample)
        try:
            rows = np.load(path).astype(np.float64)
        except (OSError, ValueError) as error:
            raise BenchError(
                f"{path}: cannot be read ({error}); evaluate into a fresh folder"
            ) from error
        return np.asarray(rows - np.log(np.exp(rows).sum(1, keepdims=True)))

    def _distribution(self, task: str, sample: str) -> Path:
        name = hashlib.sha256(sample.encode()).hexdigest()[:32]  # ids may hold anything
        return self.path / REFERENCE / task / f"{name}.npy"


@contextmanager
def writing(path: Path) -> Iterator[Results]:
    """Open or make the folder for this process alone. BenchError while another one writes to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (
            any(path.iterdir())
            and not (path / RUN).exists()
            and {p.name for p in path.iterdir()} != {".lock"}
        ):
            raise BenchError(f"{path}: holds something else than results; choose another folder")
        lock_file = open(path / ".lock", "w")  # noqa: SIM115 (open while the lock is held)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    with lock_file:
        lock(lock_file, path)
        yield Results(path)


class TaskAnswers:
    """Answers of one kit to one task, to look up and to add to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = folder / ANSWERS, folder / SECONDS
        answers = read_lines(AnswerRecord, self._paths[0], cut=True)
        times = read_lines(Times, self._paths[1], cut=True)
        # The time is written first, but a disk that failed may have kept either.
        both = min(len(answers), len(times))
        for path, count in zip(self._paths, (len(answers), len(times)), strict=True):
            if count > both:
                _truncate(path, both)
        self.answers = {answer.question_id: answer for answer in answers[:both]}

    def add(self, answer: AnswerRecord, times: Times) -> None:
        """Append one more answer to both files."""
        for path, record in ((self._paths[1], times), (self._paths[0], answer)):
            with open(path, "a", encoding="utf-8", newline="\n") as f:
                text = json.dumps(as_json(record), ensure_ascii=False, allow_nan=False)
                f.write(text + "\n")
        self.answers[answer.question_id] = answer


# --- reading ----------------------------------------------------------------------------------


def read_lines(cls: type[T], path: Path, cut: bool = False) -> list[T]:
    """The complete lines of a file; `cut` removes the fragment that a killed process left.

    BenchError names a damaged line.
    """
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if cut and len(whole) < len(raw):
        os.truncate(path, len(whole))
    lines = []
    for number, text in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            lines.append(from_json(cls, json.loads(text)))
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path}: line {number} is no answer ({error!r}); choose another folder"
            ) from error
    return lines


def _truncate(path: Path, lines: int) -> None:
    """Keep the first lines of a file."""
    first = path.read_bytes().split(b"\n")[:lines]
    os.truncate(path, sum(len(line) + 1 for line in first))


def _read(cls: type[T], path: Path, advice: str) -> T:
    try:
        return from_json(cls, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); {advice}") from error
    except (KeyError, TypeError) as error:
        raise BenchError(f"{path}: is not understood ({error}); {advice}") from error
