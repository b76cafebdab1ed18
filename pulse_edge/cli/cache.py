"""`pulse-edge cache info|clear`: the stored image tokens and KV caches of pages."""

from __future__ import annotations

import click

from pulse_edge.cli.console import say
from pulse_edge.common.text import counted


@click.group()
def cache() -> None:
    """Show or remove what is stored of encoded pages."""


@cache.command()
def info() -> None:
    """Show how many pages are stored, where, and their size."""
    from pulse_edge.inference.cache import user_image_tokens, user_kv_caches

    tokens, prefixes = user_image_tokens(), user_kv_caches(0)
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
    from pulse_edge.inference.cache import user_image_tokens, user_kv_caches

    tokens, prefixes = user_image_tokens(), user_kv_caches(0)
    kv_pages, pages = prefixes.clear(), tokens.clear()
    removed = f"image tokens of {counted(pages, 'page', 'pages')}"
    removed += f" and KV caches of {counted(kv_pages, 'page', 'pages')}" if kv_pages else ""
    say(f"{tokens.folder}: removed {removed}\n")
