"""The tables of rules as Markdown rows, for docs/checks.md.

python tests/measurement/rules_in_words.py     # prints the rows
"""

from __future__ import annotations

from pulse_edge.measurement.bounds import AllOf, AnyOf, Bound, Condition, Not
from pulse_edge.measurement.number_rules import NUMBERS
from pulse_edge.measurement.rule import NumberRule, Rule
from pulse_edge.measurement.rules import RULES

YES_NO = {"asystole", "p_present", "paced", "atrial_fibrillation"}
UNITS = {"axis": "degrees", "rate": "bpm", "atrial rate": "bpm"}


def bound_in_words(bound: Bound) -> str:
    """`qrs >= 120 (slack 10)`, `no p_present`, `st_j.LEAD >= UDMI (slack 0.05), by value, in two
    neighbours`."""
    key = f"`{bound.key}`"
    if bound.key in YES_NO:
        return key if bound.at_least == 1 else f"no {key}"
    ends = [f">= {bound.at_least:g}"] if bound.at_least is not None else []
    ends += [f"<= {bound.at_most:g}"] if bound.at_most is not None else []
    words = f"{key} {' and '.join(ends)}"
    if bound.scale.startswith("ST"):
        words = f"{key} >= UDMI" + (f" + {bound.at_least:g}" if bound.at_least else "")
    words += f" (women {bound.women:g})" if bound.women is not None else ""
    words += f" (slack {bound.slack:g})" if bound.slack else ""
    return (
        words
        + (", by value" if bound.nominal else "")
        + (", in two neighbours" if bound.contiguous else "")
    )


def in_words(condition: Condition) -> str:
    if isinstance(condition, Bound):
        return bound_in_words(condition)
    if isinstance(condition, Not):
        return f"not {in_words(condition.condition)}"
    joint = " or " if isinstance(condition, AnyOf) else " and "
    return f"({joint.join(map(in_words, condition.conditions))})"


def cell(conditions: tuple[Condition, ...]) -> str:
    return in_words(AllOf(conditions))[1:-1] or "-"


def row(rule: Rule) -> str:
    supports = "never" if not rule.decides else cell(rule.supports)
    source = f"{rule.source}{'; adults' if rule.adults else ''}"
    return f"| {rule.topic} | {cell(rule.needs)} | {supports} | {cell(rule.proves)} | {source} |"


def number_row(rule: NumberRule) -> str:
    share = f" or {100 * rule.share:g} %" if rule.share else ""
    keys = " or ".join(f"`{key}`" for key in rule.keys)
    return f"| {rule.topic} | {keys} | {rule.tolerance:g} {UNITS.get(rule.topic, 'ms')}{share} | {rule.source} |"


def rows() -> list[str]:
    return [number_row(rule) for rule in NUMBERS] + [row(rule) for rule in RULES]


if __name__ == "__main__":
    print("\n".join(rows()))
