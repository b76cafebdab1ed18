"""Measure how long each stage takes on this machine for a loaded kit and a page, and the peak
memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.inference.reporting import versions
from pulse_edge.kit import prompt
from pulse_edge.machine import memory
from pulse_edge.page import reader

SECOND_QUESTION = "Is the rhythm regular?"
STEPS = 16
"""Verification steps that are timed for each width."""


def measure(model: PulseModel, page: reader.Page, *, runs: int, tokens: int) -> dict[str, Any]:
    """Return seconds by stage (median, least and most of `runs`), and the speeds that follow from
    them.

    `tokens` is the limit of an answer. The page is judged, and answered whatever the verdict. No
    run uses a cache.
    """
    measured: dict[str, list[float]] = {}
    for _ in range(runs):
        for stage, seconds in _once(model, page, tokens).items():
            measured.setdefault(stage, []).append(seconds)
    answer = {k: _summary(measured.pop(k)) for k in ("tokens", "steps")}
    stages = {stage: _summary(values) for stage, values in measured.items()}
    middle = {stage: summary["median"] for stage, summary in stages.items()}
    encoded = model.encode(page, admit=False)
    step_cost = middle["step"] / middle["step_of_one"]
    tokens_a_step = answer["tokens"]["median"] / answer["steps"]["median"]
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
        "answer": answer,
        "step_width": model.language.step_width,
        "step_cost": round(step_cost, 3),
        "tokens_a_step": round(tokens_a_step, 3),
        "against_single_tokens": round(tokens_a_step / step_cost, 3),
        "peak_memory_bytes": memory.peak(),
    }


def _once(model: PulseModel, page: reader.Page, tokens: int) -> dict[str, float]:
    """Seconds of each stage, starting with an empty context."""
    encoded = model.encode(page, force=True)
    seconds = {"check": encoded.seconds["check"], "encode": encoded.seconds["encode"]}
    model.language.clear()
    model.forget_drafts()
    before = model.language.steps
    first = model.ask(encoded, prompt.REPORT_QUESTION, tokens)
    first.answer()
    seconds |= {"prefill": first.seconds["prefill"], "answer": first.seconds["answer"]}
    seconds |= {
        "tokens": float(first.tokens),
        "steps": float(max(1, model.language.steps - before)),
    }
    second = model.ask(encoded, SECOND_QUESTION, 1)
    second.answer()
    seconds["second_question"] = second.seconds["prefill"]
    seconds["step"] = step(model, encoded, model.language.step_width)
    seconds["step_of_one"] = step(model, encoded, 1)
    return seconds


def step(model: PulseModel, encoded: EncodedPage, width: int) -> float:
    """Return the seconds of a verification step of `width` tokens that accepts one of them."""
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


def table(results: dict[str, Any]) -> str:
    """Return the results of `measure` as a table for people."""
    lines = [
        f"{results['kit']}, {results['device']}, {results['image_tokens']} image tokens, "
        f"{results['runs']} runs",
        "",
    ]
    lines += [
        f"{'seconds':<18}{'median':>10}{'least':>10}{'most':>10}",
        f"{'load':<18}{results['load_seconds']:>10.3f}",
    ]
    for stage, s in results["seconds"].items():
        if stage == "step_of_one" and results["step_width"] == 1:
            continue  # the same as a step, measured twice
        lines.append(
            f"{stage.replace('_', ' '):<18}{s['median']:>10.4f}{s['least']:>10.4f}"
            f"{s['most']:>10.4f}"
        )
    lines += [
        "",
        f"{results['image_tokens_per_second']:g} image tokens a second; "
        f"{results['answer']['tokens']['median']:.0f} tokens in "
        f"{results['answer']['steps']['median']:.0f} steps of {results['step_width']}",
    ]
    if results["step_width"] > 1:
        lines.append(
            f"a step costs {results['step_cost']:g} x a single token and gives "
            f"{results['tokens_a_step']:g}: "
            f"{results['against_single_tokens']:g} x the speed of single tokens"
        )
    lines.append(f"peak memory {results['peak_memory_bytes'] / memory.MIB:,.0f} MiB")
    return "\n".join(lines) + "\n"
