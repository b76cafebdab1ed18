"""What an answer will probably say next: guesses that the language model checks several at a time.

    table (kit) + prompt and answer so far -> up to n token ids

Two sources: what was said before in this process, questions included (prompt lookup), and the kit's table of which token
followed which in reference answers. The longest context that either knows decides. Guesses never change an answer: see
`llm.LanguageModel.generate`. Standard library only.
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
SHORTEST_SEEN = 2
"""Tokens of the shortest context that counts from what was said before: one token alone says too little."""
MOST = 200_000
"""Contexts that are remembered from what was said, some 30 MB; then it begins anew."""
_FORMAT = 1


class Drafter:
    """Guesses for one language model; remembers what was said from answer to answer."""

    def __init__(self, table: Table | None = None) -> None:
        self._table: Table = table or {}
        self._seen: dict[Context, int] = {}
        self._last: Context = ()

    def fresh(self) -> Drafter:
        """One with the same table that has heard nothing."""
        return Drafter(self._table)

    def begin(self, prompt: Iterable[int]) -> None:
        """Hear the question's tokens; an answer follows."""
        self._last = ()
        if len(self._seen) > MOST:
            self._seen.clear()
        for token in prompt:
            self.hear(token)

    def hear(self, token: int) -> None:
        """The next token of the question or the answer."""
        for n in range(SHORTEST_SEEN, len(self._last) + 1):
            self._seen[self._last[-n:]] = token
        self._last = (*self._last, token)[-ORDER:]

    def guess(self, most: int) -> list[int]:
        """What may come next: at most so many tokens, none where nothing is known."""
        guesses: list[int] = []
        context = self._last
        while len(guesses) < most and (token := self._next(context)) is not None:
            guesses.append(token)
            context = (*context, token)[-ORDER:]
        return guesses

    def _next(self, context: Context) -> int | None:
        for n in range(len(context), 0, -1):
            for known in (self._table, self._seen):
                if (token := known.get(context[-n:])) is not None:
                    return token
        return None


def build(answers: Iterable[Sequence[int]], vocabulary: int, least: int = 2) -> dict[Context, int]:
    """For each context of 1 to ORDER tokens, seen at least `least` times, the token that followed it most often.

    The smaller id where two are as frequent. A context that says the same as the longest shorter one that is kept is left out.
    """
    follows: dict[Context, Counter[int]] = defaultdict(Counter)
    for ids in answers:
        if any(not 0 <= token < vocabulary for token in ids):
            raise KitError(
                f"an answer has tokens outside the vocabulary of {vocabulary}. Tokenize it with this kit."
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
    """The kit's file: JSON, contexts as ids with spaces between, sorted; the same table gives the same bytes."""
    rows = {" ".join(map(str, context)): token for context, token in sorted(table.items())}
    text = json.dumps({"format": _FORMAT, "vocabulary": vocabulary, "follows": rows}, indent=0)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read(path: Path, vocabulary: int) -> dict[Context, int]:
    """A kit's table. Raises KitError for a file that is none, or is of another vocabulary."""
    try:
        raw = json_input.parse(json_input.read(path))
        if raw["format"] != _FORMAT or raw["vocabulary"] != vocabulary:
            raise ValueError(f"format {raw['format']}, vocabulary of {raw['vocabulary']}")
        table = {
            tuple(map(int, context.split())): int(token)
            for context, token in raw["follows"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KitError(
            f"{path}: not this kit's table of guesses ({e}). Copy the kit again."
        ) from None
    if any(not 0 <= token < vocabulary for token in table.values()):
        raise KitError(f"{path}: names tokens outside the kit's vocabulary. Copy the kit again.")
    return table
