"""Read DICOM recordings in tests: the signals, the checked pages and the refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import recordings as rec
from recordings import Group

from pulse_edge.errors import PulseEdgeError
from pulse_edge.page import admission, dicom_waveform, reader
from pulse_edge.page.recording import Recording

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pydicom.waveforms")


BEATS = rec.beats(rec.LEADS, 10, 250)


def read(*groups: Group, **options: Any) -> Recording:
    """The recording of a file with these groups."""
    import io

    data = rec.file(*groups, **options)
    return dicom_waveform.recording(pydicom.dcmread(io.BytesIO(data), force=True), "x")


def same(recording: Recording, signals: Mapping[str, np.ndarray], within: float = 0.002) -> None:
    """Every lead holds these millivolts."""
    for lead, mv in signals.items():
        result = recording.leads[lead].mv
        assert result.shape == mv.shape
        assert np.array_equal(np.isnan(result), np.isnan(mv))
        assert np.nan_to_num(np.abs(result - mv)).max() < within, lead


def checked(*groups: Group, **options: Any) -> admission.CheckedPage:
    """The only page of a file with these groups, as `check` sees it."""
    return admission.check(reader.read(rec.file(*groups, **options)))


def reasons(page: admission.CheckedPage) -> dict[str, str]:
    """Check and advice of each reason."""
    return {r.check: r.advice for r in page.quality.reasons}


def refused(data: bytes, *words: str, error: type[PulseEdgeError] = PulseEdgeError) -> None:
    """The file is refused with these words."""
    with pytest.raises(error) as caught:
        reader.read_all(data)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "damaged or of a rare kind" not in str(caught.value)


def part(*leads: str, start: float = 0.0, stop: float = 10.0) -> dict[str, np.ndarray]:
    """Some leads of BEATS, and some of their seconds."""
    return {lead: BEATS[lead][round(250 * start) : round(250 * stop)] for lead in leads}
