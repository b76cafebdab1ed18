"""What is decided before a kit is loaded: device, threads and memory plan, and the encoder that proves the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import cpu, llm, machine, memory, vision, weights
from . import plan as plans
from .errors import DeviceError
from .kit import Kit
from .plan import Plan, Use


def default_threads() -> int:
    """Physical cores that this process may use."""
    return cpu.threads().prefill


def threads_for(speed: machine.Speed | None) -> cpu.Threads:
    """What `doctor` measured as fastest, else the physical and the fast cores that this process may use."""
    return cpu.threads() if speed is None else cpu.Threads(speed.prefill_threads, speed.decode_threads)


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
    observer: llm.Observer | None = None

    def text(self) -> str:
        """For the record: whatever can change the last digits of a result stands there."""
        layers = f"{self.plan.gpu_layers} layers on the GPU" if self.device == "cuda" else ""
        return f"{self.device} ({', '.join(filter(None, (self.why, str(self.threads), layers, self.plan.text)))})"


def decide(
    opened: Kit, device: str, threads: cpu.Threads, use: Use, limit: int | None
) -> tuple[Start, vision.VisionEncoder]:
    """The decisions, and the encoder on the device that they name; `auto` ends on the CPU and says why."""
    path, why, fallback = opened.file(opened.manifest.vision.file), "", None
    if device != "cpu":
        try:
            plan = _gpu_plan(opened, use)
            encoder = vision.VisionEncoder(path, device="cuda", threads=threads.prefill)
            return Start("cuda", "auto: CUDA works for both halves" * (device == "auto"), None, threads, plan), encoder
        except DeviceError as e:
            if device == "cuda":
                raise
            reason = str(e).removeprefix("cuda: ").split(". ")[0].split(";")[0]
            why = f"auto: {reason.split(' (')[0]}"
            # A build without CUDA is what most laptops have; anything else is a fault that somebody should mend.
            fallback = f"no CUDA, so the CPU answers: {reason}" if llm.has_cuda() else None
    plan = plans.make(opened, use, limit=limit)
    return Start("cpu", why, fallback, threads, plan), vision.VisionEncoder(path, device="cpu", threads=threads.prefill)


def _gpu_plan(opened: Kit, use: Use) -> Plan:
    """How many layers fit on the GPU. Raises DeviceError where CUDA is missing or none fits."""
    if reason := llm.cuda_missing():
        raise DeviceError(f"cuda: {reason}; or use --device cpu.")
    gpu = llm.gpus()[0]
    held = weights.read(opened.file(opened.manifest.language.file))
    plan = plans.ladder(opened, replace(use, pages=None), memory.available(), frozenset())[0]
    room = gpu.free - plan.parts["encoder"]
    layers = plans.on_gpu(room, held, plan.parts["key_values"], plan.parts["compute"])
    if not layers:
        raise DeviceError(
            f"cuda: {gpu.name} has {memory.shown(gpu.free)} free, which holds the encoder "
            f"({memory.shown(plan.parts['encoder'])}) and no layer of the kit; or use --device cpu."
        )
    return plans.with_gpu(plan, layers, held)
