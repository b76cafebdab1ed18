"""Greedy decoding: logits -> tokens -> the text of an answer, with draft tokens and within a
grammar.

With a kit that carries a draft table an answer is made in verification steps of STEP_WIDTH tokens:
the next token, and draft tokens or fillers behind it. Those draft tokens stay that the model would
have chosen itself. llama.cpp takes other kernels for one token than for two, four or eight, and
their sums differ in the last bits (measured: up to 0.003 in a logit at f16, 0.14 at Q4_K_M), enough
to change a token now and then. With steps of one width every token comes out of the same kernels,
whether it was drafted or not: the same bits, so the same answer.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pulse_edge.common.arrays import Float
from pulse_edge.errors import EngineError, UsageError
from pulse_edge.inference import llama_cpp
from pulse_edge.inference.language_model import LanguageModel
from pulse_edge.report.report import Answer

STEP_WIDTH = 4
"""Tokens of a verification step on a CPU. A step waits for the weights to be read; four tokens
share that."""


class DraftSource(Protocol):
    """Proposes the next tokens of an answer."""

    def add(self, token: int) -> None:
        """Take the next token of the answer."""

    def propose(self, count: int) -> list[int]:
        """Return at most `count` tokens that may come next."""


@dataclass(frozen=True)
class Piece:
    """One generated token: its id, and the text that it completed (may be empty inside a multi-byte
    character)."""

    token: int
    text: str


def generate(
    language: LanguageModel,
    logits: Float,
    max_tokens: int,
    drafts: DraftSource | None = None,
    grammar: str | None = None,
) -> Generator[Piece, None, bool]:
    """Yield greedy tokens after `logits` (vocabulary,) until the model ends its turn.

    It also ends after `max_tokens`, or when the context has no room for a step. `drafts` make it
    faster and change no token. With a `grammar` (GBNF) each token is the most likely one that the
    grammar allows. The generator's value is True if the model itself ended its turn.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with token_choice(language, grammar) as choose:
        verified = [choose(logits)]
        for _ in range(max_tokens):
            token = verified.pop(0)
            if language.ends(token):
                return True
            yield Piece(token, decoder.decode(language.piece(token)))
            if drafts is not None:
                drafts.add(token)
            if not verified:
                if language.step_width > language.room:
                    return False
                proposed = [] if drafts is None else drafts.propose(language.step_width - 1)
                verified = _verify(language, token, proposed, choose)
        return language.ends(verified[0])


def _verify(
    language: LanguageModel, token: int, drafts: list[int], choose: Callable[[Float], int]
) -> list[int]:
    """Run one verification step; return the draft tokens that are right, and the token behind
    them."""
    step = [token, *drafts]
    fillers = [token] * (language.step_width - len(step))
    logits = language.feed_tokens(step + fillers, every=True)
    following: list[int] = []
    for draft in (*drafts, None):
        following.append(choose(logits[len(following)]))
        if following[-1] != draft or language.ends(following[-1]):
            break
    language.rewind(language.step_width - len(following))
    language.steps += 1
    return following


@contextlib.contextmanager
def token_choice(language: LanguageModel, grammar: str | None) -> Iterator[Callable[[Float], int]]:
    """Yield the function that chooses the next token by its logits (vocabulary,).

    With a grammar it takes the most likely token that the grammar allows after all that it chose
    before. Raises UsageError for a grammar that llama.cpp refuses, EngineError where no token is
    allowed.
    """
    if grammar is None:
        yield lambda logits: int(np.argmax(logits))
        return
    lib = language.lib
    sampler = llama_cpp.grammar_sampler(lib, language.vocab, grammar)

    def allowed(logits: Float, ids: npt.NDArray[Any]) -> Float:
        """The logits of some tokens, -inf for those that the grammar does not allow."""
        candidates = np.zeros(
            len(ids), [("id", np.int32), ("logit", np.float32), ("p", np.float32)]
        )
        candidates["id"], candidates["logit"] = ids, logits[ids]
        array = lib.llama_token_data_array()
        array.data = ctypes.cast(candidates.ctypes.data, type(array.data))
        array.size, array.selected, array.sorted = len(ids), -1, False
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        return np.asarray(candidates["logit"])

    def choose(logits: Float) -> int:
        token = int(np.argmax(logits))
        # The best token is mostly allowed, and looking at all of them takes long.
        if not np.isfinite(allowed(logits, np.array([token]))[0]):
            within = allowed(logits, np.arange(language.vocabulary))
            token = int(np.argmax(within))
            if not np.isfinite(within[token]):
                raise EngineError(
                    f"{language.path}: none of its tokens continues the grammar. Change the schema."
                )
        if not language.ends(token):
            lib.llama_sampler_accept(sampler, token)
        return token

    try:
        yield choose
    finally:
        lib.llama_sampler_free(sampler)


@dataclass(frozen=True)
class Turn:
    """What one answer needs of a model."""

    prefill: Callable[[], Float]
    """Fills the context with page and question; returns the logits (vocabulary,) of the first
    token."""
    generate: Callable[[Float], Generator[Piece, None, bool]]
    prompt_tokens: Callable[[], int]
    """Counts the tokens in the context after `prefill`."""
    check: Callable[[], None]
    """Raises UsageError if another answer was started since."""


class Answering(Iterator[str]):
    """An answer in the making: iterate for its text; the other fields are final when the iteration
    has ended."""

    def __init__(self, turn: Callable[[], Turn], file: str, question: str, *, prose: bool) -> None:
        """`turn` is called when the iteration begins. `prose` False: the answer must be whole JSON
        of a grammar."""
        self.file = file
        self.question = question
        self.prose = prose
        """False: JSON of a schema, whose words are keys."""
        self.text = ""
        self.ids: list[int] = []
        """Tokens generated so far, without the end token."""
        self.complete = False
        self.prompt_tokens = 0
        """Tokens in front of the answer, image tokens among them."""
        self.seconds: dict[str, float] = {}
        """Wall time of `prefill` and `answer`, and `first_token` since the question was asked."""
        self._parts = self._run(turn)

    @property
    def tokens(self) -> int:
        """Number of tokens generated so far."""
        return len(self.ids)

    def __next__(self) -> str:
        return next(self._parts)

    def _run(self, begin: Callable[[], Turn]) -> Iterator[str]:
        turn = begin()
        start = time.perf_counter()
        logits = turn.prefill()
        self.prompt_tokens = turn.prompt_tokens()
        prefilled = time.perf_counter()
        self.seconds["prefill"] = prefilled - start
        pieces = turn.generate(logits)
        pending = ""  # white space at either end is not part of an answer
        while True:
            turn.check()
            try:
                piece = next(pieces)
            except StopIteration as end:
                self.complete = end.value
                break
            self.ids.append(piece.token)
            self.seconds.setdefault("first_token", time.perf_counter() - start)
            text = pending + piece.text if self.text else (pending + piece.text).lstrip()
            pending = text[len(text.rstrip()) :]
            if shown := text.rstrip():
                self.text += shown
                yield shown
        self.seconds["answer"] = time.perf_counter() - prefilled
        if not self.prose and not self.complete:
            raise UsageError(
                f"{self.file}: the JSON was not at its end after {self.tokens} tokens. Raise "
                "--max-tokens, or lower maxLength and maxItems in the schema."
            )

    def answer(self) -> Answer:
        """Run to the end, and return the whole answer."""
        for _ in self:
            pass
        return self.so_far()

    def so_far(self) -> Answer:
        """Return the answer as far as it has come."""
        return Answer(self.question, self.text, self.tokens, self.complete, self.prompt_tokens)
