"""Pieces of picture files, and pictures in them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def blocks(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A picture with no symmetry: 8 x 8 blocks of random colours, which survive JPEG."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(cells.repeat(8, 0).repeat(8, 1))


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def several(*pages: Image.Image, fmt: str = "TIFF", **options: Any) -> bytes:
    return encoded(pages[0], fmt, save_all=True, append_images=pages[1:], **options)
