"""`pulse-edge cache info|clear`: the pages that were encoded before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.console import say
from pulse_edge.common import paths

if TYPE_CHECKING:
    from pulse_edge.inference.cache import ImageTokenCache, PrefixCache

_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def opened() -> ImageTokenCache:
    """In the folder $PULSE_EDGE_CACHE, or the user's own. Raises FolderError where that is not a page cache of this user."""
    from pulse_edge.inference.cache import ImageTokenCache

    variable = os.environ.get("PULSE_EDGE_CACHE")
    cache = ImageTokenCache(Path(variable) if variable else paths.user_cache() / "image-tokens")
    cache.check()  # now, and not after the first page was encoded
    return cache


def prefixes(limit: int | None, *, cache: bool = True) -> PrefixCache | None:
    """What `--kv-cache-size` keeps, in the same folder; None where it is not asked for."""
    from pulse_edge.inference.cache import PrefixCache

    return None if limit is None or not cache else PrefixCache(opened().folder, limit)


@click.group()
def cache() -> None:
    """What is kept of pages that were encoded before, so that they need not be encoded again."""


@cache.command()
@_DEBUG
def info(debug: bool) -> None:
    """How many pages are kept, where, and how many bytes they take."""
    kept = opened()
    pages, size = kept.info()
    say(f"{kept.folder}: {pages} pages, {size:,} of at most {kept.limit:,} bytes\n")
    if (read := prefixes(0)) and (of := read.info())[0]:
        say(
            f"{kept.folder}: {of[0]} pages as the language model read them, {of[1]:,} bytes (--kv-cache-size)\n"
        )


@cache.command()
@_DEBUG
def clear(debug: bool) -> None:
    """Remove them all."""
    kept, read = opened(), prefixes(0)
    also = read.clear() if read else 0
    of_model = f", {also} as the language model read them" * bool(also)
    say(f"{kept.folder}: {kept.clear()} pages removed{of_model}\n")
