"""The folder that an evaluation fills: what was run, and every kit's answers, line by line. In no state is it broken.

    RESULTS/run.json                 the reference kit, the data, the split, the longest answer
    RESULTS/KIT/kit.json             what the kit is, where it ran, what memory it took
    RESULTS/KIT/TASK/step-final.jsonl  an answer a line, as PULSE's runner writes them, with more fields (`answer_line`)
    RESULTS/KIT/TASK/seconds.jsonl   the same lines' times, apart: answers are the same in every run, times are not
    RESULTS/reference/TASK/*.npy     log-probabilities (tokens, vocabulary) float16 of the reference kit on its own answers

Each answer carries the hash of the kit that gave it, so that folders or files that change places are noticed. A line counts when its
end is there; what a killed process left of another one is cut off.
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.files import lock, write_json
from calibration.score import ANSWERS
from pulse_edge.errors import BenchError
from pulse_edge.kit.kit import Kit, encoder_files
from pulse_edge.kit.manifest import Manifest

RUN, KIT, SECONDS, REFERENCE = "run.json", "kit.json", "seconds.jsonl", "reference"
GIVEN_BY = "kit"
"""Field of an answer: the `identity` of its kit."""
RESERVED = frozenset({REFERENCE})
Line = dict[str, Any]


# --- what makes kits the same -----------------------------------------------------------------------------------------


def identity(manifest: Manifest) -> str:
    """sha256 over all that can change an answer; a report that was put into the kit does not."""
    m = dataclasses.asdict(manifest)
    used = {name: m["files"][name] for name in engine_files(manifest)}
    return _digest(
        {"files": used, **{part: m[part] for part in ("language", "vision", "packing", "prompt")}}
    )


def engine_files(manifest: Manifest) -> list[str]:
    """The files that the engines read: language model, encoder with its weights, newline row."""
    others = (manifest.language.file, manifest.packing.newline_file)
    return sorted([*encoder_files(manifest), *filter(None, others)])


def encoding(manifest: Manifest) -> str:
    """sha256 over all that can change a page's image tokens: kits that have it in common share them."""
    m = dataclasses.asdict(manifest)
    used = {
        name: m["files"][name] for name in engine_files(manifest) if name != manifest.language.file
    }
    return _digest({"files": used, "vision": m["vision"], "packing": m["packing"]})


def calibrated_on(manifest: Manifest) -> tuple[Mapping[str, frozenset[str]], str | None]:
    """The ids by task that calibrated a kit, and the hash of them and their pictures: the manifest's `quantization`."""
    made = dataclasses.asdict(manifest).get("quantization") or {}
    return {task: frozenset(some) for task, some in made.get("calibration", {}).items()}, made.get(
        "content"
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """An opened folder; use `writing` to add to it."""

    path: Path

    @property
    def run(self) -> Line:
        """What was run. BenchError where the folder is none of this kind."""
        return _read(self.path / RUN, "make it with `calibration evaluate`")

    @property
    def kits(self) -> list[str]:
        """Names of the kits, the reference first, then by name."""
        first = self.run["reference"]
        names = sorted(p.parent.name for p in self.path.glob(f"*/{KIT}"))
        return [first, *(n for n in names if n != first)]

    def kit(self, name: str) -> Line:
        """What is recorded of a kit. BenchError where the folder was renamed."""
        known = _read(self.path / name / KIT, "evaluate the kit again")
        if known.get("name", name) != name:
            raise BenchError(
                f"{self.path / name}: holds the results of {known['name']}; rename the folder back"
            )
        return known

    def tasks(self, name: str) -> list[str]:
        """Tasks that a kit has answers of."""
        return sorted(p.parent.name for p in self.path.glob(f"{name}/*/{ANSWERS}"))

    def lines(self, name: str, task: str) -> list[Line]:
        """A kit's answers to a task, each with its times under `seconds`. BenchError where another kit gave them."""
        folder, ours = self.path / name / task, self.kit(name).get("identity")
        answers, times = read_lines(folder / ANSWERS), read_lines(folder / SECONDS)
        if strange := next((a for a in answers if a.get(GIVEN_BY, ours) != ours), None):
            raise BenchError(
                f"{folder / ANSWERS}: its answer {strange['question_id']} was given by another kit than {name}'s {KIT} tells of; "
                "files have changed places, put them back or evaluate again"
            )
        return [{**answer, "seconds": time} for answer, time in zip(answers, times, strict=False)]

    def settle(self, settings: Line) -> None:
        """Record what is run; BenchError where the folder holds a run with other settings."""
        path = self.path / RUN
        if not path.exists():
            write_json(path, settings)
            return
        before = self.run
        for key, value in settings.items():
            if before.get(key) != value:
                raise BenchError(
                    f"{path}: was run with {key} {before.get(key)!r}, not {value!r}; choose another folder for the results"
                )

    def settle_kit(self, name: str, kit: Kit) -> Line:
        """Record a kit; BenchError where the folder holds answers of another one under this name."""
        path = self.path / name / KIT
        if path.exists():
            before = self.kit(name)
            if before["identity"] != identity(kit.manifest):
                raise BenchError(
                    f"{path.parent}: holds answers of another kit than {kit.path}; choose another folder"
                )
            return before
        m = kit.manifest
        known = {
            "name": name,
            "id": m.id,
            "identity": identity(m),
            "encoding": encoding(m),
            "demonstration": m.demonstration,
            "language": m.language.type,
            "vision": m.vision.type,
            "bytes": {file: m.files[file].bytes for file in engine_files(m)},
            "source": {key: m.source.get(key) for key in ("name", "revision", "licence")},
        }
        self.note_kit(name, known)
        return known

    def note_kit(self, name: str, known: Line) -> None:
        """Write what is known of a kit."""
        write_json(self.path / name / KIT, known)

    def unbound(self, name: str) -> int:
        """Answers of a kit that do not say which kit gave them, as earlier versions wrote them."""
        return sum(
            GIVEN_BY not in line for task in self.tasks(name) for line in self.lines(name, task)
        )

    def file(self, name: str, task: str) -> TaskLines:
        """A kit's answers to a task, to add to."""
        return TaskLines(self.path / name / task)

    # --- the reference's distributions

    def keep(self, task: str, sample: str, logprobs: NDArray[np.float64]) -> None:
        """Store log-probabilities (tokens, vocabulary) of the reference, as float16: KLD keeps six digits."""
        path = self._distribution(task, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        with open(beside, "wb") as f:
            np.save(f, np.maximum(logprobs, -6e4).astype(np.float16))
        os.replace(beside, path)

    def kept(self, task: str, sample: str) -> NDArray[np.float64]:
        """What was stored, each row summing to one again."""
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
    """The folder, made if need be, for this process alone. BenchError where another one writes to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (
            any(path.iterdir())
            and not (path / RUN).exists()
            and {p.name for p in path.iterdir()} != {".lock"}
        ):
            raise BenchError(f"{path}: holds something else than results; choose another folder")
        held = open(path / ".lock", "w")  # noqa: SIM115 (open as long as it is held)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    with held:
        lock(held, path)
        yield Results(path)


class TaskLines:
    """Answers of one kit to one task: known ids, and a place for more."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = folder / ANSWERS, folder / SECONDS
        lines = [read_lines(path, cut=True) for path in self._paths]
        both = min(map(len, lines))  # the time is written first; a lost disk may have kept either
        for path, some in zip(self._paths, lines, strict=True):
            if len(some) > both:
                _truncate(path, both)
        self.answers: dict[str, Line] = {line["question_id"]: line for line in lines[0][:both]}

    def add(self, answer: Line, seconds: Line) -> None:
        """One more answer, on the disk's way when this returns."""
        for path, line in ((self._paths[1], seconds), (self._paths[0], answer)):
            with open(path, "a", encoding="utf-8", newline="\n") as f:
                f.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self.answers[answer["question_id"]] = answer


# --- reading ----------------------------------------------------------------------------------------------------------


def read_lines(path: Path, cut: bool = False) -> list[Line]:
    """The complete lines; `cut` removes what a killed process left behind them. BenchError names a damaged one."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if cut and len(whole) < len(raw):
        os.truncate(path, len(whole))
    lines = []
    for number, text in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            line["question_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path}: line {number} is no answer ({error!r}); choose another folder"
            ) from error
        lines.append(line)
    return lines


def _truncate(path: Path, lines: int) -> None:
    """Keep the first lines."""
    kept = path.read_bytes().split(b"\n")[:lines]
    os.truncate(path, sum(len(line) + 1 for line in kept))


def _read(path: Path, advice: str) -> Line:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path}: is not understood; {advice}")
    return content
