"""Read files that were built to do harm, each in a process of its own.

Usage: `python benchmarks/hostile.py`.

Prints a line for each: the outcome, processor seconds of the reader and its child processes, and
the largest memory of one of them. Each must end in one of the project's own errors, or in a page,
within 5 s and 1 GB.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from documents import RED_BOX, pdf, picture_file, waveform_file
from progressive import progressive

READER = """
import resource, sys, time
from pulse_edge.page import decoder_client, reader
from pulse_edge.errors import PulseEdgeError
try:
    outcome = f"{len(reader.read_all(sys.argv[1]))} pages"
except PulseEdgeError as e:
    outcome = f"{type(e).__name__}: {str(e).split(': ', 1)[1][:60]}"
decoder_client.stop()  # its use counts once it has ended
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
seconds = sum(u.ru_utime + u.ru_stime for u in used)
print(f"{outcome}; {seconds:.2f} s, {max(u.ru_maxrss for u in used) / 1024:.0f} MiB")
"""


def files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each hostile file."""
    yield "PDF of 10,000 pages", pdf(*[b""] * 10_000)
    yield "PDF of 100 pages of the largest size", pdf(*[RED_BOX] * 100, size=(14_400, 14_400))
    form = (
        b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</F 5 0 R>>>>"
        b"/Length 5>>stream\n/F Do\nendstream"
    )
    yield "PDF form that draws itself", pdf(b"/F Do", more=(form,))
    yield "PDF forms that draw 20 to the 12th boxes", pdf(b"/F Do", more=tuple(_forms(12)))
    yield (
        "PDF with a page tree that holds itself",
        pdf(RED_BOX).replace(b"/Kids[3 0 R]", b"/Kids[2 0 R]"),
    )
    yield "PDF picture that unpacks to 2 GiB", pdf(b"792 0 0 612 0 0 cm /F Do", more=(_bomb(),))
    yield "PNG of 60,000 x 60,000 pixels in few bytes", _png(60_000)
    yield "PNG of 9,900 x 9,900 pixels in few bytes", _png(9_900)
    yield "TIFF of 101 pages", _tiff(101)
    yield (
        "DICOM that says 60,000 x 60,000",
        picture_file(np.zeros((64, 64, 3), np.uint8), Rows=60_000, Columns=60_000),
    )
    yield "JPEG of 9,984 x 9,984 pixels and 400 scans", progressive(9_984, 400)
    yield "WebP of 16,383 x 16,383 pixels in 40 bytes", _webp(16_383)
    yield (
        "WebP of 9,999 x 9,999 pixels",
        _saved(Image.new("RGBA", (9_999, 9_999), (1, 2, 3, 100)), "WEBP", lossless=True),
    )
    yield (
        "PNG of 10,000 x 10,000 RGBA",
        _saved(Image.new("RGBA", (10_000, 10_000)), "PNG", compress_level=1),
    )
    yield "DICOM of a million empty items", _items(1_000_000)
    yield "DICOM of 12 leads at 50 kHz", waveform_file(hz=50_000)
    yield "DICOM whose pixels are cut short", picture_file(np.zeros((64, 64, 3), np.uint8))[:2000]


def _saved(picture: Image.Image, fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, fmt, **options)
    return file.getvalue()


def _webp(side: int) -> bytes:
    body = b"\x2f" + (side - 1 | (side - 1) << 14).to_bytes(4, "little") + bytes(7)
    data = b"WEBPVP8L" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + len(data).to_bytes(4, "little") + data


def _items(count: int) -> bytes:
    """Return a sequence of undefined length with `count` empty items."""
    start = picture_file(np.zeros((8, 8, 3), np.uint8))
    at = start.index(b"\x08\x00\x16\x00") if b"\x08\x00\x16\x00" in start else 132
    sequence = (
        struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    )
    return start[:at] + sequence + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + start[at:]


def _forms(levels: int) -> Iterator[bytes]:
    """Each form draws the next one twenty times."""
    for level in range(levels):
        inner = b"/N Do " * 20 if level < levels - 1 else RED_BOX
        named = b"/Resources<</XObject<</N %d 0 R>>>>" % (6 + level)
        yield b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]%s/Length %d>>stream\n%s\nendstream" % (
            named,
            len(inner),
            inner,
        )


def _bomb() -> bytes:
    """A picture of 26,755 x 26,755 RGB pixels, all black: 2 MB packed."""
    packer, packed = zlib.compressobj(9), bytearray()
    for _ in range(2048):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    head = (
        b"<</Type/XObject/Subtype/Image/Width 26755/Height 26755/ColorSpace/DeviceRGB"
        b"/BitsPerComponent 8"
    )
    return (
        head
        + b"/Filter/FlateDecode/Length %d>>stream\n" % len(packed)
        + bytes(packed)
        + b"\nendstream"
    )


def _png(side: int) -> bytes:
    """A black PNG of one bit a pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )

    packer, row = zlib.compressobj(9), bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    size = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def _tiff(pages: int) -> bytes:
    file, page = io.BytesIO(), Image.new("L", (8, 8))
    page.save(file, "TIFF", save_all=True, append_images=[page] * (pages - 1))
    return file.getvalue()


def main() -> None:
    """Read every hostile file and print the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        # Building them takes a gigabyte, which would count for readers that are forked from it: in
        # a process of its own.
        subprocess.run([sys.executable, __file__, folder], check=True)
        for path in sorted(Path(folder).iterdir()):
            environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-c", READER, path],
                env=environment,
                capture_output=True,
                text=True,
            )
            print(
                f"{path.name[3:]}: "
                f"{done.stdout.strip() or 'CRASHED ' + done.stderr.strip()[-200:]}",
                flush=True,
            )


def make(folder: Path) -> None:
    """Write all hostile files."""
    for n, (name, data) in enumerate(files()):
        (folder / f"{n:02} {name}").write_bytes(data)


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else make(Path(sys.argv[1]))
