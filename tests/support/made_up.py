"""A folder of results without any kit: the answers are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Answers = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def results(folder: Path, answers: Answers, **kit: Any) -> Path:
    """`answers`: kit -> task -> lines, of which each needs `gold` and `text`; the first kit is the reference."""
    folder.mkdir(parents=True)
    run = {
        "reference": next(iter(answers)),
        "bench": str(folder / "bench"),
        "split": None,
        "max_tokens": None,
    }
    (folder / "run.json").write_text(json.dumps(run))
    for n, (name, tasks) in enumerate(answers.items()):
        known = {
            "name": name,
            "id": name,
            "identity": name,
            "demonstration": False,
            "device": "cpu",
            "machine": "m",
        }
        known |= {
            "bytes": {"llm.gguf": 10**7 - 10**6 * n},
            "peak_bytes": 2 << 20,
            "versions": {},
            **kit,
        }
        (folder / name).mkdir()
        for task, lines in tasks.items():
            (folder / name / task).mkdir()
            with (
                open(folder / name / task / "step-final.jsonl", "w") as texts,
                open(folder / name / task / "seconds.jsonl", "w") as seconds,
            ):
                for number, line in enumerate(lines):
                    texts.write(
                        json.dumps(whole(task, number, line) | {"kit": known["identity"]}) + "\n"
                    )
                    time = {
                        "encode": 1.0,
                        "first_token": 2.0,
                        "prefill": 1.5,
                        "answer": 2.0,
                        "tokens": 10,
                        "first": True,
                    }
                    seconds.write(json.dumps({"question_id": f"{task} {number}", **time}) + "\n")
        (folder / name / "kit.json").write_text(json.dumps(known))
    return folder


def whole(task: str, number: int, line: Mapping[str, Any]) -> dict[str, Any]:
    """A line with every field."""
    turn = {
        "tokens": [1],
        "complete": True,
        "gold_tokens": 2,
        "gold_logprob": -1.0,
        **line.get("turn", {}),
    }
    rest = {k: v for k, v in line.items() if k not in ("turn", "gold")}
    base = {
        "question_id": f"{task} {number}",
        "prompt": "Which?",
        "image": f"synthetic/{number}.png",
        "patient": None,
    }
    base |= {
        "gold": [line["gold"]],
        "chosen": [],
        "facts": {"cpsc": None, "rate": None},
        "turns": [turn],
    }
    return {**base, **rest}
