"""What is decided before a kit is loaded: device, threads and memory plan, and the encoder that proves the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.errors import DeviceError
from pulse_edge.inference import language_model, vision_encoder
from pulse_edge.inference import memory_plan as plans
from pulse_edge.inference.memory_plan import Plan, Use
from pulse_edge.kit import gguf_header
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import cpu, memory, profile


def default_threads() -> int:
    """Physical cores that this process may use."""
    return cpu.threads().prefill


def threads_for(speed: profile.Speed | None) -> cpu.Threads:
    """What `doctor` measured as fastest, else the physical and the fast cores that this process may use."""
    return (
        cpu.threads() if speed is None else cpu.Threads(speed.prefill_threads, speed.decode_threads)
    )


@dataclass(frozen=True)
class Start:
    """Everything that was decided before loading."""

    device: str
    """`cpu` or `cuda`, of both halves."""
    why: str
    """Why `auto` took it."""
    fallback: str | None
    threads: cpu.Threads
    plan: Plan
    flash_attention: bool = False
    observer: language_model.Observer | None = None

    def text(self) -> str:
        """For the record: whatever can change the last digits of a result stands there."""
        layers = f"{self.plan.gpu_layers} layers on the GPU" if self.device == "cuda" else ""
        return f"{self.device} ({', '.join(filter(None, (self.why, str(self.threads), layers, self.plan.text)))})"


def decide(
    opened: Kit, device: str, threads: cpu.Threads, use: Use, limit: int | None
) -> tuple[Start, vision_encoder.VisionEncoder]:
    """The decisions, and the encoder on the device that they name; `auto` ends on the CPU and says why."""
    path, why, fallback = opened.file(opened.manifest.vision.file), "", None
    if device != "cpu":
        try:
            plan = _gpu_plan(opened, use)
            encoder = vision_encoder.VisionEncoder(path, device="cuda", threads=threads.prefill)
            return Start(
                "cuda", "auto: CUDA works for both halves" * (device == "auto"), None, threads, plan
            ), encoder
        except DeviceError as e:
            if device == "cuda":
                raise
            reason = str(e).removeprefix("cuda: ").split(". ")[0].split(";")[0]
            why = f"auto: {reason.split(' (')[0]}"
            # A build without CUDA is what most laptops have; anything else is a fault that somebody should mend.
            fallback = (
                f"no CUDA, so the CPU answers: {reason}" if language_model.has_cuda() else None
            )
    plan = plans.make(opened, use, limit=limit)
    return Start("cpu", why, fallback, threads, plan), vision_encoder.VisionEncoder(
        path, device="cpu", threads=threads.prefill
    )


def _gpu_plan(opened: Kit, use: Use) -> Plan:
    """How many layers fit on the GPU. Raises DeviceError where CUDA is missing or none fits."""
    if reason := language_model.cuda_missing():
        raise DeviceError(f"cuda: {reason}; or use --device cpu.")
    gpu = language_model.gpus()[0]
    held = gguf_header.read(opened.file(opened.manifest.language.file))
    plan = plans.ladder(opened, replace(use, pages=None), memory.available(), frozenset())[0]
    room = gpu.free - plan.parts["encoder"]
    layers = plans.on_gpu(room, held, plan.parts["kv_cache"], plan.parts["compute"])
    if not layers:
        raise DeviceError(
            f"cuda: {gpu.name} has {memory.shown(gpu.free)} free, which holds the encoder "
            f"({memory.shown(plan.parts['encoder'])}) and no layer of the kit; or use --device cpu."
        )
    return plans.with_gpu(plan, layers, held)
