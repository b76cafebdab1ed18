"""A kit's self-test on this machine: its golden cases, its speed, and its memory against the
plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pulse_edge.diagnostics import benchmark, golden
from pulse_edge.diagnostics.checks import Check, Progress
from pulse_edge.inference.device import threads_for
from pulse_edge.inference.language_model import LanguageModel
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu, memory, memory_plan, profile, self_test_results

SAMPLE_IMAGE_TOKENS = 64
"""Image tokens that are prefilled to compare numbers of threads."""
SAMPLE_TOKENS = 8
"""Tokens that are decoded to measure the speed."""
BUSY = 0.15
"""Share of the processors' time from which on other programs make a comparison of numbers of
threads worthless."""
TRIES = 3
FASTER = 0.97
"""More threads are taken only where they need at most this share of the time."""


def self_test(opened: Kit, limit: int | None, progress: Progress) -> Iterator[Check]:
    """Load on the CPU, measure, compare, and store the results. Raises what loading and encoding
    raise."""
    _, cases = golden.read(opened)
    names = list(dict.fromkeys(case.page for case in cases)) or ["example_page.png"]
    workload = memory_plan.Workload(pages=len(names))
    with PulseModel.load(
        opened, device="cpu", limit=limit, workload=workload, force=True, progress=progress
    ) as model:
        pages = [golden.page(opened, name) for name in names]
        encoded = {page: _encode(model, page) for page in pages}
        providers = model.encoder.providers  # before the encoder is closed for the language model
        first = encoded[pages[0]]
        threads, busy = fastest(model.language, first), []
        if threads is None:
            threads, check = _unmeasured(profile.recall(opened).speed)
            busy.append(check)
        speed, draft_check = measure(model, first, threads), _verification_step(model, first)
        outcomes = golden.check(
            model, encoded.__getitem__, lambda done, total: progress("golden", done, total)
        )
        engines = {"providers": providers, "device": model.device}
        planned, peak = model.plan.peak, memory.peak()
    verdict = golden_check(outcomes)
    speed_check = Check("speed", "ok", _text(speed), vars(speed) | engines)
    problems = _store(opened, verdict, speed)  # before any check is shown: that can be interrupted
    yield from (verdict, *busy, speed_check, *draft_check, _peak(planned, peak), *problems)


def _store(opened: Kit, verdict: Check, speed: profile.Speed) -> list[Check]:
    """Store the result and the machine profile; return warnings where that failed."""
    problems = []
    if verdict.state != "warning":
        failed = verdict.state == "failed"
        refused = f"pulse-edge doctor refused it here: {verdict.text}." if failed else None
        problems = [
            Check("self-test result", "warning", f"{reason}: it does not hold there")
            for reason in self_test_results.store(opened, refused)
        ]
    if (reason := profile.store(opened, profile.MachineProfile(speed))) is not None:
        problems.append(Check("machine profile", "warning", f"{reason}: it is not stored"))
    return problems


def _encode(model: PulseModel, page: Path) -> EncodedPage:
    """Encode a page as the golden cases were made: a known page is not refused."""
    return model.encode(page, force=True)


def _figures(outcome: golden.Outcome) -> dict[str, Any]:
    """An outcome for JSON, which has no infinity."""
    figures = vars(outcome) | {"passed": outcome.passed}
    return {k: v for k, v in figures.items() if not (isinstance(v, float) and math.isinf(v))}


def golden_check(outcomes: list[golden.Outcome]) -> Check:
    """Return the check of a kit's golden cases."""
    figures = {"cases": [_figures(outcome) for outcome in outcomes]}
    if not outcomes:
        text = "the kit has none, so its answers were compared with nothing"
        return Check("golden cases", "warning", text, figures)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    worst = max(max(o.first_logits, o.later_logits, o.tokens, o.decoded) for o in outcomes)
    first = outcomes[0]
    limit = f"largest difference of a logit {worst:.3g}, tolerance {first.tolerance:g}"
    if math.isfinite(first.rms_tolerance):
        limit += f"; root mean square {first.rms:.3g}, tolerance {first.rms_tolerance:g}"
    if failed:
        text = f"{len(failed)} of {len(outcomes)} did not come back ({limit})"
        return Check("golden cases", "failed", text, figures)
    return Check("golden cases", "ok", f"all {len(outcomes)} came back ({limit})", figures)


# --- speed ----------------------------------------------------------------------------------------


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(model: PulseModel, encoded: EncodedPage, threads: cpu.Threads) -> profile.Speed:
    """Measure a clinic's page, from its tiles to a few tokens, with these threads."""
    language = model.language
    language.use_threads(threads.prefill, threads.decode)
    turns, logits = model.turns(prompt.REPORT_QUESTION, ()), []
    prefill = seconds_of(lambda: logits.append(model.prefill(encoded, turns)))
    position = language.position
    # Draft tokens that are right come on top of this speed.
    step = [int(logits[0].argmax())] * language.step_width
    decode = seconds_of(
        lambda: [language.feed_tokens(step, every=True) for _ in range(SAMPLE_TOKENS)]
    )
    return profile.Speed(
        load_seconds=model.seconds["load"],
        tile_seconds=encoded.seconds["encode"] / encoded.tiles,
        image_tokens_per_second=position / prefill,
        tokens_per_second=SAMPLE_TOKENS / decode,
        prefill_threads=threads.prefill,
        decode_threads=threads.decode,
    )


def _verification_step(model: PulseModel, encoded: EncodedPage) -> list[Check]:
    """Compare a verification step behind a page with single tokens; no check for a kit without a
    draft table.

    The check only informs: another step width could give other answers, and the width belongs to
    the kit.
    """
    width = model.language.step_width
    if width == 1:
        return []
    cost = benchmark.step(model, encoded, width) / benchmark.step(model, encoded, 1)
    text = f"a verification step of {width} tokens takes as long as {cost:.2g} single tokens"
    figures = {"width": width, "cost": cost}
    if cost < width:
        text += ": draft tokens save time where more of a step are right"
        return [Check("draft tokens", "ok", text, figures)]
    text += ": draft tokens cost time here, use the kit without its draft table"
    return [Check("draft tokens", "warning", text, figures)]


def _unmeasured(before: profile.Speed | None) -> tuple[cpu.Threads, Check]:
    """Threads for a machine that was too busy to measure: those of an earlier `doctor`, else one
    for each core."""
    threads = threads_for(before)
    text = (
        "other programs were using the processors, so numbers of threads were not compared, and "
        f"{threads} will be used. Run pulse-edge doctor again when the machine is quiet"
    )
    figures = {"prefill": threads.prefill, "decode": threads.decode}
    return threads, Check("threads", "warning", text, figures)


def fastest(language: LanguageModel, encoded: EncodedPage) -> cpu.Threads | None:
    """Return the number of threads that prefills fastest, and the one that decodes fastest.

    None where other programs used the processors meanwhile, TRIES times: then one thread seems as
    fast as several.
    """
    for _ in range(TRIES):
        others = cpu.Others()
        threads = _compare_threads(language, encoded)
        share = 0.0 if len(cpu.candidates()) == 1 else others.share()
        if share is None or share < BUSY:
            return threads
    return None


def _compare_threads(language: LanguageModel, encoded: EncodedPage) -> cpu.Threads:
    sample = encoded.image_tokens[:SAMPLE_IMAGE_TOKENS]
    step = [language.end] * language.step_width
    counts = cpu.candidates()
    if len(counts) == 1:
        return cpu.Threads(counts[0], counts[0])
    prefill, decode = dict.fromkeys(counts, math.inf), dict.fromkeys(counts, math.inf)
    # Twice: the first call touches the weights, and other programs work here too.
    for number in (*reversed(counts), *counts):
        language.clear()
        language.use_threads(number, number)
        prefill[number] = min(prefill[number], seconds_of(lambda: language.feed_embeddings(sample)))
        steps = seconds_of(lambda: [language.feed_tokens(step, every=True) for _ in range(4)])
        decode[number] = min(decode[number], steps)
    language.clear()
    return cpu.Threads(best(prefill), best(decode))


def best(seconds: dict[int, float]) -> int:
    """Return the smallest number of threads that more threads do not beat by enough."""
    chosen, *more = sorted(seconds)
    for number in more:
        if seconds[number] < FASTER * seconds[chosen]:
            chosen = number
    return chosen


def _text(speed: profile.Speed) -> str:
    threads = cpu.Threads(speed.prefill_threads, speed.decode_threads)
    return (
        f"{speed.tile_seconds:.3g} s a tile, {speed.image_tokens_per_second:.3g} image tokens/s, "
        f"{speed.tokens_per_second:.3g} tokens/s, {threads}, loaded in {speed.load_seconds:.1f} s"
    )


def _peak(planned: int, measured: int) -> Check:
    """Compare the memory plan with the measured peak; a warning where it was exceeded by a
    tenth."""
    if not measured:
        text = "the system does not tell what a process took"
        return Check("peak", "ok", text, {"planned": planned})
    text = (
        f"planned {memory.shown(planned)}, measured {memory.shown(measured)} "
        f"({measured / planned - 1:+.1%})"
    )
    figures = {"planned": planned, "measured": measured}
    return Check("peak", "warning" if measured > 1.1 * planned else "ok", text, figures)
