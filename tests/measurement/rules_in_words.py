"""The table of rules as Markdown rows, for docs/checks.md.

python tests/measurement/rules_in_words.py     # prints the rows
"""

from __future__ import annotations

from pulse_edge.measurement.limits import AllOf, AnyOf, Condition, Limit, Not
from pulse_edge.measurement.rules import DERIVED, RULES, Rule

YES_NO = {"asystole", "p_present", "paced", "atrial_fibrillation", "atrial_flutter"}


def number(value: float) -> str:
    return f"{value:g}"


def limit_in_words(limit: Limit) -> str:
    """`qrs >= 120 (slack 10)`, `no p_present`, `st_j.LEAD >= the limit of UDMI (slack 0.05), in two neighbours`."""
    key = f"`{limit.key}`"
    if limit.key in YES_NO:
        return key if limit.at_least == 1 else f"no {key}"
    bounds = [f">= {number(limit.at_least)}"] if limit.at_least is not None else []
    bounds += [f"<= {number(limit.at_most)}"] if limit.at_most is not None else []
    words = f"{key} {' and '.join(bounds)}"
    if limit.scale.startswith("ST"):
        words = f"{key} >= UDMI" + (f" + {number(limit.at_least)}" if limit.at_least else "")
    words += f" (women {number(limit.women)})" if limit.women is not None else ""
    words += f" (slack {number(limit.slack)})" if limit.slack else ""
    return (
        words
        + {"": "", "unnamed": ", in two neighbours if no lead is named", "always": ", in two neighbours"}[
            limit.contiguous
        ]
    )


def in_words(condition: Condition) -> str:
    if isinstance(condition, Limit):
        return limit_in_words(condition)
    if isinstance(condition, Not):
        return f"not ({in_words(condition.condition)})"
    joint = " or " if isinstance(condition, AnyOf) else " and "
    return f"({joint.join(map(in_words, condition.limits))})"


def row(rule: Rule) -> str:
    needs = in_words(AllOf(rule.needs))[1:-1]
    proves = in_words(AllOf(rule.proves))[1:-1] if rule.proves else "-"
    extra = "" if rule.decides else " (never supported)"
    return f"| {rule.topic}{extra} | {needs} | {proves} | {rule.source}{'; adults' if rule.adults else ''} |"


def rows() -> list[str]:
    return [row(rule) for rule in RULES]


def derived_rows() -> list[str]:
    signs = {1.0: "+", -1.0: "-"}
    return [
        f"| `{key}` | {d.name} | {' '.join(f'{signs[w]} `{name}`' for name, w in d.parts)} |"
        for key, d in DERIVED.items()
    ]


if __name__ == "__main__":
    print("\n".join([*rows(), "", *derived_rows()]))
