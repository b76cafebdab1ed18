"""A kit's golden cases: questions about pages with the answers of the machine that made the kit, against this machine.

`golden.json` is a list of cases, or an object with `cases` and the `tolerance` of a logit. A case names its `page` (a
file of the kit, or the example page of this program), `question`, `tokens` and `first_logits` of the answer, and of some of its
next tokens `later_logits`, a sample of the vocabulary (`sampled`): one position alone does not tell wrong weights from another
processor's rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import KitError
from .interpret import EncodedScan, PulseModel
from .kit import Kit

FILE = "golden.json"
TOLERANCE, TOLERANCE_QUANTIZED = 0.05, 0.45
"""Of a logit, where the kit states none: other processors sum in another order. Below 8 bits the inputs are rounded too,
and two kernels of one machine differ by up to 0.15 (Q4_K_M; 0.005 at F16): three times that. Kits made today measure their own
(export.golden)."""
_EXACT = {"f32", "f16", "bf16", "q8_0"}
SAMPLED = 256
"""Tokens of the vocabulary whose later logits are compared."""
WRITTEN = 8
"""Tokens that are also written step by step, which takes other kernels than reading them at once."""


@dataclass(frozen=True)
class Case:
    """One question and what became of it on the machine that made the kit."""

    page: str
    question: str
    tokens: tuple[int, ...]
    first_logits: tuple[float, ...]
    later_logits: tuple[tuple[float, ...], ...] = ()
    """Behind the first token, behind the second, ...; each `sampled`."""


def sampled(vocabulary: int) -> slice:
    """Which tokens of the vocabulary `later_logits` hold."""
    return slice(None, None, max(1, vocabulary // SAMPLED))


@dataclass(frozen=True)
class Outcome:
    """A case on this machine; all figures are differences of logits."""

    question: str
    first_logits: float
    """The largest difference at the answer's first token."""
    tokens: float
    """How far the answer's tokens stay below the best one, at most; 0: they are what this machine writes too."""
    written: float
    """The same of the first token that is written differently, of the first few."""
    tolerance: float
    later_logits: float = 0.0
    """The largest difference at the answer's next tokens, of those logits that the case has."""

    @property
    def passed(self) -> bool:
        """Two logits may each be off by the tolerance, so a choice between them by twice as much."""
        logits, choices = max(self.first_logits, self.later_logits), max(self.tokens, self.written)
        return logits <= self.tolerance and choices <= 2 * self.tolerance


def read(kit: Kit) -> tuple[float, tuple[Case, ...]]:
    """(tolerance, cases); none where the kit has no golden.json. Raises KitError for one that cannot be read."""
    usual = TOLERANCE if kit.manifest.language.type.lower() in _EXACT else TOLERANCE_QUANTIZED
    if FILE not in kit.manifest.files:
        return usual, ()
    path = kit.file(FILE)
    try:
        raw = json.loads(path.read_text("utf-8"))
        told = raw if isinstance(raw, dict) else {"tolerance": usual, "cases": raw}
        return float(told["tolerance"]), tuple(map(_case, told["cases"]))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise KitError(f"{path}: its golden cases cannot be read ({e!r}). Copy the kit again.") from None


def _case(raw: dict[str, Any]) -> Case:
    return Case(
        page=str(raw["page"]),
        question=str(raw["question"]),
        tokens=tuple(map(int, raw["tokens"])),
        first_logits=tuple(map(float, raw["first_logits"])),
        later_logits=tuple(tuple(map(float, row)) for row in raw.get("later_logits", ())),
    )


def page(kit: Kit, name: str) -> Path:
    """The file of a case's page. Raises KitError where there is none."""
    for path in (kit.file(name), Path(__file__).with_name(name)):
        if Path(name).name == name and path.is_file():
            return path
    raise KitError(f"{kit.path}: its golden cases need the page {name}, which is not there. Copy the kit again.")


def check(
    model: PulseModel, encode: Callable[[Path], EncodedScan], progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Every case of the model's kit. `encode` gets a page's path; each page is encoded once."""
    tolerance, cases = read(model.kit)
    encoded = {name: encode(page(model.kit, name)) for name in dict.fromkeys(case.page for case in cases)}
    found = []
    for n, case in enumerate(cases):
        progress(n, len(cases))
        found.append(_check(model, encoded[case.page], case, tolerance))
    progress(len(cases), len(cases))
    return found


def _check(model: PulseModel, encoded: EncodedScan, case: Case, tolerance: float) -> Outcome:
    if not case.tokens or len(case.first_logits) != model.language.vocabulary:
        raise KitError(f"{model.kit.file(FILE)}: a case has no answer or other logits. Copy the kit again.")
    wide = len(range(*sampled(model.language.vocabulary).indices(model.language.vocabulary)))
    if len(case.later_logits) >= len(case.tokens) or any(len(row) != wide for row in case.later_logits):
        raise KitError(f"{model.kit.file(FILE)}: a case has other later logits. Copy the kit again.")
    (logits,) = model.score(encoded, case.question, [case.tokens])
    below = logits.max(1) - logits[np.arange(len(case.tokens)), list(case.tokens)]
    answering = model.ask(encoded, case.question, min(WRITTEN, len(case.tokens)))
    answering.answer()
    ours = [*answering.ids, model.language.end]  # the end counts where it came too early
    at = next((i for i, token in enumerate(case.tokens[:WRITTEN]) if ours[i] != token), None)
    written = 0.0 if at is None else float(logits[at].max() - logits[at][ours[at]])
    later = logits[1 : 1 + len(case.later_logits), sampled(model.language.vocabulary)]
    return Outcome(
        question=case.question,
        first_logits=float(np.abs(logits[0] - np.array(case.first_logits)).max()),
        tokens=float(below.max()),
        written=written,
        tolerance=tolerance,
        later_logits=float(np.abs(later - np.array(case.later_logits)).max()) if len(later) else 0.0,
    )
