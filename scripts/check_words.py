"""Check that what a person reads uses the words of docs/glossary.md.

    python scripts/check_words.py [PATH...]        exits with 1 and names each place

Texts (`.py`, `.md`, `.yaml`, `.toml`, `.typ`, JSON schemas) are searched for the words that the
glossary replaces, and Python files also for variables that are named by a participle. EXCEPTIONS
says where such a word is right, and why.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {".py", ".md", ".yaml", ".toml", ".typ", ".cff"}

WORDS = {
    r"image[ -_]rows?\b": "image tokens",
    r"--rows\b|--keep\b|--keep-image-kv\b": "--image-tokens, --retain, --kv-cache-size",
    r"\brows? (that were |that are )?left out\b|\bthin(ned|ning|s)? (rows|tokens|pages)\b": "pruned tokens",
    r"\b(guess(es|ed)?|guesser)\b": "draft tokens, draft table",
    r"\bsticks?\b": "offline bundle",
    r"\bpapers\b": "bundle documents",
    r"\bretake\b": "re-take",
    r"\bforecasts?\b": "estimate",
    r"\bkeys and values\b|\bcontext memory\b": "KV cache",
    r"\b(the|a|this|each) record of (the )?answers?\b|\bon record\b|\bfor the record\b": "audit log",
    r"\btable of (guesses|drafts)\b": "draft table",
    r"\bdrawn pages?\b": "synthetic page",
    r"\banew\b": "again, from the start",
    r"\bbeside\b": "next to, in addition to",
    r"\bmend(s|ed)?\b": "fix, repair",
    r"\b[Ss]o long as\b": "for N days, while",
    r"\bof (which|whom)\b": "name the thing",
    r"\bonly door\b": "the only module that imports it",
    r"\bnobody\b|\bNobody\b": "no one, or name who",
}
"""Regular expression of a word that the glossary replaces -> what to say instead."""

PARTICIPLES = {"told", "said", "made", "found", "known", "kept", "seen", "asked", "wanted"}
"""Names of variables that say how a value came about rather than what it is."""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "docs/glossary.md": {r".": "the glossary lists the words that it replaces"},
    "scripts/check_words.py": {r".": "the list itself"},
    "CHANGELOG.md": {r"^- `|^  `": "it says what the old names became"},
    "tests/": {r"--rows|--keep\b": "old options are unknown"},
}
"""File (or folder, with a slash at the end) -> regular expression of a line that is right there ->
why."""


def main() -> int:
    """Print each place that breaks the rule; return the exit code."""
    names = (
        sys.argv[1:]
        or subprocess.run(
            ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )
    places = [place for name in names for place in check(Path(name))]
    print("\n".join(places), end="\n" if places else "")
    return 1 if places else 0


def check(path: Path) -> Iterator[str]:
    """Yield a line for each place in a file of the checkout."""
    if path.suffix not in TEXTS and not path.name.endswith(".schema.json"):
        return
    text = (ROOT / path).read_text("utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, instead in WORDS.items():
            match = re.search(pattern, line)
            if match and not _excepted(path, line):
                yield f"{path}:{number}: {match[0]!r}: say {instead}"
    if path.suffix == ".py":
        yield from (
            f"{path}:{number}: variable {name!r}: name what it holds"
            for number, name in _participles(ast.parse(text))
            if not _excepted(path, name)
        )


def _participles(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable, argument or attribute that is named by a participle."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and node.id in PARTICIPLES
        ):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg) and node.arg in PARTICIPLES:
            yield node.lineno, node.arg


def _excepted(path: Path, line: str) -> bool:
    for place, patterns in EXCEPTIONS.items():
        inside = str(path).startswith(place) if place.endswith("/") else str(path) == place
        if inside and any(re.search(pattern, line) for pattern in patterns):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
