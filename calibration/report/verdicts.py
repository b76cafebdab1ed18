"""The report in sentences: one paragraph a kit, and the limits of the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.figures import Comparison, GateResult, KitFigures
from calibration.findings.file import FindingsFile
from calibration.report.numbers import megabytes, percent, points_ranged, short
from calibration.results import Results

FEW = 30
"""Pages of a diagnosis below which its figures are called uncertain."""
MANY = 2000
"""Questions of a task from which on its uncertainty is not mentioned."""


def verdict(
    comparison: Comparison, name: str, recipe: str | None, gates: Sequence[GateResult] | None
) -> str:
    """One paragraph about a kit; `gates` are its results, None where none were asked for."""
    kit, size = comparison.kits[name], f"{megabytes(comparison.kits[name])} MB"
    if name == comparison.reference:
        score = percent(kit.score)
        return f"The reference: {size}, mean score {score} over {kit.questions} questions."
    parts = [*_losses(kit, comparison.reference)]
    parts.append(
        f"{kit.lost} answers turned from right to wrong, {kit.gained} from wrong to right, "
        f"of {kit.questions}."
    )
    if kit.kld is not None and kit.same_top is not None:
        parts.append(
            f"Mean KLD {short(kit.kld.mean.value)}, {percent(kit.same_top)} % same top token."
        )
    if gates is not None:
        failed = [result.gate for result in gates if not result.passed]
        outcome = f"not passed: {', '.join(failed)}" if failed else "all passed"
        parts.append(f"Gates of {recipe}: {outcome}.")
    return f"{size}. " + " ".join(parts)


def _losses(kit: KitFigures, reference: str) -> Iterator[str]:
    losses = [name for name, task in kit.tasks.items() if task.difference.below_zero]
    worse = (
        f"Worse by more than chance in {', '.join(losses)}."
        if losses
        else "No task is worse by more than chance."
    )
    yield f"{worse} Mean score {points_ranged(kit.score.difference)} against {reference}."
    less_sensitive = [
        f"{diagnosis} ({name})"
        for name, task in kit.tasks.items()
        for diagnosis, figures in task.diagnoses.items()
        if figures.sensitivity.difference and figures.sensitivity.difference.below_zero
    ]
    if less_sensitive:
        yield f"Less sensitive by more than chance to {', '.join(less_sensitive)}."


def limits(
    results: Results, comparison: Comparison, findings: Iterator[str] | Sequence[str]
) -> Iterator[str]:
    """What the figures do not show, a sentence each; `findings` are the section's own sentences."""
    yield from comparison.incomplete
    for name in comparison.kits:
        if count := results.unbound(name):
            yield (
                f"{name}: {count} answers do not say which kit gave them; "
                "exchanged files would not be noticed."
            )
    tasks = comparison.reference_kit.tasks
    for name, task in tasks.items():
        if task.questions < MANY:
            points = 196 * math.sqrt(0.25 / task.questions)
            yield f"{name}: {task.questions} questions carry ±{points:.0f} points at worst."
    for name, task in tasks.items():
        if few := [name for name, d in task.diagnoses.items() if d.pages < FEW]:
            yield f"{name}: the figures of {', '.join(few)} rest on fewer than {FEW} pages each."
    if any(task.primary == "diagnosis_f1" for task in tasks.values()):
        yield (
            "Reports and conversations are scored by the diagnoses that their words name, the rate, "
            "and ROUGE-L; no person and no judge model has read them, and words that the list does "
            "not have are not seen."
        )
    yield from findings
    yield from _answer_limits(comparison)
    scores = [
        score
        for kit in comparison.kits.values()
        for task in kit.tasks.values()
        for score in task.scores.values()
    ]
    if count := sum(score.difference is not None for score in scores):
        yield (
            f"{count} differences of scores are shown with 95 % intervals: "
            "about one in twenty lies outside zero by chance."
        )
    machines = sorted({str(kit.machine) for kit in comparison.kits.values()})
    yield (
        f"Seconds and memory were measured on {'; '.join(machines)}, with whatever else ran there."
    )
    yield from _left_out(results.path / "left_out.json")


def _left_out(path: Path) -> Iterator[str]:
    if path.exists() and (entries := json.loads(path.read_text(encoding="utf-8"))):
        yield f"{len(entries)} questions of the data could not be used, the first being {entries[0]}."


def _answer_limits(comparison: Comparison) -> Iterator[str]:
    """For each kit: refused, unfinished and unreadable answers, and what was not measured."""
    for name, kit in comparison.kits.items():
        tasks = kit.tasks.values()
        if kit.demonstration:
            yield f"{name}: a demonstration kit, not for patients."
        for count, words in (
            (sum(task.refused for task in tasks), "were refused, and count as wrong"),
            (sum(task.cut_off for task in tasks), "were cut off at the longest length"),
            (
                sum(task.unread for task in tasks),
                "name nothing that the scorer looks for, and count as wrong where something should "
                "be named",
            ),
        ):
            if count:
                yield f"{name}: {count} of {kit.questions} answers {words}."
        if kit.peak_bytes is None:
            yield f"{name}: its peak memory could not be measured."


def findings_limits(files: dict[str, FindingsFile]) -> Iterator[str]:
    """What the section about findings does not show, by `KIT on DATA`."""
    for name, file in files.items():
        statements = file.statements.values()
        if one_kind := [s.name for s in statements if not s.measured]:
            yield f"{name}: the test pages do not hold both kinds for {', '.join(one_kind)}."
        if never := [
            f"{s.name} ({s.calibration.reason})" for s in statements if s.calibration.reason
        ]:
            yield f"{name}: gives no verdict on {', '.join(never)}."
        if file.fitted_on is None:
            yield (
                f"{name}: findings were calibrated on pages like these; "
                "probabilities of other pages may be off."
            )
