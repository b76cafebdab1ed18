"""A traced signal against the printed one."""

from __future__ import annotations

import numpy as np
import pytest
from measurement_data import recording

from calibration.measurements.pages import PrintedSignal
from calibration.measurements.tracing import compare, decibels, lead_traces
from pulse_edge.measurement.signal import LEADS, TracedSignal

HEART = recording(4)
II = HEART[1]


def columns() -> PrintedSignal:
    """Columns of 3x4 with a strip of lead II."""
    body = np.full(HEART.shape, np.nan, np.float32)
    for n in range(12):
        part = slice(n // 3 * 1250, (n // 3 + 1) * 1250)
        body[n, part] = HEART[n, part]
    return PrintedSignal(body, (("II", II),), "3x4+1")


def traced(printed: PrintedSignal, strips: tuple[str, ...] = ("II",)) -> TracedSignal:
    lines = tuple((name, II) for name in strips)
    return TracedSignal(
        printed.millivolts.copy(), (0.99,) * 12, 25.0, 10.0, True, True, "3x4+1", lines
    )


def test_offset_and_a_shift_below_0_2_s_cost_nothing() -> None:
    match = compare(II[:2000], II[60:1200] + np.float32(0.4))
    assert match is not None
    assert match.correlation == pytest.approx(1.0, abs=1e-6)
    assert match.error < 1e-4 * match.power


def test_half_the_amplitude_is_6_decibels() -> None:
    printed = columns()
    signal = traced(PrintedSignal(np.asarray(printed.millivolts / 2, np.float32)))
    leads = [t for t in lead_traces(printed, signal) if not t.strip]
    assert decibels(leads) == pytest.approx(20 * np.log10(2), abs=0.3)
    assert all(t.correlation == pytest.approx(1.0, abs=1e-3) for t in leads)


def test_a_perfect_trace_has_no_wrong_lead() -> None:
    leads = lead_traces(columns(), traced(columns()))
    assert [t.lead for t in leads] == [*LEADS, "II"]
    assert [t.strip for t in leads] == [False] * 12 + [True]
    assert min(t.correlation or 0 for t in leads) > 0.999
    assert {t.coverage for t in leads} == {1.0}


def test_a_lead_where_it_is_not_printed_has_no_correlation() -> None:
    printed = columns()
    signal = traced(printed)
    signal.millivolts[0] = np.nan
    signal.millivolts[0, 3750:] = HEART[0, 3750:]
    first = lead_traces(printed, signal)[0]
    assert first.correlation == 0.0
    assert first.error == first.power > 0


def test_a_lead_that_is_left_out_is_not_reported() -> None:
    printed = columns()
    signal = traced(printed)
    signal.millivolts[5] = np.nan
    left_out = lead_traces(printed, signal)[5]
    assert (left_out.reported, left_out.correlation, left_out.coverage) == (False, None, 0.0)


def test_a_strip_with_another_name_is_wrong() -> None:
    leads = [t for t in lead_traces(columns(), traced(columns(), ("V1",))) if t.strip]
    assert [(t.lead, t.reported, t.correlation) for t in leads] == [
        ("II", False, None),
        ("V1", True, 0.0),
    ]


def test_too_little_to_compare_gives_nothing() -> None:
    assert compare(II, II[:50]) is None
    assert decibels([]) is None
