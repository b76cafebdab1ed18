"""Train the tower with the heads that teach it, then the language model on top of both.

After that come real signals too, then the language model alone. A session stops after the given
minutes, and a later one goes on exactly where it was. Every measurement is a line of `curve.jsonl`.
Learning rates rise, stay, and fall over the last part of a stage.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.miniature import data, layout, state
from export.miniature.data import Batch, Lesson
from export.miniature.model import Shape
from export.miniature.plan import PLAN, Stage, planned
from export.miniature.run import Run
from export.miniature.teach import FINDINGS, PAGE_SCALE, Heads
from pulse_edge.errors import UsageError

NAMES = "AF I-AVB LBBB RBBB LAFB PAC PVC STD STE MI HYP TINV SB ST".split()  # noqa: SIM905
"""Names of the findings, in the order of calibration/synthetic/findings.py."""


# --- the way through ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """The settings of one session of a training."""

    minutes: float = 60.0
    """Time after which the session ends; a later one goes on from there."""
    device: str = "cpu"
    """cpu or cuda."""
    resume: bool = False
    """Go on with the training in the folder, instead of starting one."""
    seed: int = 1
    """Seed of weights and lessons; a resumed training keeps its own."""
    steps: tuple[str, ...] = ()
    """Other lengths of stages, as STAGE=N."""
    signals: Path | None = None
    """Packed recordings for the stage `real`; without them it is skipped."""
    start: Path | None = None
    """Folder of a training whose weights a new plan begins with."""
    processes: int | None = None
    """Processes that draw pages; None stands for all cores but two, and at least one."""


def train(
    run: Run,
    minutes: float,
    processes: int,
    signals: Path | None,
    say: Callable[[str], None],
    save_every: float = 2.0,
) -> bool:
    """Train for `minutes`; return True when the plan is done.

    The state is saved every `save_every` minutes and at the end.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    clock = _Clock(run.progress.minutes, minutes)
    saved = time.monotonic()
    exam = list(data.first_lessons(run.seed + 1_000_003, 192, run.shape.patch, processes=processes))
    while run.progress.stage < len(run.plan):
        stage = run.plan[run.progress.stage]
        if not stage.steps or (stage.name == "real" and signals is None):
            run.progress = replace(run.progress, stage=run.progress.stage + 1, step=0)
            continue
        lessons = _lessons(run, stage, processes, signals)
        try:
            for batch in lessons:
                with _reproducible(run.device):
                    figures = _learn(run, stage, batch)
                run.progress.step += 1
                run.progress.pages += stage.batch
                run.progress.minutes = clock.now()
                if run.progress.step % 50 == 0:
                    run.log(loss=figures)
                if run.progress.step % 250 == 0 or run.progress.step == stage.steps:
                    result = examine(run, exam)
                    run.log(exam=result)
                    say(_line(run, figures, result))
                if time.monotonic() - saved > 60 * save_every:
                    run.save()
                    saved = time.monotonic()
                if clock.over():
                    run.save()
                    return False
        finally:
            lessons.close()
        run.progress = replace(run.progress, stage=run.progress.stage + 1, step=0)
        run.save()
    return True


@contextlib.contextmanager
def _reproducible(device: torch.device) -> Generator[None, None, None]:
    """Sum gradients of looked-up rows in one order, which otherwise changes from run to run."""
    from torch.utils import deterministic

    settings: Any = deterministic  # a module whose attributes are properties
    before, fill = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    settings.fill_uninitialized_memory = (
        False  # nothing here reads what it has not written; 5 % faster
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fill


class _Clock:
    """Minutes of training over all sessions."""

    def __init__(self, before: float, minutes: float) -> None:
        self._before, self._start, self._limit = before, time.monotonic(), minutes

    def now(self) -> float:
        """Return the minutes of all sessions."""
        return self._before + (time.monotonic() - self._start) / 60

    def over(self) -> bool:
        """Whether this session's time is up."""
        return self.now() - self._before >= self._limit


def _lessons(
    run: Run, stage: Stage, processes: int, signals: Path | None
) -> Generator[Batch, None, None]:
    """Yield batches from the run's progress to the stage's end.

    They are the same ones in one session or in many.
    """
    per_block = stage.passes * (stage.block // stage.batch)
    block, skip = divmod(run.progress.step, per_block)
    seed = run.seed + 1000 * (run.progress.stage + 1)
    real = signals if stage.name == "real" else None
    blocks = data.Blocks(
        seed, block, stage.block, run.shape.patch, processes=processes, signals=real
    )
    try:
        for number in range(block, math.ceil(stage.steps / per_block)):
            lessons = next(blocks)
            for i, chosen in enumerate(
                data.order(seed, number, stage.block, stage.passes, stage.batch)
            ):
                if number == block and i < skip:
                    continue
                if number * per_block + i >= stage.steps:
                    return
                rng = np.random.default_rng((seed, number, i, 5))
                whole = stage.name != "tower"
                yield data.collate(
                    [lessons[k] for k in chosen],
                    run.shape.patch,
                    whole=whole,
                    blank=stage.blank,
                    rng=rng,
                )
    finally:
        blocks.close()


def _jitter(run: Run, batch: Batch) -> Tensor:
    """Scale and shift the colours of each page a little.

    The values are drawn from the run's progress, so that they can be drawn again.
    """
    rng = np.random.default_rng((run.seed, run.progress.stage, run.progress.step))
    scale = rng.normal(1, 0.06, (len(batch.pages), 1, 3)) * rng.normal(
        1, 0.06, (len(batch.pages), 1, 1)
    )
    shift = rng.normal(0, 0.03, (len(batch.pages), 1, 3))
    owners = np.repeat(np.arange(len(batch.pages)), [p.stop - p.start for p in batch.pages])
    jitter = np.concatenate([scale, shift], 1)[owners]
    return torch.from_numpy(jitter.astype(np.float32)).to(run.device)


def _learn(run: Run, stage: Stage, batch: Batch) -> dict[str, float]:
    """Learn one batch, and return its losses."""
    with run.autocast():
        with torch.set_grad_enabled(stage.tower > 0):
            image_tokens = run.image_tokens(batch, _jitter(run, batch))
        losses = run.tower_losses(image_tokens, batch) if stage.tower else {}
        if stage.turns:
            rng = np.random.default_rng((run.seed, run.progress.stage, run.progress.step, 3))
            losses["answer"] = run.answer_loss(
                image_tokens, batch, run.speech.turns(batch.words, rng, stage.turns)
            )
    run.step(stage, losses)
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


@torch.no_grad()
def examine(run: Run, lessons: list[Lesson]) -> dict[str, Any]:
    """Measure the page head on unseen pages: F1 of each finding, error of the rate."""
    heads = run.parts["heads"]
    assert isinstance(heads, Heads)
    whole = run.plan[run.progress.stage].name != "tower"
    predictions, truths, rates = [], [], []
    for i in range(0, len(lessons), 8):
        batch = data.collate(lessons[i : i + 8], run.shape.patch, whole=whole)
        with run.autocast():
            page = heads.pages(run.image_tokens(batch, None), batch)
        predictions.append(page[:, :FINDINGS].cpu() > 0)
        truths.append(batch.targets["findings"] > 0)
        mean, spread = PAGE_SCALE[0]
        rates.append(
            60 * (page[:, FINDINGS + 5].cpu() * spread + mean - batch.targets["measures"][:, 0])
        )
    predicted, truth, rate = torch.cat(predictions), torch.cat(truths), torch.cat(rates).abs()
    hits = (predicted & truth).sum(0)
    f1 = 2 * hits / (predicted.sum(0) + truth.sum(0)).clamp(min=1)
    return {
        "f1": {n: round(float(v), 3) for n, v in zip(NAMES, f1, strict=True)},
        "rate_error": round(float(rate.mean()), 2),
        "rate_within_5": round(float((rate <= 5).float().mean()), 3),
    }


def _line(run: Run, figures: dict[str, float], result: dict[str, Any]) -> str:
    f1 = " ".join(f"{k} {v:.2f}" for k, v in result["f1"].items())
    loss = " ".join(f"{k} {v:.3f}" for k, v in figures.items())
    where = (
        f"{run.plan[run.progress.stage].name} {run.progress.step} ({run.progress.minutes:.0f} min)"
    )
    rate = f"rate +-{result['rate_error']}, {result['rate_within_5']:.0%} within 5"
    return f"{where}: {f1}; {rate}; {loss}"


def start_or_resume(out: Path, options: Options, say: Callable[[str], None]) -> None:
    """Start or resume a training in `out`, and write its state and the checkpoint there at the end.

    `say` gets a line for each measurement. Raises UsageError.
    """
    resume, start, signals = options.resume, options.start, options.signals
    device, seed, processes = options.device, options.seed, options.processes
    if resume and start is not None:
        raise UsageError(
            "--start begins a new plan; --resume goes on with the existing one. Give one of them."
        )
    if resume:
        run = Run.resume(out, device)
        run.plan += PLAN[len(run.plan) :]
    else:
        if state.facts(out) is not None:
            raise UsageError(
                f"{out}: holds a training already. Go on with --resume, or choose another folder."
            )
        run = (
            Run(out, device, seed, Shape())
            if start is None
            else Run.from_training(start, out, device, seed)
        )
    run.plan = planned(run.plan, options.steps)
    if signals is None:
        say("without --signals the stage on real recordings is skipped")
    if processes is None:
        processes = max(1, (os.cpu_count() or 1) - 2)
    done = train(run, options.minutes, processes, signals, say)
    run.speech  # noqa: B018 (the vocabulary is part of every checkpoint)
    layout.write(run.parts, run.shape, run.out)
    say(
        f"{out}: {'the plan is done' if done else 'go on with --resume'}, "
        f"{run.progress.minutes:.0f} minutes in all"
    )
