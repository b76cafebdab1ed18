"""What the documents say of tests and files is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCS, ids=lambda p: p.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py")}
    defined = set(re.findall(r"^def (test_\w+)\(", "\n".join(sources.values()), re.M))
    text = document.read_text("utf-8")
    named = set(re.findall(r"`(?:tests/test_\w+\.py::)?(test_\w+)`", text))
    files = set(re.findall(r"`tests/(test_\w+\.py)(?:::\w+)?`", text))
    assert named - defined == set()
    assert files - sources.keys() == set()


@pytest.mark.parametrize("document", [ROOT / "README.md", *DOCS], ids=lambda p: p.name)
def test_every_link_to_a_file_resolves(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    promises = text.split("## Promises")[1].split("## What is written below HOME")[0]
    rows = [
        line
        for line in promises.splitlines()
        if line.startswith("| ") and not line.startswith("| what |")
    ]
    assert len(rows) > 20
    assert [
        row
        for row in rows
        if "test" not in row.split("|")[-2] and "benchmarks/" not in row.split("|")[-2]
    ] == []
