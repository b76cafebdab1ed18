"""Is this machine fit for a kit? The order of `pulse-edge doctor`'s checks.

The processor is checked before the engines are imported; the kit's self-test comes last and stores
the machine profile. A kit that fails its self-test is refused for answers on this machine, until it
passes or is forced.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pulse_edge.diagnostics import checks
from pulse_edge.diagnostics.checks import Check, Progress
from pulse_edge.errors import PulseEdgeError
from pulse_edge.kit import locate
from pulse_edge.machine import cpu, memory, memory_plan


def examine(
    named: Path | None,
    *,
    limit: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Iterator[Check]:
    """Yield check after check; end with the first that makes the following ones impossible.

    `named` as for `locate.find`; `limit`: bytes of memory that the plan may take.
    """
    engine = checks.engine()
    yield engine
    yield checks.free_memory()
    yield checks.disk()
    if engine.state == "failed":
        return
    try:
        opened = locate.find(named)
        yield checks.kit_files(opened, progress)
        yield checks.devices(engine.figures)
        from pulse_edge.diagnostics.self_test import self_test
        from pulse_edge.inference import vision_encoder

        kind = opened.manifest.vision.type
        yield checks.encoder(kind, cpu.flags(), saturates=vision_encoder.saturates())
        exact = vision_encoder.needs_exact_sums(kind)
        workload = memory_plan.Workload(pages=1)
        plan = memory_plan.make(opened, workload, exact_int8=exact, limit=limit)
        text = (
            f"{memory.shown(plan.peak)} at most: {plan.text}, context {plan.context}, "
            f"{plan.figures()}"
        )
        yield Check("plan", "ok", text, {"peak": plan.peak, "parts": plan.parts})
        yield from self_test(opened, limit, progress)
    except PulseEdgeError as e:
        yield Check("kit", "failed", str(e))
