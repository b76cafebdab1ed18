"""Estimate the time left of a page: from the machine profile, then from what was measured on earlier
pages, then from the pace of the stage itself. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulse_edge.machine.profile import Speed

ANSWER_TOKENS = 100
"""Tokens of a long report, for which the time of an answer is estimated."""
STAGES = ("load", "encode", "prefill", "answer", "findings")
"""In the order in which a page passes them."""
OWN_PACE = 0.1
"""Share of a stage after which its own pace counts alone."""


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
        self._stage, self._start, self._first = "", 0.0, 0

    def _total(self, stage: str) -> int:
        totals = {
            "load": 1000,
            "encode": self.tiles,
            "prefill": self.image_tokens,
            "answer": ANSWER_TOKENS * self.questions,
            "findings": self.findings,
        }
        return totals[stage]

    def page(self) -> float | None:
        """Return the seconds of a whole page, without loading; None if they are not known."""
        return self._sum(STAGES[1:])

    def _sum(self, stages: tuple[str, ...]) -> float | None:
        seconds = 0.0
        for stage in stages:
            unit, total = self._unit[stage], self._total(stage)
            if unit is None and total:
                return None
            seconds += (unit or 0.0) * total
        return seconds

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Return the seconds until the page is answered, `done` of `total` units into a stage."""
        if stage not in STAGES:
            return None
        now = self.clock()
        if stage != self._stage or done < self._first:
            self._stage, self._start, self._first = stage, now, done
        progressed = done - self._first
        if stage == "answer":
            total = max(total, done + ANSWER_TOKENS // 10)  # a long answer never ends "in 0 s"
        unit = self._unit[stage]
        if progressed > 0 and (unit is None or progressed >= OWN_PACE * total):
            unit = (now - self._start) / progressed
        after = self._sum(STAGES[STAGES.index(stage) + 1 :])
        if unit is None or after is None:
            return None
        elapsed = 0.0 if progressed else now - self._start  # a stage whose first unit takes long
        return max(0.0, unit * (total - done) - elapsed) + after

    def measured(
        self, seconds: Mapping[str, float], tiles: int, image_tokens: int, tokens: int
    ) -> None:
        """Take over the pace of a finished page: its seconds by stage, as its report has them."""
        self.tiles, self.image_tokens = tiles, image_tokens
        for stage, units in (("encode", tiles), ("prefill", image_tokens), ("answer", tokens)):
            if units > 0 and seconds.get(stage, 0.0) > 0:
                self._unit[stage] = seconds[stage] / units
        self._stage = ""
