"""What the rules are made of: a bound on one measurement, conditions of several, and the bounds that depend on the person.

Sources are explained in `pulse_edge.measurement.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

Scale = Literal["", "rate", "PR", "QRS", "axis", "ST", "ST lowest"]
LEADS = ("I", "II", "III", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Where a statement without leads may hold. aVR looks at the heart from inside: what is up elsewhere is down there."""
UPRIGHT_T = ("I", "II", "V3", "V4", "V5", "V6")
"""Leads in which the T wave of an adult is upright (AHA IV)."""


@dataclass(frozen=True)
class Limit:
    """A bound on one measurement."""

    key: str
    """Of the measurement, or of a `DERIVED` one; with `.LEAD`: in any of the leads that the statement names."""
    at_least: float | None = None
    at_most: float | None = None
    slack: float = 0.0
    """Clinical tolerance, in the measurement's unit."""
    women: float | None = None
    """The bound for women where it differs; with the sex unknown both are tried, and the statement gets the benefit."""
    contiguous: bool = False
    """With `.LEAD`: in two neighbouring leads rather than in one, unless the statement names leads without neighbours."""
    nominal: bool = False
    """Leave the measurement's uncertainty out. For limits that decide only together with others: that several independent
    measurements miss on the same side is rarer than one in twenty."""
    leads: tuple[str, ...] = LEADS
    """With `.LEAD`: where it is looked for if the statement names no leads."""
    scale: Scale = ""
    """Which of the children's limits takes the place of the bound. ST: `elevation_limit` of lead, sex and age is added; where
    these are unknown the highest. `ST lowest`: the lowest of all persons."""


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of the limits holds."""

    limits: tuple[Condition, ...]


@dataclass(frozen=True)
class AllOf:
    """Holds where all of the limits hold."""

    limits: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """Holds where the condition does not."""

    condition: Condition


Condition = Union[Limit, AnyOf, AllOf, Not]  # noqa: UP007  the classes above name it before it exists


@dataclass(frozen=True)
class ChildLimits:
    """Limits of an age."""

    below: float
    """Years."""
    rate: tuple[float, float]
    pr: tuple[float, float]
    qrs: float
    axis: tuple[float, float]


CHILDREN = (
    ChildLimits(1 / 12, (95, 160), (80, 160), 90, (30, 190)),
    ChildLimits(1, (95, 160), (70, 150), 90, (10, 120)),
    ChildLimits(4, (75, 140), (70, 160), 90, (5, 100)),
    ChildLimits(8, (65, 120), (80, 170), 100, (0, 140)),
    ChildLimits(16, (60, 105), (90, 180), 100, (0, 120)),
)
"""Rates and PR: PAEDIATRIC; QRS (90 ms below 4 years, 100 ms below 16) and axis: AHA III. Adult limits from 16 years on."""
ADULT_AGE = 16


LOWEST_ELEVATION = (None, "female")
"""Age and sex of the lowest limit."""


def elevation_limit(lead: str, age: float | None, sex: str | None) -> float:
    """J point elevation that counts, mV: 0.1, in V2 and V3 more, by sex and age; the highest where these are unknown (UDMI)."""
    if lead not in ("V2", "V3"):
        return 0.1
    if sex == "female":
        return 0.15
    return 0.2 if sex == "male" and age is not None and age >= 40 else 0.25


def limits_of(condition: Condition) -> tuple[Limit, ...]:
    """All limits that a condition is made of."""
    if isinstance(condition, Limit):
        return (condition,)
    if isinstance(condition, Not):
        return limits_of(condition.condition)
    return tuple(limit for part in condition.limits for limit in limits_of(part))
