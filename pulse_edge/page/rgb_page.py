"""Convert an open Pillow image to an RGB page.

The page is upright, white under transparent parts, and has square pixels and no metadata.
"""

from __future__ import annotations

import math
from typing import Any

from PIL import ExifTags, Image

from pulse_edge.errors import ScanError
from pulse_edge.page.file_errors import Limits, check_size

HALVED = 40_000_000
"""Pixels from which on a page is halved when it is decoded, by averages of 2 x 2: A3 at 600 dpi
becomes A3 at 300 dpi. An A4 sheet at 600 dpi stays as it is."""


def rgb_page(image: Image.Image, name: str, limits: Limits) -> Image.Image:
    """Return an open image as RGB, upright, without metadata.

    Raises what Pillow raises, ScanError and PageRefused.
    """
    check_size(image.size, name, limits)
    tiff: dict[int, Any] = dict(
        getattr(image, "tag_v2", {})
    )  # before `load`, which turns a TIFF and drops that tag
    image.load()
    page_image = (
        _halved(image, name, tiff)
        if image.width * image.height > HALVED
        else _rgb(image, name, tiff)
    )
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make a good picture unreadable
        turn = None
    if turn is not None:
        page_image = page_image.transpose(turn)
    page_image = _square_pixels(page_image, image, name, tiff, limits)
    page_image.info.clear()
    return page_image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _rgb(image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """Return a new RGB image: what `convert("RGB")` gives, where that is right.

    A wide-gamut profile is not applied: the model was trained on the bare numbers of
    `convert("RGB")`.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(image, name, tiff))
    if image.mode == "La":
        image = image.convert("LA")  # the only way on from grey with the alpha multiplied in
    # An alpha of zeros everywhere was never filled in, as in most 32-bit BMPs.
    no_alpha = (
        image.format == "BMP"
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema()[1] == 0
    )
    if not image.has_transparency_data or no_alpha:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGB", layer.size, "white")
    paper.paste(layer, mask=layer)
    return paper


def _halved(image: Image.Image, name: str, tiff: dict[int, Any]) -> Image.Image:
    """Return `_rgb` of a large image, half as wide and high.

    Halved before copies are made, where its mode allows that.
    """
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(2).convert("RGB")
    return _rgb(image, name, tiff).reduce(2)


def _eight_bits(image: Image.Image, name: str, tiff: dict[int, Any]) -> Any:
    """Return grey (H, W) uint8 of an image with more than 8 bits.

    `convert` would clip everything above 255.
    """
    import numpy as np  # 40 ms, which few files need

    values = np.asarray(image)
    # These numbers have no known black and white, and by the smallest and largest one a single
    # speck would decide. A PIL "I" in 16-bit range is Pillow's other way of holding 16 bits; a
    # TIFF's is signed or 32 bit.
    signed_or_wide = image.mode == "I" and (bool(tiff) or values.min() < 0 or values.max() > 0xFFFF)
    if image.mode == "F" or signed_or_wide:
        raise ScanError(
            f"{name}: has grey values of an unknown range (mode {image.mode}). Save it as an 8-bit "
            "PNG."
        )
    bits = tiff.get(258, (16,))[0]
    # The low bits are dropped, as Pillow does for 16-bit RGB.
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tiff.get(262) == 0:
        grey = 255 - grey  # 0 is white: Pillow inverts up to 8 bits, and forgets it for 16
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return grey


_FAX = 1.9, 2.2
"""Ratios of resolutions between which a fax lies: 204 x 98, 203 x 98 and 200 x 100 dpi."""


def _resolution(image: Image.Image, tiff: dict[int, Any]) -> tuple[float, float]:
    """Return pixels per length across and down, in any unit; (1, 1) where an image does not say."""
    page_image = (
        (tiff.get(282, 1), tiff.get(283, 1))
        if tiff
        else image.info.get("dpi") or image.info.get("jfif_density")
    )
    try:
        across, down = (float(value) for value in page_image or image.info.get("aspect") or (1, 1))
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0, 1.0
    return (across, down) if math.isfinite(across) and math.isfinite(down) else (1.0, 1.0)


def _square_pixels(
    page: Image.Image, image: Image.Image, name: str, tiff: dict[int, Any], limits: Limits
) -> Image.Image:
    """Stretch a fax: sent at 204 x 98 dpi it arrives at half its height, as any kind of picture.

    The resolutions of other pictures are often wrong; a wrong one of a fax shows later in the
    page's grid.
    """
    across, down = _resolution(image, tiff)
    ratio = max(across, down) / min(across, down) if min(across, down) > 0 else 1.0
    if not (1.5 < ratio < 3 if image.mode == "1" else _FAX[0] < ratio < _FAX[1]):
        return page
    if tiff.get(274, 1) >= 5:  # lies on its side
        across, down = down, across
    best = max(across, down)
    size = round(page.width * best / across), round(page.height * best / down)
    check_size(size, name, limits)
    return page.resize(size, Image.Resampling.BICUBIC)
