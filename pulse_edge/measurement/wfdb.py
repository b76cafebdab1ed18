"""Write a traced signal as a WFDB record, which PhysioNet's tools read.

Format 16 (WFDB Applications Guide, header(5) and signal(5)): NAME.dat holds 16-bit samples of the
twelve leads in turn, little-endian, 1,000 to a millivolt; a sample that was not traced is -32768.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal

UNITS_PER_MILLIVOLT = 1000
NOT_TRACED = -32768


def record(signal: TracedSignal, name: str, comments: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the contents of the two files by ending: `.hea` and `.dat`.

    `name` is letters, digits, hyphens and underscores, as header(5) asks for.
    """
    millivolts = signal.millivolts
    units = np.clip(np.round(np.nan_to_num(millivolts) * UNITS_PER_MILLIVOLT), -32767, 32767)
    digital = np.where(np.isfinite(millivolts), units, NOT_TRACED).astype("<i2")
    count = millivolts.shape[1]
    lines = [f"{name} {len(LEADS)} {SAMPLES_PER_SECOND} {count}"]
    for lead, samples in zip(LEADS, digital, strict=True):
        first = int(samples[0]) if count else 0
        checksum = int(samples.astype(np.int64).sum()) & 0xFFFF
        signed = checksum - 0x10000 if checksum >= 0x8000 else checksum
        lines.append(f"{name}.dat 16 {UNITS_PER_MILLIVOLT}/mV 16 0 {first} {signed} 0 {lead}")
    lines += [f"# {' '.join(comment.split())}" for comment in comments]
    return {
        ".hea": ("\n".join(lines) + "\n").encode("utf-8"),
        ".dat": np.ascontiguousarray(digital.T).tobytes(),
    }
