"""A stored reading as it is at this moment: its place in the queue, its progress, the text as far as
it has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pulse_edge.web.model_client import ModelState
from pulse_edge.web.readings import Progress, Reading
from pulse_edge.web.work import LOGGING, Running, Work


@dataclass(frozen=True)
class Moment:
    """What the workers are doing."""

    running: Running | None
    """The job that the model is working on."""
    model: ModelState
    waiting: Sequence[tuple[str, int]]
    """(reading, turn) of everything that waits for the model besides the running job, next first."""
    unchecked: Sequence[str]
    """Readings that wait for the page worker, next first."""
    page_seconds: float | None
    check_seconds: float | None

    @classmethod
    async def of(cls, work: Work) -> Moment:
        """Return the present moment."""
        waiting, unchecked = await work.stored(work.store.queues)
        running = work.running
        busy = None if running is None else running.job[1:3]
        others = [key for key in waiting if key != busy]
        seconds = work.page_seconds, work.check_seconds
        return cls(running, work.model.state, others, unchecked, *seconds)

    def reading(self, stored: Reading) -> Reading:
        """Return a reading with its place, progress and text."""
        running = self.running
        if running is not None and running.job.reading == stored.id:
            return self._with_running(stored, running)
        if stored.state == "checking":
            return self._checking(stored)
        if stored.state == "waiting" and (stored.id, 0) not in self.waiting:
            # answered, and on its way into the audit log
            progress = Progress(LOGGING, 0, 1, None)
            return dataclasses.replace(stored, state="reading", progress=progress)
        places = [n for n, (reading, _turn) in enumerate(self.waiting) if reading == stored.id]
        if not places or stored.settled:
            return stored
        return dataclasses.replace(stored, place=places[0] + 1, progress=self._wait(places[0]))

    def _with_running(self, stored: Reading, running: Running) -> Reading:
        number, text, progress = running.job.turn, running.text, running.progress
        if not number:
            notices = running.notices
            return dataclasses.replace(
                stored, state="reading", text=text, notices=notices, progress=progress
            )
        turns = tuple(
            dataclasses.replace(turn, state="running", text=text) if turn.number == number else turn
            for turn in stored.turns
        )
        return dataclasses.replace(stored, turns=turns, progress=progress)

    def _checking(self, stored: Reading) -> Reading:
        before = self.unchecked.index(stored.id) if stored.id in self.unchecked else 0
        each = self.check_seconds
        seconds = None if each is None else (before + 1) * each
        progress = Progress("check", 0, before + 1, seconds)
        return dataclasses.replace(stored, place=before + 1, progress=progress)

    def _wait(self, before: int) -> Progress:
        """Return the progress of a page with `before` others in front of it, besides the running
        one."""
        each, total = self.page_seconds, before + (self.running is not None)
        begun = self._begun_seconds()
        seconds = None if each is None or begun is None else begun + (before + 1) * each
        loading = self.model.progress
        if self.model.state == "loading" and loading is not None:
            return Progress(loading["stage"], loading["done"], loading["total"], seconds)
        return Progress("wait", 0, total, seconds)

    def _begun_seconds(self) -> float | None:
        """Return the seconds that the model still needs for what it has begun."""
        if self.running is not None:
            return self.running.progress.seconds_left if self.running.progress else None
        if self.model.state == "ready":
            return 0.0
        return (self.model.progress or {}).get("load_seconds_left")
