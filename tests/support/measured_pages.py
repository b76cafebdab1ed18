"""Synthetic pages of a known recording, checked and measured, for tests of what is done with them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from calibration.synthetic import PageStyle, draw, synthesize
from calibration.synthetic.pages import Page
from pulse_edge.measurement import admission
from pulse_edge.measurement.admission import TracedPage
from pulse_edge.measurement.page import PageMeasurement, measure_page
from pulse_edge.page import reader

STYLE = PageStyle(px_per_mm=5.0, header=("12-lead ECG", "Page 1/1"), footer=("25 mm/s", "10 mm/mV"))


@functools.cache
def synthetic() -> Page:
    """A page of a recording without findings, layout 3x4+1."""
    return draw(synthesize(3, ()), STYLE)


def check(pixels: npt.NDArray[np.uint8]) -> TracedPage:
    """Admission's result about a page, whatever its verdict."""
    return admission.check(reader.Page(Image.fromarray(pixels), "", "page.png"), straighten=True)


@functools.cache
def checked() -> TracedPage:
    """The synthetic page as admission passes it."""
    return check(synthetic().image)


@functools.cache
def measured() -> PageMeasurement:
    """The measurements of the synthetic page."""
    return measure_page(checked())


@functools.cache
def true_rate() -> float:
    """Beats per minute of the recording."""
    rate = synthetic().recording.measurements.rate
    assert rate is not None
    return rate


def write(folder: Path, name: str = "page.png") -> Path:
    """Write the synthetic page as a PNG file."""
    path = folder / name
    Image.fromarray(synthetic().image).save(path)
    return path
