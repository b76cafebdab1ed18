"""Leads whose traces are probably wrong are left out, with a reason; right ones are reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.measurement_signal import printed
from calibration.synthetic.signals import synthesize
from pulse_edge.measurement.beats import channels_of, detect
from pulse_edge.measurement.signal import LEADS, TracedSignal
from pulse_edge.measurement.trust import REPORTED, reported

Values = npt.NDArray[np.float32]


def page(layout: str = "3x4+1") -> TracedSignal:
    """Sinus rhythm as it is traced from a good page."""
    return printed(synthesize(4, []).signal.astype(np.float64), layout, 18, 4)


def changed(signal: TracedSignal, **leads: Values) -> TracedSignal:
    """The signal with other values for some leads."""
    values = signal.millivolts.copy()
    for lead, row in leads.items():
        values[LEADS.index(lead)] = row
    return replace(signal, millivolts=values)


def qrs(signal: TracedSignal, lead: str) -> list[slice]:
    """The samples of each QRS complex in the middle of a lead."""
    beats = detect(channels_of(signal), signal.millivolts.shape[1]).samples
    there = np.flatnonzero(np.isfinite(signal.millivolts[LEADS.index(lead)]))
    inside = [int(b) for b in beats if there[0] + 60 < b < there[-1] - 100]
    return [slice(b - 35, b + 35) for b in inside]


def lead_of(signal: TracedSignal, lead: str) -> Values:
    return signal.millivolts[LEADS.index(lead)].copy()


@pytest.mark.parametrize("layout", ["3x4+1", "6x2", "12x1"])
def test_right_leads_are_reported(layout: str) -> None:
    signal = page(layout)
    result = reported(signal)
    assert result.reasons == ()
    assert min(result.scores) >= REPORTED
    assert np.array_equal(result.millivolts, signal.millivolts, equal_nan=True)


def test_a_lead_that_lacks_one_qrs_complex_is_left_out() -> None:
    signal = page()
    values = lead_of(signal, "V4")
    first = qrs(signal, "V4")[0]
    values[first] = np.linspace(values[first.start], values[first.stop], 70)
    result = reported(changed(signal, V4=values))
    assert np.isnan(lead_of(result, "V4")).all()
    assert result.scores[LEADS.index("V4")] == 0
    (reason,) = result.reasons
    assert reason.startswith("V4 is left out: its ")
    assert "limb" not in reason
    assert np.isfinite(lead_of(result, "V3")).any()


def test_a_lead_whose_qrs_complexes_are_hidden_is_left_out() -> None:
    signal = page()
    values = lead_of(signal, "V2")
    for complex_ in qrs(signal, "V2"):
        values[complex_] = np.nan
    result = reported(changed(signal, V2=values))
    assert np.isnan(lead_of(result, "V2")).all()
    assert result.reasons == (
        "V2 is left out: its QRS complexes are hidden by other traces or by the grid.",
    )


def test_a_page_whose_limb_leads_contradict_each_other_has_no_leads() -> None:
    signal = page()
    wrong = changed(signal, II=-lead_of(signal, "II"), aVR=-lead_of(signal, "aVR"))
    result = reported(wrong)
    assert not result.valid.any()
    assert result.scores == (0.0,) * 12
    assert "Einthoven" in result.reasons[0]


def test_one_contradiction_is_enough_where_a_row_may_have_been_missed() -> None:
    signal = page()
    wrong = changed(signal, II=-lead_of(signal, "II"))
    assert reported(wrong).valid.any()
    assert not reported(wrong, layout_sure=False).valid.any()
    assert reported(signal, layout_sure=False).valid.any(axis=1).all()


def test_a_flat_lead_is_reported() -> None:
    signal = page()
    values = lead_of(signal, "V6")
    values[np.isfinite(values)] = 0.0
    signal = replace(signal, scores=(1.0,) * 12)
    assert np.isfinite(lead_of(reported(changed(signal, V6=values)), "V6")).any()


def test_a_page_without_beats_is_unchanged() -> None:
    signal = page()
    still = replace(signal, millivolts=signal.millivolts * np.float32(0.001), strips=())
    assert reported(still) is still
