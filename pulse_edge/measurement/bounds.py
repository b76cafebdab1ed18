"""What the rules are made of: a bound on one measurement, conditions of several, and the bounds
that depend on the person.

Sources are explained in `pulse_edge.measurement.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

from pulse_edge.measurement.criteria import ADULT

Scale = Literal["", "rate", "PR", "QRS", "axis", "ST", "ST lowest"]
LEADS = ("I", "II", "III", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Where a statement without leads may hold. aVR looks at the heart from inside: what is up
elsewhere is down there."""
UPRIGHT_T = ("I", "II", "V3", "V4", "V5", "V6")
"""Leads in which the T wave of an adult is upright (AHA IV)."""


@dataclass(frozen=True)
class Bound:
    """A bound on one measurement."""

    key: str
    """Of the measurement, or of a `DERIVED` one; with `.LEAD`: in any of the leads that the
    statement names."""
    at_least: float | None = None
    at_most: float | None = None
    slack: float = 0.0
    """Clinical tolerance, in the measurement's unit."""
    women: float | None = None
    """The bound for women where it differs; with the sex unknown both are tried, and the statement
    gets the benefit."""
    contiguous: bool = False
    """With `.LEAD`: in two neighbouring leads rather than in one, unless the statement names leads
    without neighbours."""
    nominal: bool = False
    """Leave the measurement's uncertainty out. For limits that decide only together with others:
    that several independent measurements miss on the same side is rarer than one in twenty."""
    leads: tuple[str, ...] = LEADS
    """With `.LEAD`: where it is looked for if the statement names no leads."""
    scale: Scale = ""
    """Which of the children's limits takes the place of the bound. ST: `elevation_limit` of lead,
    sex and age is added; where these are unknown the highest. `ST lowest`: the lowest of all
    persons."""


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of the conditions holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class AllOf:
    """Holds where all of the conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """Holds where the condition does not."""

    condition: Condition


Condition = Union[Bound, AnyOf, AllOf, Not]  # noqa: UP007  the classes above name it before it exists


@dataclass(frozen=True)
class ChildLimits:
    """Normal limits of an age group."""

    below: float
    """Years."""
    rate: tuple[float, float]
    """bpm."""
    pr: tuple[float, float]
    """ms."""
    axis: tuple[float, float]
    """Degrees."""


CHILDREN = (
    ChildLimits(1 / 12, (129, 216), (77, 121), (63, 155)),
    ChildLimits(0.25, (126, 200), (78, 133), (37, 138)),
    ChildLimits(0.5, (112, 191), (84, 134), (-6, 108)),
    ChildLimits(1, (106, 194), (82, 141), (1, 122)),
    ChildLimits(3, (95, 178), (78, 151), (-4, 121)),
    ChildLimits(5, (73, 124), (98, 153), (3, 112)),
    ChildLimits(8, (62, 115), (92, 160), (-10, 117)),
    ChildLimits(12, (55, 110), (103, 174), (-21, 117)),
    ChildLimits(ADULT, (48, 107), (106, 178), (-9, 112)),
)
"""2nd to 98th percentile, the wider of boys and girls (Rijnbeek and others, Eur Heart J 22, 2001,
702, table 1)."""


def child_qrs(age: float) -> float:
    """QRS duration from which a child's is prolonged, ms (AHA III)."""
    return 90.0 if age < 4 else 100.0


LOWEST_ELEVATION = (None, "female")
"""Age and sex of the lowest limit."""


def elevation_limit(lead: str, age: float | None, sex: str | None) -> float:
    """J point elevation that counts, mV: 0.1, in V2 and V3 more, by sex and age; the highest where
    these are unknown (UDMI)."""
    if lead not in ("V2", "V3"):
        return 0.1
    if sex == "female":
        return 0.15
    return 0.2 if sex == "male" and age is not None and age >= 40 else 0.25


def bounds_of(condition: Condition) -> tuple[Bound, ...]:
    """All bounds that a condition is made of."""
    if isinstance(condition, Bound):
        return (condition,)
    if isinstance(condition, Not):
        return bounds_of(condition.condition)
    return tuple(bound for part in condition.conditions for bound in bounds_of(part))
