"""The picture of the page in a document, small enough to send."""

from __future__ import annotations

import io

from PIL import Image

MAX_SIDE = 1800
"""Pixels of the picture's longer side: 250 dpi across an A4 page."""
JPEG_QUALITY = 85


def to_jpeg(page: Image.Image) -> bytes:
    """Return the page as a JPEG file of at most MAX_SIDE pixels a side."""
    small = page.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
