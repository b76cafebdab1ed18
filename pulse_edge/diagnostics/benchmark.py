"""A loaded kit and a page -> how long each stage takes on this machine, and how much memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pulse_edge.inference.model import PulseModel, versions
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit import prompt
from pulse_edge.machine import memory
from pulse_edge.page import reader

SECOND_QUESTION = "Is the rhythm regular?"
STEPS = 16
"""Steps of an answer that are timed for each width."""


def measure(model: PulseModel, page: reader.Page, *, runs: int, tokens: int) -> dict[str, Any]:
    """Seconds by stage (median, least and most of `runs`), and what follows from them.

    `tokens` is the longest answer. The page is judged, and answered whatever the verdict. Nothing is cached between runs.
    """
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for stage, seconds in _once(model, page, tokens).items():
            found.setdefault(stage, []).append(seconds)
    said = {k: _summary(found.pop(k)) for k in ("tokens", "steps")}
    stages = {stage: _summary(values) for stage, values in found.items()}
    middle = {stage: summary["median"] for stage, summary in stages.items()}
    encoded = model.encode(page, admit=False)
    step_cost = middle["step"] / middle["step_of_one"]
    tokens_a_step = said["tokens"]["median"] / said["steps"]["median"]
    return {
        "kit": model.kit.manifest.id,
        "kit_sha256": model.kit.sha256,
        "device": model.device,
        "versions": versions(),
        "runs": runs,
        "image_tokens": len(encoded.image_tokens),
        "load_seconds": round(model.seconds["load"], 4),
        "seconds": stages,
        "image_tokens_per_second": round(len(encoded.image_tokens) / middle["prefill"], 2),
        "answer": said,
        "step_width": model.language.step_width,
        "step_cost": round(step_cost, 3),
        "tokens_a_step": round(tokens_a_step, 3),
        "against_single_tokens": round(tokens_a_step / step_cost, 3),
        "peak_memory_bytes": memory.peak(),
    }


def _once(model: PulseModel, page: reader.Page, tokens: int) -> dict[str, float]:
    """Seconds of each stage, beginning with nothing in the context."""
    encoded = model.encode(page, force=True)
    took = {"check": encoded.seconds["check"], "encode": encoded.seconds["encode"]}
    model.language.clear()
    model.forget_drafts()
    before = model.language.steps
    first = model.ask(encoded, prompt.REPORT_QUESTION, tokens)
    first.answer()
    took |= {"prefill": first.seconds["prefill"], "answer": first.seconds["answer"]}
    took |= {"tokens": float(first.tokens), "steps": float(max(1, model.language.steps - before))}
    second = model.ask(encoded, SECOND_QUESTION, 1)
    second.answer()
    took["second_question"] = second.seconds["prefill"]
    took["step"] = step(model, encoded, model.language.step_width)
    took["step_of_one"] = step(model, encoded, 1)
    return took


def step(model: PulseModel, encoded: EncodedPage, width: int) -> float:
    """Seconds of a step of `width` tokens of which one is kept."""
    language = model.language
    logits = model.prefill(encoded, model.turns(SECOND_QUESTION, ()))
    token, start = int(logits.argmax()), time.perf_counter()
    for _ in range(STEPS):
        language.feed_tokens([token] * width, every=True)
        language.rewind(width - 1)
    return (time.perf_counter() - start) / STEPS


def _summary(values: list[float]) -> dict[str, float]:
    ways: tuple[tuple[str, Callable[[list[float]], float]], ...]
    ways = (("median", statistics.median), ("least", min), ("most", max))
    return {name: round(way(values), 6) for name, way in ways}


def table(told: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{told['kit']}, {told['device']}, {told['image_tokens']} image tokens, {told['runs']} runs",
        "",
    ]
    lines += [
        f"{'seconds':<18}{'median':>10}{'least':>10}{'most':>10}",
        f"{'load':<18}{told['load_seconds']:>10.3f}",
    ]
    for stage, s in told["seconds"].items():
        if stage == "step_of_one" and told["step_width"] == 1:
            continue  # the same as a step, measured twice
        lines.append(
            f"{stage.replace('_', ' '):<18}{s['median']:>10.4f}{s['least']:>10.4f}{s['most']:>10.4f}"
        )
    lines += [
        "",
        f"{told['image_tokens_per_second']:g} image tokens a second; {told['answer']['tokens']['median']:.0f} tokens in "
        f"{told['answer']['steps']['median']:.0f} steps of {told['step_width']}",
    ]
    if told["step_width"] > 1:
        lines.append(
            f"a step costs {told['step_cost']:g} x a single token and gives {told['tokens_a_step']:g}: "
            f"{told['against_single_tokens']:g} x the speed of single tokens"
        )
    lines.append(f"peak memory {told['peak_memory_bytes'] / memory.MIB:,.0f} MiB")
    return "\n".join(lines) + "\n"
