"""How far a kit may differ from the original, and the refusal of one that differs more.

The differences of a right kit are those that its types cause in this very model. The original's
side computes them too: in the kit's types for the language model, in float64 for the encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pulse_edge.errors import ParityError

FACTOR = 10
"""Multiple of the expected difference from which on a kit is refused. Right kits stay within 0.3 to
1.5 times the expected difference (docs/proof.md)."""
FLOOR = {"token": 1e-6, "attention": 1e-6, "kld": 1e-9, "logit": 1e-5}
"""Added to the expected difference, for models so small that rounding nearly vanishes: a few units
in the last place of float32."""
PIXEL = 1e-6
"""Largest difference of a normalised pixel: both sides take Pillow's levels from a table of 256
values."""
TOP_TOKEN_LEAD = 0.05
"""The top token must agree where the original's lead is larger than this many logits; closer ones
may change places."""
_LISTED = 8
"""Differences that a message lists."""


def allowed(what: str, expected: float) -> float:
    """Return the largest difference that passes, given the one that a right kit would have.

    `what` is a key of FLOOR.
    """
    return FACTOR * expected + FLOOR[what]


def figures(what: str, errors: npt.NDArray[Any], expected: npt.NDArray[Any]) -> dict[str, float]:
    """Return the largest error, the expected one and the largest that passes, for the manifest."""
    largest = float(expected.max())
    values = {
        "error": float(errors.max()),
        "expected": largest,
        "required": allowed(what, largest),
    }
    return {f"{what}_{name}": float(f"{value:.3g}") for name, value in values.items()}


def require_within(file: str, values: dict[str, Any], *gates: tuple[str, str]) -> None:
    """Raise ParityError where a figure is above what its gate requires, or is not a number.

    Each of `gates` names a figure, and the gate whose `_required` figure is its limit.
    """
    wrong = [
        f"{name.replace('_', ' ')} {values[name]:.3g}, at most {values[f'{gate}_required']:.3g}"
        for name, gate in gates
        if not values[name] <= values[f"{gate}_required"]
    ]
    refuse(file, wrong, "differs from the original")


def require_variation(rows: npt.NDArray[np.float32], what: str) -> None:
    """Raise ParityError where every row is the same: then any comparison would pass."""
    spread = np.abs(rows - rows[:1]).max()
    if not spread > 1e-4 * np.abs(rows).max():
        raise ParityError(
            f"nothing can be proven: {what}. Fetch the checkpoint again. No kit was written."
        )


def refuse(file: str, problems: list[str], what: str) -> None:
    """Raise ParityError where there are problems, listing the first ones."""
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ParityError(
            f"{file}: {what}: {'; '.join(problems[:_LISTED])}{more}. No kit was written."
        )
