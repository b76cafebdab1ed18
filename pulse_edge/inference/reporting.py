"""Build the report of a page: notices, answers, findings, checks, and the versions of programs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from pulse_edge.common import times
from pulse_edge.inference import llama_cpp, token_pruning, trace_checks, vision_encoder
from pulse_edge.inference.decoding import Answering
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.measurement.summary import selected
from pulse_edge.page import admission
from pulse_edge.report.contradictions import with_trace
from pulse_edge.report.report import (
    DEMONSTRATION,
    FORCED,
    FORCED_KIT,
    NOT_ALL_READ,
    NOT_PROVEN,
    Contradiction,
    Finding,
    KitSummary,
    Report,
)


def build(
    kit: KitSummary,
    device: str,
    load_seconds: Mapping[str, float],
    encoded: EncodedPage,
    answers: Sequence[Answering],
    judged: Sequence[Finding],
    contradictions: Sequence[Contradiction],
) -> Report:
    """Return the report of one page, with its answers as far as they have come.

    Answers and findings are checked against the measurements of the trace.
    """
    texts = [trace_checks.AnswerText(a.question, a.text, a.prose) for a in answers]
    checks = trace_checks.checks_of(encoded.measured, texts, judged)
    seconds = {**load_seconds, **encoded.seconds}
    for part in ("prefill", "answer"):
        seconds[part] = sum(answer.seconds.get(part, 0.0) for answer in answers)
    moment = times.now("seconds")
    return Report(
        notice="\n".join(notices(kit, encoded)),
        file=encoded.file,
        page_sha256=encoded.page_sha256,
        answers=tuple(answer.so_far() for answer in answers),
        kit=kit,
        device=device,
        versions=versions(),
        seconds={part: round(value, 3) for part, value in seconds.items()},
        image_tokens=len(encoded.image_tokens),
        image_tokens_read=encoded.image_tokens_read,
        quality=None if encoded.checked is None else admission.facts(encoded.checked),
        created=moment.utc,
        created_local=moment.local,
        findings=tuple(judged),
        contradictions=(*with_trace(checks), *contradictions),
        measurements=selected(encoded.measured.measurements) if encoded.measured else (),
        checks=checks,
    )


def notices(kit: KitSummary, encoded: EncodedPage) -> list[str]:
    """Return what must be read before any answer about a page."""
    lines = [DEMONSTRATION] if kit.demonstration else []
    lines += [kit.warning] if kit.warning else []
    lines += [FORCED_KIT] if kit.refused else [] if kit.proven else [NOT_PROVEN]
    if encoded.image_tokens_read != token_pruning.ALL:
        lines.append(f"{NOT_ALL_READ} {encoded.image_tokens_read}")
    if encoded.checked is not None and encoded.checked.quality.forced:
        lines.append(FORCED)
    return lines


def versions() -> dict[str, str]:
    """Return the versions of everything that can change an answer."""
    names = ("pulse-edge", "numpy", "pillow", "opencv-python-headless")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "llama-cpp-python": llama_cpp.version(),
        vision_encoder.installed_runtime(): vision_encoder.version(),
    }
