"""Find contradictions in what is said about a page.

They lie within texts, between texts and findings, among findings, and between two wordings of a
question.

In: findings, texts, and the log odds of the plain questions. Out: `Contradiction`s. Matching is by
words alone. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pulse_edge.measurement.checks import Check
from pulse_edge.report.findings import BY_KEY, HARMLESS, NOT_TOGETHER, STATEMENTS, Statement
from pulse_edge.report.report import Contradiction, Finding


def contradictions(
    findings: Sequence[Finding], texts: Sequence[str], second: Mapping[str, float] | None = None
) -> tuple[Contradiction, ...]:
    """Return all contradictions, the most urgent first.

    `second` holds the log odds of the plain questions by key.
    """
    text = "\n".join(texts)
    every = (
        *_within(text),
        *_text_against(findings, text),
        *_one_another(findings),
        *_two_wordings(findings, second or {}),
    )
    return tuple(sorted(every, key=lambda c: min(BY_KEY[key].urgency for key in c.statements)))


def with_trace(checks: Iterable[Check]) -> tuple[Contradiction, ...]:
    """Return a contradiction for each sentence that the trace contradicts."""
    contradicted = {c.sentence: c for c in checks if c.verdict == "contradicted"}
    return tuple(
        Contradiction("measurement", (c.finding,) if c.finding else (), sentence)
        for sentence, c in contradicted.items()
    )


_DOUBT = re.compile(
    r"\b(possibl[ey]|probabl[ey]|likely|suspected|questionable|cannot|may|might)\b", re.I
)
_DOUBT_BEFORE = re.compile(
    rf"{_DOUBT.pattern}|\b(otherwise|borderline|consider|rule out|suspicious|suggest\w*|old)\b",
    re.I,
)
_DENIAL = re.compile(r"\b(no|not|without|absence|absent|never|neither|excludes?|ruled)\b", re.I)
_DENIAL_AFTER = re.compile(r"\s+(is|are|was|were)?\s*(not|absent|excluded|ruled out)\b", re.I)


def says(text: str, statement: Statement) -> bool | None:
    """Return whether a text states it (True) or denies it (False); None: neither, both, doubt."""
    names = [re.escape(statement.name), *filter(None, (statement.synonyms,))]
    words = re.compile(rf"\b(?:{'|'.join(names)})\b", re.I)
    stated = set()
    for clause in re.split(r"[.;:,\n]|\bbut\b", text):
        if match := words.search(clause):
            before, after = clause[: match.start()], clause[match.end() :]
            if _DOUBT_BEFORE.search(before) or _DOUBT.search(after):
                return None
            stated.add(not (_DENIAL.search(before) or _DENIAL_AFTER.match(after)))
    return stated.pop() if len(stated) == 1 else None


def _within(text: str) -> Iterator[Contradiction]:
    """Statements of the texts that exclude one another."""
    stated = [s for s in STATEMENTS if says(text, s) is True]
    yield from (
        Contradiction(
            "text",
            (one.key, other.key),
            f"The text says both {one.name} and {other.name}, which exclude one another.",
        )
        for one, other in _excluding(stated)
    )
    abnormal = [s for s in stated if s.key not in HARMLESS]
    if abnormal and says(text, BY_KEY["NORM"]) is True:
        names = ", ".join(s.name for s in abnormal)
        yield Contradiction(
            "text",
            ("NORM", *(s.key for s in abnormal)),
            f"The text says normal ECG, and also: {names}.",
        )


def _excluding(statements: Sequence[Statement]) -> Iterator[tuple[Statement, Statement]]:
    """Give the pairs that exclude one another by NOT_TOGETHER."""
    by_key = {s.key: s for s in statements}
    pairs = {frozenset((a, b)) for ones, others in NOT_TOGETHER for a in ones for b in others}
    for n, one in enumerate(statements):
        yield from (
            (one, by_key[s.key])
            for s in statements[n + 1 :]
            if frozenset((one.key, s.key)) in pairs
        )


def _text_against(findings: Sequence[Finding], text: str) -> Iterator[Contradiction]:
    stated = {f.statement: says(text, BY_KEY[f.statement]) for f in findings}
    for f in findings:
        if stated[f.statement] is True and f.answer is False:
            yield Contradiction(
                "text", (f.statement,), f"The text says {f.name}; asked for it, the model says no."
            )
        if stated[f.statement] is False and f.answer is True:
            yield Contradiction(
                "text",
                (f.statement,),
                f"The text says that there is no {f.name}; asked for it, the model says yes.",
            )
    abnormal = [f for f in findings if f.answer is True and f.statement not in HARMLESS]
    if abnormal and says(text, BY_KEY["NORM"]) is True:
        names = ", ".join(f.name for f in abnormal)
        keys = tuple(f.statement for f in abnormal)
        yield Contradiction(
            "text",
            keys,
            f"The text says normal ECG; asked one by one, the model says yes to: {names}.",
        )


def _one_another(findings: Sequence[Finding]) -> Iterator[Contradiction]:
    present = [BY_KEY[f.statement] for f in findings if f.answer is True]
    abnormal = [s for s in present if s.key not in HARMLESS]
    if BY_KEY["NORM"] in present and abnormal:
        names = ", ".join(s.name for s in abnormal)
        keys = ("NORM", *(s.key for s in abnormal))
        yield Contradiction(
            "findings", keys, f"Asked one by one, the model says yes to normal ECG and to {names}."
        )
    absent = {f.statement for f in findings if f.answer is False}
    if absent >= BY_KEY.keys() - {"SR", "SBRAD", "STACH"}:
        yield Contradiction(
            "findings",
            ("NORM",),
            "The model says no to normal ECG and to everything abnormal on the list.",
        )
    for one, other in _excluding(present):
        text = f"The model says yes to both {one.name} and {other.name}, which exclude one another."
        yield Contradiction("findings", (one.key, other.key), text)


def _two_wordings(
    findings: Sequence[Finding], second: Mapping[str, float]
) -> Iterator[Contradiction]:
    for f in findings:
        if f.answer is True and second.get(f.statement, 0.0) < 0:
            yield Contradiction(
                "wording",
                (f.statement,),
                f"Asked in other words, the model says that there is no {f.name}.",
            )
