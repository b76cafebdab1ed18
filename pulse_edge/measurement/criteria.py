"""Published limits of measurements, each with its source, by age and sex.

There is a limit only where one was published for that age and sex: without an age nothing is
assumed that depends on it. For children the table holds what the AHA/ACCF/HRS recommendations give;
`read_limits` reads a clinic's own table, such as the percentiles of Rijnbeek and others (Eur Heart
J 22, 2001, 702) for the children that it sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.errors import UsageError
from pulse_edge.measurement.sheet import NAMES
from pulse_edge.measurement.signal import LEADS

PART_III = "Surawicz and others, AHA/ACCF/HRS recommendations part III, Circulation 119 (2009) e235"
PART_IV = "Rautaharju and others, AHA/ACCF/HRS recommendations part IV, Circulation 119 (2009) e241"
PART_V = "Hancock and others, AHA/ACCF/HRS recommendations part V, Circulation 119 (2009) e251"
PART_VI = "Wagner and others, AHA/ACCF/HRS recommendations part VI, Circulation 119 (2009) e262"
BRADYCARDIA = (
    "Kusumoto and others, 2018 ACC/AHA/HRS guideline on bradycardia, Circulation 140 (2019) e382"
)
TACHYCARDIA = "Page and others, 2015 ACC/AHA/HRS guideline on supraventricular tachycardia, Circulation 133 (2016) e506"
USUAL_BRADYCARDIA = "usual limit of 60 bpm; the 2018 ACC/AHA/HRS guideline on bradycardia takes 50"
PAUSE = (
    "Grauer and Leytem, Am Fam Physician 45 (1992) 1641: pauses above 2 s; the 2018 ACC/AHA/HRS "
    "guideline on bradycardia calls 3 s a sinus pause"
)
LOW_VOLTAGE = "Chinitz and others, J Electrocardiol 41 (2008) 281"
PREEXCITATION = "Willems and others, WHO/ISFC task force, J Am Coll Cardiol 5 (1985) 1261"
SOKOLOW = "Sokolow and Lyon, Am Heart J 37 (1949) 161; part V of the AHA/ACCF/HRS recommendations"
CORNELL = "Casale and others, Circulation 75 (1987) 565; part V of the AHA/ACCF/HRS recommendations"
CORNELL_PRODUCT = "Molloy and others, J Am Coll Cardiol 20 (1992) 1180; part V of the AHA/ACCF/HRS recommendations"
PEGUERO = "Peguero and others, J Am Coll Cardiol 69 (2017) 1694"

ADULT = 16.0
"""Years from which on the AHA/ACCF/HRS recommendations speak of adults."""


@dataclass(frozen=True)
class Limit:
    """The normal range of a measurement; a finding begins outside."""

    key: str
    """Of the measurement; one of a lead stands for that lead alone."""
    finding_below: str
    """What a value below `low` is called; empty if there is no lower limit."""
    low: float | None
    finding_above: str
    high: float | None
    source: str
    from_years: float = 0.0
    to_years: float = 200.0
    """Ages from `from_years` on, below `to_years`."""
    sex: str = ""
    """`male`, `female`, or empty for both."""
    inclusive: bool = False
    """True if the finding begins at the limit itself."""

    def finding(self, value: float) -> str:
        """Name what the value shows; empty for a value inside the limits."""
        if self.low is not None and (value < self.low or (self.inclusive and value == self.low)):
            return self.finding_below
        if self.high is not None and (value > self.high or (self.inclusive and value == self.high)):
            return self.finding_above
        return ""


def _st(lead: str) -> tuple[Limit, ...]:
    """Limits of the J point; those of V2 and V3 depend on age and sex."""
    key = f"st_j.{lead}"
    names = ("ST depression", "ST elevation")
    if lead not in ("V2", "V3"):
        return (Limit(key, names[0], -0.1, names[1], 0.1, PART_VI, ADULT, inclusive=True),)
    return (
        Limit(key, names[0], -0.05, names[1], 0.25, PART_VI, ADULT, 40, "male", inclusive=True),
        Limit(key, names[0], -0.05, names[1], 0.20, PART_VI, 40, sex="male", inclusive=True),
        Limit(key, names[0], -0.05, names[1], 0.15, PART_VI, ADULT, sex="female", inclusive=True),
    )


LIMITS: tuple[Limit, ...] = (
    Limit(
        "rate", "bradycardia", 60, "tachycardia", 100, f"{USUAL_BRADYCARDIA}; {TACHYCARDIA}", ADULT
    ),
    Limit(
        "rate_median",
        "bradycardia",
        60,
        "tachycardia",
        100,
        f"{USUAL_BRADYCARDIA}; {TACHYCARDIA}",
        ADULT,
    ),
    Limit("rr_longest", "", None, "pause", 2000, PAUSE, ADULT, inclusive=True),
    Limit("p_duration", "", None, "prolonged P wave", 120, PART_V, ADULT, inclusive=True),
    Limit("pr", "", None, "first-degree AV block", 200, BRADYCARDIA, ADULT),
    Limit("pr", "short PR interval", 120, "", None, PREEXCITATION, ADULT),
    Limit("qrs", "", None, "prolonged QRS", 90, PART_III, 0, 4, inclusive=True),
    Limit("qrs", "", None, "prolonged QRS", 100, PART_III, 4, ADULT, inclusive=True),
    Limit("qrs", "", None, "prolonged QRS", 110, PART_III, ADULT),
    Limit(
        "qrs",
        "",
        None,
        "QRS of a complete bundle branch block",
        120,
        PART_III,
        ADULT,
        inclusive=True,
    ),
    Limit(
        "qtc_bazett",
        "short QT",
        390,
        "prolonged QT",
        450,
        PART_IV,
        ADULT,
        sex="male",
        inclusive=True,
    ),
    Limit(
        "qtc_bazett",
        "short QT",
        390,
        "prolonged QT",
        460,
        PART_IV,
        ADULT,
        sex="female",
        inclusive=True,
    ),
    Limit(
        "qtc_fridericia",
        "short QT",
        390,
        "prolonged QT",
        450,
        PART_IV,
        ADULT,
        sex="male",
        inclusive=True,
    ),
    Limit(
        "qtc_fridericia",
        "short QT",
        390,
        "prolonged QT",
        460,
        PART_IV,
        ADULT,
        sex="female",
        inclusive=True,
    ),
    Limit("qrs_axis", "left axis deviation", -30, "right axis deviation", 90, PART_III, ADULT),
    Limit("limb_voltage", "low voltage in the limb leads", 0.5, "", None, LOW_VOLTAGE, ADULT),
    Limit("chest_voltage", "low voltage in the chest leads", 1.0, "", None, LOW_VOLTAGE, ADULT),
    Limit(
        "sokolow_lyon", "", None, "left ventricular voltage", 3.5, SOKOLOW, ADULT, inclusive=True
    ),
    Limit("r.aVL", "", None, "left ventricular voltage", 1.1, SOKOLOW, ADULT),
    Limit("cornell", "", None, "left ventricular voltage", 2.8, CORNELL, ADULT, sex="male"),
    Limit("cornell", "", None, "left ventricular voltage", 2.0, CORNELL, ADULT, sex="female"),
    Limit(
        "cornell_product",
        "",
        None,
        "left ventricular voltage",
        244,
        CORNELL_PRODUCT,
        ADULT,
        sex="male",
    ),
    Limit(
        "peguero",
        "",
        None,
        "left ventricular voltage",
        2.8,
        PEGUERO,
        ADULT,
        sex="male",
        inclusive=True,
    ),
    Limit(
        "peguero",
        "",
        None,
        "left ventricular voltage",
        2.3,
        PEGUERO,
        ADULT,
        sex="female",
        inclusive=True,
    ),
    *(limit for lead in LEADS if lead != "aVR" for limit in _st(lead)),
)
"""The Cornell product of women needs 0.6 to 0.8 mV added to the voltage first, so it has no limit
here. aVR has no ST limit."""


def limits_for(
    key: str, age_years: float | None, sex: str | None = None, table: tuple[Limit, ...] = LIMITS
) -> tuple[Limit, ...]:
    """List the limits of a measurement that were published for this age and sex; empty where there
    are none.

    Without an age, or without a sex, only limits that do not depend on it are listed.
    """
    chosen = []
    for limit in table:
        if limit.key != key or (limit.sex and limit.sex != sex):
            continue
        bounded = limit.from_years > 0 or limit.to_years < 200
        if bounded and (age_years is None or not limit.from_years <= age_years < limit.to_years):
            continue
        chosen.append(limit)
    return tuple(chosen)


def read_limits(path: Path) -> tuple[Limit, ...]:
    """Read a clinic's own limits: a JSON list of objects with the fields of `Limit`.

    UsageError if the file cannot be read, is no such list, or names a measurement that does not
    exist.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        limits = tuple(Limit(**row) for row in rows)
        unfit = [limit.key for limit in limits if limit.key not in NAMES or not limit.source]
        broken = [limit.key for limit in limits if not _numbers(limit)]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise UsageError(
            f"{path}: cannot be read as limits ({error}). Write a JSON list of objects with key, finding_below, low, "
            "finding_above, high and source."
        ) from error
    if unfit or broken:
        raise UsageError(
            f"{path}: {', '.join(unfit + broken)}: no such measurement, no source, or limits that are no numbers. "
            "Take the keys from the table in the documentation, and name where each limit was published."
        )
    return limits


def _numbers(limit: Limit) -> bool:
    """Whether the limits and ages of a row that was read are numbers."""
    ages = all(
        isinstance(age, int | float) and not isinstance(age, bool)
        for age in (limit.from_years, limit.to_years)
    )
    bounds = [bound for bound in (limit.low, limit.high) if bound is not None]
    return (
        ages
        and bool(bounds)
        and all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    )
