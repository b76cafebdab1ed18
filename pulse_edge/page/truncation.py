"""Detect files that are cut short.

Decoders fill missing pixels with grey, green or black and seldom report it.

In: the bytes of a file, or of one compressed picture in it. Out: the reason why it is cut short, or
None. A broken-off copy is shorter than its own tables say, or has its full length with zeros (on
flash memory, ones) in its tail. Compressed data do not end like that: the padding of the coders is
one or two bytes. Standard library only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

MAX_BLANK_BYTES = 16
"""Bytes of 0x00 or 0xFF at the end of compressed data from which on they are cut short. The
encoders that were tried write two at most, except lossy WebP (see `webp`)."""
MISSING_PART = "its last part is missing"


def blank_tail(data: bytes | memoryview, value: int = 0) -> int:
    """Return how many bytes of `value` the data end with."""
    view, end = memoryview(data), len(data)
    block = bytes([value]) * 4096
    while end >= 4096 and view[end - 4096 : end] == block:
        end -= 4096
    while end and view[end - 1] == value:
        end -= 1
    return len(data) - end


def compressed(data: bytes | memoryview, *, ones: bool = True) -> str | None:
    """Return why compressed data are cut short: they end in zeros, or, with `ones`, in ones."""
    if blank_tail(data) >= MAX_BLANK_BYTES or (ones and blank_tail(data, 0xFF) >= MAX_BLANK_BYTES):
        return MISSING_PART
    return None


def strips(data: bytes, pieces: Iterable[tuple[int, int]], *, ones: bool) -> str | None:
    """Return why the compressed pieces (offset, length) of a TIFF's picture are not all in the
    file.

    CCITT Group 4 codes a blank line as one bit 1: there, ones in the tail are a blank margin, and
    `ones` is False.
    """
    for offset, length in pieces:
        if offset <= 0 or length <= 0 or offset + length > len(data):
            return MISSING_PART
        if compressed(memoryview(data)[offset : offset + length], ones=ones):
            return MISSING_PART
    return None


def jpeg2000(data: bytes) -> str | None:
    """Return why a JPEG 2000 or JPEG-LS picture is cut short: it lacks the end marker.

    Decoders draw the rest of it.
    """
    tail = data[-64:].rstrip(b"\0")  # DICOM pads to an even length
    return None if b"\xff\xd9" in tail else MISSING_PART


# --- WebP -----------------------------------------------------------------------------------------


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from a WebP's header, None where it states none. libwebp takes 4
    bytes a pixel when opened."""
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 " and len(data) >= 30:
        return struct.unpack_from("<H", data, 26)[0] & 0x3FFF, struct.unpack_from("<H", data, 28)[
            0
        ] & 0x3FFF
    return None


def webp(data: bytes) -> str | None:
    """Return why a WebP is cut short.

    The coder of lossy WebP writes zeros for blank blocks at the end, 0.05 bytes for each of 16 x 16
    pixels on pages whose lower half is blank; 0.125 and 64 bytes are allowed.
    """
    size = webp_size(data) or (0, 0)
    blank = 64 + size[0] * size[1] // 256 // 8
    if 8 + int.from_bytes(data[4:8], "little") > len(data) + 1:
        return MISSING_PART
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = memoryview(data)[at + 8 : at + 8 + length]
        if len(body) < length:
            return MISSING_PART
        if kind == b"VP8 " and (
            blank_tail(body) > blank or blank_tail(body, 0xFF) >= MAX_BLANK_BYTES
        ):
            return MISSING_PART
        if kind == b"VP8L" and compressed(body):
            return MISSING_PART
        at += 8 + length + (length & 1)
    return None


# --- HEIC -----------------------------------------------------------------------------------------


def avif(data: bytes) -> str | None:
    """Return why an AVIF is cut short: a picture's data lie beyond its end, or end in zeros."""
    meta = _box(data, 0, len(data), b"meta")
    if meta is None:
        return MISSING_PART
    for _, offset, length in _extents(data, *meta):
        body = data[offset : offset + length] if length else data[offset:]
        if offset + length > len(data) or (
            len(body) > MAX_BLANK_BYTES and compressed(body, ones=False)
        ):
            return MISSING_PART
    return None


def gif(data: bytes) -> str | None:
    """Return why a GIF's first picture is cut short: its blocks do not end in the file, or no part
    of a GIF follows them."""
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    while at < len(data):
        kind, picture = data[at], data[at] == 0x2C
        if kind == 0x21:  # an extension
            at += 2
        elif picture and at + 10 < len(data):
            flags = data[at + 9]
            at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        else:
            return MISSING_PART
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
        if picture:
            return None if data[at : at + 1] in (b"\x21", b"\x2c", b"\x3b") else MISSING_PART
    return MISSING_PART


def heic(data: bytes) -> str | None:
    """Return why a HEIC is cut short: a picture's data lie beyond its end, or hold bytes that HEVC
    never writes.

    HEVC puts a 3 between two zeros and the next byte: three zeros in a row within a unit are a
    hole.
    """
    meta = _box(data, 0, len(data), b"meta")
    if meta is None:
        return MISSING_PART
    kinds = _item_kinds(data, *meta)
    for item, offset, length in _extents(data, *meta):
        if offset + length > len(data):
            return MISSING_PART
        if kinds.get(item) in (b"hvc1", b"hev1"):
            body = data[offset : offset + length] if length else data[offset:]
            if compressed(body) or any(b"\0\0\0" in unit for unit in _hevc_units(body)):
                return MISSING_PART
    return None


def _hevc_units(body: bytes) -> Iterator[bytes]:
    """Return the units of HEVC data, each preceded by its length in 4 bytes."""
    at = 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        yield body[at + 4 : at + 4 + length]
        at += 4 + length


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Return kind, start and end of the contents of each box between two offsets of an ISO base
    media file."""
    while at + 8 <= end:
        length, head = int.from_bytes(data[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif length == 0:
            length = end - at
        if length < head:
            return
        yield data[at + 4 : at + 8], at + head, min(at + length, end)
        at += length


def _box(data: bytes, at: int, end: int, kind: bytes) -> tuple[int, int] | None:
    """Return start and end of the contents of the first box of a kind.

    After version and flags for `meta`.
    """
    for box_kind, start, stop in _boxes(data, at, end):
        if box_kind == kind:
            return (start + 4 if kind == b"meta" else start), stop
    return None


def _item_kinds(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """Return item -> its kind, from the item information box."""
    kinds = {}
    if box := _box(data, at, end, b"iinf"):
        start = box[0] + (6 if data[box[0]] == 0 else 8)
        for kind, inner, _stop in _boxes(data, start, box[1]):
            version = data[inner] if inner < len(data) else 0
            if kind == b"infe" and version >= 2:
                wide = 4 if version >= 3 else 2
                item = int.from_bytes(data[inner + 4 : inner + 4 + wide], "big")
                kinds[item] = data[inner + 6 + wide : inner + 10 + wide]
    return kinds


def _extents(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Return item, offset and length (0: to the file's end) of every extent that lies in the file
    itself."""
    if (box := _box(data, at, end, b"iloc")) is None:
        return
    body, pos = data[box[0] : box[1]], 6

    def number(size: int) -> int:
        nonlocal pos
        if pos + size > len(body):
            raise ValueError("its table of pictures is cut short")
        pos += size
        return int.from_bytes(body[pos - size : pos], "big")

    if len(body) < 8:
        raise ValueError("its table of pictures is cut short")
    version, sizes = (
        body[0],
        (body[4] >> 4, body[4] & 15, body[5] >> 4, body[5] & 15 if body[0] else 0),
    )
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)  # data reference
        base = number(sizes[2])
        for _ in range(number(2)):
            number(sizes[3])
            offset, length = base + number(sizes[0]), number(sizes[1])
            if method == 0:
                yield item, offset, length


# --- PDF ------------------------------------------------------------------------------------------


def pdf(data: bytes) -> str | None:
    """Return why a PDF is cut short: it does not end with %%EOF. pdfium recovers pages of such a
    file, and draws less."""
    end = data.rstrip(b"\0\xff")
    if len(data) - len(end) > 4096 and b"%%EOF" not in end[-64:]:
        return MISSING_PART
    return None if b"%%EOF" in end[-1024:] else "its end is missing"


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker after the last of any fill bytes: `\\xff+` takes ten times as long."""


def jpeg_end(data: bytes) -> int:
    """Return the offset of the end marker of a JPEG's first picture; -1 where there is none."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.end()
        if marker[1] == b"\xd9":
            return at - 2
        at += int.from_bytes(
            data[at : at + 2], "big"
        )  # skip the segment: EXIF holds a JPEG of its own
    return -1
