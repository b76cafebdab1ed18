"""Decide whether a condition of the rules holds on a trace: true, false, near the bound, or
unknown.

Three-valued logic of Kleene (1938) with a fourth value for what lies within uncertainty and slack
of a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pulse_edge.measurement.bounds import (
    CHILDREN,
    LOWEST_ELEVATION,
    AllOf,
    AnyOf,
    Bound,
    Condition,
    Not,
    child_qrs,
    elevation_limit,
)
from pulse_edge.measurement.criteria import ADULT
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.rule import DERIVED, Derived

Truth = Literal["true", "near", "false", "unknown"]
IRREGULAR_FROM = 0.10
"""RR variation from which a rate read from a few beats may be off by twice the tolerance."""
NEIGHBOURS = frozenset(
    frozenset(pair)
    for pair in (
        *(("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6")),
        *(("aVL", "I"), ("I", "II"), ("II", "aVF"), ("aVF", "III")),
    )
)
"""Contiguous leads: chest leads in a row, limb leads in Cabrera's order (AHA VI)."""


@dataclass(frozen=True)
class Person:
    """What is known of the patient; without an age adult limits count."""

    age: float | None = None
    """Years."""
    sex: Literal["male", "female"] | None = None


@dataclass(frozen=True)
class Result:
    """Whether a condition holds, and the measurements that decided."""

    truth: Truth
    used: tuple[Measurement, ...]


class Trace:
    """The measurements of a page, by key; derived ones are computed on demand."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._by_key = {m.key: m for m in measurements}

    def __getitem__(self, key: str) -> Measurement | None:
        """The measurement, also a derived one; None if it was not taken at all."""
        if key in self._by_key:
            return self._by_key[key]
        return self._derived(key, DERIVED[key]) if key in DERIVED else None

    def _derived(self, key: str, derived: Derived) -> Measurement | None:
        parts = [
            (self._by_key[name], weight) for name, weight in derived.parts if name in self._by_key
        ]
        if len(parts) < len(derived.parts):
            return None
        leads = tuple(dict.fromkeys(lead for part, _ in parts for lead in part.leads))
        if absent := [part for part, _ in parts if part.value is None]:
            return Measurement(key, derived.name, None, derived.unit, None, leads, absent[0].reason)
        value = sum((part.value or 0.0) * weight for part, weight in parts)
        uncertainty = math.hypot(*(part.uncertainty or 0.0 for part, _ in parts))
        doubt = next((part.doubt for part, _ in parts if part.doubt), "")
        return Measurement(key, derived.name, value, derived.unit, uncertainty, leads, doubt=doubt)

    @property
    def irregular(self) -> bool:
        """Whether RR intervals vary so much that a rate depends on the beats that are counted."""
        variation = self["rr_variation"]
        return (
            variation is not None
            and variation.value is not None
            and variation.value >= IRREGULAR_FROM
        )


def judge(condition: Condition, trace: Trace, person: Person, leads: tuple[str, ...]) -> Result:
    """Whether a condition holds; `leads` are those that the statement names."""
    if isinstance(condition, Not):
        inner = judge(condition.condition, trace, person, leads)
        flipped: dict[Truth, Truth] = {"true": "false", "false": "true"}
        return Result(flipped.get(inner.truth, inner.truth), inner.used)
    if isinstance(condition, (AnyOf, AllOf)):
        results = [judge(part, trace, person, leads) for part in condition.conditions]
        return truth_of_all(results) if isinstance(condition, AllOf) else truth_of_any(results)
    if condition.key.endswith(".LEAD"):
        return _in_leads(condition, trace, person, leads)
    measured = trace[condition.key]
    if measured is None:
        return Result("unknown", ())
    return Result(_truth(condition, measured, person), (measured,))


def truth_of_all(results: Sequence[Result]) -> Result:
    """One false is enough; then one unknown, then one near the bound."""
    return _first(results, ("false", "unknown", "near"), "true")


def truth_of_any(results: Sequence[Result]) -> Result:
    """One true is enough; then one near the bound, then one unknown."""
    return _first(results, ("true", "near", "unknown"), "false")


def _first(results: Sequence[Result], order: tuple[Truth, ...], otherwise: Truth) -> Result:
    for truth in order:
        if some := [r for r in results if r.truth == truth]:
            return Result(truth, tuple(m for r in some for m in r.used))
    return Result(otherwise, tuple(m for r in results for m in r.used))


def _in_leads(bound: Bound, trace: Trace, person: Person, leads: tuple[str, ...]) -> Result:
    """A limit that holds where one of the leads, or two neighbours, are beyond it."""
    base = bound.key.removesuffix("LEAD")
    measured = {lead: m for lead in leads or bound.leads if (m := trace[base + lead]) is not None}
    if not measured:
        return Result("unknown", ())
    single = {
        lead: Result(_truth(_for_lead(bound, lead, person), m, person), (m,))
        for lead, m in measured.items()
    }
    pairs = sorted(tuple(sorted(pair)) for pair in NEIGHBOURS if pair <= measured.keys())
    if not bound.contiguous or not pairs:
        return _extreme(bound, truth_of_any(list(single.values())))
    return _extreme(
        bound, truth_of_any([truth_of_all([single[lead] for lead in pair]) for pair in pairs])
    )


def _extreme(bound: Bound, result: Result) -> Result:
    """Of many leads the one that lies farthest in the direction of the limit speaks for all."""
    values = [m for m in result.used if m.value is not None]
    if len(values) < 2:
        return result
    pick: Callable[..., Measurement] = max if bound.at_least is not None else min
    return Result(result.truth, (pick(values, key=lambda m: m.value),))


def _for_lead(bound: Bound, lead: str, person: Person) -> Bound:
    if bound.scale not in ("ST", "ST lowest") or bound.at_least is None:
        return bound
    age, sex = LOWEST_ELEVATION if bound.scale == "ST lowest" else (person.age, person.sex)
    level = elevation_limit(lead, age, sex)
    return replace(bound, at_least=bound.at_least + level, scale="")


def _truth(bound: Bound, measured: Measurement, person: Person) -> Truth:
    if measured.value is None:
        return "unknown"
    truths = {_within(bound, measured) for bound in _bounds(bound, person)}
    return truths.pop() if len(truths) == 1 else "near"


def _within(bound: Bound, measured: Measurement) -> Truth:
    """Where the value lies to the bounds; within uncertainty and slack of one, which add in
    squares, it is near."""
    assert measured.value is not None
    margin = math.hypot(0.0 if bound.nominal else measured.uncertainty or 0.0, bound.slack)
    low = bound.at_least if bound.at_least is not None else float("-inf")
    high = bound.at_most if bound.at_most is not None else float("inf")
    turns = (-360.0, 0.0, 360.0) if measured.unit == "degrees" else (0.0,)
    inside = max(min(measured.value + turn - low, high - measured.value - turn) for turn in turns)
    if inside >= margin:
        return "true"
    return "false" if inside < -margin else "near"


def _bounds(bound: Bound, person: Person) -> list[Bound]:
    """The limit for this person: one, or one for each sex where that is unknown and matters."""
    scaled = _scaled(bound, person)
    if bound.women is None or person.sex == "male":
        return [scaled]
    name = "at_least" if bound.at_least is not None else "at_most"
    women = (
        replace(scaled, at_least=bound.women)
        if name == "at_least"
        else replace(scaled, at_most=bound.women)
    )
    return [women] if person.sex == "female" else [scaled, women]


def _scaled(bound: Bound, person: Person) -> Bound:
    """The bound with a child's limit in the place of an adult's."""
    if (
        person.age is None
        or person.age >= ADULT
        or bound.scale not in ("rate", "PR", "QRS", "axis")
    ):
        return bound
    if bound.scale == "QRS":  # bounds keep their distance from the adult limit of 120 ms
        shift = child_qrs(person.age) - 120
        return replace(
            bound, at_least=_moved(bound.at_least, shift), at_most=_moved(bound.at_most, shift)
        )
    child = next(c for c in CHILDREN if person.age < c.below)
    low, high = {"rate": child.rate, "PR": child.pr, "axis": child.axis}[bound.scale]
    if bound.at_least is not None and bound.at_most is not None:
        return replace(bound, at_least=low, at_most=high)
    if bound.at_least is not None:  # above the normal range
        return replace(bound, at_least=high)
    return replace(bound, at_most=low)


def _moved(value: float | None, by: float) -> float | None:
    return None if value is None else value + by
