"""The commands around sticks: `pulse-edge kit keygen|pack|rollback`. Registered by cli.py."""

from __future__ import annotations

from pathlib import Path

import click

from .wheelhouse import PLATFORMS, PYTHONS

_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("path", type=_PATH, metavar="KEY")
@_DEBUG
def keygen(path: Path, debug: bool) -> None:
    """Make a key that signs sticks: KEY, which you keep secret, and KEY.pub, which you tell the clinics."""
    from . import stick

    public = stick.keygen(path)
    click.echo(f"key {public.id}: secret half {path}, public half {path}.pub")


@click.command()
@click.argument("kits", nargs=-1, required=True, type=_PATH, metavar="KIT...")
@click.option(
    "-o", "--out", required=True, type=_PATH, metavar="STICK", help="A new folder, on the stick or elsewhere."
)
@click.option("--platform", "platforms", multiple=True, required=True, type=click.Choice(sorted(PLATFORMS)))
@click.option("--python", "pythons", multiple=True, default=["3.11"], show_default=True, type=click.Choice(PYTHONS))
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--sign", "key", type=_PATH, metavar="KEY", help="A secret key of `kit keygen` or `minisign -G -W`.")
@click.option("--wheel", "wheels", multiple=True, type=_PATH, metavar="FILE", help="Take this wheel before any other.")
@click.option("--since", type=_PATH, metavar="STICK.JSON", help="Of an earlier stick: carry only what has changed.")
@click.option("--constraints", type=_PATH, help="Versions of everything. Default: the checkout's constraints.txt.")
@_DEBUG
def pack(
    kits: tuple[Path, ...],
    out: Path,
    platforms: tuple[str, ...],
    pythons: tuple[str, ...],
    device: str,
    key: Path | None,
    wheels: tuple[Path, ...],
    since: Path | None,
    constraints: Path | None,
    debug: bool,
) -> None:
    """Put kits, program and installer into one signed folder for a machine without a network."""
    from . import stick
    from .cli import Screen

    order = stick.Order(
        kits=kits,
        out=out,
        targets=stick.targets(platforms, pythons, device),
        constraints=constraints or Path(__file__).parent.parent / "constraints.txt",
        wheels=wheels,
        key=None if key is None else stick.read_secret_key(key),
        since=since,
    )
    screen = Screen()
    with screen.progress() as progress:
        public = stick.pack(order, progress)
    signed = f"signed by key {public.id}" if public else "unsigned: installing it takes --accept unsigned"
    click.echo(f"{out}: {sum(p.stat().st_size for p in out.rglob('*')):,} bytes, {signed}")


@click.command()
@_DEBUG
def rollback(debug: bool) -> None:
    """Go back to the version that was installed before this one."""
    from . import install
    from . import kit as kits
    from .errors import KitError

    home = kits.home()
    if home is None:
        raise KitError("this pulse-edge was not installed from a stick, so there is no earlier version to go back to.")
    try:
        click.echo(f"in use from now on: {install.rollback(home)}")
    except install.Refused as e:
        raise KitError("\n".join(e.lines)) from None
