"""What the documents say about tests, files, options and sizes is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest
from checkout import ROOT
from guides import PROGRAMS, commands

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
GUIDES = [
    ROOT / "README.md",
    ROOT / "docs" / "overread.md",
    *sorted((ROOT / "docs").glob("quickstart-*.md")),
]


@pytest.mark.parametrize("document", DOCS, ids=lambda p: p.name)
def test_tests_that_a_document_names_exist(document: Path) -> None:
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    defined = set(re.findall(r"^def (test_\w+)\(", "\n".join(sources.values()), re.M))
    text = document.read_text("utf-8")
    assert set(re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+)`", text)) - defined == set()
    files = re.findall(r"`(tests/[\w/]+\.py)(?:::\w+)?`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("document", PAGES, ids=lambda p: p.name)
def test_links_between_documents_resolve(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text("utf-8"))
    for target, anchor in links:
        file = document.parent / target if target else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("document", GUIDES, ids=lambda p: p.name)
def test_commands_and_options_in_guides_exist(document: Path) -> None:
    assert commands(document)
    for program, *words in commands(document):
        command: click.Command = importlib.import_module(PROGRAMS[program]).cli
        while isinstance(command, click.Group):
            assert words, f"{document.name}: {program}"
            assert words[0] in command.commands, words
            command = command.commands[words.pop(0)]
        with click.Context(command, help_option_names=["-h", "--help"]) as context:
            command.make_parser(context).parse_args(words)  # raises for an unknown option


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
