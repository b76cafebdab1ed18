"""Limits of what a file may ask for, and errors in words that a clinic can act on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from PIL import Image, UnidentifiedImageError

from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError

MAX_PIXELS = 100_000_000
"""Pixels of a page at most, checked before it is decoded. An A4 sheet at 600 dpi has 35 million."""
MAX_PAGES = 100
"""Pages of a file at most."""
AS_PNG = "Export the page as PNG (300 dpi is plenty)."
SMALLER = "Save it again as PNG at 300 dpi: that is 9 million pixels for an A4 page."
AGAIN = "Copy the file again, or scan the page again, or export it as PNG."


@dataclass(frozen=True)
class Limits:
    """What a file may ask for."""

    pixels: int = MAX_PIXELS
    """Pixels of one page at most."""
    pages: int = MAX_PAGES
    """Pages at most."""


def raise_if_cut_short(name: str, what: str, why: str | None) -> None:
    """Raise ScanError for a file that is cut short.

    `why` says how that shows, None that the file is whole.
    """
    if why is not None:
        raise ScanError(f"{name}: is {what} that is cut short: {why}. {AGAIN}")


def require_library(module: str, extra: str, name: str, what: str) -> None:
    """Raise ScanError, which names what to install, where the library for a kind of file is
    missing."""
    if find_spec(module) is None:
        raise library_missing(module, extra, name, what)


def library_missing(module: str, extra: str, name: str, what: str) -> ScanError:
    """Return the error for a missing library, which names what to install."""
    return ScanError(
        f"{name}: is {what}, and {module.replace('_', '-')} is not installed. "
        f"Install it (pip install 'pulse-edge[{extra}]'), or export the page as PNG."
    )


def readable_error(error: Exception, name: str, what: str, limits: Limits) -> PulseEdgeError:
    """Return the project's own error for whatever a decoder raised: damaged files cause exceptions
    of any kind."""
    if isinstance(error, PulseEdgeError):
        return error
    if isinstance(
        error, Image.DecompressionBombError
    ):  # Pillow's own limit, twice ours, is checked before ours
        pixels = re.search(r"\d+", str(error))
        return too_large(name, int(pixels[0]) if pixels else limits.pixels, limits)
    if isinstance(error, MemoryError):
        return PageRefused(f"{name}: takes more memory to read than a page may. {SMALLER}")
    why = shortened(error)
    if isinstance(error, UnidentifiedImageError):
        why = "its header makes no sense"
    elif isinstance(error, RecursionError):
        why = "it is nested too deeply"
    return ScanError(
        f"{name}: is a {what} that is cut short, damaged or of a rare kind ({why}). "
        f"Copy or scan the page again, or export it as PNG."
    )


def shortened(error: object) -> str:
    """Return the text of an error or a warning, in one line of at most 120 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


def page_name(name: str, number: int, count: int) -> str:
    """Return a page's name: that of its file, with the page's number where there are several."""
    return f"{name}#{number}" if count > 1 else name


def check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Raise where a page has no pixels, or more than the limit."""
    if min(size) < 1:
        raise ScanError(
            f"{name}: has no pixels ({size[0]} x {size[1]}). Copy or scan the page again."
        )
    if size[0] * size[1] > limits.pixels:
        raise too_large(name, size[0] * size[1], limits, f" ({size[0]} x {size[1]})")


def too_large(name: str, pixels: int, limits: Limits, size: str = "") -> PageRefused:
    """Return the error for a page with more pixels than the limit."""
    return PageRefused(
        f"{name}: has {pixels:,} pixels{size}; {limits.pixels:,} is the limit. {SMALLER}"
    )


def too_many_pages(name: str, limits: Limits, count: int | None = None) -> PageRefused:
    """Return the error for a file with more pages than the limit.

    `count`: how many, where that is known.
    """
    many = (
        f"more than {limits.pages} pages, the limit"
        if count is None
        else f"{count} pages; {limits.pages} is the limit"
    )
    return PageRefused(f"{name}: has {many}. Save the ECG pages as a file of their own.")
