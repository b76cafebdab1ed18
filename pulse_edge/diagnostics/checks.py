"""The checks of `pulse-edge doctor` that need no loaded model: processor, llama.cpp, memory, disk,
kit, devices, encoder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pulse_edge.common import child_process, paths
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.verify import verify
from pulse_edge.machine import cpu, memory

State = Literal["ok", "warning", "failed"]
Progress = Callable[[str, int, int], None]

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
"""Instruction sets: llama.cpp's names (ggml_backend_cpu_get_features) -> Linux's."""
PORTABLE = "-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
LITTLE_DISK = 1 << 30
_WINDOWS_ILLEGAL_INSTRUCTION = 0xC000001D


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    """llama.cpp, memory, disk, kit, devices, encoder, plan, golden cases, threads, speed, draft
    tokens, peak, ..."""
    state: State
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


# --- before any engine is imported ----------------------------------------------------------------


def engine() -> Check:
    """Ask llama.cpp in a child process what it was built for: an illegal instruction ends the child
    only."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return Check(
            "llama.cpp",
            "failed",
            "llama-cpp-python is not installed. Install pulse-edge with its dependencies.",
        )
    folder = Path(spec.submodule_search_locations[0], "lib")
    variants = len(list(folder.glob("*ggml-cpu-*")))
    build = f"a library for each of {variants} generations of processors"
    if not variants:
        build = "one library"
    probe = subprocess.run(
        child_process.command("pulse_edge.inference.probe"),
        env=child_process.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    name = cpu.name()
    if probe.returncode != 0:
        text, figures = f"{name}: {_failure(probe)}", {"build": build, "exit": probe.returncode}
        return Check("llama.cpp", "failed", text, figures)
    return judge_engine(json.loads(probe.stdout.splitlines()[-1]), cpu.flags(), name, build)


def _failure(probe: subprocess.CompletedProcess[str]) -> str:
    if probe.returncode in (-getattr(signal, "SIGILL", 4), _WINDOWS_ILLEGAL_INSTRUCTION):
        return (
            "llama.cpp dies of an illegal instruction: it was built for a newer processor. "
            f"Build it with {PORTABLE}."
        )
    if probe.returncode < 0:
        return f"llama.cpp dies of signal {-probe.returncode}. Install it again."
    last = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"llama.cpp cannot be loaded: {last}"


def judge_engine(probed: dict[str, Any], flags: frozenset[str], name: str, build: str) -> Check:
    """Compare the instruction sets that llama.cpp was built for with the processor's `flags`
    (empty: not known)."""
    enabled = {
        part.split("=")[0].strip()
        for part in probed["system"].replace(":", "|").split("|")
        if "= 1" in part
    }
    built_for = sorted(enabled & INSTRUCTIONS.keys())
    absent = [word for word in built_for if flags and INSTRUCTIONS[word] not in flags]
    figures = probed | {"processor": name, "built_for": built_for, "missing": absent}
    if absent:
        text = (
            f"{name} lacks {', '.join(absent)}, which llama.cpp was built for ({build}). "
            f"Build it with {PORTABLE}."
        )
        return Check("llama.cpp", "failed", text, figures)
    lacking = {word for word, flag in INSTRUCTIONS.items() if flag not in flags}
    unused = sorted({"AVX2", "AVX512", "DOTPROD", "MATMUL_INT8"} - enabled - lacking)
    slow = f"; {', '.join(unused)} of this processor not used" if flags and unused else ""
    text = f"{name}, {build}, built for {', '.join(built_for)}{slow}"
    return Check("llama.cpp", "ok", text, figures)


def free_memory() -> Check:
    """Show free memory and cores."""
    free, threads = memory.available(), cpu.threads()
    shown = "not known to the system" if free is None else f"{memory.shown(free)} free"
    quota = cpu.quota()
    cores = f"{len(cpu.allowed())} processors" + (f", {quota:g} of them granted" if quota else "")
    text = f"{shown}; {cores}, starting with {threads}"
    return Check("memory", "ok", text, {"free": free, "quota": quota})


def disk() -> Check:
    """Check the free space where the audit log and the caches are written."""
    folder = paths.user_cache()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{memory.shown(free)} free at {folder}"
    if free >= LITTLE_DISK:
        return Check("disk", "ok", text, {"free": free})
    advice = "Make room: answers that the audit log cannot store are not given"
    return Check("disk", "warning", f"{text}. {advice}", {"free": free})


# --- the kit, and the engines that run it ---------------------------------------------------------


def kit_files(opened: Kit, progress: Progress) -> Check:
    """Check every byte of the kit against its manifest. Raises KitError."""
    verify(opened, again=True, progress=lambda done, total: progress("verify", done, total))
    text = f"{opened.manifest.id}, {len(opened.manifest.files)} files are as they were made"
    return Check("kit", "ok", text, {"path": str(opened.path), "sha256": opened.sha256})


def devices(probed: dict[str, Any]) -> Check:
    """Say what works of CUDA and why the rest does not; a warning where a build with CUDA cannot
    use it."""
    from pulse_edge.inference import vision_encoder

    runtime = vision_encoder.installed_runtime()
    has_cuda = "has CUDA" if runtime == "onnxruntime-gpu" else "installed without CUDA"
    parts = [f"llama.cpp: {probed['cuda'] or 'works'}"]
    parts += [
        f"{gpu['name']}, {memory.shown(gpu['free'])} of {memory.shown(gpu['total'])} free"
        for gpu in probed["gpus"]
    ]
    parts.append(f"ONNX Runtime: {has_cuda}")
    broken = probed["cuda"] is not None and "CUDA" in probed["system"]
    state: State = "warning" if broken else "ok"
    return Check("devices", state, "CUDA: " + "; ".join(parts), {"runtime": runtime})


def encoder(kind: str, flags: frozenset[str], *, saturates: bool) -> Check:
    """Check whether the kit's encoder, of weight type `kind`, gives the usual image tokens on a
    processor with `flags`.

    `saturates` as in `vision_encoder`. Measured by benchmarks/processors.py: int8 without AVX2
    comes to image tokens with a mean cosine of 0.9999 to those with it, because a value that rounds
    to the other side moves all that follow; other types to 1.000000.
    """
    figures = {"type": kind, "saturates": saturates}
    if not kind.startswith("int8"):
        text = f"{kind}: the same image tokens on every processor, but for rounding"
        return Check("encoder", "ok", text, figures)
    if "sse4_1" in flags and not {"avx2", "fma"} <= flags:
        text = (
            f"{kind}: without AVX2 and FMA its image tokens differ in rounding from those of newer "
            "processors, which can change a word of an answer. Take a kit with an fp16 or w8 "
            "encoder here"
        )
        return Check("encoder", "warning", text, figures)
    slow = " without VNNI, which take longer than with it" if saturates else ""
    return Check("encoder", "ok", f"{kind}: exact sums{slow}", figures)
