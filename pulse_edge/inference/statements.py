"""Yes/no questions about a page: the log odds of yes against no, and the findings that they
give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pulse_edge.common.arrays import Float
from pulse_edge.inference.language_model import LanguageModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit.manifest import Calibration
from pulse_edge.report import contradictions as comparison
from pulse_edge.report import findings
from pulse_edge.report.report import Contradiction, Finding


class Scorer(Protocol):
    """A model that gives the logits of answers: `PulseModel`."""

    @property
    def language(self) -> LanguageModel: ...

    def score(
        self, encoded: EncodedPage, question: str, answers: Iterable[Sequence[int]]
    ) -> Iterator[Float]: ...


@dataclass(frozen=True)
class YesOrNo:
    """The model's answer to a question that is to be answered with yes or no."""

    log_odds: float
    """Log odds of an answer that begins with yes against one that begins with no."""
    greedy: bool | None
    """Whether the greedy answer begins with yes; None: it begins with neither word."""


def yes_or_no(model: Scorer, encoded: EncodedPage, question: str) -> YesOrNo:
    """Compute the probabilities of both words after a question; no token is generated.

    The probability of a word is the sum over its spellings; that of a spelling of several tokens is
    their product.
    """
    ids = [model.language.tokenize(word, first=False) for word in (*findings.YES, *findings.NO)]
    ahead = list(model.score(encoded, question, ids))
    scores = [_log_probability(logits, word) for logits, word in zip(ahead, ids, strict=True)]
    greedy = [logits.argmax(1).tolist() == word for logits, word in zip(ahead, ids, strict=True)]
    n = len(findings.YES)
    log_odds = float(np.logaddexp.reduce(scores[:n]) - np.logaddexp.reduce(scores[n:]))
    return YesOrNo(log_odds, any(greedy[:n]) if any(greedy) else None)


def judge(
    model: Scorer,
    encoded: EncodedPage,
    calibration: Mapping[str, Calibration] | None,
    progress: Callable[[int, int], None],
) -> tuple[Finding, ...]:
    """Ask about every statement of `findings.STATEMENTS` in the words of ECGBench, and judge each.

    `calibration` None: the kit is not calibrated for this page's image tokens. `progress` gets
    questions.
    """
    total, log_odds = len(findings.STATEMENTS), {}
    for n, statement in enumerate(findings.STATEMENTS):
        progress(n, total)
        log_odds[statement.key] = yes_or_no(model, encoded, statement.question).log_odds
    progress(total, total)
    return findings.judge(log_odds, calibration)


def contradictions(
    model: Scorer,
    encoded: EncodedPage,
    judged: Sequence[Finding],
    texts: Sequence[str],
    calibration: Mapping[str, Calibration] | None,
) -> tuple[Contradiction, ...]:
    """Return the contradictions among findings and answers; findings that are present are asked
    again in other words."""
    present = [findings.BY_KEY[f.statement] for f in judged if f.answer is True]
    second = {
        s.key: findings.rescaled(
            yes_or_no(model, encoded, s.plain).log_odds, (calibration or {}).get(s.key)
        )
        for s in present
    }
    return comparison.contradictions(judged, texts, second)


def _log_probability(logits: Float, ids: Sequence[int]) -> float:
    """Log probability of the tokens `ids`, given the logits (n, vocabulary) ahead of each."""
    wide = logits.astype(np.float64)
    chosen = wide[np.arange(len(ids)), list(ids)]
    return float((chosen - np.logaddexp.reduce(wide, axis=1)).sum())
