"""Golden cases of a kit: questions about pages with the answers of the machine that made the kit,
compared with this machine.

`golden.json` is a list of cases, or an object with `cases`, the `tolerance` of a logit, and
`rms_tolerance`: the largest root mean square of the differences of all stored logits of all cases.
It tells wrong weights from another processor's rounding where no single logit does. A case names
its `page` (a file of the kit, or the example page of this program), `question`, `tokens` and
`first_logits` of the answer, and for some of its next tokens `later_logits`, a sample of the
vocabulary (`sampled`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.common import json_input, paths
from pulse_edge.common.arrays import Double, Float
from pulse_edge.errors import KitError
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit.kit import Kit

FILE = "golden.json"
TOLERANCE, TOLERANCE_QUANTIZED = 0.05, 0.45
"""Tolerances of a logit for kits that state none: other processors sum in another order. Below 8
bits the inputs are rounded too, and two kernels of one machine differ by up to 0.15 (Q4_K_M; 0.005
at F16): three times that. Kits made today measure their own (export.golden)."""
LARGEST_TOLERANCE = 2.0
"""Largest tolerance that a kit may state: the logits of one answer have a standard deviation of 1
to 2.6 (miniature), so that a larger one lets every answer through, and a refusal would never come.
"""
MOST_CASES = 64
"""Most cases of a kit: `export` makes twelve at most, and each takes as long as an answer."""
_EXACT = {"f32", "f16", "bf16", "q8_0"}
SAMPLED = 256
"""Tokens of the vocabulary whose later logits are compared."""
DECODED = 8
"""Tokens that are also decoded one by one, which takes other kernels than reading them at once."""


@dataclass(frozen=True)
class Case:
    """One question with its answer on the machine that made the kit."""

    page: str
    question: str
    tokens: tuple[int, ...]
    first_logits: tuple[float, ...]
    later_logits: tuple[tuple[float, ...], ...] = ()
    """Logits behind the first token, behind the second, ...; each `sampled`."""


def sampled(vocabulary: int) -> slice:
    """Return which tokens of the vocabulary `later_logits` hold."""
    return slice(None, None, max(1, vocabulary // SAMPLED))


@dataclass(frozen=True)
class Outcome:
    """A case on this machine; all figures are differences of logits."""

    question: str
    first_logits: float
    """Largest difference at the answer's first token."""
    tokens: float
    """Largest distance of an answer's token below the best one; 0: this machine decodes the same
    tokens."""
    decoded: float
    """The same for the first token that is decoded differently, among the first few."""
    tolerance: float
    later_logits: float = 0.0
    """Largest difference at the answer's next tokens, of those logits that the case has."""
    rms: float = 0.0
    """Root mean square of all differences of all cases of the kit."""
    rms_tolerance: float = math.inf
    """Largest `rms` of a machine that computes right; infinite where the kit states none."""

    @property
    def passed(self) -> bool:
        """Whether the case came back. Two logits may each be off by the tolerance, so a choice
        between them by twice that."""
        logits, choices = max(self.first_logits, self.later_logits), max(self.tokens, self.decoded)
        return (
            logits <= self.tolerance
            and choices <= 2 * self.tolerance
            and self.rms <= self.rms_tolerance
        )


def read(kit: Kit) -> tuple[float, tuple[Case, ...]]:
    """Return (tolerance, cases); no cases if the kit has no golden.json. Raises KitError for one
    that cannot be read."""
    tolerance, _rms, cases = _read(kit)
    return tolerance, cases


def _read(kit: Kit) -> tuple[float, float, tuple[Case, ...]]:
    """Tolerance, tolerance of the root mean square, cases."""
    default = TOLERANCE if kit.manifest.language.type.lower() in _EXACT else TOLERANCE_QUANTIZED
    if FILE not in kit.manifest.files:
        return default, math.inf, ()
    path = kit.file(FILE)
    try:
        raw = json_input.parse(json_input.read(path))
        content = raw if isinstance(raw, dict) else {"tolerance": default, "cases": raw}
        rms = float(content.get("rms_tolerance", math.inf))
        tolerance = float(content["tolerance"])
        if not 0 < tolerance <= LARGEST_TOLERANCE or math.isnan(rms) or rms < 0:
            raise ValueError(
                f"a tolerance of {tolerance:g} and an rms_tolerance of {rms:g} cannot prove a kit"
            )
        count = len(content["cases"])
        if count > MOST_CASES:
            raise ValueError(f"{count} cases, and {MOST_CASES} are the limit")
        return tolerance, rms, tuple(map(case_of, content["cases"]))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise KitError(
            f"{path}: its golden cases cannot be read ({e!r}). Copy the kit again."
        ) from None


def case_of(raw: dict[str, Any]) -> Case:
    """Return a case from its JSON."""
    return Case(
        page=str(raw["page"]),
        question=str(raw["question"]),
        tokens=tuple(map(int, raw["tokens"])),
        first_logits=tuple(map(float, raw["first_logits"])),
        later_logits=tuple(tuple(map(float, line)) for line in raw.get("later_logits", ())),
    )


def page(kit: Kit, name: str) -> Path:
    """Return the file of a case's page. Raises KitError where there is none."""
    if Path(name).name == name:
        for path in (kit.file(name), paths.ASSETS / name):
            if path.is_file():
                return path
    raise KitError(
        f"{kit.path}: its golden cases need the page {name}, which is not there. Copy the kit "
        "again."
    )


def check(
    model: PulseModel, encode: Callable[[Path], EncodedPage], progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Run every case of the model's kit. `encode` gets a page's path; each page is encoded once.
    Raises KitError."""
    tolerance, rms_tolerance, cases = _read(model.kit)
    names = dict.fromkeys(case.page for case in cases)
    encoded = {name: encode(page(model.kit, name)) for name in names}
    outcomes, all_differences = [], []
    for n, case in enumerate(cases):
        progress(n, len(cases))
        outcome, case_differences = _check(model, encoded[case.page], case, tolerance)
        outcomes.append(outcome)
        all_differences.append(case_differences)
    progress(len(cases), len(cases))
    if not outcomes:
        return []
    rms = float(np.sqrt(np.mean(np.square(np.concatenate(all_differences)))))
    return [replace(outcome, rms=rms, rms_tolerance=rms_tolerance) for outcome in outcomes]


def differences(case: Case, logits: Float) -> Double:
    """Return every stored logit's difference, flat: those of the first token, then the `sampled`
    ones of the next tokens.

    `logits` (n, vocabulary) are those ahead of each of the answer's tokens.
    """
    later = logits[1 : 1 + len(case.later_logits), sampled(logits.shape[1])]
    first = np.abs(logits[0] - np.array(case.first_logits))
    stored = np.array(case.later_logits).reshape(later.shape)
    return np.concatenate([first, np.abs(later - stored).ravel()])


def _refuse_impossible(model: PulseModel, case: Case) -> None:
    """Raise KitError for a case that this kit cannot have."""
    file = model.kit.file(FILE)
    most, vocabulary = model.kit.manifest.prompt.max_tokens, model.language.vocabulary
    count = len(case.tokens)
    if not 0 < count <= most or not all(0 <= token < vocabulary for token in case.tokens):
        raise KitError(
            f"{file}: a case has an answer that this kit cannot give. Copy the kit again."
        )
    if len(case.first_logits) != vocabulary:
        raise KitError(f"{file}: a case has other logits. Copy the kit again.")
    width = len(range(*sampled(vocabulary).indices(vocabulary)))
    if len(case.later_logits) >= count or any(len(line) != width for line in case.later_logits):
        raise KitError(f"{file}: a case has other later logits. Copy the kit again.")


def _check(
    model: PulseModel, encoded: EncodedPage, case: Case, tolerance: float
) -> tuple[Outcome, Double]:
    _refuse_impossible(model, case)
    (logits,) = model.score(encoded, case.question, [case.tokens])
    below = logits.max(1) - logits[np.arange(len(case.tokens)), list(case.tokens)]
    answering = model.ask(encoded, case.question, min(DECODED, len(case.tokens)))
    answering.answer()
    ours = [*answering.ids, model.language.end]  # the end counts where it came too early
    at = next((i for i, token in enumerate(case.tokens[:DECODED]) if ours[i] != token), None)
    decoded = 0.0 if at is None else float(logits[at].max() - logits[at][ours[at]])
    off, first = differences(case, logits), len(case.first_logits)
    outcome = Outcome(
        question=case.question,
        first_logits=float(off[:first].max()),
        tokens=float(below.max()),
        decoded=decoded,
        tolerance=tolerance,
        later_logits=float(off[first:].max(initial=0.0)),
    )
    return outcome, off
