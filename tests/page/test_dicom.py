"""dicom.py: pictures in DICOM files come out as a viewer shows them: bits, windows, polarity, shape
of the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from documents import picture_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulse_edge.errors import ScanError
from pulse_edge.page import reader

pydicom = pytest.importorskip("pydicom")
Grey = npt.NDArray[np.uint8]


def page() -> Grey:
    """White paper with black lines and a ramp of greys."""
    grey = np.full((48, 64), 255, np.uint8)
    grey[10:40:7] = 0
    grey[20] = np.arange(64) * 4
    return grey


def read(pixels: npt.NDArray[Any], **more: Any) -> Grey:
    image = np.asarray(reader.read(picture_file(pixels, **more)).image)
    assert (image[..., 0] == image[..., 2]).all()
    return image[..., 0]


def test_one_bit_is_black_and_white() -> None:
    grey = np.where(page() > 127, 255, 0).astype(np.uint8)
    packed = np.packbits((grey > 0).reshape(-1), bitorder="little").tobytes()
    bits = {
        "Rows": 48,
        "Columns": 64,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelData": packed,
    }
    assert np.array_equal(read(grey, **bits), grey)
    assert np.array_equal(read(grey, **bits, PhotometricInterpretation="MONOCHROME1"), 255 - grey)


@pytest.mark.parametrize(
    ("kind", "shape", "inverse"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
@pytest.mark.parametrize("window", [False, True])
def test_a_picture_is_turned_from_negative_to_positive_once(
    kind: str, shape: str | None, inverse: bool, window: bool
) -> None:
    more: dict[str, Any] = {"PhotometricInterpretation": kind}
    if shape:
        more["PresentationLUTShape"] = shape
    if window:
        more |= {"WindowCenter": "128", "WindowWidth": "256"}
    stored = 255 - page() if inverse else page()
    assert np.abs(read(stored, **more).astype(int) - page()).max() <= 1


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([8, 10, 12, 14, 16]),
    st.integers(0, 7),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_window_shows_the_greys_that_are_used(
    bits: int, shift: int, signed: bool, exact: bool, rescaled: bool
) -> None:
    """The page's 256 greys lie anywhere in the range of the stored numbers, and the window says
    where."""
    room = (1 << bits) - 256
    low = room * shift // 7 - ((1 << bits - 1) if signed else 0)
    dtype = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    stored = (page().astype(int) + low).astype(dtype)
    more: dict[str, Any] = {
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    }
    scale, zero = (2.0, -100.0) if rescaled else (1.0, 0.0)
    if rescaled:
        more |= {"RescaleSlope": "2", "RescaleIntercept": "-100"}
    ends = low * scale + zero, (low + 255) * scale + zero
    more["WindowCenter"] = f"{sum(ends) / 2 + (0 if exact else 0.5):g}"
    more["WindowWidth"] = f"{ends[1] - ends[0] + (0 if exact else 1):g}"
    if exact:
        more["VOILUTFunction"] = "LINEAR_EXACT"
    assert np.abs(read(stored, **more).astype(int) - page()).max() <= 1


def test_a_table_for_the_values_of_interest_is_applied() -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.add_new("LUTData", "OW", (255 - np.arange(256)).astype("<u2").tobytes())
    assert np.array_equal(read(255 - page(), VOILUTSequence=[table]), page())


def test_eight_bits_in_the_room_of_more_are_not_black() -> None:
    assert np.array_equal(read(page().astype(np.uint16), BitsStored=12, HighBit=11), page())
    grey = page().astype(np.uint16) * 16
    assert np.array_equal(read(grey, BitsStored=12, HighBit=11), page())


def test_signed_greys_without_a_window_are_refused_for_that() -> None:
    with pytest.raises(ScanError, match="unknown range"):
        read(page().astype(np.int16), PixelRepresentation=1)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    ("keyword", "sides", "size"),
    [
        ("PixelAspectRatio", [2, 1], (64, 96)),
        ("PixelAspectRatio", [1, 2], (128, 48)),
        ("PixelAspectRatio", [98, 204], (133, 48)),
        ("PixelAspectRatio", [1, 1], (64, 48)),
        ("PixelSpacing", ["0.2", "0.1"], (64, 96)),
        ("NominalScannedPixelSpacing", ["0.1", "0.1"], (64, 48)),
        ("PixelAspectRatio", [1, 1000], (64, 48)),
    ],
)
def test_pixels_that_are_not_square_are_made_so(
    keyword: str, sides: list[Any], size: tuple[int, int], colour: bool
) -> None:
    pixels = np.stack([page()] * 3, axis=2) if colour else page()
    image = reader.read(picture_file(pixels, **{keyword: sides})).image
    assert image.size == size
    assert image.getpixel((3, 3)) == (255, 255, 255)


def test_a_palette_gives_its_colours() -> None:
    def table(values: list[int]) -> bytes:
        return np.array(values, "<u2").tobytes()

    more: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", [0, 65280]), ("Green", [0, 32768]), ("Blue", [0, 0])):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        more[f"{name}PaletteColorLookupTableData"] = table(values)
    pixels = np.zeros((6, 8), np.uint8)
    pixels[:, 4:] = 1
    image = reader.read(picture_file(pixels, **more)).image
    assert (image.getpixel((0, 0)), image.getpixel((6, 3))) == ((0, 0, 0), (255, 128, 0))
