"""Pages to measurements: what is measured on a good page, and what is never measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import measured_pages
import numpy as np
import pytest
from PIL import Image

from calibration.synthetic import draw
from calibration.synthetic.recording import Recording
from pulse_edge import PulseModel, measure
from pulse_edge.common import paths
from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.inference.request import MeasurementOptions
from pulse_edge.measurement.page import PageMeasurement, measure_page


def drawn(**signal: np.ndarray) -> np.ndarray:
    """The synthetic page with another signal."""
    recording: Recording = replace(measured_pages.synthetic().recording, **signal)
    return draw(recording, measured_pages.STYLE).image


def flat_line() -> np.ndarray:
    shape = measured_pages.synthetic().recording.signal.shape
    return drawn(signal=np.zeros(shape, np.float32))


def blank_grid() -> np.ndarray:
    shape = measured_pages.synthetic().recording.signal.shape
    return drawn(signal=np.full(shape, np.nan, np.float32))


def noise() -> np.ndarray:
    shape = measured_pages.synthetic().image.shape
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def left_half() -> np.ndarray:
    page = measured_pages.synthetic().image
    return np.ascontiguousarray(page[:, : page.shape[1] // 2])


def top_half() -> np.ndarray:
    page = measured_pages.synthetic().image
    return np.ascontiguousarray(page[: page.shape[0] // 2])


def measured(pixels: np.ndarray) -> PageMeasurement:
    """Measure a page even where admission refuses it."""
    return measure_page(measured_pages.check(pixels))


def test_good_page_gives_the_recording_s_rate_and_intervals() -> None:
    page, truth = measured_pages.measured(), measured_pages.synthetic().recording.measurements
    assert page["rate"].value == pytest.approx(truth.rate, abs=1)
    for key in ("pr", "qrs", "qt"):
        assert page[key].value == pytest.approx(getattr(truth, key), abs=page[key].uncertainty)
        assert page[key].uncertainty <= 40
    assert page["qrs_axis"].value == pytest.approx(truth.axis, abs=6)
    assert page["regular"].value == 1.0


def test_every_measurement_has_a_value_or_a_reason() -> None:
    for page in (measured_pages.measured(), measured(noise())):
        for m in page.measurements:
            assert (m.value is None) == bool(m.reason), m.key
            assert m.value is not None or m.uncertainty is None, m.key


@pytest.mark.parametrize("page", [flat_line, blank_grid, noise, left_half, top_half])
def test_page_without_a_measurable_trace_has_no_rate(page) -> None:  # type: ignore[no-untyped-def]
    result = measured(page())
    for key in ("rate", "rate_median", "atrial_rate", "pr", "qt"):
        assert result[key].value is None, key
        assert result[key].reason


def test_flat_line_is_asystole_or_leads_off() -> None:
    result = measured(flat_line())
    assert result["asystole"].value == 1.0
    assert result.rows.all_flat


def test_page_from_a_file_is_admitted_first(tmp_path: Path) -> None:
    result = measure(measured_pages.write(tmp_path), age_years=40, sex="female")
    assert result["rate"].value == measured_pages.measured()["rate"].value
    assert (result.age_years, result.sex) == (40, "female")
    with pytest.raises(KeyError):
        result["heart rate"]


def test_refused_page_is_measured_on_demand_only(tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (800, 600), "white").save(blank)
    with pytest.raises(PageRefused):
        measure(blank)
    assert measure(blank, force=True)["rate"].value is None


def test_file_that_is_no_page_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(b"no picture")
    with pytest.raises(ScanError, match=r"page\.png"):
        measure(tmp_path / "page.png")


def test_image_tokens_do_not_depend_on_measurement(tiny_kit: Path) -> None:
    page = Image.fromarray(measured_pages.synthetic().image)
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        without = model.encode(page, measurement=MeasurementOptions(enabled=False))
        with_measurement = model.encode(page)
    assert without.measured is None
    assert with_measurement.measured is not None
    assert with_measurement.image_tokens.tobytes() == without.image_tokens.tobytes()
    assert with_measurement.image_tokens_sha256 == without.image_tokens_sha256


def test_verdict_does_not_depend_on_measurement(tiny_kit: Path) -> None:
    page = Image.fromarray(flat_line())
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        without = model.encode(page, measurement=MeasurementOptions(enabled=False))
        with_measurement = model.encode(page)
    assert without.checked is not None
    assert with_measurement.checked is not None
    assert without.checked.quality == with_measurement.checked.quality
    assert without.checked.quality.reasons[0].check == "flat"


def test_cropped_page_is_not_traced_under_other_names() -> None:
    """Left of V4 the rows of the example page look like those of a page with three columns."""
    page = Image.open(paths.EXAMPLE_PAGE).convert("RGB")
    crop = page.crop((0, 0, round(0.72 * page.width), page.height))
    measured = measure(crop, force=True)
    assert not any(measured.signal.scores)
    assert measured["rate"].value is None
