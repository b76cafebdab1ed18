"""Score the answers of a run, task by task.

Answers are files as PULSE's runner writes them: `TASK/step-final.jsonl`.

Each line has `question_id` (or `id`), `prompt`, and `text` (or `response`); in the arena the text
is a list, one answer a turn. Every right answer of the benchmark counts: one without an answer is
wrong, and so is an answer that cannot be read; both are counted. Reports and the arena get scores
that need no network: diagnoses found in the text, and ROUGE-L.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibration import metrics, published
from calibration.ecgbench import LABELS, LETTERS, Bench, Problem, Sample, labels_in
from calibration.published import Answer
from calibration.splits import Split
from pulse_edge.errors import BenchError

ANSWERS = "step-final.jsonl"
Scores = dict[str, Any]


def score(
    bench: Bench, predictions: Path, scorer: str = "corrected", only: Split | None = None
) -> Scores:
    """Score all tasks that have right answers and given ones.

    `only` restricts them to the test ids of a split. The result names the samples that were left
    out, and why tasks have no scores. BenchError where a file is damaged, an answer belongs to no
    question, or there is nothing to score.
    """
    tasks, silent = {}, {}
    problems: list[Problem] = []
    for task in bench.tasks:
        path = predictions / task / ANSWERS
        if not path.is_file():
            silent[task] = f"{path} is missing"
            continue
        answers = read_answers(path)
        if scorer == "published":
            result = score_published(bench, task, path, answers)
        else:
            samples = list(bench.samples(task, problems.append, pictures=False))
            ids = None if only is None else set(only.test.get(task, ()))
            result = score_task(
                task,
                path,
                [s for s in samples if ids is None or s.id in ids],
                answers,
                problems,
            )
        if isinstance(result, str):
            silent[task] = result
        else:
            tasks[task] = result
    if not tasks:
        reasons = "; ".join(f"{task}: {why}" for task, why in silent.items())
        raise BenchError(
            f"{predictions}: nothing to score ({reasons}); give the folder of TASK/{ANSWERS}"
        )
    return {
        "scorer": scorer,
        "tasks": tasks,
        "not_scored": silent,
        "left_out": [str(problem) for problem in problems],
    }


def read_answers(path: Path) -> list[Answer]:
    """Read a runner's file; BenchError names a line that is not an answer."""
    answers = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read ({error}); run the task again") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            prompt = raw.get("prompt", "")
            prompt = prompt.get("prompt", "") if isinstance(prompt, dict) else prompt
            response = "text" not in raw
            text = raw["response"] if response else raw["text"]
            if not isinstance(text, (str, list)):
                raise ValueError("its text is not a string or a list")
            answers.append(
                Answer(
                    str(raw["question_id"] if "question_id" in raw else raw["id"]),
                    prompt,
                    text,
                    response,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(
                f"{path}: line {number} is no answer ({error!r}); run the task again"
            ) from error
    return answers


def score_published(bench: Bench, task: str, path: Path, answers: Sequence[Answer]) -> Scores | str:
    """The benchmark's own numbers, or why it gives none."""
    if task not in published.TASKS:
        return "the published scorer sends it to a language model on the network"
    try:
        gold = {
            str(raw.get("No", raw["id"])): raw["conversations"][1]["value"]
            for raw, _ in bench.rows(task, False)
        }
    except (KeyError, IndexError, TypeError) as error:
        raise BenchError(
            f"{bench.path}: {task} has a sample without answer ({error!r}); score it corrected"
        ) from error
    if not answers:
        return f"{path} has no answers"
    try:
        result = published.score(task, gold, answers)
        return result if isinstance(result, str) else dict(result)
    except KeyError as error:
        raise BenchError(
            f"{path}: answer {error} belongs to no question of {task}; score it against its own data"
        ) from error


def score_task(
    task: str,
    path: Path,
    samples: Sequence[Sample],
    answers: Sequence[Answer],
    problems: Sequence[Problem],
) -> Scores | str:
    """Corrected scores of one task, over `samples`; of repeated answers the last one counts."""
    if not samples:
        return "has no right answer that can be used"
    by_id = {answer.id: answer for answer in answers}
    labels = {sample.id for sample in samples}
    foreign = by_id.keys() - labels - {problem.id for problem in problems if problem.task == task}
    if not by_id.keys() & labels:
        raise BenchError(
            f"{path}: no answer belongs to a question of {task}; score it against its own data"
        )
    result = _kind(task)(task, samples, by_id)
    return {
        **result,
        "samples": len(samples),
        "missing": len(labels - by_id.keys()),
        "repeated": len(answers) - len(by_id),
        "outside": len(foreign),
    }


ById = Mapping[str, Answer]


def _kind(task: str) -> Callable[[str, Sequence[Sample], ById], Scores]:
    if task in LABELS:
        return _labels
    if task in LETTERS:
        return _letters
    return _options if task == "ecgqa-test" else _prose


def _labels(task: str, samples: Sequence[Sample], answers: ById) -> Scores:
    labels = LABELS[task]
    gold = [labels_in(sample.turns[0][1], labels) for sample in samples]
    given = [metrics.read_labels(_text(answers, sample), labels) for sample in samples]
    return {
        **metrics.label_scores(gold, given, labels),
        "unparsable": _unread(samples, answers, given),
    }


def _letters(task: str, samples: Sequence[Sample], answers: ById) -> Scores:
    given = [metrics.read_letter(_text(answers, sample), LETTERS[task]) for sample in samples]
    gold = [sample.turns[0][1][0] for sample in samples]
    return {
        "accuracy": metrics.accuracy(gold, given),
        "unparsable": _unread(samples, answers, given),
    }


def _options(task: str, samples: Sequence[Sample], answers: ById) -> Scores:
    given = [metrics.read_options(_text(answers, sample), sample.options) for sample in samples]
    gold = [frozenset(option.lower() for option in sample.chosen) for sample in samples]
    return {
        "accuracy": metrics.accuracy(gold, given),
        "unparsable": _unread(samples, answers, given),
    }


def _prose(task: str, samples: Sequence[Sample], answers: ById) -> Scores:
    gold = ["\n".join(answer for _, answer in sample.turns) for sample in samples]
    return {**metrics.prose_scores(gold, [_text(answers, sample) for sample in samples])}


def _text(answers: ById, sample: Sample) -> str:
    """The answer to a sample; empty without one."""
    text = answers[sample.id].text if sample.id in answers else ""
    return "\n".join(str(turn) for turn in text) if isinstance(text, list) else str(text)


def _unread(samples: Sequence[Sample], answers: ById, given: Sequence[object]) -> int:
    """How many answers exist and could not be read."""
    return sum(
        one is None and sample.id in answers for sample, one in zip(samples, given, strict=True)
    )
