"""Intervals over twelve leads from the points of a delineator that takes each lead alone."""

from __future__ import annotations

import sys

from checkout import ROOT

sys.path[:0] = [str(ROOT / "benchmarks")]
import measurement_oracle  # noqa: E402


def points(onset: float, end: float, p: float | None = None) -> dict[str, float]:
    """Milliseconds from the R peak."""
    row = {"ECG_R_Onsets": onset, "ECG_R_Offsets": end, "ECG_T_Offsets": end + 250}
    return row if p is None else row | {"ECG_P_Onsets": p}


def test_an_interval_spans_the_third_earliest_onset_and_the_third_latest_end() -> None:
    leads = {f"V{n}": points(-40 - 2 * n, 40 + 2 * n, -180 - n) for n in range(1, 7)}
    assert measurement_oracle.intervals(leads) == {
        "rate_median": None,
        "pr": 184 - 48,  # P of V4, QRS of V4
        "qrs": 96,  # -48 to 48
        "qt": 48 + 298,
    }


def test_one_lead_has_its_own_interval_and_no_pr_without_p() -> None:
    values = measurement_oracle.intervals({"II": points(-40, 50) | {"rate": 72.0}})
    assert values == {"rate_median": 72.0, "pr": None, "qrs": 90, "qt": 340}


def test_a_lead_that_could_not_be_delineated_is_left_out() -> None:
    assert measurement_oracle.intervals({})["qrs"] is None
