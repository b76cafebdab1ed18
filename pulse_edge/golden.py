"""A kit's golden cases: questions about pages with the answers of the machine that made the kit, against this machine.

`golden.json` is a list of cases, or an object with `cases` and the `tolerance` of a logit. A case names its `page` (a
file of the kit, or the example page of this program), `question`, `tokens` and `first_logits` of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import foreign_json
from .errors import KitError
from .interpret import EncodedScan, PulseModel
from .kit import Kit

FILE = "golden.json"
TOLERANCE, TOLERANCE_QUANTIZED = 0.05, 0.5
"""Of a logit, where the kit states none: other processors sum in another order. Below 8 bits the inputs are rounded too,
and two kernels of one machine differ by up to 0.14 (Q4_K_M). A wrong kernel is far beyond either."""
_EXACT = {"f32", "f16", "bf16", "q8_0"}
WRITTEN = 8
"""Tokens that are also written step by step, which takes other kernels than reading them at once."""


@dataclass(frozen=True)
class Case:
    """One question and what became of it on the machine that made the kit."""

    page: str
    question: str
    tokens: tuple[int, ...]
    first_logits: tuple[float, ...]


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

    @property
    def passed(self) -> bool:
        """Two logits may each be off by the tolerance, so a choice between them by twice as much."""
        return self.first_logits <= self.tolerance and max(self.tokens, self.written) <= 2 * self.tolerance


def read(kit: Kit) -> tuple[float, tuple[Case, ...]]:
    """(tolerance, cases); none where the kit has no golden.json. Raises KitError for one that cannot be read."""
    usual = TOLERANCE if kit.manifest.language.type.lower() in _EXACT else TOLERANCE_QUANTIZED
    if FILE not in kit.manifest.files:
        return usual, ()
    path = kit.file(FILE)
    try:
        raw = foreign_json.parse(foreign_json.read(path))
        told = raw if isinstance(raw, dict) else {"tolerance": usual, "cases": raw}
        cases = [
            Case(str(c["page"]), str(c["question"]), tuple(map(int, c["tokens"])), tuple(map(float, c["first_logits"])))
            for c in told["cases"]
        ]
        return float(told["tolerance"]), tuple(cases)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise KitError(f"{path}: its golden cases cannot be read ({e!r}). Copy the kit again.") from None


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
    (logits,) = model.score(encoded, case.question, [case.tokens])
    below = logits.max(1) - logits[np.arange(len(case.tokens)), list(case.tokens)]
    answering = model.ask(encoded, case.question, min(WRITTEN, len(case.tokens)))
    answering.answer()
    ours = [*answering.ids, model.language.end]  # the end counts where it came too early
    at = next((i for i, token in enumerate(case.tokens[:WRITTEN]) if ours[i] != token), None)
    written = 0.0 if at is None else float(logits[at].max() - logits[at][ours[at]])
    return Outcome(
        question=case.question,
        first_logits=float(np.abs(logits[0] - np.array(case.first_logits)).max()),
        tokens=float(below.max()),
        written=written,
        tolerance=tolerance,
    )
