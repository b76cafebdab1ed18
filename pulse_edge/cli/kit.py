"""`pulse-edge kit info|verify|list|use`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import ReadyCommand
from pulse_edge.common.text import escaped_json, json_text


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One object a kit, one a line.")
def list_kits(as_json: bool) -> None:
    """List the kits that are installed, and mark the one that answers when none is named."""
    from pulse_edge.errors import KitError
    from pulse_edge.kit import locate
    from pulse_edge.kit.kit import open_kit

    try:
        default = locate.find(None).path
    except KitError as e:  # none is chosen, or it is broken: the list says which there are
        default, trouble = None, str(e)
    for name, path in locate.kits_by_name().items():
        row: dict[str, Any] = {
            "name": name,
            "default": path.resolve() == default,
            "path": str(path),
        }
        try:
            m = open_kit(path).manifest
            row |= {
                "id": m.id,
                "bytes": sum(f.bytes for f in m.files.values()),
                "demonstration": m.demonstration,
            }
        except KitError as e:
            row |= {"broken": str(e)}
        if as_json:
            say(json_text(row) + "\n")
            continue
        about = row.get("broken") or f"{row['id']}, {row['bytes'] / 2**30:.2f} GiB"
        about += " (demonstration, not for patients)" if row.get("demonstration") else ""
        say(f"{'*' if row['default'] else ' '} {name:<32} {about}\n")
    if default is None:
        raise KitError(trouble)


@click.command()
@click.argument("name")
def use(name: str) -> None:
    """Choose the installed kit that answers when none is named: NAME as `kit list` shows it, or its beginning."""
    from pulse_edge.kit import locate

    say(f"{locate.choose(name).path.name} answers from now on when no kit is named\n")


@click.group()
def kit() -> None:
    """Look at kits, check them, and choose the one that answers."""


for _command in (list_kits, use):
    kit.add_command(_command)
_KIT = click.argument("path", type=click.Path(path_type=Path), metavar="DIR")


@kit.command(cls=ReadyCommand)
@_KIT
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def info(path: Path, as_json: bool) -> None:
    """What a kit is, where it comes from, and how it was proven. DIR may be the name of an installed kit."""
    from pulse_edge.kit import locate
    from pulse_edge.kit.manifest import MANIFEST

    opened = locate.find(path)
    if as_json:
        say(escaped_json((opened.path / MANIFEST).read_text("utf-8")))
        return
    for name, value in _facts(opened.manifest):
        say(f"{name:<14}{value}\n")


def _facts(m: Any) -> Iterator[tuple[str, str]]:
    yield "kit", m.id + (" (demonstration, not for patients)" if m.demonstration else "")
    yield (
        "source",
        " ".join(str(m.source[k]) for k in ("name", "revision", "licence") if m.source.get(k)),
    )
    yield "made", m.created
    language, vision, packing = m.language, m.vision, m.packing
    told = f"{language.type}, {language.layers} layers, context {language.context_length} tokens"
    yield (
        "language",
        told + (f", {language.key_cache_type} keys" if language.key_cache_type != "f16" else ""),
    )
    side = f"{vision.image_size} x {vision.image_size} pixels"
    yield "vision", f"{vision.type}, tiles of {side}, {vision.patches_per_side**2} rows each"
    yield "packing", f"{packing.aspect_ratio}, {packing.merge}"
    for name, file in m.files.items():
        yield "file", f"{file.bytes:>14,} {name}"
    for what, figures in m.parity.items():
        if isinstance(figures, dict):
            shown = ", ".join(f"{k} {v}" for k, v in figures.items() if not isinstance(v, dict))
            yield "parity", f"{what}: {shown}"
    yield from _accuracy(m.accuracy)
    yield "findings", _calibrated(m.findings)


def _calibrated(told: dict[str, Any] | None) -> str:
    """Which statements the kit says something of."""
    if told is None:
        return "not calibrated"
    says = [
        f"{key} (AUC {'not known' if c.auc is None else f'{c.auc:.2f}'})"
        for key, c in told.items()
        if not c.reason
    ]
    never = [key for key, c in told.items() if c.reason]
    return f"judges {', '.join(says) or 'nothing'}; does not judge {', '.join(never) or 'nothing'}"


def _accuracy(told: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The verdict, a line a task, and where the report is."""
    if told is None:
        yield "accuracy", "not measured"
        return
    yield "accuracy", str(told.get("verdict", told))
    for row in told.get("table", ()):
        ours, theirs = f"{row['score']} {row['this']}", f"reference {row['reference']}"
        change = f", difference {row['difference']}" if row["difference"] else ""
        yield "", f"{row['task']}: {ours}, {theirs}{change}, {row['questions']} questions"
    for gate in told.get("gates") or ():
        yield (
            "gate",
            f"{gate['gate']} {gate['value']} (limit {gate['limit']}): {'passed' if gate['passed'] else 'NOT PASSED'}",
        )
    if report := told.get("report"):
        yield "report", report


@kit.command(cls=ReadyCommand)
@_KIT
def verify(path: Path) -> None:
    """Read every byte of a kit and compare it with the kit's manifest."""
    from pulse_edge.kit import locate
    from pulse_edge.kit.verify import verify

    console = Console()
    opened = locate.find(path)
    total = sum(file.bytes for file in opened.manifest.files.values())
    with console.progress() as progress:
        done = 0

        def step(piece: int) -> None:
            nonlocal done
            done += piece
            progress("verify", done, total)

        verify(opened, progress=step)
    say(f"{path}: {len(opened.manifest.files)} files are as they were made\n")
