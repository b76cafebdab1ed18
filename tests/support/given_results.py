"""Folders of results with given answers, made without running a kit, and answer records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.records import as_json, from_json
from calibration.results import AnswerRecord, KitRecord, RunSettings, Times

CHOICE_TASK = "csn-test-no-cot"
Answers = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def results(folder: Path, answers: Answers, **kit: Any) -> Path:
    """Write a folder of results; the first kit is the reference.

    `answers`: kit -> task -> lines; each line needs `gold` and `text`. `kit` sets fields of all
    kits.
    """
    folder.mkdir(parents=True)
    run = RunSettings(next(iter(answers)), str(folder / "bench"), None, None)
    (folder / "run.json").write_text(json.dumps(as_json(run)))
    for n, (name, tasks) in enumerate(answers.items()):
        record = kit_record(name, 10**7 - 10**6 * n, **kit)
        (folder / name).mkdir()
        (folder / name / "kit.json").write_text(json.dumps(as_json(record)))
        for task, lines in tasks.items():
            (folder / name / task).mkdir()
            records = [
                replace(answer(task, number, line), kit=record.identity)
                for number, line in enumerate(lines)
            ]
            times = [
                Times(
                    question_id=one.question_id,
                    encode=1.0,
                    first_token=2.0,
                    prefill=1.5,
                    answer=2.0,
                    tokens=10,
                    first=True,
                )
                for one in records
            ]
            _write(folder / name / task / "step-final.jsonl", records)
            _write(folder / name / task / "seconds.jsonl", times)
    return folder


def choices(letters: str) -> list[dict[str, Any]]:
    """Lines that answer questions of CHOICE_TASK whose right answer is A."""
    return [{"gold": "A. one", "text": letter} for letter in letters]


def two_kits(folder: Path, reference: str, other: str, **turn: Any) -> Path:
    """Results of the kits f16 and q4, which answered CHOICE_TASK with these letters.

    `turn` sets fields of every turn of q4.
    """
    lines = [line | {"turn": turn} for line in choices(other)]
    answers = {"f16": {CHOICE_TASK: choices(reference)}, "q4": {CHOICE_TASK: lines}}
    return results(folder / "results", answers)


def kit_record(name: str, size: int, **fields: Any) -> KitRecord:
    """The record of a kit whose only file has `size` bytes."""
    record = KitRecord(
        device="cpu",
        machine="m",
        name=name,
        id=name,
        identity=name,
        encoding="e",
        demonstration=False,
        language="Q4_0",
        vision="fp16",
        bytes={"llm.gguf": size},
        source={},
        memory_measured=True,
        peak_bytes=2 << 20,
    )
    return replace(record, **fields)


def answer(task: str, number: int, line: Mapping[str, Any]) -> AnswerRecord:
    """A record with every field; `line` has `gold`, and whatever else differs from the default."""
    turn = {
        "tokens": [1],
        "complete": True,
        "gold_tokens": 2,
        "gold_logprob": -1.0,
        **line.get("turn", {}),
    }
    record = {
        "question_id": f"{task} {number}",
        "prompt": "Which?",
        "image": f"synthetic/{number}.png",
        "patient": None,
        "gold": [line["gold"]],
        "chosen": [],
        "facts": {"cpsc": None, "rate": None},
        "turns": [turn],
    }
    return from_json(
        AnswerRecord, record | {k: v for k, v in line.items() if k not in ("turn", "gold")}
    )


def _write(path: Path, records: Sequence[AnswerRecord] | Sequence[Times]) -> None:
    path.write_text("".join(json.dumps(as_json(one)) + "\n" for one in records))
