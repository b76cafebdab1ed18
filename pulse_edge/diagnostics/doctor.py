"""Is this machine fit for a kit? Looks at the processor before the engines are imported, at memory, devices and the kit,
lets it answer its golden cases, and keeps what it measured (see machine.py).

A kit whose golden cases do not come back is refused for answers on this machine, until it passes or is forced.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pulse_edge.common import child_process, paths
from pulse_edge.errors import PulseEdgeError
from pulse_edge.kit import locate
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.verify import verify
from pulse_edge.machine import cpu, memory, memory_plan, profile

State = Literal["ok", "warning", "failed"]
Progress = Callable[[str, int, int], None]

# llama.cpp's words (ggml_backend_cpu_get_features) -> Linux's.
INSTRUCTIONS = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
PORTABLE = "-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
LITTLE_DISK = 1 << 30
SAMPLE = 64
"""Image tokens that are read to compare numbers of threads."""
WRITTEN = 8
"""Tokens that are written to measure that."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    """processor, llama.cpp, memory, disk, kit, devices, encoder, plan, golden cases, speed, guesses, peak."""
    state: State
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


def examine(
    named: Path | None, *, limit: int | None = None, progress: Progress = lambda _s, _d, _o: None
) -> Iterator[Check]:
    """Check after check, as they are made; ends with the first that makes the following ones impossible.

    `named` as for `kit.find`; `limit` bytes of memory that the plan may take.
    """
    told = engine()
    yield told
    yield room()
    yield disk()
    if told.state == "failed":
        return
    try:
        opened = locate.find(named)
        yield whole(opened, progress)
        yield devices(told.figures)
        from pulse_edge.inference import vision_encoder

        yield encoder(
            opened.manifest.vision.type, cpu.flags(), saturates=vision_encoder.saturates()
        )
        from pulse_edge.diagnostics.self_test import trial

        made = memory_plan.make(
            opened,
            memory_plan.Workload(pages=1),
            exact_int8=vision_encoder.needs_exact_sums(opened.manifest.vision.type),
            limit=limit,
        )
        text = f"{memory.shown(made.peak)} at most: {made.text}, context {made.context}, {made.figures()}"
        yield Check("plan", "ok", text, {"peak": made.peak, "parts": made.parts})
        yield from trial(opened, limit, progress)
    except PulseEdgeError as e:
        yield Check("kit", "failed", str(e))


# --- before anything is imported ---------------------------------------------------------------------------------------


def engine() -> Check:
    """What llama.cpp was built for, asked in a process of its own: an illegal instruction ends that one only."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return Check(
            "llama.cpp",
            "failed",
            "llama-cpp-python is not installed. Install pulse-edge with its dependencies.",
        )
    libraries = sorted(
        p.name for p in Path(spec.submodule_search_locations[0], "lib").glob("*ggml-cpu-*")
    )
    build = (
        f"a library for each of {len(libraries)} generations of processors"
        if libraries
        else "one library"
    )
    command, environment = (
        child_process.command("pulse_edge.inference.probe"),
        child_process.environment(),
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    name = cpu.name()
    if done.returncode != 0:
        return Check(
            "llama.cpp",
            "failed",
            f"{name}: {_death(done)}",
            {"build": build, "exit": done.returncode},
        )
    said = json.loads(done.stdout.splitlines()[-1])
    return judge_engine(said, cpu.flags(), name, build)


def _death(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -getattr(signal, "SIGILL", 4) or done.returncode == 0xC000001D:
        return f"llama.cpp dies of an illegal instruction: it was built for a newer processor. Build it with {PORTABLE}."
    if done.returncode < 0:
        return f"llama.cpp dies of signal {-done.returncode}. Install it again."
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"llama.cpp cannot be loaded: {last}"


def judge_engine(said: dict[str, Any], have: frozenset[str], name: str, build: str) -> Check:
    """Instructions that llama.cpp was built for against those that the processor has; `have` empty: not known."""
    built = {
        part.split("=")[0].strip()
        for part in said["system"].replace(":", "|").split("|")
        if "= 1" in part
    }
    absent = sorted(
        word for word in built & INSTRUCTIONS.keys() if have and INSTRUCTIONS[word] not in have
    )
    figures = said | {
        "processor": name,
        "built_for": sorted(built & INSTRUCTIONS.keys()),
        "missing": absent,
    }
    if absent:
        text = f"{name} lacks {', '.join(absent)}, which llama.cpp was built for ({build}). Build it with {PORTABLE}."
        return Check("llama.cpp", "failed", text, figures)
    unused = sorted({"AVX2", "AVX512", "DOTPROD", "MATMUL_INT8"} - built - _lacking(have))
    slow = f"; {', '.join(unused)} of this processor not used" if have and unused else ""
    return Check(
        "llama.cpp",
        "ok",
        f"{name}, {build}, built for {', '.join(figures['built_for'])}{slow}",
        figures,
    )


def _lacking(have: frozenset[str]) -> set[str]:
    return {word for word, flag in INSTRUCTIONS.items() if flag not in have}


def room() -> Check:
    """Free memory, and cores."""
    free, running = memory.available(), cpu.threads()
    shown = "not told by the system" if free is None else f"{memory.shown(free)} free"
    quota = cpu.quota()
    cores = f"{len(cpu.allowed())} processors" + (f", {quota:g} of them granted" if quota else "")
    return Check(
        "memory", "ok", f"{shown}; {cores}, starting with {running}", {"free": free, "quota": quota}
    )


def disk() -> Check:
    """Free space where the record and the caches are written."""
    folder = paths.user_cache()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= LITTLE_DISK else "warning"
    advice = (
        "" if state == "ok" else ". Make room: answers that cannot be put on record are not given"
    )
    return Check("disk", state, f"{memory.shown(free)} free at {folder}{advice}", {"free": free})


# --- the kit, and what runs it -----------------------------------------------------------------------------------------


def whole(opened: Kit, progress: Progress) -> Check:
    """Every byte of the kit against its manifest. Raises KitError."""
    total, done = sum(f.bytes for f in opened.manifest.files.values()), 0

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("verify", done, total)

    verify(opened, again=True, progress=step)
    text = f"{opened.manifest.id}, {len(opened.manifest.files)} files are as they were made"
    return Check("kit", "ok", text, {"path": str(opened.path), "sha256": opened.sha256})


def devices(said: dict[str, Any]) -> Check:
    """What was tried of CUDA, and why it is not used; a fault where a build with CUDA cannot use it."""
    from pulse_edge.inference import vision_encoder

    runtime = vision_encoder.installed_runtime()
    tried = [f"llama.cpp: {said['cuda'] or 'works'}"]
    tried += [
        f"{g['name']}, {memory.shown(g['free'])} of {memory.shown(g['total'])} free"
        for g in said["gpus"]
    ]
    tried.append(
        f"ONNX Runtime: {'has CUDA' if runtime == 'onnxruntime-gpu' else 'installed without CUDA'}"
    )
    broken = said["cuda"] is not None and "CUDA" in said["system"]
    return Check(
        "devices", "warning" if broken else "ok", "CUDA: " + "; ".join(tried), {"runtime": runtime}
    )


def encoder(kind: str, have: frozenset[str], *, saturates: bool) -> Check:
    """How the kit's encoder computes on a processor with these instructions, and whether its image tokens are the usual ones.

    `saturates` as in `vision`. Measured by benchmarks/processors.py: int8 without AVX2 comes to image tokens with a mean cosine
    of 0.9999 to those with it, for a value that rounds to the other side moves all that follow; other types to 1.000000.
    """
    figures = {"type": kind, "saturates": saturates}
    if not kind.startswith("int8"):
        return Check(
            "encoder",
            "ok",
            f"{kind}: the same image tokens on every processor, but for rounding",
            figures,
        )
    if "sse4_1" in have and not {"avx2", "fma"} <= have:
        text = (
            f"{kind}: without AVX2 and FMA its image tokens differ in rounding from those of newer processors, which can "
            "change a word of an answer. Take a kit with an fp16 or w8 encoder here"
        )
        return Check("encoder", "warning", text, figures)
    if saturates:
        return Check(
            "encoder",
            "ok",
            f"{kind}: exact sums without VNNI, which take longer than with it",
            figures,
        )
    return Check("encoder", "ok", f"{kind}: exact sums", figures)


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def keep(opened: Kit, kept: profile.Kept) -> Check | None:
    """Remember; a check where that failed."""
    why = profile.keep(opened, kept)
    return (
        None
        if why is None
        else Check("memory of this machine", "warning", f"{why}: nothing is remembered")
    )
