"""Estimate the time left of a page: from the machine profile, then from what the stages of earlier
pages took, then from the pace of the stage itself. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulse_edge.machine.profile import Speed

ANSWER_TOKENS = 100
"""Tokens of a long report: an answer's length until this kit has answered."""
STAGES = ("load", "encode", "prefill", "answer", "findings")
"""In the order in which a page passes them."""
OWN_PACE = 0.1
"""Share of a stage after which its own pace counts alone."""
OWN_SECONDS = 5.0
"""Or these seconds into it, after two units."""
NEWEST_SHARE = 0.5
"""Weight of the newest page in the average length of an answer."""


@dataclass
class Pace:
    """Seconds of a unit of each stage; None where neither profile nor measurement knows them."""

    speed: Speed | None
    tiles: int
    """Tiles of a page, from the kit's geometry until a page is encoded."""
    image_tokens: int
    questions: int = 1
    """Answers of a page."""
    findings: int = 0
    """Questions of the fixed list; 0: not judged."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        speed = self.speed
        self._unit: dict[str, float | None] = dict.fromkeys(STAGES)
        if speed is not None:
            self._unit |= {
                "load": speed.load_seconds / 1000,
                "encode": speed.tile_seconds,
                "prefill": 1 / speed.image_tokens_per_second,
                "answer": 1 / speed.tokens_per_second,
                "findings": 40 / speed.image_tokens_per_second + 1 / speed.tokens_per_second,
            }
        self.answer_tokens: float | None = None
        """Average tokens of the kit's answers here; None: it has not answered yet."""
        self._answers, self._findings = self.questions, self.findings
        self._stage, self._start, self._first = "", 0.0, 0
        self._now, self._done, self._total = 0.0, 0, 0

    def begin(self, *, questions: int, findings: int) -> None:
        """Begin a job that has other questions than an ordinary page."""
        self._end_stage()
        self._answers, self._findings = questions, findings

    def expected_tokens(self) -> int:
        """Return the tokens that the job's answers are expected to have."""
        return round((self.answer_tokens or ANSWER_TOKENS) * self._answers)

    def page(self) -> float | None:
        """Return the seconds of an ordinary page, without loading; None if they are not known."""
        tokens = (self.answer_tokens or ANSWER_TOKENS) * self.questions
        return self._sum(STAGES[1:], tokens, self.findings)

    def _sum(self, stages: Sequence[str], tokens: float, findings: int) -> float | None:
        """Return the seconds of whole stages."""
        totals = {
            "load": 1000,
            "encode": self.tiles,
            "prefill": self.image_tokens,
            "answer": tokens,
            "findings": findings,
        }
        seconds = 0.0
        for stage in stages:
            unit = self._unit[stage]
            if unit is None and totals[stage]:
                return None
            seconds += (unit or 0.0) * totals[stage]
        return seconds

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Return the seconds until the job is answered, `done` of `total` units into a stage."""
        if stage not in STAGES:
            return None
        now = self.clock()
        if stage != self._stage or done < self._done:
            # A stage began when the one before it ended; an answer, with its first token.
            follows = stage != "answer" and self._stage not in ("", stage)
            start, first = (self._now, 0) if follows else (now, done)
            self._end_stage()
            self._stage, self._start, self._first = stage, start, first
        self._now, self._done, self._total = now, done, total
        progressed = done - self._first
        if stage == "answer":
            total = max(total, done + ANSWER_TOKENS // 10)  # a long answer never ends "in 0 s"
        unit = self._unit[stage]
        seconds = now - self._start
        enough = progressed >= OWN_PACE * total or (progressed > 1 and seconds >= OWN_SECONDS)
        if progressed > 0 and (unit is None or enough):
            unit = seconds / progressed
        later = STAGES[STAGES.index(stage) + 1 :]
        after = self._sum(later, self.expected_tokens(), self._findings)
        if unit is None or after is None:
            return None
        elapsed = 0.0 if progressed else seconds  # a stage whose first unit takes long
        return max(0.0, unit * (total - done) - elapsed) + after

    def _end_stage(self) -> None:
        """Learn the pace of a stage if at least half of it was seen."""
        progressed = self._done - self._first
        if self._stage and progressed > 0 and 2 * progressed >= self._total:
            self._unit[self._stage] = (self._now - self._start) / progressed
        self._stage, self._done = "", 0

    def answered(self, tiles: int, image_tokens: int, tokens: Sequence[int]) -> None:
        """Learn from a finished job: its page's geometry, and the tokens of each answer."""
        self._end_stage()
        self.tiles, self.image_tokens = tiles, image_tokens
        for count in tokens:
            average = count if self.answer_tokens is None else self.answer_tokens
            self.answer_tokens = average + (count - average) * NEWEST_SHARE
