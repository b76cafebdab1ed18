"""Any file a clinic has -> upright RGB pages without metadata.

In: a path, `-` for standard input, a file's bytes, an open binary file, or an open PIL image.
Out: `Page`: RGB, turned as EXIF says, white paper under what is transparent, no EXIF, GPS, XMP or colour profile.

JPEG, PNG, TIFF, BMP and WebP are read; with their extras also PDF (`pdf`), HEIC (`heic`) and DICOM (`dicom`: 12-lead
waveforms, encapsulated PDF, pictures). They are recognised by what they contain, not by what they are called. What is
cut short, damaged, too large or something else raises; a page with its lower half missing is never handed on.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from . import child, dicom
from .errors import PageRefused, PulseEdgeError, ScanError
from .text import one_line

MAX_PIXELS = 100_000_000
"""Of all pages of a file together, checked before anything is decoded. An A4 sheet at 600 dpi has 35 million."""
MAX_BYTES = 256 << 20
MAX_PAGES = 100

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

    def png(self) -> bytes:
        """The picture as a PNG file's bytes."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()


def read(source: Source) -> Page:
    """The only page of `source`; see `read_all`. A file with several pages raises ScanError."""
    pages = read_all(source)
    if len(pages) > 1:
        name = pages[0].name.removesuffix("#1")
        raise ScanError(f"{name}: has {len(pages)} pages, and one was expected. Save the page as a file of its own.")
    return pages[0]


def read_all(source: Source) -> list[Page]:
    """Every page of `source`: several for a TIFF, a PDF or a DICOM file only. Raises ScanError and PageRefused.

    The str `-` is standard input. Of an open PIL image it is the frame that the image stands at.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ScanError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this program: half a page would pass for a whole one. "
            "Set it to False."
        )
    if isinstance(source, Image.Image):
        with _explained("image", "PIL image"):
            pages = [_page(source, "image")]
        size = "{}x{}".format(*pages[0].size).encode()
        digest, name = hashlib.sha256(size + pages[0].tobytes()).hexdigest(), "image"
    else:
        name, data = _content(source)
        digest = hashlib.sha256(data).hexdigest()
        kind = _kind(data, name)
        with _explained(name, kind.what):
            pages = kind.read(data, name)
    several = len(pages) > 1
    return [Page(page, digest, f"{name}#{n}" if several else name, n) for n, page in enumerate(pages, 1)]


# ------------------------------------------------------------------------------------------------ source -> bytes


def _content(source: str | os.PathLike[str] | bytes | IO[bytes]) -> tuple[str, bytes]:
    """The name for people, and the bytes."""
    if isinstance(source, bytes):
        name, data = "image", source
    elif isinstance(source, str | os.PathLike):
        name = _printable(os.fsdecode(source))
        data = _from_stdin() if source == "-" else _from_path(source, name)
    else:
        given = getattr(source, "name", None)
        name = _printable(given) if isinstance(given, str) else "image"
        data = _from_file(source, name)
    if not data:
        raise ScanError(f"{name}: is empty. Copy or scan the page again.")
    if len(data) > MAX_BYTES:
        raise PageRefused(f"{name}: has more than {MAX_BYTES >> 20} MiB, the limit. {_SMALLER}")
    return name, data


def _printable(name: str) -> str:
    """A line that any terminal can show: file names may hold line breaks, and bytes that are no text."""
    return one_line(name)


def _from_path(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise ScanError(f"{name}: is a folder. Name a picture in it.")
        if not stat.S_ISREG(found.st_mode):  # opening a pipe nobody writes to would wait for ever
            raise ScanError(f"{name}: is a pipe or a device, not a file. Send it to standard input and name it -.")
        if found.st_size > MAX_BYTES:
            raise PageRefused(f"{name}: has {found.st_size >> 20} MiB; {MAX_BYTES >> 20} is the limit. {_SMALLER}")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ScanError(f"{name}: no such file. Check the name; one with spaces needs quotes.") from None
    except PermissionError:
        raise ScanError(f"{name}: may not be read by this user. Ask for the right to read it, or copy it.") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        why = getattr(e, "strerror", None) or e
        raise ScanError(f"{name}: cannot be opened ({why}). Check the name and the disk.") from None


def _from_stdin() -> bytes:
    stdin = getattr(sys.stdin, "buffer", None)  # sys.stdin is None under pythonw
    if stdin is None or stdin.closed or stdin.isatty():
        raise ScanError("-: nothing comes in on standard input. Send a picture: pulse-edge interpret - < scan.png")
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


# ------------------------------------------------------------------------------------------- bytes -> RGB pages


def _picture(fmt: str, data: bytes, name: str) -> list[Image.Image]:
    """The one picture of a BMP, WebP, PNG or JPEG."""
    # A phone's JPEG may hold a preview or a depth map behind the photograph (MPO): not an animation.
    with Image.open(io.BytesIO(data), formats=[fmt]) as image:
        if fmt != "JPEG" and getattr(image, "is_animated", False):
            raise ScanError(f"{name}: is an animation, and a page is one still picture. {_AS_PNG}")
        return [_page(image, name)]


def _png(data: bytes, name: str) -> list[Image.Image]:
    pages = _picture("PNG", data, name)
    # Pillow stops reading at the last pixel and leaves the checksums of the pixels alone.
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()
    return pages


def _jpeg(data: bytes, name: str) -> list[Image.Image]:
    pages = _picture("JPEG", data, name)
    end = _jpeg_end(data)
    # Where the data stop early libjpeg fills up with grey, and Pillow does not say so. Bytes slipped in before the end
    # marker tell: behind a whole picture they are skipped, in a picture with a hole they become part of it.
    if end < 0 or _thumbnail(data[:end]) != _thumbnail(data[:end] + _FILLING):
        raise ScanError(f"{name}: is a JPEG whose lower part is missing. Copy or take the picture again.")
    return pages


_NOISE = bytes(n * 73 % 251 for n in range(2048))
_FILLING = _NOISE + b"".join(bytes([0xFF, 0xD0 + n]) + _NOISE for n in range(8))  # behind each restart marker too
# Of bytes that fill, the last: `\xff+` takes ten times as long.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


def _jpeg_end(data: bytes) -> int:
    """Where the end marker of a JPEG's first picture stands; -1 where there is none."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.end()
        if marker[1] == b"\xd9":
            return at - 2
        at += int.from_bytes(data[at : at + 2], "big")  # over the segment: EXIF holds a JPEG of its own
    return -1


def _thumbnail(jpeg: bytes) -> bytes:
    """Grey pixels of a JPEG without its end marker: one in eight, which is much faster, or all of a progressive one."""
    with Image.open(io.BytesIO(jpeg + b"\xff\xd9"), formats=["JPEG"]) as image:
        if "progressive" not in image.info:  # what is missing there may show in fine detail only
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        return image.tobytes()


def _tiff(data: bytes, name: str) -> list[Image.Image]:
    pages: list[Image.Image] = []
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        assert isinstance(image, TiffImageFile)
        total = 0
        for n in range(MAX_PAGES + 1):  # not n_frames: counting millions of empty pages takes for ever
            try:
                image.seek(n)
            except EOFError:
                break
            total += image.width * image.height
            if n == MAX_PAGES or (n > 0 and total > MAX_PIXELS):
                limit = f"{MAX_PAGES} pages and {MAX_PIXELS:,} pixels together"
                raise PageRefused(f"{name}: has more than {limit}, the limit. Save the pages as files of their own.")
            # NewSubfileType and SubfileType: a smaller copy of another page, or a mask for it.
            if image.tag_v2.get(254, 0) & 0b101 or image.tag_v2.get(255) == 2:
                continue
            pages.append(_page(image, f"{name}#{len(pages) + 1}" if pages else name))
    if not pages:
        raise ScanError(f"{name}: holds a preview only, as raw files of cameras do. {_AS_PNG}")
    return pages


def _heic(data: bytes, name: str) -> list[Image.Image]:
    """The main picture of a phone's HEIC."""
    _needs("pillow_heif", "heic", name, "a HEIC picture")
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    with Image.open(io.BytesIO(data), formats=["HEIF"]) as image:  # turned already: its EXIF says 1 by now
        return [_page(image, name)]


def _needs(module: str, extra: str, name: str, what: str) -> None:
    if find_spec(module) is None:
        library = module.replace("_", "-")
        raise ScanError(
            f"{name}: is {what}, and {library} is not installed. "
            f"Install it (pip install 'pulse-edge[{extra}]'), or export the page as PNG."
        )


# ---------------------------------------------------------------------------------------------------------------- PDF


_SIGXCPU = 24  # where there is one
PDF_SECONDS = 4
"""Of processor time: a file that takes longer to draw was made to. A busy machine gets five times as long by the clock."""


def _pdf(data: bytes, name: str) -> list[Image.Image]:
    """Every page, drawn by pdfium in a process of its own: see pdf.py."""
    _needs("pypdfium2", "pdf", name, "a PDF")
    with subprocess.Popen(
        child.command("pulse_edge.pdf", *map(str, (MAX_PAGES, MAX_PIXELS, PDF_SECONDS))),
        env=child.environment(OPENBLAS_NUM_THREADS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as drawing:
        late = threading.Event()
        stop = threading.Timer(5 * PDF_SECONDS, _end, (drawing, late))
        stop.start()
        threading.Thread(target=_feed, args=(drawing.stdin, data), daemon=True).start()
        try:
            assert drawing.stdout is not None
            pages, end = _drawn(drawing.stdout)
            drawing.wait(timeout=1)
        except subprocess.TimeoutExpired:
            pass
        finally:
            stop.cancel()
            drawing.kill()
    if late.is_set() or drawing.returncode == -_SIGXCPU:
        raise PageRefused(
            f"{name}: takes longer than {PDF_SECONDS} seconds to draw. Save its page as a PDF of its own. {_AS_PNG}"
        )
    _check_drawing(name, pages, end)
    return [_page(page, name) for page in pages]


def _end(drawing: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    drawing.kill()


def _feed(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None
    try:
        with pipe:
            pipe.write(data)
    except OSError:  # it has left already
        pass


def _drawn(pipe: IO[bytes]) -> tuple[list[Image.Image], str]:
    """The pages, and the last line."""
    pages = []
    while (line := pipe.readline().decode("utf-8", "replace").strip()) and line[0].isdigit():
        width, height = map(int, line.split())
        pages.append(Image.frombytes("RGB", (width, height), pipe.read(3 * width * height)))
    return pages, line


def _check_drawing(name: str, pages: list[Image.Image], end: str) -> None:
    if end == "end" and pages:
        return
    why = end.removeprefix("error ") if end.startswith("error ") else "drawing it fails"
    if "too many" in why:
        limit = f"{MAX_PAGES} pages and {MAX_PIXELS:,} pixels together"
        raise PageRefused(f"{name}: has more than {limit}, the limit. Save the pages as files of their own.")
    if "password" in why.lower():
        raise ScanError(f"{name}: is a PDF locked with a password. Save it again without one. {_AS_PNG}")
    raise ScanError(f"{name}: is a PDF that is cut short, damaged or empty ({why[:120]}). Save it again. {_AS_PNG}")


# -------------------------------------------------------------------------------------------------------------- DICOM


_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def _dicom(data: bytes, name: str) -> list[Image.Image]:
    """A 12-lead waveform drawn as a page, the pages of an encapsulated PDF, or the pictures."""
    _needs("pydicom", "dicom", name, "a DICOM file")
    import pydicom

    if _DEFLATED in data:  # pydicom unpacks it whole, however large it becomes
        raise ScanError(f"{name}: is a DICOM file in deflated form, which is not read. {_AS_PNG}")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    found = pydicom.dcmread(io.BytesIO(data))
    if "WaveformSequence" in found:
        return [dicom.page(found, name)]
    if found.get("SOPClassUID") == _ENCAPSULATED_PDF:
        return _pdf(bytes(found.EncapsulatedDocument).rstrip(b"\0"), name)
    if "PixelData" in found:
        return _dicom_pictures(found, name)
    raise ScanError(f"{name}: is a DICOM file with neither an ECG nor a picture in it. {_AS_PNG}")


def _dicom_pictures(found: Any, name: str) -> list[Image.Image]:
    """Secondary captures: RGB or grey, each frame a page."""
    from pydicom.pixels import apply_color_lut, pixel_array

    frames = int(found.get("NumberOfFrames", 1) or 1)
    if frames > MAX_PAGES:
        raise PageRefused(f"{name}: has {frames} pictures; {MAX_PAGES} is the limit. Export the ECG page alone.")
    _check_size((int(found.Columns), int(found.Rows) * max(frames, 1)), name)
    pixels = np.asarray(pixel_array(found))
    said = str(found.PhotometricInterpretation)
    if said == "PALETTE COLOR":
        pixels = np.asarray(apply_color_lut(pixels, found))
        bits = int(found.RedPaletteColorLookupTableDescriptor[2])
    else:
        bits = int(found.BitsStored)
    if pixels.dtype.kind not in "ui" or int(found.get("PixelRepresentation", 0)):
        raise ScanError(f"{name}: has grey values of an unknown range. {_AS_PNG}")
    grey = (pixels >> (bits - 8) if bits > 8 else pixels).astype(np.uint8)
    if said == "MONOCHROME1":
        grey = 255 - grey
    stack = grey if frames > 1 else grey[None]
    return [_page(Image.fromarray(frame), name) for frame in stack]


# ------------------------------------------------------------------------------------------ open image -> RGB page


def _page(image: Image.Image, name: str) -> Image.Image:
    """RGB, upright, without metadata."""
    _check_size(image.size, name)
    tiff: dict[int, Any] = dict(getattr(image, "tag_v2", {}))  # before `load`, which turns a TIFF and drops that tag
    image.load()
    page = _rgb(image, name, tiff)
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make a good picture unreadable
        turn = None
    if turn is not None:
        page = page.transpose(turn)
    page = _square_pixels(page, image, name, tiff)
    page.info.clear()
    return page


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _check_size(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise ScanError(f"{name}: has no pixels ({size[0]} x {size[1]}). Copy or scan the page again.")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(name, size[0] * size[1], f" ({size[0]} x {size[1]})")


def _too_large(name: str, pixels: int, size: str = "") -> PageRefused:
    return PageRefused(f"{name}: has {pixels:,} pixels{size}; {MAX_PIXELS:,} is the limit. {_SMALLER}")


def _rgb(image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """A new RGB image: what `convert("RGB")` gives, where that is right.

    A wide-gamut profile is not applied: the model was trained on the bare numbers of `convert("RGB")`.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(image, name, tiff))
    if image.mode == "La":
        image = image.convert("LA")  # the only way on from grey with the alpha multiplied in
    # An alpha of zeros everywhere is one that nobody filled in: 32-bit BMPs are full of them.
    unfilled = image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema()[1] == 0
    if not image.has_transparency_data or unfilled:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGB", layer.size, "white")
    paper.paste(layer, mask=layer)
    return paper


def _eight_bits(image: Image.Image, name: str, tiff: dict[int, Any]) -> npt.NDArray[np.uint8]:
    """(H, W) grey of a picture with more than 8 bits; `convert` would cut everything above 255 off."""
    values = np.asarray(image)
    # Nothing says which number of these is black and which is white, and by the smallest and largest one a single speck
    # would decide. A PIL "I" in 16-bit range is Pillow's other way of holding 16 bits; a TIFF's is signed or 32 bit.
    signed_or_wide = image.mode == "I" and (bool(tiff) or values.min() < 0 or values.max() > 0xFFFF)
    if image.mode == "F" or signed_or_wide:
        raise ScanError(f"{name}: has grey values of an unknown range (mode {image.mode}). Save it as an 8-bit PNG.")
    bits = tiff.get(258, (16,))[0]
    # The low bits are dropped, as Pillow does for 16-bit RGB.
    grey: npt.NDArray[np.uint8] = (values >> (bits - 8)).astype(np.uint8)
    if tiff.get(262) == 0:
        grey = 255 - grey  # 0 is white: Pillow inverts up to 8 bits, and forgets it for 16
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return grey


def _square_pixels(page: Image.Image, image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """Stretch a fax: sent at 204 x 98 dpi it arrives at half its height. Other pictures' resolutions are often wrong."""
    if image.mode != "1":
        return page
    across, down = float(tiff.get(282, 1)), float(tiff.get(283, 1))
    if min(across, down) <= 0 or not 1.5 < max(across, down) / min(across, down) < 3:
        return page
    if tiff.get(274, 1) >= 5:  # lies on its side
        across, down = down, across
    best = max(across, down)
    size = round(page.width * best / across), round(page.height * best / down)
    _check_size(size, name)
    return page.resize(size, Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------------- kinds of files


_AS_PNG = "Export the page as PNG (300 dpi is plenty)."
_SMALLER = "Save it again as PNG at 300 dpi: that is 9 million pixels for an A4 page."

Reader = Callable[[bytes, str], list[Image.Image]]
"""A file's bytes and name -> its pages, RGB and upright. Whatever it raises is explained by `_explained`."""


class _Kind(NamedTuple):
    what: str
    magic: bytes
    """Regular expression for how such a file begins."""
    reader: Reader | None = None
    """None: recognised, so that the message can say what it is."""

    def read(self, data: bytes, name: str) -> list[Image.Image]:
        if self.reader is None:
            raise ScanError(f"{name}: is {self.what}, which this version does not read. {_AS_PNG}")
        return self.reader(data, name)


_KINDS = (
    _Kind("JPEG", rb"\xff\xd8\xff", _jpeg),
    _Kind("PNG", rb"\x89PNG\r\n\x1a\n", _png),
    _Kind("TIFF", rb"II[*+]\0|MM\0[*+]", _tiff),
    _Kind("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", partial(_picture, "BMP")),
    _Kind("WebP", rb"RIFF.{4}WEBP", partial(_picture, "WEBP")),
    _Kind("DICOM", rb".{128}DICM", _dicom),
    _Kind("PDF", rb".{0,1019}%PDF-", _pdf),
    _Kind("HEIC", rb".{4}ftyp(?:hei|hev|mif1|msf1)", _heic),
    _Kind("AVIF", rb".{4}ftypavi"),
    _Kind("a GIF", rb"GIF8"),
    _Kind("JPEG 2000", rb"\0\0\0\x0cjP|\xff\x4f\xff\x51"),
    _Kind("an archive or office document", rb"PK\x03\x04|\xd0\xcf\x11\xe0"),
    _Kind("text or XML", rb"[\t\r\n -~\x80-\xff]+\Z"),
)


def _kind(data: bytes, name: str) -> _Kind:
    for kind in _KINDS:
        if re.match(kind.magic, data[:1024], re.DOTALL):
            return kind
    raise ScanError(f"{name}: is no picture (JPEG, PNG, TIFF, BMP, WebP, PDF, HEIC and DICOM are read). {_AS_PNG}")


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turns whatever Pillow raises into one line for people, and keeps its warnings off stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except PulseEdgeError:
            raise
        except Image.DecompressionBombError as e:  # Pillow's own limit, twice ours, comes before our look at the size
            pixels = re.search(r"\d+", str(e))
            raise _too_large(name, int(pixels[0]) if pixels else MAX_PIXELS) from e
        except MemoryError as e:
            raise ScanError(f"{name}: takes more memory than is free. Close other programs. {_SMALLER}") from e
        except Exception as e:  # damaged files bring out any exception there is, AssertionError included
            unidentified = isinstance(e, UnidentifiedImageError)
            why = "its header makes no sense" if unidentified else " ".join(str(e).split()) or type(e).__name__
            raise ScanError(
                f"{name}: is a {what} that is cut short, damaged or of a rare kind ({why[:120]}). "
                f"Copy or scan the page again, or export it as PNG."
            ) from e
