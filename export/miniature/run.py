"""A training under way: modules, optimizers and progress, saved and resumed."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from export.miniature import data, state, text
from export.miniature.data import Batch
from export.miniature.model import Llama, Projector, Shape, Tower
from export.miniature.plan import PLAN, Progress, Stage
from export.miniature.teach import WEIGHTS, Heads
from export.miniature.text import Speech, Turns
from pulse_edge.errors import DeviceError, UsageError


class Run:
    """Modules, optimizers and progress of a training in the folder `out`."""

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
        self.progress = Progress()
        self.bf16 = _bf16_is_faster(self.device)
        self._optimizers()

    def _optimizers(self) -> None:
        """Make the optimizers: Muon for the matrices of layers, AdamW for the rest.

        Groups are by module, so that rates can differ.
        """
        muon, adam = [], []
        for name, part in self.parts.items():
            inner = [p for n, p in part.named_parameters() if p.ndim == 2 and _in_layers(n)]
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
        """Save everything, so that a later run goes on exactly here."""
        facts = {
            "where": asdict(self.progress),
            "shape": asdict(self.shape),
            "plan": [asdict(s) for s in self.plan],
            "seed": self.seed,
            "bf16": self.bf16,
        }
        state.save(self.out, self.parts, self.optimizers, facts)

    @classmethod
    def resume(cls, out: Path, device: str) -> Run:
        """Load the training saved in `out`. Raises UsageError if there is none."""
        facts = state.facts(out)
        if facts is None:
            raise UsageError(f"{out}: no training to resume. Start one without --resume.")
        plan = tuple(Stage(**s) for s in facts["plan"])
        run = cls(out, device, facts["seed"], Shape(**facts["shape"]), plan)
        run.progress, run.bf16 = Progress(**facts["where"]), facts["bf16"]
        state.load(out, run.parts, run.optimizers)
        return run

    @classmethod
    def from_training(cls, start: Path, out: Path, device: str, seed: int) -> Run:
        """Start a new plan in `out` with the weights and vocabulary of the training in `start`.

        Its pages are counted on.
        """
        if state.facts(start) is None:
            raise UsageError(
                f"{start}: holds no training. Name the folder that one was made in; a checkpoint "
                "is not enough."
            )
        before = cls.resume(start, device)
        run = cls(out, device, seed, before.shape)
        for name, part in run.parts.items():
            part.load_state_dict(before.parts[name].state_dict())
        run.progress = Progress(pages=before.progress.pages, minutes=before.progress.minutes)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before.speech_file, run.speech_file)
        return run

    def autocast(self) -> Any:
        """Use bfloat16 products where this machine has them fast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def log(self, **facts: Any) -> None:
        """Append a line to the curve."""
        line = {**asdict(self.progress), "stage": self.plan[self.progress.stage].name, **facts}
        line["minutes"] = round(self.progress.minutes, 2)
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
        """File of the vocabulary."""
        return self.out / "tokenizer.model"

    # --- one step ---------------------------------------------------------------------------------

    def image_tokens(self, batch: Batch, jitter: Tensor | None) -> Tensor:
        """Return the image tokens (n, t, d) of a batch."""
        tower, projector = self.parts["tower"], self.parts["projector"]
        x = data.normalised(batch.patches.to(self.device), jitter)
        mask = None if batch.mask is None else batch.mask.to(self.device)
        out: Tensor = projector(tower(x, batch.tokens.to(self.device), mask))
        return out

    def tower_losses(self, image_tokens: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the heads on the image tokens."""
        batch.targets = {k: v.to(self.device) for k, v in batch.targets.items()}
        heads = self.parts["heads"]
        assert isinstance(heads, Heads)
        return heads.losses(image_tokens, batch)

    def answer_loss(self, image_tokens: Tensor, batch: Batch, turns: Turns) -> Tensor:
        """Return the cross entropy of the answers' tokens."""
        llama = self.parts["llama"]
        assert isinstance(llama, Llama)
        pages = [image_tokens[p].flatten(0, 1) for p in batch.pages]
        tokens, learned = turns.tokens.to(self.device), turns.answers.to(self.device)
        states = llama(pages, turns.before.to(self.device), tokens)[:, :, :-1]
        here = learned[:, :, 1:]
        return cross_entropy(
            nn.functional.linear(states[here], llama.lm_head.weight).float(), tokens[:, :, 1:][here]
        )

    def step(self, stage: Stage, losses: dict[str, Tensor]) -> None:
        """Set the rates of this step, compute the gradients, and update once."""
        rate = _rate(stage, self.progress.step)
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


def _in_layers(name: str) -> bool:
    """Whether a weight is a matrix inside a layer; embeddings and read-outs are AdamW's."""
    return name.startswith(("layers.", "second", "think")) and name.endswith("weight")


def _rate(stage: Stage, step: int) -> float:
    """Return the share of the learning rate at a step, between 0 and 1."""
    left = (stage.steps - step) / max(1.0, stage.fall * stage.steps)
    return min(1.0, (step + 1) / stage.warm, max(left, 0.0))


def _bf16_is_faster(device: torch.device) -> bool:
    """Measure whether bfloat16 is faster than float32.

    A processor without the instructions is twelve times slower in it.
    """
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
