"""The tables of docs/checks.md are those that the program goes by."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import rules_in_words

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


def test_every_rule_stands_in_the_documentation_as_it_is() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    missing = [row for row in rules_in_words.rows() if row not in lines]
    assert missing == [], (
        "run tests/measurement/rules_in_words.py and put its rows into docs/checks.md"
    )
