"""A recording plotted and measured on the page: amplitude, order, timing and speed of each lead
within half a pixel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import recordings as rec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pulse_edge.page import dicom
from pulse_edge.page.pictures import Limits
from pulse_edge.page.plotted_page import PlottedPage

pytest.importorskip("pydicom")
Array = npt.NDArray[np.float64]
ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
PX = 8
LEFT, QUARTER = 16 * PX, round(62.5 * PX)
"""Pixels: where the trace begins, and from column to column."""


def synthetic_page(data: bytes) -> list[tuple[Image.Image, PlottedPage]]:
    """The pages of a file, as the decoder draws them."""
    pages = [page() for page in dicom.pages(data, "x", Limits())]
    assert all(isinstance(page, tuple) for page in pages)
    return pages  # type: ignore[return-value]


def trace(page: Image.Image, zero: float, remaining: int, right: int) -> tuple[Array, Array]:
    """Middles of the pixel columns that have ink, and how far above `zero` its centre lies there,
    in pixels.

    Names lie further up than is looked.
    """
    top, bottom = round(zero) - 78, round(zero) + 78
    dark = np.clip(
        200 - np.asarray(page)[top:bottom, remaining:right].max(axis=2).astype(float), 0, None
    )
    x = np.flatnonzero(dark.sum(axis=0) > 100)
    y = (dark[:, x] * (np.arange(top, bottom)[:, None] + 0.5)).sum(axis=0) / dark[:, x].sum(axis=0)
    return x + remaining + 0.5, zero - y


def off(
    lead: str, x: Array, y: Array, remaining: float, start: float, baseline: float, gain: float
) -> Array:
    """Pixels by which a measured sine is off: amplitude, place in time, its drift over the stretch,
    height; the rest.

    `left`: the pixel column of second `start`.
    """
    seconds = start + (x - remaining) / (25 * PX)
    height = gain * PX * (rec.wave(lead, seconds) - baseline)
    slope = np.gradient(height, x)
    middle, half = (x[0] + x[-1]) / 2, (x[-1] - x[0]) / 2
    columns = np.stack(
        [height / np.abs(height).max(), slope, slope * (x - middle) / half, np.ones(len(x))], axis=1
    )
    fit, *_ = np.linalg.lstsq(columns, y - height, rcond=None)
    rest = float(np.sqrt(np.mean((y - height - columns @ fit) ** 2)))
    return np.array([*fit, rest])


def spans(seconds: float) -> list[tuple[float, float]]:
    """First and last second of each page: ten seconds each, the last page the last ten."""
    if seconds < 11:
        return [(0, seconds)]
    whole, rest = int(seconds // 10), seconds % 10
    pages: list[tuple[float, float]] = [(10 * n, 10 * n + 10) for n in range(whole)]
    if rest >= 1:
        return [*pages, (seconds - 10, seconds)]
    return [*pages[:-1], (pages[-1][0], seconds)]


def check(leads: tuple[str, ...], seconds: float, hz: float) -> None:
    """Draw sines and measure all of them on all pages."""
    signals = rec.sines(leads, seconds, hz)
    seconds = len(signals["I"]) / hz
    pages = synthetic_page(rec.file(rec.Group(signals, hz)))
    expected = spans(seconds)
    assert len(pages) == len(expected)
    every = dict.fromkeys((*rec.LEADS, *leads))
    rows = [
        *ROWS,
        *([tuple(lead for lead in every if lead not in rec.LEADS)] if len(every) > 12 else []),
        ("II",),
    ]
    for (page, about), (start, stop) in zip(pages, expected, strict=True):
        assert (about.first, about.last) == pytest.approx((start, stop), abs=0.01)
        assert set(about.leads) == set(every)
        assert (about.gain, about.pixels_per_mm, len(about.rows)) == (10, PX, len(rows))
        span = stop - start
        for r, row in enumerate(rows):
            for c, lead in enumerate(row):
                strip = r == len(rows) - 1
                width = span if strip or (c == 3 and span >= 10) else min(2.5, span)
                if c == 3 and span >= 10:
                    width = span - 7.5
                at = (
                    start if strip else start + (2.5 * c if span >= 9.9 else c * (span - width) / 3)
                )
                remaining = LEFT + c * QUARTER
                # a column's first pixels hold its mark, and the last ones that of the next
                x, y = trace(
                    page,
                    about.rows[r],
                    remaining + 4,
                    min(remaining + math.floor(200 * width) - 4, page.width),
                )
                assert x[-1] - x[0] > 200 * (width - 0.05) - 12
                t = np.arange(len(signals["I"])) / hz
                whole = rec.wave(
                    lead, t[(t >= start - 0.5 / hz) & (t <= start + max(span, 0) + 0.5 / hz)]
                )
                wrong = off(
                    lead, x.astype(float), y, remaining, at, float(np.median(whole)), about.gain
                )
                assert np.abs(wrong).max() < 0.5, (lead, r, c, wrong)
                assert about.leads[lead] == pytest.approx(
                    span if strip else max(width, about.leads[lead]), abs=0.02
                )


@pytest.mark.parametrize(
    ("leads", "seconds", "hz"),
    [
        (rec.LEADS, 1, 500),
        (rec.EIGHT, 2.5, 250),
        (rec.FIFTEEN, 5, 1000),
        (rec.LEADS, 8, 100),
        (rec.LEADS, 10, 2000),
        (rec.EIGHT, 10, 100),
        (rec.FIFTEEN, 10, 500),
        (rec.LEADS, 12, 333),
        (rec.EIGHT, 60, 125),
    ],
    ids=str,
)
def test_every_lead_is_where_and_as_high_as_it_was_recorded(
    leads: tuple[str, ...], seconds: float, hz: float
) -> None:
    check(leads, seconds, hz)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([rec.LEADS, rec.EIGHT, rec.FIFTEEN]),
    st.floats(1.01, 23).map(lambda s: round(s, 2)),
    st.sampled_from([100, 128, 200, 240, 250, 360, 400, 500, 512, 977, 1000, 2000]),
)
def test_any_length_and_rate_is_plotted_to_scale(
    leads: tuple[str, ...], seconds: float, hz: float
) -> None:
    check(leads, seconds, hz)
