"""Evaluate on a Ray cluster: workers, each with one kit in memory, answer pages.

Only the process that started the run writes, in the order in which it would have answered alone, so
the results are the same byte for byte on workers whose processors have the same instruction sets. A
worker that is lost is started again, and Ray gives it its pages once more. The checkout and the
kits lie at the same place on every machine. This is the only module that imports Ray.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from calibration.answering import Answered, Answerer, Job, Runtime, Settings
from pulse_edge.errors import UsageError
from pulse_edge.inference.device import default_threads

ROOT = Path(__file__).resolve().parent.parent
LOCAL = "local"
"""The address of a cluster that this run starts on this machine."""
AHEAD = 2
"""Pages queued at each worker, so that it never waits for the next one."""


class Worker:
    """A process of the cluster, with at most one kit in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: tuple[Path, Answerer] | None = None

    def answer(self, kit: Path, job: Job) -> list[Answered]:
        """All answers about a page."""
        return list(self._answerer(kit).answer(job, {}))

    def runtime(self, kit: Path) -> Runtime:
        """Where it runs, and with which programs."""
        return self._answerer(kit).runtime()

    def pid(self) -> int:
        """The id of its process."""
        return os.getpid()

    def _answerer(self, kit: Path) -> Answerer:
        if self._loaded is None or self._loaded[0] != kit:
            if self._loaded is not None:
                self._loaded[1].model.close()
                self._loaded = None
            self._loaded = kit, Answerer(kit, self._settings)
        return self._loaded[1]


class Cluster:
    """Workers that share the pages; each runs the settings' `threads`, or one."""

    def __init__(
        self, address: str, settings: Settings, note: Callable[[str, Runtime], None]
    ) -> None:
        """UsageError where Ray is not installed, or there is no cluster at the address."""
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UsageError("--cluster needs Ray: pip install --group cluster") from error
        self._ray, self._note = ray, note
        each = settings.threads or 1
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, address)
        count = max(1, int(ray.cluster_resources().get("CPU", 1)) // each)
        remote = ray.remote(num_cpus=each, max_restarts=-1, max_task_retries=-1)(Worker)
        own = Settings(settings.max_tokens, settings.device, each)
        self.workers = [remote.remote(own) for _ in range(count)]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            self._ray.kill(worker)
        if self._started:
            self._ray.shutdown()

    def answers(self, name: str, kit: Path, jobs: Iterable[Job]) -> Iterator[Answered]:
        """A kit's answers in the order of the jobs; only a few jobs are taken ahead."""
        waiting: deque[Any] = deque()
        for number, job in enumerate(jobs):
            if not number:
                self._note(name, self._ray.get(self.workers[0].runtime.remote(kit)))
            waiting.append(self.workers[number % len(self.workers)].answer.remote(kit, job))
            if len(waiting) == AHEAD * len(self.workers):
                yield from self._ray.get(waiting.popleft())
        while waiting:
            yield from self._ray.get(waiting.popleft())

    def forget(self) -> None:
        """Do nothing: workers keep no pages."""

    def rest(self) -> None:
        """Do nothing: workers keep their kit until the next one."""


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one; its processes find this checkout."""
    how: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
        "log_to_driver": False,
    }
    how |= {"logging_level": "error"}
    if address == LOCAL:
        ray.init(address=LOCAL, num_cpus=default_threads(), include_dashboard=False, **how)
        return
    try:
        ray.init(address=address, **how)
    except (ConnectionError, ValueError) as error:
        raise UsageError(
            f"--cluster {address}: no Ray cluster is there ({error}); start one with ray start"
        ) from error
