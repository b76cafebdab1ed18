"""Read any file that a clinic has as upright RGB pages without metadata.

In: a path, `-` for standard input, a file's bytes, an open binary file, or an open PIL image. Out:
`Page`: RGB, turned as EXIF says, white under transparent parts, without EXIF, GPS, XMP and colour
profile.

JPEG, PNG, TIFF, BMP, WebP, GIF (its first picture) and AVIF are read; with their extras also PDF
(`pdf`), HEIC (`heic`) and DICOM (`dicom`: 12-lead waveforms, encapsulated PDF, pictures). They are
recognised by their content; their names do not matter. A file that is cut short, damaged, too large
or of another kind raises; a page whose lower half is missing is never returned.

Files are decoded in a separate process (decoder_client.py, decoder_worker.py) with limits for each
page. Only a PIL image, which this program has opened itself, is decoded here.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any, NamedTuple, TypeAlias

from PIL import Image, ImageFile

from pulse_edge.common.text import one_line
from pulse_edge.errors import PageRefused, PulseEdgeError, ScanError
from pulse_edge.page import decoder_client, file_errors
from pulse_edge.page.file_errors import AS_PNG, MAX_PAGES, SMALLER, Limits
from pulse_edge.page.plotted_page import PlottedPage, from_json
from pulse_edge.page.rgb_page import rgb_page

MAX_PIXELS = file_errors.MAX_PIXELS
"""Pixels of a page at most, checked before it is decoded."""
MAX_TOTAL_PIXELS = 2 * MAX_PIXELS
"""Pixels of all pages of a file where all are read at once: 22 sheets of A4 at 300 dpi, 600 MB."""
MAX_BYTES = 256 << 20
"""Bytes of a file at most."""
MAX_FAILURES = 3
"""Pages of a file that may take too long or end the decoder before the rest of the file is refused.
"""

Source: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image

# Without a handler, Python prints Pillow's log of broken files on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Page:
    """A page, and where it came from."""

    image: Image.Image
    """RGB, upright, without metadata."""
    sha256: str
    """SHA-256 of the file's bytes, the same for all its pages; for a PIL image of "WIDTHxHEIGHT"
    and its RGB bytes."""
    name: str
    """Name for people: the path as given, `-` for standard input, `scan.tiff#2` for the second page
    of several."""
    number: int = 1
    """Number of the page in its file, from 1."""
    plot: PlottedPage | None = None
    """Facts of a page that was plotted from a recording; None for any other."""

    def png(self) -> bytes:
        """Return the page as the bytes of a PNG file."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class UnreadablePage:
    """A page of a file that cannot be read, and why. Other pages of the file may be readable."""

    name: str
    number: int
    error: PulseEdgeError


def read(source: Source) -> Page:
    """Return the only page of `source`. A file with several pages raises ScanError."""
    document = Document(source)
    if len(document) > 1:
        document.close()
        raise ScanError(
            f"{document.name}: has {len(document)} pages, and one was expected. Save the page as a "
            "file of its own."
        )
    return read_all(document)[0]


def read_all(source: Source | Document) -> list[Page]:
    """Return every page of `source`; only a TIFF, a PDF or a DICOM file can have several.

    Raises ScanError and PageRefused.

    The string `-` is standard input. An open PIL image gives its current frame. A page that cannot
    be read raises, and so do more than MAX_TOTAL_PIXELS of all pages: `Document` gives the pages
    one by one.
    """
    document = source if isinstance(source, Document) else Document(source)
    pages: list[Page] = []
    total = 0
    with document:
        for page in document:
            if isinstance(page, UnreadablePage):
                raise page.error
            total += page.image.width * page.image.height
            if pages and total > MAX_TOTAL_PIXELS:
                raise PageRefused(
                    f"{document.name}: has {len(document)} pages, and its first {page.number} have "
                    f"{total:,} pixels "
                    f"together; {MAX_TOTAL_PIXELS:,} is the limit. Read its pages one by one, or "
                    "save them as files of their own."
                )
            pages.append(page)
    return pages


class Document:
    """An open file, whose pages are decoded one by one by iterating over it, any number of times.

    `len` is how many pages it has. Each is a `Page`, or an `UnreadablePage` with the reason. Use it
    as a context manager, or close it.
    """

    def __init__(self, source: Source) -> None:
        """Open a file. Raises ScanError and PageRefused where no page of it can be read."""
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise ScanError(
                "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this program: half a page would "
                "pass for a whole one. "
                "Set it to False."
            )
        self._image: Image.Image | None = None
        self._decoding: decoder_client.Decoding | None = None
        self._failures = 0
        if isinstance(source, Image.Image):
            self.name, self._image = "image", _decode_image(source)
            size = "{}x{}".format(*self._image.size).encode()
            self.sha256 = hashlib.sha256(size + self._image.tobytes()).hexdigest()
            return
        self.name, data = _read_source(source)
        self.sha256 = hashlib.sha256(data).hexdigest()
        kind = _kind(data, self.name)
        self._decoding = decoder_client.Decoding(kind.task(data, self.name))

    def __len__(self) -> int:
        return 1 if self._decoding is None else len(self._decoding)

    def __iter__(self) -> Iterator[Page | UnreadablePage]:
        return (self.page(number) for number in range(1, len(self) + 1))

    def page(self, number: int) -> Page | UnreadablePage:
        """Decode the page with a number, from 1."""
        name = file_errors.page_name(self.name, number, len(self))
        if self._failures >= MAX_FAILURES:
            error = f"{name}: was not read, as {self._failures} pages before it cannot be. {AS_PNG}"
            return UnreadablePage(name, number, PageRefused(error))
        try:
            image, plot = self._decode(number - 1, name)
            return Page(image, self.sha256, name, number, plot)
        except decoder_client.DecoderFailure as e:
            self._failures += 1
            return UnreadablePage(name, number, e.error)
        except PulseEdgeError as e:
            return UnreadablePage(name, number, e)

    def _decode(self, index: int, name: str) -> tuple[Image.Image, PlottedPage | None]:
        if self._decoding is None:
            assert self._image is not None
            return self._image, None
        page: tuple[Image.Image, PlottedPage | None] = self._decoding.page(index, name, _read_page)
        return page

    def close(self) -> None:
        """Let the decoder drop the file."""
        if self._decoding is not None:
            self._decoding.close()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _decode_image(image: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return rgb_page(image, "image", Limits(pixels=MAX_PIXELS))
        except Exception as e:
            raise file_errors.readable_error(
                e, "image", "PIL image", Limits(pixels=MAX_PIXELS)
            ) from e


def _read_page(
    width: int, height: int, about: Any, pipe: IO[bytes]
) -> tuple[Image.Image, PlottedPage | None]:
    """Read a page from the decoder's pipe: RGB bytes from top to bottom.

    Raises ValueError beyond the limit of pixels.
    """
    plot = None if about is None else from_json(about)
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError("the decoder sends a page beyond the limit of pixels")
    image = Image.new("RGB", (width, height))
    rows = max(1, (4 << 20) // (3 * width))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        if len(strip := pipe.read(3 * width * count)) < 3 * width * count:
            raise EOFError
        image.paste(Image.frombytes("RGB", (width, count), strip), (0, top))
    return image, plot


# --- bytes of a source ----------------------------------------------------------------------------


def _read_source(source: str | os.PathLike[str] | bytes | IO[bytes]) -> tuple[str, bytes]:
    """Return the name for people, and the bytes."""
    if isinstance(source, bytes):
        name, data = "image", source
    elif isinstance(source, str | os.PathLike):
        name = one_line(os.fsdecode(source))
        data = _from_stdin() if source == "-" else _from_path(source, name)
    else:
        file_name = getattr(source, "name", None)
        name = one_line(file_name) if isinstance(file_name, str) else "image"
        data = _from_file(source, name)
    if not data:
        raise ScanError(f"{name}: is empty. Copy or scan the page again.")
    if len(data) > MAX_BYTES:
        raise PageRefused(f"{name}: has more than {MAX_BYTES >> 20} MiB, the limit. {SMALLER}")
    return name, data


def _from_path(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ScanError(f"{name}: is a folder. Name a picture in it.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe without a writer would wait for ever
            raise ScanError(
                f"{name}: is a pipe or a device, not a file. Send it to standard input and name it "
                "-."
            )
        if status.st_size > MAX_BYTES:
            raise PageRefused(
                f"{name}: has {status.st_size >> 20} MiB; {MAX_BYTES >> 20} is the limit. {SMALLER}"
            )
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ScanError(
            f"{name}: no such file. Check the name; one with spaces needs quotes."
        ) from None
    except PermissionError:
        raise ScanError(
            f"{name}: may not be read by this user. Ask for the right to read it, or copy it."
        ) from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        why = getattr(e, "strerror", None) or e
        raise ScanError(f"{name}: cannot be opened ({why}). Check the name and the disk.") from None


def _from_stdin() -> bytes:
    stdin = getattr(sys.stdin, "buffer", None)  # sys.stdin is None under pythonw
    if stdin is None or stdin.closed or stdin.isatty():
        raise ScanError(
            "-: no data come in on standard input. Send a picture: pulse-edge interpret - < "
            "scan.png"
        )
    return _from_file(stdin, "-")


def _from_file(file: IO[bytes], name: str) -> bytes:
    data = bytearray()
    try:
        while len(data) <= MAX_BYTES and (piece := file.read(MAX_BYTES + 1 - len(data))):
            data += piece
    except (OSError, ValueError) as e:
        raise ScanError(f"{name}: cannot be read ({e}). Copy or scan the page again.") from None
    except TypeError:
        raise ScanError(f"{name}: gives text, not bytes. Open it in binary mode ('rb').") from None
    return bytes(data)


# --- kinds of files -------------------------------------------------------------------------------


class _Kind(NamedTuple):
    kind_name: str
    magic: bytes
    """Regular expression of the beginning of such a file."""
    decoder: str | None = None
    """Key of decoder_worker.py's openers. None: recognised only so that the message can name the
    kind."""
    library: tuple[str, str, str] | None = None
    """Module, extra, and words for such a file, where a library is needed."""

    def task(self, data: bytes, name: str) -> decoder_client.Task:
        if self.decoder is None:
            raise ScanError(
                f"{name}: is {self.kind_name}, which this version does not read. {AS_PNG}"
            )
        if self.library is not None and find_spec(self.library[0]) is None:
            raise file_errors.library_missing(*self.library[:2], name, self.library[2])
        return decoder_client.Task(self.decoder, self.kind_name, name, data, MAX_PIXELS, MAX_PAGES)


# With its preamble, or beginning with its first element: group 2 or 8, a VR (explicit) or a short
# length (implicit).
_DICOM = rb"(?:.{128})?DICM|[\x02\x08]\0.\0(?:[A-Z]{2}|.\0\0\0)|\0[\x02\x08]\0.(?:[A-Z]{2}|\0\0\0.)"

_KINDS = (
    _Kind("JPEG", rb"\xff\xd8\xff", "JPEG"),
    _Kind("PNG", rb"\x89PNG\r\n\x1a\n", "PNG"),
    _Kind("TIFF", rb"II[*+]\0|MM\0[*+]", "TIFF"),
    _Kind("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    _Kind("WebP", rb"RIFF.{4}WEBP", "WebP"),
    _Kind("DICOM", _DICOM, "DICOM", ("pydicom", "dicom", "a DICOM file")),
    _Kind("PDF", rb".{0,1019}%PDF-", "PDF", ("pypdfium2", "pdf", "a PDF")),
    _Kind("AVIF", rb".{4}ftyp(?:avi[fs]|mif1.{4}(?:.{4}){0,8}avif)", "AVIF"),
    _Kind(
        "HEIC", rb".{4}ftyp(?:hei|hev|mif1|msf1)", "HEIC", ("pillow_heif", "heic", "a HEIC picture")
    ),
    _Kind("GIF", rb"GIF8[79]a", "GIF"),
    _Kind("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    _Kind("JPEG 2000", rb"\0\0\0\x0cjP|\xff\x4f\xff\x51"),
    _Kind("an archive or office document", rb"PK\x03\x04|\xd0\xcf\x11\xe0"),
    _Kind("text or XML", rb"[\t\r\n -~\x80-\xff]+\Z"),
)


def _kind(data: bytes, name: str) -> _Kind:
    for kind in _KINDS:
        if re.match(kind.magic, data[:1024], re.DOTALL):
            return kind
    raise ScanError(
        f"{name}: is no picture (JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, PDF, HEIC and DICOM are "
        f"read). {AS_PNG}"
    )
