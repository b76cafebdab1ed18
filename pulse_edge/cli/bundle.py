"""`pulse-edge bundle`: make, check and undo signed folders that install pulse-edge offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import PATH
from pulse_edge.common import paths
from pulse_edge.deploy.targets import DEVICES, EXTRAS, PLATFORMS, PYTHONS, targets


@click.group()
def bundle() -> None:
    """Make, check and undo offline bundles.

    A bundle is a signed folder that installs pulse-edge and its kits on machines without a network.
    """


@bundle.command()
@click.argument("path", type=PATH, metavar="KEY")
def keygen(path: Path) -> None:
    """Make a key pair that signs bundles.

    KEY holds the secret half: keep it to yourself. KEY.pub holds the public half: give its number
    to the clinics.
    """
    from pulse_edge.deploy import signing

    public = signing.keygen(path)
    say(f"key {public.id}: secret half {path}, public half {path}.pub\n")


@bundle.command()
@click.argument("kits", nargs=-1, required=True, type=PATH, metavar="KIT...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=PATH,
    metavar="BUNDLE",
    help="Folder to make, on the USB drive or elsewhere.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    required=True,
    type=click.Choice(sorted(PLATFORMS)),
    help="Kind of laptop to pack for; may be repeated.",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    default=["3.11"],
    show_default=True,
    type=click.Choice(PYTHONS),
    help="Python version of the laptops; may be repeated.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Hardware that the laptops compute on.",
)
@click.option(
    "--sign",
    "key",
    type=PATH,
    metavar="KEY",
    help="Secret key that signs the bundle, made by `bundle keygen` or `minisign -G -W`. "
    "Default: unsigned.",
)
@click.option(
    "--wheel",
    "wheels",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Wheel file to pack instead of fetching or building one; may be repeated.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(list(EXTRAS)),
    help="Leave out the readers of PDF, HEIC or DICOM files, or the writer of PDF reports; may be "
    "repeated. Default: pack all of them.",
)
@click.option(
    "--since",
    type=PATH,
    metavar="FILE",
    help="bundle.json of an earlier bundle: carry only files that it did not carry. "
    "Default: carry everything.",
)
@click.option(
    "--locks",
    type=PATH,
    metavar="DIR",
    help="Folder of the lock files: versions of all packages, and the hashes of their files. "
    "Default: locks in the checkout.",
)
def pack(kits: tuple[Path, ...], out: Path, key: Path | None, **options: Any) -> None:
    """Put kits, program and installer into one folder, and sign it.

    The first KIT answers on the laptops when none is named.
    """
    from pulse_edge.deploy import bundle as bundles
    from pulse_edge.deploy import signing
    from pulse_edge.deploy.wheelhouse import Supply

    order = bundles.Order(
        kits=kits,
        out=out,
        targets=targets(options["platforms"], options["pythons"], options["device"]),
        supply=Supply(options["wheels"], options["locks"] or paths.PACKAGE.parent / "locks"),
        key=None if key is None else signing.read_secret_key(key),
        since=options["since"],
        without=options["without"],
    )
    console = Console()
    with console.progress() as progress:
        public = bundles.pack(order, progress, lambda text: console.note(text, always=True))
    size = sum(p.stat().st_size for p in out.rglob("*"))
    signed = "unsigned: installing it takes --accept unsigned"
    if public is not None:
        signed = f"signed by key {public.id}"
    say(f"{out}: {size:,} bytes, {signed}\n")


@bundle.command()
@click.argument("path", type=PATH, metavar="BUNDLE")
@click.option(
    "--key",
    type=PATH,
    metavar="FILE",
    help="Public key that must have signed it. Default: the keys that are trusted here.",
)
def verify(path: Path, key: Path | None) -> None:
    """Check a bundle's signature and all its files, as the installer does."""
    from pulse_edge.deploy import bundle as bundles

    with Console().progress() as progress:
        verdict = bundles.verify(path, key, progress)
    say(f"{verdict}\n")


@bundle.command()
def rollback() -> None:
    """Go back to the version that was installed before."""
    from pulse_edge.common import installation
    from pulse_edge.errors import KitError
    from pulse_edge.installer import remove
    from pulse_edge.installer.home import Home
    from pulse_edge.installer.refusal import Refused

    home = installation.home()
    if home is None:
        raise KitError(
            "this pulse-edge was not installed from a bundle, so there is no earlier version to "
            "go back to."
        )
    try:
        say(f"in use from now on: {remove.rollback(Home(home))}\n")
    except Refused as e:
        raise KitError(" ".join(e.lines)) from None
