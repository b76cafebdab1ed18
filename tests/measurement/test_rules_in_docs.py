"""The tables of docs/checks.md are those that the program goes by."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import rules_in_words

from pulse_edge.measurement.checks import check_answers
from pulse_edge.measurement.measurements import Measurement

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


def test_every_rule_stands_in_the_documentation_as_it_is() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    missing = [row for row in rules_in_words.rows() if row not in lines]
    assert missing == [], (
        "run tests/measurement/rules_in_words.py and put its rows into docs/checks.md"
    )


def test_the_worked_example_comes_out_as_it_is_documented() -> None:
    text = "Sinus bradycardia with a heart rate of 42 bpm."
    for rate, expected in (
        (66.0, {"rate": "contradicted", "sinus bradycardia": "contradicted"}),
        (65.0, {"rate": "contradicted", "sinus bradycardia": "supported"}),
    ):
        rows = [
            Measurement(key, "ventricular rate", rate, "bpm", 2.9, ("II",))
            for key in ("rate", "rate_median")
        ]
        rows += [
            Measurement("p_present", "P wave", 1.0, "", None, ("II",)),
            Measurement("rr_variation", "RR variation", 0.02, "", None, ("II",)),
            Measurement("asystole", "asystole", 0.0, "", None, ("II",)),
        ]
        checks = check_answers([("", text)], rows)
        assert {check.topic: check.verdict for check in checks} == expected
        if rate == 66.0:
            page = DOCS.read_text(encoding="utf-8")
            assert [check.sentence for check in checks if f"`{check.sentence}`" not in page] == []
    rows[:2] = [
        Measurement(key, "ventricular rate", 66.0, "bpm", 2.9, ("II",))
        for key in ("rate", "rate_median")
    ]
    (about,) = check_answers([("", "A heart rate of about 42 bpm.")], rows)
    assert about.verdict == "contradicted"
