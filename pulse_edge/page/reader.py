"""Any file a clinic has -> upright RGB pages without metadata.

In: a path, `-` for standard input, a file's bytes, an open binary file, or an open PIL image.
Out: `Page`: RGB, turned as EXIF says, white paper under what is transparent, no EXIF, GPS, XMP or colour profile.

JPEG, PNG, TIFF, BMP, WebP, GIF (its first picture) and AVIF are read; with their extras also PDF (`pdf`), HEIC (`heic`) and
DICOM (`dicom`: 12-lead waveforms, encapsulated PDF, pictures). They are recognised by what they contain, not by what they are
called. What is cut short, damaged, too large or something else raises; a page with its lower half missing is never handed on.

Every file is decoded by a process of its own (decoder_client.py, decoder_worker.py), with bounds for each page. Only a PIL image,
which this program has opened itself, is decoded here.
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
from pulse_edge.page import decoder_client, pictures
from pulse_edge.page.pictures import AS_PNG, MAX_PAGES, SMALLER, Limits
from pulse_edge.page.plotted_page import PlottedPage, from_json

MAX_PIXELS = pictures.MAX_PIXELS
"""Of a page, checked before it is decoded."""
MAX_TOGETHER = 2 * MAX_PIXELS
"""Of all pages of a file where all are asked for at once: 22 sheets of A4 at 300 dpi, 600 MB."""
MAX_BYTES = 256 << 20
MAX_HOSTILE = 3
"""Pages of a file that may take too long, or end the decoder, before the rest of the file is refused unread."""

Source: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image

# Without any handler Python prints what Pillow logs about broken files on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Page:
    """A page, and where it came from."""

    image: Image.Image
    """RGB, upright, without metadata."""
    sha256: str
    """Of the file's bytes as read (the same for all its pages); of "WIDTHxHEIGHT" and the RGB bytes for a PIL image."""
    name: str
    """For people: the path as given, `-` for standard input, `scan.tiff#2` for the second page of several."""
    number: int = 1
    """Of the page in its file, from 1."""
    plot: PlottedPage | None = None
    """What is known of a page that was drawn from a recording; None for any other."""

    def png(self) -> bytes:
        """The picture as a PNG file's bytes."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class UnreadablePage:
    """A page of a file that cannot be read, and why. The other pages of the file can."""

    name: str
    number: int
    error: PulseEdgeError


def read(source: Source) -> Page:
    """The only page of `source`; see `read_all`. A file with several pages raises ScanError."""
    document = Document(source)
    if len(document) > 1:
        document.close()
        raise ScanError(
            f"{document.name}: has {len(document)} pages, and one was expected. Save the page as a file of its own."
        )
    return read_all(document)[0]


def read_all(source: Source | Document) -> list[Page]:
    """Every page of `source`: several for a TIFF, a PDF or a DICOM file only. Raises ScanError and PageRefused.

    The str `-` is standard input. Of an open PIL image it is the frame that the image stands at. One page that cannot be
    read, or more than MAX_TOGETHER pixels of all pages, raise: see Document for the pages one by one.
    """
    document = source if isinstance(source, Document) else Document(source)
    pages: list[Page] = []
    total = 0
    with document:
        for page in document:
            if isinstance(page, UnreadablePage):
                raise page.error
            total += page.image.width * page.image.height
            if pages and total > MAX_TOGETHER:
                raise PageRefused(
                    f"{document.name}: has {len(document)} pages, and its first {page.number} have {total:,} pixels "
                    f"together; {MAX_TOGETHER:,} is the limit. Read its pages one by one, or save them as files of their own."
                )
            pages.append(page)
    return pages


class Document:
    """A file, open; its pages are decoded one by one while it is iterated over, and any number of times.

    `len` is how many pages it has. Each is a `Page`, or an `UnreadablePage` with the reason. Use as a context manager, or close.
    """

    def __init__(self, source: Source) -> None:
        """Open a file. Raises ScanError and PageRefused where none of its pages can be read."""
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise ScanError(
                "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this program: half a page would pass for a whole one. "
                "Set it to False."
            )
        self._image: Image.Image | None = None
        self._decoding: decoder_client.Decoding | None = None
        self._hostile = 0
        if isinstance(source, Image.Image):
            self.name, self._image = "image", _decoded_here(source)
            size = "{}x{}".format(*self._image.size).encode()
            self.sha256 = hashlib.sha256(size + self._image.tobytes()).hexdigest()
            return
        self.name, data = _content(source)
        self.sha256 = hashlib.sha256(data).hexdigest()
        kind = _kind(data, self.name)
        self._decoding = decoder_client.Decoding(kind.task(data, self.name))

    def __len__(self) -> int:
        return 1 if self._decoding is None else len(self._decoding)

    def __iter__(self) -> Iterator[Page | UnreadablePage]:
        return (self.page(number) for number in range(1, len(self) + 1))

    def page(self, number: int) -> Page | UnreadablePage:
        """One page, from 1."""
        name = pictures.numbered(self.name, number, len(self))
        if self._hostile >= MAX_HOSTILE:
            error = f"{name}: was not read, as {self._hostile} pages before it cannot be. {AS_PNG}"
            return UnreadablePage(name, number, PageRefused(error))
        try:
            image, plot = self._decode(number - 1, name)
            return Page(image, self.sha256, name, number, plot)
        except decoder_client.Broken as e:
            self._hostile += 1
            return UnreadablePage(name, number, e.error)
        except PulseEdgeError as e:
            return UnreadablePage(name, number, e)

    def _decode(self, index: int, name: str) -> tuple[Image.Image, PlottedPage | None]:
        if self._decoding is None:
            assert self._image is not None
            return self._image, None
        page: tuple[Image.Image, PlottedPage | None] = self._decoding.page(index, name, _taken)
        return page

    def close(self) -> None:
        """Let go of what the decoder holds of the file."""
        if self._decoding is not None:
            self._decoding.close()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _decoded_here(image: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pictures.page(image, "image", Limits(pixels=MAX_PIXELS))
        except Exception as e:
            raise pictures.reason(e, "image", "PIL image", Limits(pixels=MAX_PIXELS)) from e


def _taken(
    width: int, height: int, about: Any, pipe: IO[bytes]
) -> tuple[Image.Image, PlottedPage | None]:
    """A page from the decoder: RGB bytes from top to bottom. Raises ValueError for one that is larger than the limit."""
    plot = None if about is None else from_json(about)
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError("a page of another size than was asked for")
    image = Image.new("RGB", (width, height))
    rows = max(1, (4 << 20) // (3 * width))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        if len(strip := pipe.read(3 * width * count)) < 3 * width * count:
            raise EOFError
        image.paste(Image.frombytes("RGB", (width, count), strip), (0, top))
    return image, plot


# ------------------------------------------------------------------------------------------------ source -> bytes


def _content(source: str | os.PathLike[str] | bytes | IO[bytes]) -> tuple[str, bytes]:
    """The name for people, and the bytes."""
    if isinstance(source, bytes):
        name, data = "image", source
    elif isinstance(source, str | os.PathLike):
        name = one_line(os.fsdecode(source))
        data = _from_stdin() if source == "-" else _from_path(source, name)
    else:
        given = getattr(source, "name", None)
        name = one_line(given) if isinstance(given, str) else "image"
        data = _from_file(source, name)
    if not data:
        raise ScanError(f"{name}: is empty. Copy or scan the page again.")
    if len(data) > MAX_BYTES:
        raise PageRefused(f"{name}: has more than {MAX_BYTES >> 20} MiB, the limit. {SMALLER}")
    return name, data


def _from_path(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise ScanError(f"{name}: is a folder. Name a picture in it.")
        if not stat.S_ISREG(found.st_mode):  # opening a pipe nobody writes to would wait for ever
            raise ScanError(
                f"{name}: is a pipe or a device, not a file. Send it to standard input and name it -."
            )
        if found.st_size > MAX_BYTES:
            raise PageRefused(
                f"{name}: has {found.st_size >> 20} MiB; {MAX_BYTES >> 20} is the limit. {SMALLER}"
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
            "-: nothing comes in on standard input. Send a picture: pulse-edge interpret - < scan.png"
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


# ------------------------------------------------------------------------------------------------- kinds of files


class _Kind(NamedTuple):
    what: str
    magic: bytes
    """Regular expression for how such a file begins."""
    decoder: str | None = None
    """Key of decoder_worker.py's openers. None: recognised, so that the message can say what it is."""
    library: tuple[str, str, str] | None = None
    """Module, extra and words for it, where one is needed."""

    def task(self, data: bytes, name: str) -> decoder_client.Task:
        if self.decoder is None:
            raise ScanError(f"{name}: is {self.what}, which this version does not read. {AS_PNG}")
        if self.library is not None and find_spec(self.library[0]) is None:
            raise pictures.not_installed(*self.library[:2], name, self.library[2])
        return decoder_client.Task(self.decoder, self.what, name, data, MAX_PIXELS, MAX_PAGES)


# With its preamble, or beginning with its first element: group 2 or 8, a VR (explicit) or a short length (implicit).
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
        f"{name}: is no picture (JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, PDF, HEIC and DICOM are read). {AS_PNG}"
    )
