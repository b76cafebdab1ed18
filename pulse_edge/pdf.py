"""`python -m pulse_edge.pdf` is a PDF's drawing room: the file on standard input, its pages as pixels on standard output.

A process of its own, because pdfium cannot be stopped from inside: a page of a few hundred bytes may ask for more
drawing than a year has time for. Out: for each page a line "WIDTH HEIGHT\\n" and WIDTH * HEIGHT * 3 bytes RGB; at the end
a line "end\\n", or instead of it "error WHY\\n".
"""

from __future__ import annotations

import contextlib
import sys

DPI = 300
LONGEST = 3600
"""Pixels of the longer side at most: an A4 page at 300 dpi has 3508. A scan wrapped as a page of 2200 x 1700 points, as
if it were metres of paper, comes out at the size of a sheet."""
MEMORY = 900 << 20


def main(max_pages: int, max_pixels: int, seconds: int) -> None:
    """Draw the pages of a PDF in `seconds` of processor time. The text layer is never read: only what is drawn leaves this process."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    import pypdfium2

    out = sys.stdout.buffer
    try:
        document = pypdfium2.PdfDocument(sys.stdin.buffer.read())
        if len(document) > max_pages:
            raise ValueError(f"too many pages: {len(document)}")
        total = 0
        for n in range(len(document)):
            page = document[n]
            width, height = page.get_size()
            if not (0 < width < 1e6 and 0 < height < 1e6):
                raise ValueError(f"page {n + 1} has no size")
            scale = min(DPI / 72, LONGEST / max(width, height)) * (1 - 1e-7)  # pdfium rounds up
            total += round(width * scale) * round(height * scale)
            if total > max_pixels:
                raise ValueError("too many pixels")
            pixels = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False).to_numpy()
            out.write(b"%d %d\n" % (pixels.shape[1], pixels.shape[0]))
            out.write(pixels[..., :3].tobytes() if pixels.ndim == 3 else pixels.repeat(3).tobytes())
            page.close()
        out.write(b"end\n")
    except Exception as e:  # pdfium's own, and MemoryError
        out.write(f"error {' '.join(str(e).split()) or type(e).__name__}\n".encode())
    out.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
