"""A JPEG that takes long to decode."""

from __future__ import annotations

import struct


def progressive(side: int, scans: int) -> bytes:
    """A JPEG of many scans that change nothing: each goes over all blocks again."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    def bits(text: str) -> bytes:
        text += "1" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")

    def start(first: int, last: int, high: int, low: int) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, high << 4 | low]))

    blocks_ = ((side + 7) // 8) ** 2
    out = b"\xff\xd8" + segment(0xDB, bytes([0]) + bytes([1]) * 64)
    out += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    out += segment(0xC4, bytes([0x00, 1] + [0] * 15 + [0])) + segment(
        0xC4, bytes([0x10, 1, 1] + [0] * 14 + [0xE0, 0])
    )
    runs, rest = divmod(blocks_, 32767)
    body = bits(("0" + "1" * 14) * runs + "10" * rest)
    out += start(0, 0, 0, 0) + bits("0" * blocks_) + start(1, 63, 0, 13) + body
    return out + (start(1, 63, 1, 0) + body) * scans + b"\xff\xd9"
