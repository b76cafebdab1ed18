"""Write docs/cli.md from the --help of the three programs.

`python -m scripts.cli_reference` writes it, `--check` says whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

import calibration.__main__
import export.__main__
from pulse_edge.cli import main

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
PROGRAMS = (
    ("pulse-edge", main.cli),
    ("python -m export", export.__main__.cli),
    ("python -m calibration", calibration.__main__.cli),
)
"""How each program is called, and its group of commands."""
INTRODUCTION = """# Commands

This page is generated from `--help` by `make docs`.

- `pulse-edge` runs kits. `python -m export` makes them and `python -m calibration` measures them,
  both from a checkout.
- Answers go to standard output, everything else to standard error.
- Exit codes: 0 done, 1 error, 2 wrong usage, 3 page refused, 130 interrupted. With several pages,
  the worst one decides.
- Shell completion: `eval "$(_PULSE_EDGE_COMPLETE=bash_source pulse-edge)"` in `~/.bashrc`
  (`zsh_source` for zsh, `fish_source` for fish).
"""


def reference() -> str:
    """Return the text of docs/cli.md."""
    sections = [INTRODUCTION]
    for name, program in PROGRAMS:
        for path, text in _help(
            program, click.Context(program, info_name=name, **_settings(program))
        ):
            level = "##" if path == name else "###"
            sections.append(f"{level} `{path}`\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def _settings(program: click.Command) -> dict[str, object]:
    return dict(program.context_settings) | {"terminal_width": 100}


def _help(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Give the full name and the help of a command and of everything below it."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _help(child, child.context_class(child, parent=context, info_name=name))


def run(words: list[str]) -> int:
    """Write the page, or with --check compare it; return the exit code."""
    text = reference()
    if words == ["--check"]:
        if TARGET.read_text("utf-8") == text:
            return 0
        print(f"{TARGET}: is not up to date. Run `make docs`.", file=sys.stderr)
        return 1
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
