"""The processor: its instruction sets, the cores that this process may use, and the threads to
start with.

The operating system's own files are read, because thread counts decide the speed and no library
knows control groups, hybrid cores and llama.cpp's repacking together. Standard library only.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.machine import cgroup
from pulse_edge.machine.cgroup import lines

WATCHED = 1.0
"""Shortest time in seconds over which other programs are watched."""
MOST_THREADS = 512
"""Most threads that llama.cpp takes."""


@dataclass(frozen=True)
class Threads:
    """How many threads each kind of work gets."""

    prefill: int
    """Threads that encode tiles and prefill: bound by arithmetic, so every physical core helps."""
    decode: int
    """Threads that decode tokens: bound by memory, and as slow as the slowest core that takes part.
    """

    def __str__(self) -> str:
        count = (
            f"{self.prefill}" if self.prefill == self.decode else f"{self.prefill}/{self.decode}"
        )
        return f"{count} thread{'s' * (count != '1')}"


def name(root: Path = Path("/")) -> str:
    """Return the processor's name as the system gives it."""
    for line in lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or platform.machine()


def flags(root: Path = Path("/")) -> frozenset[str]:
    """Return the instruction sets by Linux's names (`avx2`, `asimddp`); empty where the system does
    not say."""
    for line in lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def allowed() -> frozenset[int]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def worked(usable: frozenset[int], root: Path = Path("/")) -> float | None:
    """Return the seconds that the `usable` processors have worked since the system started, for all
    programs together.

    None where the system does not say (anything but Linux).
    """
    fields = [line.split() for line in lines(root / "proc/stat")]
    ours = [f[1:9] for f in fields if f and f[0] in {f"cpu{n}" for n in usable}]
    if len(ours) != len(usable) or not hasattr(os, "sysconf"):
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal, in ticks
    return sum(
        int(ticks) for times in ours for n, ticks in enumerate(times) if n not in (3, 4)
    ) / os.sysconf("SC_CLK_TCK")


class Others:
    """Measures how much other programs use the processors from now on."""

    def __init__(self, usable: frozenset[int] | None = None) -> None:
        self._usable = allowed() if usable is None else usable
        self._start = self._now()

    def _now(self) -> tuple[float, float | None]:
        """Wall time, and the work of the processors for other programs, in seconds."""
        all_work = worked(self._usable)
        return time.perf_counter(), None if all_work is None else all_work - time.process_time()

    def share(self) -> float | None:
        """Return the share of the processors' time that other programs took, 0 to 1; None where the
        system does not say.

        Waits until WATCHED seconds have passed: the system counts in hundredths of a second.
        """
        time.sleep(max(0.0, self._start[0] + WATCHED - time.perf_counter()))
        (before, then), (now, work) = self._start, self._now()
        if then is None or work is None:
            return None
        return min(1.0, max(0.0, (work - then) / (now - before) / len(self._usable)))


def quota(root: Path = Path("/")) -> float | None:
    """Return how many processors' time the control groups (v2, v1) around this process grant; None:
    no limit."""
    quotas = []
    for folder in cgroup.folders("cpu", root):
        words = " ".join(lines(folder / "cpu.max") or _v1_quota(folder)).split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _v1_quota(folder: Path) -> list[str]:
    return lines(folder / "cpu.cfs_quota_us")[:1] + lines(folder / "cpu.cfs_period_us")[:1]


def cores(usable: frozenset[int], root: Path = Path("/")) -> tuple[int, int]:
    """Return (physical cores among the `usable` processors, fast cores among them).

    A hybrid processor's efficiency cores are slower (`cpu_capacity`, else the highest frequency):
    fast is at least four fifths of the fastest. Without topology every processor counts as a core.
    """
    speeds: dict[str, float] = {}
    for cpu in usable:
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        siblings = "".join(lines(folder / "topology/thread_siblings_list")) or str(cpu)
        capacity = lines(folder / "cpu_capacity") or lines(folder / "cpufreq/cpuinfo_max_freq")
        speeds[siblings] = max(
            speeds.get(siblings, 0.0),
            float(capacity[0]) if capacity and capacity[0].isdigit() else 0.0,
        )
    fastest = max(speeds.values(), default=0.0)
    return max(1, len(speeds)), max(1, sum(speed >= 0.8 * fastest for speed in speeds.values()))


def threads(usable: frozenset[int] | None = None, root: Path = Path("/")) -> Threads:
    """Return the threads to start with; `doctor` measures, and stores the fastest ones."""
    usable = allowed() if usable is None else usable
    physical, fast = cores(usable, root)
    limit = MOST_THREADS if (granted := quota(root)) is None else max(1, int(granted))
    return Threads(min(physical, limit), min(fast, limit))


def candidates(usable: frozenset[int] | None = None, root: Path = Path("/")) -> list[int]:
    """Return the thread counts worth measuring: fast cores, physical cores, all processors, within
    the control group's limit."""
    usable = allowed() if usable is None else usable
    physical, fast = cores(usable, root)
    limit = MOST_THREADS if (granted := quota(root)) is None else max(1, int(granted + 0.999))
    return sorted({min(n, limit) for n in (max(1, fast // 2), fast, physical, len(usable))})


def repacked(kinds: set[str], have: frozenset[str], machine: str = platform.machine()) -> set[str]:
    """Return which of the weight types `kinds` are worth repacking by llama.cpp
    (ggml/src/ggml-cpu/repack.cpp).

    `have` are the processor's instruction sets. On x86 Q2_K and Q4_K are not: llama.cpp reads their
    own layout in tiles (ggml-cpu/tiled), which is 1.5 times as fast with AVX-512 VNNI, and as fast
    with AVX2; single tokens are 9 to 16 % slower, and no time is spent on repacking.
    """
    if machine.lower() in ("aarch64", "arm64"):
        dot = sys.platform == "darwin" or "asimddp" in have
        return kinds & {"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"} if dot else set()
    # Windows does not say; all but the oldest machines that run this program there have AVX2.
    return (
        kinds & {"Q4_0", "IQ4_NL", "MXFP4"} if "avx2" in have or sys.platform == "win32" else set()
    )
