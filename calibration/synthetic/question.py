"""A question with its right answer, and seeded choices that make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
LETTERS = "ABCDEFGH"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """Questions about a page, turn by turn, with the right answers."""

    task: str  # one of TASKS
    turns: tuple[tuple[str, str], ...]  # (question, answer); only arena has more than one
    labels: tuple[str, ...] | None = (
        None  # what the answer says: labels, options chosen, or the letter; None: prose
    )
    options: tuple[str, ...] = ()  # what there was to choose from, in the order of the question


def lettered(options: Sequence[str]) -> str:
    """`A. ...` one to a line."""
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)
    )


def pick(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def shuffled(rng: Rng, items: Sequence[Item]) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))]
