"""Evaluation on a cluster gives the results of one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibration import evaluate as evaluating
from calibration.evaluate import Plan, evaluate
from calibration.synthesize import Plan as Pages
from calibration.synthesize import synthesize

ray = pytest.importorskip("ray")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A local cluster of two processors; the list gets the process ids of a run's workers."""
    from calibration import cluster

    pids: list[int] = []
    real = cluster.Cluster.__init__

    def note(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        pids.extend(ray.get([worker.pid.remote() for worker in self.workers]))

    monkeypatch.setattr(cluster.Cluster, "__init__", note)
    monkeypatch.setattr(cluster, "default_threads", lambda: 2)
    monkeypatch.setattr(evaluating, "peak_bytes", lambda *_: None)
    yield pids
    ray.shutdown()


def test_a_cluster_with_a_killed_worker_gives_the_results_of_one_process(
    tiny_kit: Path, tmp_path: Path, workers: list[int]
) -> None:
    import tiny

    synthesize(tmp_path / "bench", Pages(8, 5, layouts=("3x4+1",), tasks=("arena", "cpsc-test")))
    kits = tiny_kit, tiny.quantized(tiny_kit, tmp_path / "q4", "Q4_0")
    plan = Plan(
        kits, tmp_path / "bench", ("arena", "cpsc-test"), max_tokens=6, device="cpu", threads=1
    )
    evaluate(tmp_path / "alone", plan)

    killed: list[int] = []

    def kill_one(note: str) -> None:  # with pages in its hands
        if not killed and "left" in note:
            killed.append(workers[1])
            os.kill(workers[1], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "SHOWN_SECONDS", 0)
        evaluate(tmp_path / "cluster", replace(plan, cluster="local"), kill_one)
    assert killed
    assert len(workers) == 2
    for path in sorted((tmp_path / "alone").rglob("*")):
        if path.name == "step-final.jsonl" or path.suffix == ".npy":
            assert (
                path.read_bytes()
                == (tmp_path / "cluster" / path.relative_to(tmp_path / "alone")).read_bytes()
            )
