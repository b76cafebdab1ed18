"""A kit on trial on this machine: its golden cases, its speed, and its memory against the plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pulse_edge.diagnostics import benchmark, golden
from pulse_edge.diagnostics.doctor import SAMPLE, WRITTEN, Check, Progress, keep, seconds_of
from pulse_edge.inference import language_model
from pulse_edge.inference.device import threads_for
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu, memory, memory_plan, profile, self_test_results

BUSY = 0.15
"""Share of the processors' time from which on other programs make a comparison of numbers of threads worthless."""
TRIES = 3
FASTER = 0.97
"""More threads are taken only where they need at most this share of the time."""


def trial(opened: Kit, limit: int | None, progress: Progress) -> Iterator[Check]:
    """Load on the CPU, measure, compare, and keep what was found. Raises what loading and encoding raise."""
    _, cases = golden.read(opened)
    names = list(dict.fromkeys(case.page for case in cases)) or ["example_page.png"]
    workload = memory_plan.Workload(pages=len(names))
    with PulseModel.load(
        opened, device="cpu", limit=limit, workload=workload, force=True, progress=progress
    ) as model:
        encoded = {
            golden.page(opened, name): _encode(model, golden.page(opened, name)) for name in names
        }
        providers = model.encoder.providers  # now: it is closed before the language model is loaded
        first = next(iter(encoded.values()))
        threads, busy = fastest(model.language, first), []
        if threads is None:
            threads, check = _unmeasured(profile.recall(opened).speed)
            busy.append(check)
        speed, steps = measure(model, first, threads), _steps(model, first)
        checks = [
            _golden(
                golden.check(
                    model, encoded.__getitem__, lambda done, of: progress("golden", done, of)
                )
            )
        ]
        found = {"providers": providers, "device": model.device}
        planned, peak = model.plan.peak, memory.peak()
    refused = (
        None
        if checks[0].state != "failed"
        else f"pulse-edge doctor refused it here: {checks[0].text}."
    )
    checks += [
        *busy,
        Check("speed", "ok", _told(speed), vars(speed) | found),
        *steps,
        _peak(planned, peak),
    ]
    problems = self_test_results.store(opened, refused) if checks[0].state != "warning" else []
    checks += [
        Check("self-test result", "warning", f"{why}: it does not hold there") for why in problems
    ]
    failed = keep(opened, profile.Kept(speed))
    yield from [*checks, failed] if failed else checks


def _encode(model: PulseModel, page: Path) -> EncodedPage:
    """As the golden cases were made: a page that is known is not refused."""
    return model.encode(page, force=True)


def _figures(outcome: golden.Outcome) -> dict[str, Any]:
    """JSON has no infinity."""
    figures = vars(outcome) | {"passed": outcome.passed}
    return {k: v for k, v in figures.items() if not (isinstance(v, float) and math.isinf(v))}


def _golden(outcomes: list[golden.Outcome]) -> Check:
    figures = {"cases": [_figures(o) for o in outcomes]}
    if not outcomes:
        return Check(
            "golden cases",
            "warning",
            "the kit has none, so its answers were compared with nothing",
            figures,
        )
    failed = [o for o in outcomes if not o.passed]
    worst = max(max(o.first_logits, o.later_logits, o.tokens, o.written) for o in outcomes)
    limit = f"largest difference of a logit {worst:.3g}, tolerance {outcomes[0].tolerance:g}"
    if math.isfinite(outcomes[0].largest_spread):
        limit += (
            f"; of all together {outcomes[0].spread:.3g}, tolerance {outcomes[0].largest_spread:g}"
        )
    if failed:
        return Check(
            "golden cases",
            "failed",
            f"{len(failed)} of {len(outcomes)} did not come back ({limit})",
            figures,
        )
    return Check("golden cases", "ok", f"all {len(outcomes)} came back ({limit})", figures)


def measure(model: PulseModel, encoded: EncodedPage, threads: cpu.Threads) -> profile.Speed:
    """A page as a clinic's, from its tiles to a few tokens, on so many threads."""
    model.language.use_threads(threads.prefill, threads.decode)
    turns, logits = model.turns(prompt.REPORT_QUESTION, ()), []
    reading = seconds_of(lambda: logits.append(model.prefill(encoded, turns)))
    read, language = model.language.position, model.language
    step = [int(logits[0].argmax())] * language.step_width  # guesses that are right come on top
    writing = seconds_of(lambda: [language.feed_tokens(step, every=True) for _ in range(WRITTEN)])
    return profile.Speed(
        load_seconds=model.seconds["load"],
        tile_seconds=encoded.seconds["encode"] / encoded.tiles,
        image_tokens_per_second=read / reading,
        tokens_per_second=WRITTEN / writing,
        prefill_threads=threads.prefill,
        decode_threads=threads.decode,
    )


def _steps(model: PulseModel, encoded: EncodedPage) -> list[Check]:
    """What a step of several tokens costs behind a page; of a kit without a table of guesses, nothing.

    It is only said: other steps could give other answers, and those are the kit's and not the machine's to choose.
    """
    width = model.language.step_width
    if width == 1:
        return []
    cost = benchmark.step(model, encoded, width) / benchmark.step(model, encoded, 1)
    text = f"a step of {width} takes as long as {cost:.2g} single tokens"
    figures = {"width": width, "cost": cost}
    if cost < width:
        return [
            Check(
                "guesses", "ok", f"{text}: they save time where more of a step are right", figures
            )
        ]
    return [
        Check(
            "guesses",
            "warning",
            f"{text}: they cost time here, use the kit without its table",
            figures,
        )
    ]


def _unmeasured(before: profile.Speed | None) -> tuple[cpu.Threads, Check]:
    """Threads for a machine that was too busy to measure: those of an earlier `doctor`, else one for each core."""
    threads = threads_for(before)
    text = f"other programs were using the processors, so numbers of threads were not compared, and {threads} "
    text += "will be used. Run pulse-edge doctor again when the machine is quiet"
    return threads, Check(
        "threads", "warning", text, {"prefill": threads.prefill, "decode": threads.decode}
    )


def fastest(language: language_model.LanguageModel, encoded: EncodedPage) -> cpu.Threads | None:
    """The number of threads that reads rows fastest, and the one that writes tokens fastest.

    None where other programs used the processors meanwhile, TRIES times: then one thread seems as fast as several.
    """
    for _ in range(TRIES):
        others = cpu.Others()
        threads = _compared(language, encoded)
        share = 0.0 if len(cpu.candidates()) == 1 else others.share()
        if share is None or share < BUSY:
            return threads
    return None


def _compared(language: language_model.LanguageModel, encoded: EncodedPage) -> cpu.Threads:
    rows, step = encoded.image_tokens[:SAMPLE], [language.end] * language.step_width
    counts = cpu.candidates()
    if len(counts) == 1:
        return cpu.Threads(counts[0], counts[0])
    reading, writing = dict.fromkeys(counts, math.inf), dict.fromkeys(counts, math.inf)
    for number in (
        *reversed(counts),
        *counts,
    ):  # twice: the first call touches the weights, and others work here too
        language.clear()
        language.use_threads(number, number)
        reading[number] = min(reading[number], seconds_of(lambda: language.feed_embeddings(rows)))
        tokens = seconds_of(lambda: [language.feed_tokens(step, every=True) for _ in range(4)])
        writing[number] = min(writing[number], tokens)
    language.clear()
    return cpu.Threads(best(reading), best(writing))


def best(seconds: dict[int, float]) -> int:
    """The fewest threads of which no more are worth while."""
    chosen, *more = sorted(seconds)
    for number in more:
        if seconds[number] < FASTER * seconds[chosen]:
            chosen = number
    return chosen


def _told(speed: profile.Speed) -> str:
    running = cpu.Threads(speed.prefill_threads, speed.decode_threads)
    return (
        f"{speed.tile_seconds:.3g} s a tile, {speed.image_tokens_per_second:.3g} image tokens/s, "
        f"{speed.tokens_per_second:.3g} tokens/s, {running}, loaded in {speed.load_seconds:.1f} s"
    )


def _peak(planned: int, measured: int) -> Check:
    """Side by side; the plan is at fault where it was exceeded by a tenth."""
    if not measured:
        return Check(
            "peak", "ok", "the system does not tell what a process took", {"planned": planned}
        )
    text = f"planned {memory.shown(planned)}, measured {memory.shown(measured)} ({measured / planned - 1:+.1%})"
    return Check(
        "peak",
        "warning" if measured > 1.1 * planned else "ok",
        text,
        {"planned": planned, "measured": measured},
    )
