"""A page's picture as the bytes of a file: PNG, or JPEG for a photograph, which takes a tenth of the
space."""

from __future__ import annotations

import io

from PIL import Image

JPEG_QUALITY, PNG_COMPRESSION = 92, 4


def encoded(picture: Image.Image, *, photo: bool) -> tuple[str, bytes]:
    """Return the ending of the file's name without a dot, and the file's bytes."""
    file = io.BytesIO()
    if photo:
        picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return "jpg", file.getvalue()
    picture.save(file, "PNG", compress_level=PNG_COMPRESSION)
    return "png", file.getvalue()
