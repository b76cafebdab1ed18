"""Propose draft tokens of an answer by n-grams; one verification step of the language model checks
several of them.

    draft table (kit) + prompt and answer so far -> up to n token ids

There are two sources: earlier questions and answers of this process (prompt lookup), and the kit's
draft table, which holds the token that followed each context in reference answers. The longest
context that either has decides. Draft tokens never change an answer: see `decoding`. Standard
library only.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pulse_edge.common import json_input
from pulse_edge.errors import KitError

Context = tuple[int, ...]
Table = Mapping[Context, int]
ORDER = 5
"""Tokens of the longest context."""
SHORTEST_LEARNED = 2
"""Tokens of the shortest context that is learned from this process's texts: one token alone says
too little."""
MOST = 200_000
"""Contexts that are learned, some 30 MB; above that all of them are dropped."""
_FORMAT = 1


class Drafter:
    """Proposes draft tokens for one language model, and learns from each text."""

    def __init__(self, table: Table | None = None) -> None:
        self._table: Table = table or {}
        self._learned: dict[Context, int] = {}
        self._last: Context = ()

    def fresh(self) -> Drafter:
        """Return a drafter with the same table and an empty memory."""
        return Drafter(self._table)

    def begin(self, prompt: Iterable[int]) -> None:
        """Take the question's tokens; an answer follows."""
        self._last = ()
        if len(self._learned) > MOST:
            self._learned.clear()
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        """Take the next token of the question or the answer."""
        for n in range(SHORTEST_LEARNED, len(self._last) + 1):
            self._learned[self._last[-n:]] = token
        self._last = (*self._last, token)[-ORDER:]

    def propose(self, count: int) -> list[int]:
        """Return at most `count` draft tokens; none behind an unknown context."""
        drafts: list[int] = []
        context = self._last
        while len(drafts) < count and (token := self._next(context)) is not None:
            drafts.append(token)
            context = (*context, token)[-ORDER:]
        return drafts

    def _next(self, context: Context) -> int | None:
        for n in range(len(context), 0, -1):
            for source in (self._table, self._learned):
                if (token := source.get(context[-n:])) is not None:
                    return token
        return None


def build(answers: Iterable[Sequence[int]], vocabulary: int, least: int = 2) -> dict[Context, int]:
    """Build a draft table: for each context of 1 to ORDER tokens the token that followed it most
    often.

    The smaller id wins where two are as frequent. Left out are contexts that occur less than
    `least` times, and those that give the same token as the longest shorter context in the table.
    Raises KitError for ids outside the vocabulary.
    """
    follows: dict[Context, Counter[int]] = defaultdict(Counter)
    for ids in answers:
        if any(not 0 <= token < vocabulary for token in ids):
            raise KitError(
                f"an answer has tokens outside the vocabulary of {vocabulary}. Tokenize it with "
                "this kit."
            )
        for at in range(1, len(ids)):
            for n in range(1, min(ORDER, at) + 1):
                follows[tuple(ids[at - n : at])][ids[at]] += 1
    table: dict[Context, int] = {}
    for context in sorted(follows, key=lambda c: (len(c), c)):
        token, count = min(follows[context].items(), key=lambda one: (-one[1], one[0]))
        shorter = next(
            (table[context[-n:]] for n in range(len(context) - 1, 0, -1) if context[-n:] in table),
            None,
        )
        if count >= least and token != shorter:
            table[context] = token
    return table


def write(path: Path, table: Table, vocabulary: int) -> None:
    """Write a draft table: JSON, contexts as ids with spaces between, sorted; the same table gives
    the same bytes."""
    follows = {" ".join(map(str, context)): token for context, token in sorted(table.items())}
    text = json.dumps({"format": _FORMAT, "vocabulary": vocabulary, "follows": follows}, indent=0)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read(path: Path, vocabulary: int) -> dict[Context, int]:
    """Read a kit's draft table. Raises KitError for a file that is none, or belongs to another
    vocabulary."""
    try:
        raw = json_input.parse(json_input.read(path))
        if raw["format"] != _FORMAT or raw["vocabulary"] != vocabulary:
            raise ValueError(f"format {raw['format']}, vocabulary of {raw['vocabulary']}")
        table = {
            tuple(map(int, context.split())): int(token)
            for context, token in raw["follows"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KitError(f"{path}: not this kit's draft table ({e}). Copy the kit again.") from None
    if any(not 0 <= token < vocabulary for token in table.values()):
        raise KitError(f"{path}: names tokens outside the kit's vocabulary. Copy the kit again.")
    return table
