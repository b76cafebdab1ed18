"""The training: the tower with the heads that teach it, then the language model on top of both, then real signals too, then
the language model alone.

Time-boxed: a run stops after the minutes given and goes on later exactly where it was. One line of `curve.jsonl` for every
measurement. Learning rates rise, stay, and fall over the last part of a stage.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pulse_edge.errors import DeviceError, UsageError

from . import data, layout, state, text
from .data import Batch, Lesson
from .model import Llama, Projector, Shape, Tower
from .teach import FINDINGS, PAGE_SCALE, WEIGHTS, Heads
from .text import Speech, Turns

NAMES = "AF I-AVB LBBB RBBB LAFB PAC PVC STD STE MI HYP TINV SB ST".split()  # noqa: SIM905
"""Of the findings, in the order of calibration/synthetic/findings.py."""


@dataclass(frozen=True)
class Stage:
    """One part of the plan."""

    name: str  # tower, language, real, or words
    steps: int
    batch: int
    passes: int  # times that each block of lessons is gone through
    block: int
    muon: float  # learning rate of matrices inside layers
    adam: float  # of everything else
    tower: float  # factor on both for the tower; 0: only the language model learns
    turns: int  # questions asked about each page; 0: the language model is left alone
    fall: float = 0.25  # last part of the steps, in which the rates fall to zero
    warm: int = 100
    blank: float = 1.0  # share of the patches without a trace that the tower sees: half of its time goes into these


PLAN = (
    Stage(
        "tower",
        steps=9000,
        batch=8,
        passes=3,
        block=512,
        muon=1e-3,
        adam=5e-4,
        tower=1.0,
        turns=0,
        fall=0.8,
        blank=0.15,
    ),
    Stage(
        "language",
        steps=4000,
        batch=4,
        passes=2,
        block=256,
        muon=2e-3,
        adam=1e-3,
        tower=0.25,
        turns=8,
        fall=0.6,
    ),
    Stage(
        "real",
        steps=500,
        batch=4,
        passes=2,
        block=256,
        muon=4e-4,
        adam=2e-4,
        tower=0.3,
        turns=8,
        fall=1.0,
    ),
    Stage(
        "words",
        steps=900,
        batch=4,
        passes=2,
        block=256,
        muon=1e-3,
        adam=5e-4,
        tower=0.0,
        turns=12,
        fall=0.8,
    ),
)


@dataclass
class Where:
    """How far a run has come."""

    stage: int = 0
    step: int = 0  # within the stage
    pages: int = 0
    minutes: float = 0.0


class Run:
    """Modules, optimizers and place of a training in the folder `out`."""

    def __init__(
        self, out: Path, device: str, seed: int, shape: Shape, plan: tuple[Stage, ...] = PLAN
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("cuda: torch finds no CUDA device. Use --device cpu.")
        torch.manual_seed(seed)
        self.out, self.device, self.seed, self.shape, self.plan = (
            out,
            torch.device(device),
            seed,
            shape,
            plan,
        )
        self.parts: dict[str, nn.Module] = {
            "tower": Tower(shape),
            "projector": Projector(shape),
            "heads": Heads(shape),
            "llama": Llama(shape),
        }
        for part in self.parts.values():
            part.to(self.device)
        self.where = Where()
        self.bf16 = _bf16_is_faster(self.device)
        self._optimizers()

    def _optimizers(self) -> None:
        """Muon for the matrices of layers, AdamW for the rest; groups by module, so that rates can differ."""
        muon, adam = [], []
        for name, part in self.parts.items():
            inner = [p for n, p in part.named_parameters() if p.ndim == 2 and _hidden(n)]
            ids = {id(p) for p in inner}
            outer = [p for p in part.parameters() if id(p) not in ids]
            muon += [{"params": inner, "part": name}] if inner else []
            adam += [{"params": outer, "part": name}] if outer else []
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                muon, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
            "adam": torch.optim.AdamW(adam, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
        }

    def save(self) -> None:
        """Everything, so that a later run goes on exactly here."""
        facts = {
            "where": asdict(self.where),
            "shape": asdict(self.shape),
            "plan": [asdict(s) for s in self.plan],
            "seed": self.seed,
            "bf16": self.bf16,
        }
        state.save(self.out, self.parts, self.optimizers, facts)

    @classmethod
    def resume(cls, out: Path, device: str) -> Run:
        """The run saved in `out`. Raises UsageError where there is none."""
        facts = state.facts(out)
        if facts is None:
            raise UsageError(f"{out}: no training to resume. Start one without --resume.")
        plan = tuple(Stage(**s) for s in facts["plan"])
        run = cls(out, device, facts["seed"], Shape(**facts["shape"]), plan)
        run.where, run.bf16 = Where(**facts["where"]), facts["bf16"]
        state.load(out, run.parts, run.optimizers)
        return run

    @classmethod
    def anew(cls, start: Path, out: Path, device: str, seed: int) -> Run:
        """A new plan in `out` with the weights and the vocabulary of the training in `start`, and its pages counted on."""
        if state.facts(start) is None:
            raise UsageError(
                f"{start}: holds no training. Name the folder that one was made in; a checkpoint is not enough."
            )
        before = cls.resume(start, device)
        run = cls(out, device, seed, before.shape)
        for name, part in run.parts.items():
            part.load_state_dict(before.parts[name].state_dict())
        run.where = Where(pages=before.where.pages, minutes=before.where.minutes)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before.speech_file, run.speech_file)
        return run

    def autocast(self) -> Any:
        """bfloat16 products where this machine has them fast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def log(self, **facts: Any) -> None:
        """A line of the curve."""
        line = {**asdict(self.where), "stage": self.plan[self.where.stage].name, **facts}
        line["minutes"] = round(self.where.minutes, 2)
        with open(self.out / "curve.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")

    @cached_property
    def speech(self) -> Speech:
        """The tokenizer, learned when it is first needed."""
        if not self.speech_file.is_file():
            text.learn_vocabulary(text.corpus(self.seed), self.speech_file, self.shape.vocabulary)
        return Speech(self.speech_file)

    @property
    def speech_file(self) -> Path:
        """Where the vocabulary lies."""
        return self.out / "tokenizer.model"

    # --- one step --------------------------------------------------------------------------------------------------

    def rows(self, batch: Batch, jitter: Tensor | None) -> Tensor:
        """Image tokens (n, t, d) of a batch."""
        tower, projector = self.parts["tower"], self.parts["projector"]
        x = data.normalised(batch.patches.to(self.device), jitter)
        mask = None if batch.mask is None else batch.mask.to(self.device)
        out: Tensor = projector(tower(x, batch.tokens.to(self.device), mask))
        return out

    def tower_losses(self, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the heads say about the rows."""
        batch.targets = {k: v.to(self.device) for k, v in batch.targets.items()}
        heads = self.parts["heads"]
        assert isinstance(heads, Heads)
        return heads.losses(rows, batch)

    def answer_loss(self, rows: Tensor, batch: Batch, turns: Turns) -> Tensor:
        """Cross entropy of the answers' tokens."""
        llama = self.parts["llama"]
        assert isinstance(llama, Llama)
        pages = [rows[p].flatten(0, 1) for p in batch.pages]
        tokens, learned = turns.tokens.to(self.device), turns.answers.to(self.device)
        states = llama(pages, turns.before.to(self.device), tokens)[:, :, :-1]
        here = learned[:, :, 1:]
        return cross_entropy(
            nn.functional.linear(states[here], llama.lm_head.weight).float(), tokens[:, :, 1:][here]
        )

    def step(self, stage: Stage, losses: dict[str, Tensor]) -> None:
        """Rates for this step, gradients, one update."""
        rate = _rate(stage, self.where.step)
        for name, optimizer in self.optimizers.items():
            base = stage.muon if name == "muon" else stage.adam
            for group in optimizer.param_groups:
                slow = stage.tower if group["part"] in ("tower", "projector") else 1.0
                group["lr"] = base * rate * slow
            optimizer.zero_grad(set_to_none=True)
        total = torch.stack([WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        for part in self.parts.values():
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()


def _hidden(name: str) -> bool:
    """Matrices inside layers; embeddings and what reads out are AdamW's."""
    return name.startswith(("layers.", "second", "think")) and name.endswith("weight")


def _rate(stage: Stage, step: int) -> float:
    """Between 0 and 1."""
    left = (stage.steps - step) / max(1.0, stage.fall * stage.steps)
    return min(1.0, (step + 1) / stage.warm, max(left, 0.0))


def _bf16_is_faster(device: torch.device) -> bool:
    """Measured, because a processor without the instructions is twelve times slower in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())

    def seconds(dtype: torch.dtype) -> float:
        x, w = torch.randn(1024, 256, dtype=dtype), torch.randn(1024, 256, dtype=dtype)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            nn.functional.linear(x, w)
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


# --- the way through ----------------------------------------------------------------------------------------------------


def train(
    run: Run,
    minutes: float,
    processes: int,
    signals: Path | None,
    say: Callable[[str], None],
    save_every: float = 2.0,
) -> bool:
    """Go on for `minutes`; True when the plan is done. State is saved every `save_every` minutes and at the end."""
    run.out.mkdir(parents=True, exist_ok=True)
    clock = _Clock(run.where.minutes, minutes)
    saved = time.monotonic()
    exam = list(data.drawn(run.seed + 1_000_003, 192, run.shape.patch, processes=processes))
    while run.where.stage < len(run.plan):
        stage = run.plan[run.where.stage]
        if not stage.steps or (stage.name == "real" and signals is None):
            run.where = replace(run.where, stage=run.where.stage + 1, step=0)
            continue
        lessons = _lessons(run, stage, processes, signals)
        try:
            for batch in lessons:
                with _reproducible(run.device):
                    figures = _learn(run, stage, batch)
                run.where.step += 1
                run.where.pages += stage.batch
                run.where.minutes = clock.now()
                if run.where.step % 50 == 0:
                    run.log(loss=figures)
                if run.where.step % 250 == 0 or run.where.step == stage.steps:
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
        run.where = replace(run.where, stage=run.where.stage + 1, step=0)
        run.save()
    return True


@contextlib.contextmanager
def _reproducible(device: torch.device) -> Generator[None, None, None]:
    """Gradients of looked-up rows are otherwise summed in an order that changes from run to run."""
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
    """Minutes of training over all sittings."""

    def __init__(self, before: float, minutes: float) -> None:
        self._before, self._start, self._limit = before, time.monotonic(), minutes

    def now(self) -> float:
        """In all."""
        return self._before + (time.monotonic() - self._start) / 60

    def over(self) -> bool:
        """This sitting's time is up."""
        return self.now() - self._before >= self._limit


def _lessons(
    run: Run, stage: Stage, processes: int, signals: Path | None
) -> Generator[Batch, None, None]:
    """Batches from the run's place to the stage's end; the same ones in one sitting or in many."""
    per_block = stage.passes * (stage.block // stage.batch)
    block, skip = divmod(run.where.step, per_block)
    seed = run.seed + 1000 * (run.where.stage + 1)
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
    """Colours of each page scaled and shifted a little; drawn from the run's place, so that it can be drawn again."""
    rng = np.random.default_rng((run.seed, run.where.stage, run.where.step))
    scale = rng.normal(1, 0.06, (len(batch.pages), 1, 3)) * rng.normal(
        1, 0.06, (len(batch.pages), 1, 1)
    )
    shift = rng.normal(0, 0.03, (len(batch.pages), 1, 3))
    owners = np.repeat(np.arange(len(batch.pages)), [p.stop - p.start for p in batch.pages])
    jitter = np.concatenate([scale, shift], 1)[owners]
    return torch.from_numpy(jitter.astype(np.float32)).to(run.device)


def _learn(run: Run, stage: Stage, batch: Batch) -> dict[str, float]:
    """One batch; its losses."""
    with run.autocast():
        with torch.set_grad_enabled(stage.tower > 0):
            rows = run.rows(batch, _jitter(run, batch))
        losses = run.tower_losses(rows, batch) if stage.tower else {}
        if stage.turns:
            rng = np.random.default_rng((run.seed, run.where.stage, run.where.step, 3))
            losses["answer"] = run.answer_loss(
                rows, batch, run.speech.turns(batch.words, rng, stage.turns)
            )
    run.step(stage, losses)
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


@torch.no_grad()
def examine(run: Run, lessons: list[Lesson]) -> dict[str, Any]:
    """What the page head gets right on unseen pages: F1 of each finding, error of the rate."""
    heads = run.parts["heads"]
    assert isinstance(heads, Heads)
    whole = run.plan[run.where.stage].name != "tower"
    guesses, golds, rates = [], [], []
    for i in range(0, len(lessons), 8):
        batch = data.collate(lessons[i : i + 8], run.shape.patch, whole=whole)
        with run.autocast():
            page = heads.pages(run.rows(batch, None), batch)
        guesses.append(page[:, :FINDINGS].cpu() > 0)
        golds.append(batch.targets["findings"] > 0)
        mean, spread = PAGE_SCALE[0]
        rates.append(
            60 * (page[:, FINDINGS + 5].cpu() * spread + mean - batch.targets["measures"][:, 0])
        )
    guess, gold, rate = torch.cat(guesses), torch.cat(golds), torch.cat(rates).abs()
    hits = (guess & gold).sum(0)
    f1 = 2 * hits / (guess.sum(0) + gold.sum(0)).clamp(min=1)
    return {
        "f1": {n: round(float(v), 3) for n, v in zip(NAMES, f1, strict=True)},
        "rate_error": round(float(rate.mean()), 2),
        "rate_within_5": round(float((rate <= 5).float().mean()), 3),
    }


def _line(run: Run, figures: dict[str, float], result: dict[str, Any]) -> str:
    f1 = " ".join(f"{k} {v:.2f}" for k, v in result["f1"].items())
    loss = " ".join(f"{k} {v:.3f}" for k, v in figures.items())
    where = f"{run.plan[run.where.stage].name} {run.where.step} ({run.where.minutes:.0f} min)"
    return f"{where}: {f1}; rate +-{result['rate_error']}, {result['rate_within_5']:.0%} within 5; {loss}"


def sitting(
    out: Path,
    *,
    minutes: float,
    device: str,
    resume: bool,
    seed: int,
    steps: tuple[str, ...],
    signals: Path | None,
    start: Path | None,
    processes: int | None,
    say: Callable[[str], None],
) -> None:
    """Start or resume a training in `out`, go on for `minutes`, and leave state and checkpoint there.

    `start`: a new plan with the weights of the training in that folder.
    """
    if resume and start is not None:
        raise UsageError(
            "--start begins a new plan; --resume goes on with the one there is. Give one of them."
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
            Run(out, device, seed, Shape()) if start is None else Run.anew(start, out, device, seed)
        )
    run.plan = planned(run.plan, steps)
    if signals is None:
        say("without --signals the stage on real recordings is left out")
    if processes is None:
        processes = max(1, (os.cpu_count() or 1) - 2)
    done = train(run, minutes, processes, signals, say)
    run.speech  # noqa: B018 (the vocabulary is part of every checkpoint)
    layout.write(run.parts, run.shape, run.out)
    say(
        f"{out}: {'the plan is done' if done else 'go on with --resume'}, {run.where.minutes:.0f} minutes in all"
    )


def planned(plan: tuple[Stage, ...], steps: tuple[str, ...]) -> tuple[Stage, ...]:
    """The plan with other lengths, given as STAGE=N; 0 leaves a stage out. Raises UsageError."""
    lengths = {}
    for wish in steps:
        name, _, number = wish.partition("=")
        if name not in {s.name for s in plan} or not number.isdecimal():
            known = ", ".join(s.name for s in plan)
            raise UsageError(
                f"--steps {wish}: give STAGE=N with a stage of {known}, and 0 to leave it out."
            )
        lengths[name] = int(number)
    return tuple(replace(s, steps=lengths.get(s.name, s.steps)) for s in plan)
