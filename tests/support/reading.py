"""Read pictures in tests: pixels of a page, hand-made PNG and TIFF files, and the errors of files
that are refused."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from picture_files import chunk
from PIL import Image

from pulse_edge.errors import PulseEdgeError, ScanError
from pulse_edge.page import reader


def array(page: reader.Page) -> np.ndarray:
    return np.asarray(page.image)


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(array(reader.read(data))[y, x].tolist())


def png(
    width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0, before: bytes = b""
) -> bytes:
    """By hand, for what Pillow does not write. colour: 0 grey, 2 RGB; `before`: chunks before the
    pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    size = len(rows) // max(height, 1)
    lines = b"".join(b"\0" + rows[y * size : (y + 1) * size] for y in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + before
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(
    width: int,
    height: int,
    bits: int,
    photometric: int,
    pixels: bytes,
    order: str = "<",
    **more: int,
) -> bytes:
    """One uncompressed grey strip, by hand. `more`: t339=2 sets tag 339."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        277: 1,
        278: height,
        279: len(pixels),
    }
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return start + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + pixels


def refused(source: Any, *words: str, kind: type[PulseEdgeError] = ScanError) -> str:
    """The error's message, which must be one line, name the source, and hold `words`."""
    with pytest.raises(PulseEdgeError) as caught:
        reader.read(source)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert len(message.splitlines()) == 1
    name = "image" if isinstance(source, bytes | Image.Image) else str(source)
    assert message.startswith(f"{name}: ")
    assert message.endswith((".", "scan.png"))
    for word in words:
        assert word in message
    return message
