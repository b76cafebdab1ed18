"""The bundle documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.deploy import documents
from pulse_edge.kit.kit import open_kit

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_the_page_has_no_script_and_fetches_nothing(whole_bundle: Path) -> None:
    text = (whole_bundle / "README.html").read_text()
    assert "<script" not in text
    assert "http" not in text


def test_a_model_card_says_what_it_is_for_and_its_limits(bundle_parts: Path) -> None:
    text = documents.model_card(open_kit(bundle_parts / "a").manifest)
    for word in ("Intended use", "Limits", "NOT FOR PATIENTS", "Not measured yet"):
        assert word in text
