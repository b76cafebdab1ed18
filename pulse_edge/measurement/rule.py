"""What a rule of `rules` is: a statement, the limits that it needs, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.measurement.bounds import Condition


@dataclass(frozen=True)
class NumberRule:
    """How near a number in the text must be to a measurement."""

    topic: str
    keys: tuple[str, ...]
    """The nearest of these counts."""
    tolerance: float
    """In the unit, added to the measurement's uncertainty."""
    share: float
    """Of the stated number; the larger of the two counts."""
    source: str


@dataclass(frozen=True)
class Rule:
    """What a statement in words needs and what proves it."""

    topic: str
    needs: tuple[Condition, ...]
    proves: tuple[Condition, ...]
    """Empty: a denial cannot be contradicted by measurements."""
    source: str
    supports: tuple[Condition, ...] = ()
    """What must hold besides for the statement to be supported; without it the needs are enough."""
    decides: bool = True
    """False: the needs are only a part of the definition, so that they can contradict it and never
    support it."""
    adults: bool = False
    """True: the limits hold for adults alone."""


@dataclass(frozen=True)
class Derived:
    """A value computed from measurements: the sum of its parts times their weights."""

    name: str
    unit: str
    parts: tuple[tuple[str, float], ...]


NET_LEADS = ("I", "V1", "V2", "V6")
DERIVED: dict[str, Derived] = {
    f"net.{lead}": Derived(
        f"net QRS deflection in {lead}", "mV", tuple((f"{w}.{lead}", 1.0) for w in "qrs")
    )
    for lead in NET_LEADS
}
DERIVED["rr_spread"] = Derived(
    "difference of the longest and the shortest RR interval",
    "ms",
    (("rr_longest", 1.0), ("rr_shortest", -1.0)),
)
