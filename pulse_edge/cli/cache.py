"""`pulse-edge cache info|clear`: the stored image tokens and KV caches of pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.console import say
from pulse_edge.common import paths
from pulse_edge.common.text import counted

if TYPE_CHECKING:
    from pulse_edge.inference.cache import ImageTokenCache, PrefixCache

CACHE_VARIABLE = "PULSE_EDGE_CACHE"


def image_tokens() -> ImageTokenCache:
    """Return the cache in $PULSE_EDGE_CACHE, else in the user's own folder.

    Raises FolderError at once where the folder is not a cache of this user, before a page is
    encoded for it.
    """
    from pulse_edge.inference.cache import ImageTokenCache

    variable = os.environ.get(CACHE_VARIABLE)
    folder = Path(variable) if variable else paths.user_cache() / "image-tokens"
    cache = ImageTokenCache(folder)
    cache.check()
    return cache


def kv_caches(limit: int) -> PrefixCache:
    """Return the store of KV caches in the same folder, of at most `limit` bytes."""
    from pulse_edge.inference.cache import PrefixCache

    return PrefixCache(image_tokens().folder, limit)


@click.group()
def cache() -> None:
    """Show or remove what is stored of encoded pages."""


@cache.command()
def info() -> None:
    """Show how many pages are stored, where, and their size."""
    tokens, prefixes = image_tokens(), kv_caches(0)
    pages, size = tokens.info()
    number = counted(pages, "page", "pages")
    say(f"{tokens.folder}: image tokens of {number}, {size:,} of at most {tokens.limit:,} bytes\n")
    pages, size = prefixes.info()
    if pages:
        number = counted(pages, "page", "pages")
        say(f"{tokens.folder}: KV caches of {number}, {size:,} bytes (--kv-cache-size)\n")


@cache.command()
def clear() -> None:
    """Remove everything that is stored."""
    tokens, prefixes = image_tokens(), kv_caches(0)
    kv_pages, pages = prefixes.clear(), tokens.clear()
    removed = f"image tokens of {counted(pages, 'page', 'pages')}"
    removed += f" and KV caches of {counted(kv_pages, 'page', 'pages')}" if kv_pages else ""
    say(f"{tokens.folder}: removed {removed}\n")
