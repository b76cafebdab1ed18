"""Make a folder of synthetic pages with questions and answers, in ECGBench's layout.

Every task that a page's recording can answer asks about it. Facts that no task has (findings,
measurements, layout, speed) are in `pages.jsonl`. Page `i` depends on the plan's seed and on `i`
alone, so any number of processes writes the same bytes; those of the PNG files also need the same
OpenCV.
"""

from __future__ import annotations

import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from calibration.files import fresh_folder
from calibration.synthetic.pages import Page, draw
from calibration.synthetic.question import Question
from calibration.synthetic.questions import BENCH, CHAT, TASKS, questions
from calibration.synthetic.real import Packed, open_packed
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import synthesize as synthesize_recording
from calibration.synthetic.style import LAYOUTS, random_style
from pulse_edge.common.worker_pool import Workers
from pulse_edge.errors import UsageError

PAGES = "pages.jsonl"
IMAGES = "images"
ROWS = 24
"""Rows of a parquet row group: a few megabytes, for a reader that takes one at a time."""
PNG_SETTINGS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,
)
"""Twice as fast as Pillow's fastest, and smaller: flat paper needs no filter."""


@dataclass(frozen=True)
class Plan:
    """What to write. UsageError for unknown tasks and layouts."""

    pages: int
    seed: int
    tasks: tuple[str, ...] = BENCH
    signals: Path | None = None  # an .npz of recorded ECGs; None: synthetic ones
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    parquet: bool = False

    def __post_init__(self) -> None:
        for kind, given, choices in (
            ("task", self.tasks, TASKS),
            ("layout", self.layouts, tuple(LAYOUTS)),
        ):
            if unknown := sorted(set(given) - set(choices)):
                raise UsageError(
                    f"unknown {kind} {', '.join(unknown)}; known are {', '.join(choices)}"
                )
            if not given:
                raise UsageError(f"no {kind} is chosen; known are {', '.join(choices)}")
        if self.pages < 1 or self.seed < 0:
            raise UsageError("pages must be at least 1 and the seed at least 0")


@dataclass(frozen=True)
class MadePage:
    """One page as text, and its picture where a parquet file will hold it."""

    name: str  # of the picture, below images/
    facts: Mapping[str, Any]
    samples: tuple[tuple[str, Mapping[str, Any]], ...]  # (task, sample without its picture)
    png: bytes | None


def synthesize(
    target: Path,
    plan: Plan,
    processes: int = 1,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the whole folder or none of it.

    BenchError where `target` exists or cannot be written; RecordingError where the signals cannot
    be read.
    """
    with fresh_folder(target, force, _is_pages) as work:
        (work / IMAGES / _set_name(plan)).mkdir(parents=True)
        begun, shown = time.monotonic(), time.monotonic()
        with ExitStack() as stack:
            files = {task: _open(plan, work, task) for task in sorted(set(plan.tasks))}
            for file in files.values():
                stack.enter_context(file)
            facts = stack.enter_context((work / PAGES).open("w", encoding="utf-8", newline="\n"))
            for count, page in enumerate(_pages(plan, work, processes), 1):
                facts.write(json.dumps(page.facts) + "\n")
                for task, sample in page.samples:
                    files[task].add(sample, page)
                if time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    say(f"{count} of {plan.pages} pages, {count / (shown - begun):.0f} a second")
        if plan.parquet:
            (work / IMAGES / _set_name(plan)).rmdir()
            (work / IMAGES).rmdir()
    say(f"{plan.pages} pages in {time.monotonic() - begun:.1f} s")


_OURS = re.compile(r"[^/]+\.json|images/[^/]+/\d{6,}\.png|[^/]+/test-00000-of-00001\.parquet")


def _is_pages(folder: Path) -> bool:
    """Whether a folder holds synthetic pages and no other file."""
    try:
        with (folder / PAGES).open(encoding="utf-8") as lines:
            first = json.loads(lines.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    files = (
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir()
    )
    choices = all(name == PAGES or _OURS.fullmatch(name) for name in files)
    return choices and isinstance(first, dict) and {"image", "source", "layout"} <= first.keys()


# --- one page ---------------------------------------------------------------------------------


def make(plan: Plan, work: Path, index: int) -> MadePage:
    """Page number `index`; its picture goes to `work` unless a parquet file will hold it."""
    sequence = np.random.SeedSequence((plan.seed, index))
    recording, patient = _recording(plan, sequence, index)
    looks, asks = sequence.spawn(2)
    page = draw(recording, random_style(np.random.default_rng(looks), plan.layouts))
    name = f"{_set_name(plan)}/{index:06d}.png"
    page_questions = questions(recording, np.random.default_rng(asks), plan.tasks)
    png = _png(page)
    if not plan.parquet:
        (work / IMAGES / name).write_bytes(png)
    samples = tuple(
        (q.task, sample(q, f"{q.task}-{index:06d}{_part(page_questions, q)}", name))
        for q in page_questions
    )
    return MadePage(name, page_facts(page, name, patient), samples, png if plan.parquet else None)


def _recording(
    plan: Plan, sequence: np.random.SeedSequence, index: int
) -> tuple[Recording, str | None]:
    """The recording and its patient: a synthetic one, or those of the file in turn."""
    if plan.signals is None:
        return synthesize_recording(np.random.default_rng(sequence)), None
    packed = _signals(plan.signals)
    at = index % len(packed)
    patient = packed.entries[at].get("patient_id")  # PTB-XL's table has it as a float
    return packed[at], None if patient is None else str(patient).removesuffix(".0")


@lru_cache(maxsize=1)
def _signals(path: Path) -> Packed:
    return open_packed(path)


def _set_name(plan: Plan) -> str:
    """The folder of the pictures: where they come from."""
    return plan.signals.stem if plan.signals else "synthetic"


def _part(page_questions: list[Question], question: Question) -> str:
    """The number of a question, for `chat` has several about a page."""
    same = [q for q in page_questions if q.task == question.task]
    return f"-{same.index(question)}" if question.task == CHAT else ""


def sample(question: Question, name: str, image: str) -> dict[str, Any]:
    """A question in the published format: the fields of its task, without the picture itself.

    ECG-QA's values are lists, the arena's conversation is made of turns, and only `<image>` stands
    for the page.
    """
    text, answer = question.turns[0]
    if question.task == "arena":
        conversation: list[dict[str, Any]] = [
            {"question": q, "answer": a} for q, a in question.turns
        ]
    elif question.task == "ecgqa-test":
        conversation = [
            {"from": "human", "value": [text]},
            {"from": "gpt", "value": list(question.labels or ())},
        ]
    else:
        conversation = [
            {"from": "human", "value": f"<image>\n{text}"},
            {"from": "gpt", "value": answer},
        ]
    return {"id": name, "image": image, "conversations": conversation}


def page_facts(page: Page, name: str, patient: str | None) -> dict[str, Any]:
    """Facts of a page beyond its tasks; measurements in bpm, ms, degrees and mV, null where
    unknown.
    """
    recording, style = page.recording, page.style
    return {
        "image": name,
        "source": recording.source,
        "patient": patient,
        "findings": None if recording.findings is None else sorted(recording.findings),
        "sites": dict(recording.sites),
        "labels": asdict(recording.labels),
        "measurements": {k: _rounded(v) for k, v in asdict(recording.measurements).items()},
        "layout": style.layout,
        "speed": style.speed,
        "gain": style.gain,
        "seconds": style.seconds,
        "px_per_mm": style.px_per_mm,
    }


def _rounded(value: Any) -> Any:
    """Three decimals, so that the last bit of a machine's arithmetic does not show."""
    if isinstance(value, tuple):
        return [round(v, 3) for v in value]
    return None if value is None else round(value, 3)


def _png(page: Page) -> bytes:
    done, data = cv2.imencode(".png", page.image[:, :, ::-1], PNG_SETTINGS)
    assert done
    return data.tobytes()


# --- all pages --------------------------------------------------------------------------------


def _pages(plan: Plan, work: Path, processes: int) -> Iterator[MadePage]:
    """The pages by index, made by this process or by several."""
    run = partial(make, plan, work)
    if processes == 1:
        yield from map(run, range(plan.pages))
        return
    indices = iter(range(plan.pages))
    with Workers(processes, _quiet) as workers:
        while block := list(
            islice(indices, 64 * processes)
        ):  # bounded, for results may wait for a slow disk
            yield from workers.map(run, block)


def _quiet() -> None:
    """Let a worker run on one core."""
    cv2.setNumThreads(1)


# --- files ------------------------------------------------------------------------------------


def _open(plan: Plan, work: Path, task: str) -> TaskFile:
    if plan.parquet:
        return Parquet(work / task / "test-00000-of-00001.parquet", task)
    return JsonList(work / f"{task}.json")


class TaskFile(AbstractContextManager["TaskFile"]):
    """Where the samples of one task go."""

    @abstractmethod
    def add(self, sample: Mapping[str, Any], page: MadePage) -> None:
        """The next sample, and the page it is about."""


class JsonList(TaskFile):
    """A JSON list, written item by item, one a line."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="\n")
        self._lead = "[\n"

    def add(self, sample: Mapping[str, Any], page: MadePage) -> None:
        self._file.write(self._lead + json.dumps(sample, ensure_ascii=False))
        self._lead = ",\n"

    def __exit__(self, *_: object) -> None:
        self._file.write("[]\n" if self._lead == "[\n" else "\n]\n")
        self._file.close()


class Parquet(TaskFile):
    """One configuration of the hub: columns id, image_path, image {bytes, path}, conversations."""

    def __init__(self, path: Path, task: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        turn = {"question": pa.string(), "answer": pa.string()}
        if task != "arena":
            turn = {
                "from": pa.string(),
                "value": pa.list_(pa.string()) if task == "ecgqa-test" else pa.string(),
            }
        picture = {"bytes": pa.binary(), "path": pa.string()}
        columns = [("id", pa.string()), ("image_path", pa.string()), ("image", _struct(picture))]
        self._schema = pa.schema([*columns, ("conversations", pa.list_(_struct(turn)))])
        path.parent.mkdir()
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=False)
        self._rows: list[dict[str, Any]] = []

    def add(self, sample: Mapping[str, Any], page: MadePage) -> None:
        row = {
            "id": sample["id"],
            "image_path": sample["image"],
            "conversations": sample["conversations"],
        }
        self._rows.append({**row, "image": {"bytes": page.png, "path": Path(page.name).name}})
        if len(self._rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _struct(fields: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    return pa.struct(list(fields.items()))
