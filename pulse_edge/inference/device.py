"""Device selection: device, threads and memory plan of a run, decided before a kit is loaded.

The encoder is part of the decision, because only a finished session proves that ONNX Runtime works
on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.errors import DeviceError
from pulse_edge.inference import llama_cpp, vision_encoder
from pulse_edge.kit import gguf_header
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu, memory, memory_plan, profile
from pulse_edge.machine.memory_plan import Plan, Workload


def default_threads() -> int:
    """Physical cores that this process may use."""
    return cpu.threads().prefill


def threads_for(speed: profile.Speed | None) -> cpu.Threads:
    """Return the threads that `doctor` measured as fastest, else the physical and the fast cores of
    this process."""
    return (
        cpu.threads() if speed is None else cpu.Threads(speed.prefill_threads, speed.decode_threads)
    )


@dataclass(frozen=True)
class DeviceSelection:
    """Everything that is decided before loading."""

    device: str
    """`cpu` or `cuda`, of both engines."""
    reason: str
    """Why `auto` took this device; empty if it was named."""
    fallback: str | None
    """Fault that kept `auto` from a GPU that this build could use; None: there is no fault."""
    threads: cpu.Threads
    plan: Plan

    def text(self) -> str:
        """Everything that can change the last digits of a result, for the audit log."""
        layers = f"{self.plan.gpu_layers} layers on the GPU" if self.device == "cuda" else ""
        parts = (self.reason, str(self.threads), layers, self.plan.text)
        return f"{self.device} ({', '.join(filter(None, parts))})"


def select_device(
    opened: Kit, device: str, threads: cpu.Threads, workload: Workload, limit: int | None
) -> tuple[DeviceSelection, vision_encoder.VisionEncoder]:
    """Return the selection and the encoder on its device.

    `device` is `auto`, `cpu` or `cuda`; `auto` falls back to the CPU and says why. `limit`: bytes
    of memory. Raises DeviceError for `cuda` that does not work, MemoryShortage, KitError.
    """
    path, reason, fallback = opened.file(opened.manifest.vision.file), "", None
    if device != "cpu":
        try:
            plan = _gpu_plan(opened, workload)
            encoder = vision_encoder.VisionEncoder(path, device="cuda", threads=threads.prefill)
            reason = "auto: CUDA works for both halves" if device == "auto" else ""
            return DeviceSelection("cuda", reason, None, threads, plan), encoder
        except DeviceError as e:
            if device == "cuda":
                raise
            fault = str(e).removeprefix("cuda: ").split(". ")[0].split(";")[0]
            reason = f"auto: {fault.split(' (')[0]}"
            # Most laptops have a build without CUDA; anything else is a fault to be repaired.
            if llama_cpp.has_cuda():
                fallback = f"no CUDA, so the CPU answers: {fault}"
    exact = vision_encoder.needs_exact_sums(opened.manifest.vision.type)
    plan = memory_plan.make(opened, workload, exact_int8=exact, limit=limit)
    encoder = vision_encoder.VisionEncoder(path, device="cpu", threads=threads.prefill)
    return DeviceSelection("cpu", reason, fallback, threads, plan), encoder


def _gpu_plan(opened: Kit, workload: Workload) -> Plan:
    """The plan with as many layers on the GPU as fit. Raises DeviceError where CUDA is missing or
    no layer fits."""
    if reason := llama_cpp.cuda_missing():
        raise DeviceError(f"cuda: {reason}; or use --device cpu.")
    gpu = llama_cpp.gpus()[0]
    header = gguf_header.read(opened.file(opened.manifest.language.file))
    plan = memory_plan.ladder(
        opened, replace(workload, pages=None), memory.available(), frozenset(), exact_int8=False
    )[0]
    encoder = plan.parts["encoder"]
    layers = memory_plan.gpu_layers(
        gpu.free - encoder, header, plan.parts["kv_cache"], plan.parts["compute"]
    )
    if not layers:
        raise DeviceError(
            f"cuda: {gpu.name} has {memory.shown(gpu.free)} free, which holds the encoder "
            f"({memory.shown(encoder)}) and no layer of the kit; or use --device cpu."
        )
    return memory_plan.with_gpu(plan, layers, header)
