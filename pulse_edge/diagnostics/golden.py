"""A kit's golden cases: questions about pages with the answers of the machine that made the kit, against this machine.

`golden.json` is a list of cases, or an object with `cases`, the `tolerance` of a logit, and the `spread`: the largest root
of the mean square over all stored logits of all cases, which tells wrong weights from another processor's rounding where no
single logit does. A case names its `page` (a file of the kit, or the example page of this program), `question`, `tokens` and
`first_logits` of the answer, and of some of its next tokens `later_logits`, a sample of the vocabulary (`sampled`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pulse_edge.common import json_input, paths
from pulse_edge.errors import KitError
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit.kit import Kit

Float = npt.NDArray[np.float64]
FILE = "golden.json"
TOLERANCE, TOLERANCE_QUANTIZED = 0.05, 0.45
"""Of a logit, where the kit states none: other processors sum in another order. Below 8 bits the inputs are rounded too,
and two kernels of one machine differ by up to 0.15 (Q4_K_M; 0.005 at F16): three times that. Kits made today measure their own
(export.golden)."""
LARGEST_TOLERANCE = 2.0
"""Of a logit: the logits of one answer have a standard deviation of 1 to 2.6 (miniature), so that a kit that states more lets
every answer through, and a refusal would never come."""
MOST_CASES = 64
"""Of a kit: `export` makes twelve at most, and each takes as long as an answer."""
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
    spread: float = 0.0
    """Root of the mean square of all differences, of all cases of the kit together."""
    largest_spread: float = math.inf
    """Of a right machine; infinite where the kit states none."""

    @property
    def passed(self) -> bool:
        """Two logits may each be off by the tolerance, so a choice between them by twice as much."""
        logits, choices = max(self.first_logits, self.later_logits), max(self.tokens, self.written)
        return (
            logits <= self.tolerance
            and choices <= 2 * self.tolerance
            and self.spread <= self.largest_spread
        )


def read(kit: Kit) -> tuple[float, tuple[Case, ...]]:
    """(tolerance, cases); none where the kit has no golden.json. Raises KitError for one that cannot be read."""
    tolerance, _spread, cases = _read(kit)
    return tolerance, cases


def _read(kit: Kit) -> tuple[float, float, tuple[Case, ...]]:
    """Tolerance, largest spread, cases."""
    usual = TOLERANCE if kit.manifest.language.type.lower() in _EXACT else TOLERANCE_QUANTIZED
    if FILE not in kit.manifest.files:
        return usual, math.inf, ()
    path = kit.file(FILE)
    try:
        raw = json_input.parse(json_input.read(path))
        told = raw if isinstance(raw, dict) else {"tolerance": usual, "cases": raw}
        spread = float(told.get("spread", math.inf))
        tolerance = float(told["tolerance"])
        if not 0 < tolerance <= LARGEST_TOLERANCE or math.isnan(spread) or spread < 0:
            raise ValueError(
                f"a tolerance of {tolerance:g} and a spread of {spread:g} prove nothing"
            )
        if len(told["cases"]) > MOST_CASES:
            raise ValueError(f"{len(told['cases'])} cases, and {MOST_CASES} are the limit")
        return tolerance, spread, tuple(map(case_of, told["cases"]))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise KitError(
            f"{path}: its golden cases cannot be read ({e!r}). Copy the kit again."
        ) from None


def case_of(raw: dict[str, Any]) -> Case:
    """A case as it stands in the file."""
    return Case(
        page=str(raw["page"]),
        question=str(raw["question"]),
        tokens=tuple(map(int, raw["tokens"])),
        first_logits=tuple(map(float, raw["first_logits"])),
        later_logits=tuple(tuple(map(float, row)) for row in raw.get("later_logits", ())),
    )


def page(kit: Kit, name: str) -> Path:
    """The file of a case's page. Raises KitError where there is none."""
    if Path(name).name == name:
        for path in (kit.file(name), paths.ASSETS / name):
            if path.is_file():
                return path
    raise KitError(
        f"{kit.path}: its golden cases need the page {name}, which is not there. Copy the kit again."
    )


def check(
    model: PulseModel, encode: Callable[[Path], EncodedPage], progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Every case of the model's kit. `encode` gets a page's path; each page is encoded once."""
    tolerance, largest, cases = _read(model.kit)
    encoded = {
        name: encode(page(model.kit, name)) for name in dict.fromkeys(case.page for case in cases)
    }
    found, differences = [], []
    for n, case in enumerate(cases):
        progress(n, len(cases))
        outcome, more = _check(model, encoded[case.page], case, tolerance)
        found.append(outcome)
        differences.append(more)
    progress(len(cases), len(cases))
    spread = float(np.sqrt(np.mean(np.square(np.concatenate(differences))))) if found else 0.0
    return [replace(outcome, spread=spread, largest_spread=largest) for outcome in found]


def differences(case: Case, logits: npt.NDArray[np.float32]) -> Float:
    """Every stored logit's difference, flat: those of the first token, then the `sampled` ones of the next tokens.

    `logits` (n, vocabulary) are those ahead of each of the answer's tokens.
    """
    later = logits[1 : 1 + len(case.later_logits), sampled(logits.shape[1])]
    first = np.abs(logits[0] - np.array(case.first_logits))
    return np.concatenate(
        [first, np.abs(later - np.array(case.later_logits).reshape(later.shape)).ravel()]
    )


def _check(
    model: PulseModel, encoded: EncodedPage, case: Case, tolerance: float
) -> tuple[Outcome, Float]:
    most, vocabulary = model.kit.manifest.prompt.max_tokens, model.language.vocabulary
    if not 0 < len(case.tokens) <= most or not all(
        0 <= token < vocabulary for token in case.tokens
    ):
        raise KitError(
            f"{model.kit.file(FILE)}: a case has an answer that this kit cannot give. Copy the kit again."
        )
    if len(case.first_logits) != vocabulary:
        raise KitError(f"{model.kit.file(FILE)}: a case has other logits. Copy the kit again.")
    wide = len(range(*sampled(model.language.vocabulary).indices(model.language.vocabulary)))
    if len(case.later_logits) >= len(case.tokens) or any(
        len(row) != wide for row in case.later_logits
    ):
        raise KitError(
            f"{model.kit.file(FILE)}: a case has other later logits. Copy the kit again."
        )
    (logits,) = model.score(encoded, case.question, [case.tokens])
    below = logits.max(1) - logits[np.arange(len(case.tokens)), list(case.tokens)]
    answering = model.ask(encoded, case.question, min(WRITTEN, len(case.tokens)))
    answering.answer()
    ours = [*answering.ids, model.language.end]  # the end counts where it came too early
    at = next((i for i, token in enumerate(case.tokens[:WRITTEN]) if ours[i] != token), None)
    written = 0.0 if at is None else float(logits[at].max() - logits[at][ours[at]])
    off, first = differences(case, logits), len(case.first_logits)
    outcome = Outcome(
        question=case.question,
        first_logits=float(off[:first].max()),
        tokens=float(below.max()),
        written=written,
        tolerance=tolerance,
        later_logits=float(off[first:].max(initial=0.0)),
    )
    return outcome, off
