"""The picture of a page with its trace, beats and waves drawn over it."""

from __future__ import annotations

import io

import cv2
import measured_pages
import numpy as np
import pytest
from PIL import Image

from pulse_edge.measurement import overlay


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """The synthetic page with its measurements, read back from the PNG file."""
    data = overlay.png(measured_pages.checked().checked.flat.image, measured_pages.measured())
    return Image.open(io.BytesIO(data))


def near(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Which pixels (height, width) have almost this colour."""
    away = np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(2)
    return away < 60


def test_trace_lies_on_the_ink(picture: Image.Image) -> None:
    page = measured_pages.synthetic()
    assert picture.size == (page.image.shape[1], page.image.shape[0])
    ink = np.full(page.image.shape[:2], 255, np.uint8)
    for trace in page.traces:
        points = np.round(trace.points(page.recording)).astype(np.int32)
        cv2.polylines(ink, [points], False, 0, 1)
    distance = cv2.distanceTransform(ink, cv2.DIST_L2, 5)
    blue = near(picture, overlay.TRACE)
    assert blue.sum() > 8_000
    assert distance[blue].max() <= 3


def test_every_traced_row_has_its_line(picture: Image.Image) -> None:
    blue = near(picture, overlay.TRACE)
    page = measured_pages.synthetic()
    for trace in page.traces:
        x = int(trace.x_at((trace.start + trace.stop) / 1000))
        reach = int(12 * page.px_per_mm)
        column = blue[int(trace.y0) - reach : int(trace.y0) + reach, x - 3 : x + 4]
        assert column.any(), trace.lead


def test_beats_are_marked_below_their_qrs(picture: Image.Image) -> None:
    red = near(picture, overlay.BEAT).any(0)
    strip = next(t for t in measured_pages.synthetic().traces if t.stop - t.start > 4000)
    for beat in measured_pages.synthetic().recording.beats:
        if 0.2 < beat.peak < 9.8:
            x = round(strip.x_at(beat.peak))
            assert red[x - 5 : x + 6].any(), beat.peak


def test_waves_have_bars_in_their_colours(picture: Image.Image) -> None:
    for name, colour in overlay.WAVES.items():
        assert near(picture, colour).sum() > 200, name


def test_wide_page_is_shrunk_with_its_trace() -> None:
    page = measured_pages.checked().checked.flat.image
    factor = 3000 / page.width
    wide = page.resize((3000, round(page.height * factor)))
    picture = overlay.draw(wide, measured_pages.measured())
    assert picture.width == overlay.WIDEST
