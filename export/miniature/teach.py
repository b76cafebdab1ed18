"""Heads that say what a patch or a page shows, with their losses.

They teach the tower, and are discarded with the end of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from export.miniature.data import Batch
from export.miniature.model import Shape

SUBCOLUMNS, KINDS, LEADS, FINDINGS, SUPERCLASSES, MEASURES = 14, 4, 12, 14, 5, 6
"""Sizes of the targets of calibration/synthetic/lessons.py."""
UNKNOWN = 255
BEAT_SCALE = ((0.5, 0.1), (0.8, 0.06), (0.8, 0.06), (0.17, 0.02), (0.105, 0.015), (0.37, 0.03))
"""Mean of position, RR before, RR after, PR, QRS and QT, and the error of each that costs one.

That error is a third of the spread among recordings: with all of it, errors that hide a P wave or
an early beat cost next to nothing.
"""
HEIGHT = 2 / 28
"""Error of a trace's height that costs one, in patches: two pixels, a small P wave."""
PAGE_SCALE = ((1.35, 0.12), (0.17, 0.02), (0.105, 0.015), (0.37, 0.03), (0.5, 0.3), (0.3, 0.3))
"""Mean and error that costs one, for rate, PR, QRS, QT, cosine and sine of the axis."""
WEIGHTS = {
    "heights": 1.0,
    "lead": 0.3,
    "kind": 1.0,
    "beat": 3.0,
    "p": 1.0,
    "st": 0.5,
    "local": 0.5,
    "page": 1.0,
    "superclass": 0.5,
    "measures": 0.5,
    "levels": 0.3,
}


class Heads(nn.Module):
    """Heads on image tokens: linear ones for patches, and attention for pages.

    Linear ones read the tokens themselves, so that the language model finds the same things there.
    """

    def __init__(self, shape: Shape, queries: int = 16) -> None:
        super().__init__()
        d = shape.width
        self.heights = nn.Linear(d, SUBCOLUMNS)
        self.lead = nn.Linear(d, LEADS)
        self.kind = nn.Linear(d, KINDS)
        self.beat = nn.Linear(d, len(BEAT_SCALE))
        self.p = nn.Linear(d, 1)
        self.st = nn.Linear(d, 1)
        self.local = nn.Linear(d, FINDINGS)
        self.queries = nn.Parameter(torch.randn(1, queries, d) * 0.5)
        self.norm = nn.LayerNorm(d)
        self.look = nn.MultiheadAttention(d, 8, batch_first=True)
        self.think = nn.Sequential(nn.Linear(queries * d, 256), nn.GELU())
        self.page = nn.Linear(256, FINDINGS + SUPERCLASSES + MEASURES + LEADS)

    def pages(self, image_tokens: Tensor, batch: Batch) -> Tensor:
        """Return what each page shows, (pages, 37): findings, superclasses, measures, ST levels."""
        longest = max(p.stop - p.start for p in batch.pages)
        slots = image_tokens.shape[1]
        padded = image_tokens.new_zeros(len(batch.pages), longest * slots, image_tokens.shape[2])
        absent = torch.ones(
            len(batch.pages), longest * slots, dtype=torch.bool, device=image_tokens.device
        )
        for i, page in enumerate(batch.pages):
            n = (page.stop - page.start) * slots
            padded[i, :n] = image_tokens[page].reshape(n, -1)
            absent[i, :n] = False if batch.mask is None else ~batch.mask[page].reshape(-1)
        keys = self.norm(padded)
        attended, _ = self.look(
            self.queries.expand(len(keys), -1, -1).to(keys.dtype),
            keys,
            keys,
            absent,
            need_weights=False,
        )
        out: Tensor = self.page(self.think(attended.flatten(1))).float()
        return out

    def losses(self, image_tokens: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return each kind of loss, unweighted, of image tokens (n, t, d)."""
        t = batch.targets
        flat = image_tokens.reshape(-1, image_tokens.shape[2])
        out = {
            "heights": _distance(
                self.heights(flat[t["traced"]]).float(), (t["heights"] - 0.5) / HEIGHT
            )
        }
        base = flat[t["at"]]
        out["lead"] = cross_entropy(self.lead(base).float(), t["lead"].long())
        if ((t["kind"] > 0) & (t["kind"] != UNKNOWN)).any():
            out |= self._beats(base, t)
        if torch.isfinite(t["st"]).any():
            out["st"] = _distance(self.st(base).float()[:, 0], t["st"] / 0.1)
        page = self.pages(image_tokens, batch)
        cuts = [FINDINGS, SUPERCLASSES, MEASURES, LEADS]
        findings, superclass, measures, levels = torch.split(page, cuts, 1)
        out["page"] = _cross_entropy(findings, t["findings"])
        out["superclass"] = _cross_entropy(superclass, t["superclass"])
        out["measures"] = _distance(measures, _scaled(t["measures"], PAGE_SCALE))
        out["levels"] = _distance(levels, t["levels"] / 0.1)
        return out

    def _beats(self, base: Tensor, t: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of the patches on baselines that hold a heartbeat.

        Among them is the loss of the heartbeat's kind.
        """
        weight = torch.tensor([0.4, 0.8, 2.0, 2.0], device=base.device)
        stated = t["kind"] != UNKNOWN
        out = {
            "kind": cross_entropy(self.kind(base[stated]).float(), t["kind"][stated].long(), weight)
        }
        here = stated & (t["kind"] > 0)
        beats, target = base[here], t["beat"][here]
        out["beat"] = _distance(self.beat(beats).float(), _scaled(target, BEAT_SCALE))
        has_p = torch.isfinite(target[:, 3]).float()
        out["p"] = binary_cross_entropy_with_logits(self.p(beats).float()[:, 0], has_p)
        owner = t["page_of_at"][here]
        out["local"] = binary_cross_entropy_with_logits(
            self.local(beats).float(), t["findings"][owner].float()
        )
        return out


def _scaled(x: Tensor, scale: tuple[tuple[float, float], ...]) -> Tensor:
    mean, spread = torch.tensor(scale, device=x.device).T
    scaled: Tensor = (x - mean) / spread
    return scaled


def _distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 where the target is stated; zero if no target is."""
    stated = torch.isfinite(target)
    out: Tensor = (
        smooth_l1_loss(prediction[stated], target[stated]) if stated.any() else prediction.sum() * 0
    )
    return out


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy where the target is stated."""
    stated = target != UNKNOWN
    if not stated.any():
        return logits.sum() * 0
    out: Tensor = binary_cross_entropy_with_logits(logits[stated], target[stated].float())
    return out
