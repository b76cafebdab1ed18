"""Read WFDB files (.hea with .dat or .mat) as physical signals.

Formats 16 and 212, one segment, one sample per frame.

Written from the specification at physionet.org/physiotools/wag (header.5, signal.5). A `.mat` of
the PhysioNet challenges is format 16 after a header of 24 bytes, which the header file states.
Checksums are checked, so a damaged file does not pass as an ECG.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import PulseEdgeError

MISSING = {16: -(2**15), 212: -(2**11)}
"""The stored value of a missing sample."""


class RecordingError(PulseEdgeError):
    """A file cannot be read as a 12-lead ECG."""


@dataclass(frozen=True)
class Channel:
    """One signal line of a header."""

    file: str
    format: int
    skip: int  # bytes before the first sample
    per_mv: float  # stored units in a millivolt
    baseline: int  # stored value of 0 mV
    checksum: int | None  # sum of all stored values modulo 2^16
    name: str


@dataclass(frozen=True)
class Header:
    """A header file."""

    path: Path
    hz: float
    samples: int | None  # per signal
    channels: tuple[Channel, ...]
    comments: tuple[str, ...]  # without the leading #

    def comment(self, key: str) -> str:
        """The value of `key:` in the comments, or an empty text."""
        for line in self.comments:
            name, _, value = line.partition(":")
            if name.strip().lower() == key.lower():
                return value.strip()
        return ""


def read_header(path: Path) -> Header:
    """Parse a .hea file; RecordingError names the part that is not understood."""
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be read ({error.strerror}); give the .hea file of a WFDB record"
        ) from error
    comments = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    content = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    try:
        record = content[0]
        if "/" in record[0]:
            raise RecordingError(
                f"{path}: has several segments, which is not supported; take one segment's header"
            )
        count, hz = (
            int(record[1]),
            float(re.split(r"[/(]", record[2])[0]) if len(record) > 2 else 250.0,
        )
        samples = int(record[3]) if len(record) > 3 else None
        channels = tuple(_channel(path, fields) for fields in content[1 : count + 1])
    except (IndexError, ValueError) as error:
        raise RecordingError(f"{path}: is not a WFDB header ({error})") from error
    if len(channels) != count or hz <= 0:
        raise RecordingError(
            f"{path}: announces {count} signals at {hz:g} Hz and describes {len(channels)}"
        )
    return Header(path, hz, samples or None, channels, comments)


def _channel(path: Path, fields: list[str]) -> Channel:
    """One signal line: file, format, gain(baseline)/units, resolution, zero, first value, checksum,
    block size, name.
    """
    layout = re.fullmatch(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", fields[1])
    if (
        not layout
        or int(layout[1]) not in MISSING
        or int(layout[2] or 1) != 1
        or int(layout[3] or 0)
    ):
        raise RecordingError(
            f"{path}: storage {fields[1]!r} is not supported; formats 16 and 212 without skew are"
        )
    gain = re.fullmatch(
        r"([-+.\deE]+)(?:\(([-+]?\d+)\))?(?:/(\S+))?", fields[2] if len(fields) > 2 else "0"
    )
    if not gain or (gain[3] or "mV").lower() not in ("mv", "uv", "v"):
        raise RecordingError(
            f"{path}: gain {fields[2]!r} is not understood; it must be per V, mV or uV"
        )
    zero = int(fields[4]) if len(fields) > 4 else 0
    return Channel(
        file=fields[0],
        format=int(layout[1]),
        skip=int(layout[4] or 0),
        per_mv=(float(gain[1]) or 200.0)
        * {"mv": 1.0, "uv": 1e3, "v": 1e-3}[(gain[3] or "mV").lower()],
        baseline=int(gain[2]) if gain[2] else zero,
        checksum=int(fields[6]) if len(fields) > 6 else None,
        name=" ".join(fields[8:]) or "unnamed",
    )


def read_signals(header: Header) -> NDArray[np.float64]:
    """All channels in mV, (channels, samples); NaN where the file has no sample."""
    rows: list[NDArray[np.float64]] = []
    for file in dict.fromkeys(channel.file for channel in header.channels):
        group = [channel for channel in header.channels if channel.file == file]
        stored = _stored(header, group)
        for channel, values in zip(group, stored, strict=True):
            if channel.checksum is not None and (int(values.sum()) - channel.checksum) % 2**16:
                raise RecordingError(
                    f"{header.path.parent / file}: checksum of {channel.name} is wrong; the file is damaged"
                )
            mv = (values - channel.baseline) / channel.per_mv
            rows.append(np.where(values == MISSING[channel.format], np.nan, mv))
    if len({row.size for row in rows}) != 1:
        raise RecordingError(f"{header.path}: its files hold different numbers of samples")
    return np.stack(rows)


def _stored(header: Header, group: list[Channel]) -> NDArray[np.int64]:
    """The integers of one signal file, (channels, samples); the channels of a file share its
    format.
    """
    path, first = header.path.parent / group[0].file, group[0]
    try:
        raw = np.frombuffer(path.read_bytes()[first.skip :], np.uint8)
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be read ({error.strerror}); {header.path.name} needs it"
        ) from error
    flat = (
        _unpack_212(raw)
        if first.format == 212
        else raw[: raw.size // 2 * 2].view("<i2").astype(np.int64)
    )
    available = flat.size // len(group)
    samples = header.samples or available
    if available < samples or not samples:
        raise RecordingError(
            f"{path}: holds {available} samples per signal where {header.path.name} announces {samples}"
        )
    return flat[: samples * len(group)].reshape(samples, len(group)).T


def _unpack_212(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Two 12-bit samples in three bytes: low byte, high nibbles (second sample's above), second low
    byte.
    """
    low, nibbles, second = raw[: raw.size // 3 * 3].reshape(-1, 3).astype(np.int64).T
    pairs = np.stack([low | (nibbles & 0x0F) << 8, second | (nibbles & 0xF0) << 4], axis=1).reshape(
        -1
    )
    return np.where(pairs >= 2**11, pairs - 2**12, pairs)
