"""Cores, affinity, control groups: which numbers of threads are started with, on recorded
machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pulse_edge.machine import cpu
from pulse_edge.machine.cpu import Threads


def machine(root: Path, cores: list[tuple[str, int]], **files: str) -> Path:
    """A tree of /sys with a core each for (thread siblings, highest frequency), and other files by
    their path."""
    for siblings, frequency in cores:
        for number in siblings.split(","):
            folder = root / f"sys/devices/system/cpu/cpu{number}"
            (folder / "topology").mkdir(parents=True)
            (folder / "cpufreq").mkdir()
            (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
            (folder / "cpufreq/cpuinfo_max_freq").write_text(f"{frequency}\n")
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


HYBRID = [
    ("0,1", 4_700_000),
    ("2,3", 4_700_000),
    *((str(n), 3_300_000) for n in range(4, 12)),
]  # i5-1235U
PLAIN = [("0,4", 3_900_000), ("1,5", 3_900_000), ("2,6", 3_900_000), ("3,7", 3_900_000)]  # i5-8350U


@pytest.mark.parametrize(
    ("cores", "usable", "threads"),
    [
        (PLAIN, range(8), Threads(4, 4)),
        (PLAIN, (0, 4, 1), Threads(2, 2)),
        (HYBRID, range(12), Threads(10, 2)),
        (HYBRID, range(4, 8), Threads(4, 4)),
        ([], range(3), Threads(3, 3)),
    ],
    ids=["hyper-threading", "affinity", "hybrid", "only slow cores", "no topology"],
)
def test_physical_cores_prefill_and_fast_cores_decode(
    cores: list[tuple[str, int]], usable: range, threads: Threads, tmp_path: Path
) -> None:
    assert cpu.threads(frozenset(usable), machine(tmp_path, cores)) == threads


@pytest.mark.parametrize(
    "files",
    [
        {"sys__fs__cgroup__cpu_dot_max": "250000 100000"},
        {"proc__self__cgroup": "0::/a/b", "sys__fs__cgroup__a__cpu_dot_max": "250000 100000"},
        {
            "proc__self__cgroup": "1:cpu,cpuacct:/a",
            "sys__fs__cgroup__cpu__a__cpu_dot_cfs_quota_us": "250000",
            "sys__fs__cgroup__cpu__a__cpu_dot_cfs_period_us": "100000",
        },
    ],
    ids=["v2", "v2 above", "v1"],
)
def test_a_control_groups_share_is_the_limit(files: dict[str, str], tmp_path: Path) -> None:
    root = machine(tmp_path, PLAIN, **files)
    assert cpu.quota(root) == 2.5
    assert cpu.threads(frozenset(range(8)), root) == Threads(2, 2)
    assert max(cpu.candidates(frozenset(range(8)), root)) == 3


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert cpu.quota(machine(tmp_path, PLAIN, sys__fs__cgroup__cpu_dot_max="max 100000")) is None


@pytest.mark.parametrize(
    ("flags", "architecture", "kinds"),
    [
        ({"avx2"}, "x86_64", {"Q4_0"}),
        ({"sse4_2"}, "x86_64", set()),
        ({"asimd", "asimddp"}, "aarch64", {"Q4_0", "Q4_K", "Q6_K"}),
        ({"asimd"}, "aarch64", set()),
    ],
)
def test_which_weights_are_repacked(flags: set[str], architecture: str, kinds: set[str]) -> None:
    assert (
        cpu.repacked({"F16", "Q2_K", "Q4_0", "Q4_K", "Q6_K"}, frozenset(flags), architecture)
        == kinds
    )


def stat_of(root: Path, *busy: int) -> Path:
    """A root whose processors have worked so many ticks, and waited for a thousand."""
    (root / "proc").mkdir(parents=True, exist_ok=True)
    rows = [f"cpu{n} {ticks} 0 0 1000 7 0 0 0 0 0" for n, ticks in enumerate(busy)]
    (root / "proc/stat").write_text("\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *rows, "intr 5"]))
    return root


def test_the_work_of_the_usable_processors_is_added_up(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    root = stat_of(tmp_path, 100, 300, 5000)
    assert cpu.worked(frozenset({0, 1}), root) == pytest.approx(400 / ticks)
    assert cpu.worked(frozenset({0, 9}), root) is None
    assert cpu.worked(frozenset({0}), tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("work", "share"), [(0.0, 0.0), (1.2, 0.6), (9.0, 1.0), (-1.0, 0.0), (None, None)]
)
def test_the_share_of_other_programs_excludes_this_one(
    monkeypatch: pytest.MonkeyPatch, work: float | None, share: float | None
) -> None:
    steps = iter(
        [(10.0, None if work is None else 5.0), (11.0, None if work is None else 5.0 + work)]
    )
    monkeypatch.setattr(cpu.Others, "_now", lambda _self: next(steps))
    monkeypatch.setattr(cpu.time, "sleep", lambda _seconds: None)
    assert cpu.Others(frozenset({0, 1})).share() == (
        None if share is None else pytest.approx(share)
    )
