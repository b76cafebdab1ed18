"""`pulse-edge kit info|list|use|verify`: look at kits, and choose the one that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import PATH, ReadyCommand
from pulse_edge.common import installation
from pulse_edge.common.text import escaped_json, json_text
from pulse_edge.errors import KitError, UsageError

if TYPE_CHECKING:
    from pulse_edge.kit.manifest import Calibration, Manifest

NOT_FOR_PATIENTS = " (demonstration, not for patients)"
_kit = click.argument("path", type=PATH, metavar="KIT")


@click.group()
def kit() -> None:
    """Look at kits, check them, and choose the one that answers."""


@kit.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per kit.")
def list_kits(as_json: bool) -> None:
    """List the installed kits.

    An asterisk marks the one that answers when none is named.
    """
    from pulse_edge.kit import locate

    default, error = None, ""
    try:
        default = locate.find(None).path
    except KitError as e:  # none is chosen, or it is broken: the list shows which there are
        error = str(e)
    for name, path in locate.kits_by_name().items():
        row = {"name": name, "default": path.resolve() == default, **_summary(path)}
        say(json_text(row) + "\n" if as_json else _line(row))
    if default is None:
        raise KitError(error)


def _summary(path: Path) -> dict[str, Any]:
    from pulse_edge.kit.kit import open_kit

    row: dict[str, Any] = {"path": str(path)}
    try:
        manifest = open_kit(path).manifest
    except KitError as e:
        return row | {"broken": str(e)}
    size = sum(file.bytes for file in manifest.files.values())
    return row | {
        "id": manifest.id,
        "bytes": size,
        "demonstration": manifest.demonstration,
    }


def _line(row: Mapping[str, Any]) -> str:
    about = row.get("broken") or f"{row['id']}, {row['bytes'] / 2**30:.2f} GiB"
    about += NOT_FOR_PATIENTS if row.get("demonstration") else ""
    return f"{'*' if row['default'] else ' '} {row['name']:<32} {about}\n"


@kit.command()
@click.argument("name")
def use(name: str) -> None:
    """Choose the kit that answers when none is named.

    NAME is the name of an installed kit as `kit list` shows it, or its beginning.
    """
    from pulse_edge.kit import locate

    say(f"{locate.choose(name).path.name} answers from now on when no kit is named\n")


@kit.command(cls=ReadyCommand)
@_kit
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def info(path: Path, as_json: bool) -> None:
    """Show what a kit is, its source, and its proofs.

    KIT is the kit's folder, or the name of an installed kit.
    """
    from pulse_edge.kit import locate
    from pulse_edge.kit.manifest import MANIFEST

    opened = locate.find(path)
    if as_json:
        say(escaped_json((opened.path / MANIFEST).read_text("utf-8")))
        return
    for name, value in _facts(opened.manifest):
        say(f"{name:<14}{value}\n")


def _facts(m: Manifest) -> Iterator[tuple[str, str]]:
    """Give the lines about a kit: what is named, and its value."""
    yield "kit", m.id + (NOT_FOR_PATIENTS if m.demonstration else "")
    source = [str(m.source[k]) for k in ("name", "revision", "licence") if m.source.get(k)]
    yield "source", " ".join(source)
    yield "made", m.created
    language, vision, packing = m.language, m.vision, m.packing
    keys = language.key_cache_type
    yield (
        "language",
        f"{language.type}, {language.layers} layers, context {language.context_length} tokens"
        + (f", {keys} keys" if keys != "f16" else ""),
    )
    tile = f"tiles of {vision.image_size} x {vision.image_size} pixels"
    yield "vision", f"{vision.type}, {tile}, {vision.patches_per_side**2} image tokens each"
    yield "packing", f"{packing.aspect_ratio}, {packing.merge}"
    for name, file in m.files.items():
        yield "file", f"{file.bytes:>14,} {name}"
    for part, figures in m.parity.items():
        if isinstance(figures, dict):
            numbers = (f"{k} {v}" for k, v in figures.items() if not isinstance(v, dict))
            yield "parity", f"{part}: {', '.join(numbers)}"
    yield from _accuracy(m.accuracy)
    yield "findings", _calibrated(m.findings)


def _calibrated(calibrations: Mapping[str, Calibration] | None) -> str:
    """Return which findings the kit judges, and how well."""
    if calibrations is None:
        return "not calibrated"
    judged = [
        f"{key} (AUC {'not known' if c.auc is None else f'{c.auc:.2f}'})"
        for key, c in calibrations.items()
        if not c.reason
    ]
    others = [key for key, c in calibrations.items() if c.reason]
    return f"judges {', '.join(judged) or 'none'}; does not judge {', '.join(others) or 'none'}"


def _accuracy(accuracy: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Give the verdict, a line for each task and gate, and the place of the report."""
    if accuracy is None:
        yield "accuracy", "not measured"
        return
    yield "accuracy", str(accuracy.get("verdict", accuracy))
    for row in accuracy.get("table", ()):
        scores = f"{row['score']} {row['this']}, reference {row['reference']}"
        change = f", difference {row['difference']}" if row["difference"] else ""
        yield "", f"{row['task']}: {scores}{change}, {row['questions']} questions"
    for gate in accuracy.get("gates") or ():
        verdict = "passed" if gate["passed"] else "NOT PASSED"
        yield "gate", f"{gate['gate']} {gate['value']} (limit {gate['limit']}): {verdict}"
    if report := accuracy.get("report"):
        yield "report", report


@kit.command(cls=ReadyCommand)
@_kit
def verify(path: Path) -> None:
    """Compare every byte of a kit with its manifest."""
    from pulse_edge.kit import locate
    from pulse_edge.kit import verify as kit_verify

    if (path / installation.BUNDLE_MANIFEST).exists():
        raise UsageError(
            f"{path}: is a bundle. Check it with `pulse-edge bundle verify`, which checks its "
            "signature too."
        )
    console = Console()
    opened = locate.find(path)
    with console.progress() as progress:
        kit_verify.verify(opened, progress=lambda done, total: progress("verify", done, total))
    say(f"{path}: {len(opened.manifest.files)} files are as they were made\n")
