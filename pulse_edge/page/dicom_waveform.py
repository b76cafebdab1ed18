"""A DICOM data set with a waveform -> `Recording`: multiplex groups, lead names, units and samples.

After PS3.3 C.10.9 (Waveform) and A.34.3 (12-lead and General ECG). Runs in the process that decodes: see decoder_worker.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.page.recording import LEADS, Recording, Signal, completed

LONGEST = 300.0
"""Seconds of a recording: thirty pages. A Holter recording is no page."""
SHORTEST = 1.0
_AVERAGE = 2.5
"""A derived group that is shorter is an averaged beat, not a rhythm."""
_AGAIN = "Export it again, or the page as PNG."
_RESTING = "Export the resting 12-lead ECG."


def recording(found: Any, name: str) -> Recording:
    """The ECG of a data set with a WaveformSequence; `name` is the file's, for messages. Raises ScanError, PageRefused.

    Groups are put on one time axis by their offsets. Recorded groups come first; what a machine derived (averaged beats)
    is used for leads that are nowhere else, and only where it is long enough to be a rhythm.
    """
    groups = list(found.WaveformSequence)
    if not groups:
        raise ScanError(f"{name}: is a DICOM file whose ECG is empty. {_AGAIN}")
    _to_little_endian(found)
    derived = [n for n, group in enumerate(groups) if _derived(group)]
    collected = _Collected(found, name)
    for n in range(len(groups)):
        if n not in derived:
            collected.add(n)
    averaged = False
    if not collected.complete():
        before = set(collected.leads)
        for n in derived:
            if _length(groups[n], name) >= _AVERAGE:
                collected.add(n)
        averaged = set(collected.leads) > before
        if derived and not collected.leads:
            raise PageRefused(f"{name}: holds an averaged beat and no rhythm. {_RESTING}")
    return collected.recording(averaged)


class _Collected:
    """The leads of the groups so far."""

    def __init__(self, found: Any, name: str) -> None:
        self._found, self._name = found, name
        self.leads: dict[str, Signal] = {}
        self._left_out: list[str] = []
        self._channels = 0

    def complete(self) -> bool:
        return all(lead in completed(self.leads)[0] for lead in LEADS)

    def add(self, number: int) -> None:
        """Take the leads of a multiplex group. Of a lead that is there twice the one with more seconds stays."""
        group = self._found.WaveformSequence[number]
        channels = list(group.get("ChannelDefinitionSequence", ()))
        names = [_lead_name(channel) for channel in channels]
        self._channels += len(channels)
        self._left_out += [
            _called(c) for c, lead in zip(channels, names, strict=True) if lead is None
        ]
        if not any(names):
            return
        signals: dict[str, Signal] = {}
        for lead, signal in _signals(self._found, number, names, self._name):
            signals.setdefault(lead, signal)
        new = {
            k: s
            for k, s in signals.items()
            if k not in self.leads or s.recorded() > self.leads[k].recorded()
        }
        replaced = {k: self.leads[k] for k in new if k in self.leads}
        dropped = (
            replaced if len(replaced) >= 8 else {k: s for k, s in signals.items() if k not in new}
        )
        if (
            len(dropped) >= 8
        ):  # not a rhythm strip of leads that stand in another group too: an ECG of its own
            seconds = max(s.mv.size / s.hz for s in dropped.values())
            self._left_out.append(f"another ECG of {seconds:.3g} seconds")
        self.leads |= new

    def recording(self, averaged: bool) -> Recording:
        leads, computed = completed(self.leads)
        if not leads:
            raise PageRefused(
                f"{self._name}: names none of its {self._channels} channels as a lead of an ECG. {_RESTING}"
            )
        if missing := [lead for lead in LEADS if lead not in leads]:
            raise PageRefused(f"{self._name}: lacks lead {', '.join(missing)}. {_RESTING}")
        leads.pop("-aVR", None)  # aVR upside down, which is there by now
        zero = min(signal.start for signal in leads.values())
        leads = {lead: replace(signal, start=signal.start - zero) for lead, signal in leads.items()}
        whole = Recording(leads, computed, averaged, tuple(dict.fromkeys(self._left_out)))
        if whole.seconds < SHORTEST:
            raise PageRefused(
                f"{self._name}: holds {whole.seconds:.2g} seconds of ECG; {SHORTEST:g} is needed. {_RESTING}"
            )
        if whole.seconds > LONGEST + 1:
            raise _too_long(self._name, whole.seconds)
        if not any(signal.recorded() for signal in leads.values()):
            raise PageRefused(
                f"{self._name}: holds an ECG of which no lead was recorded. {_RESTING}"
            )
        return whole


def _too_long(name: str, seconds: float) -> PageRefused:
    long = f"{seconds / 60:,.0f} minutes" if seconds >= 600 else f"{seconds:.0f} seconds"
    return PageRefused(
        f"{name}: holds {long} of ECG; {LONGEST / 60:g} minutes are the limit. Export the seconds that are to be read."
    )


# ---------------------------------------------------------------------------------------------------- groups, samples


_DERIVED_LABEL = re.compile(r"median|average|mean\b|representative|template", re.IGNORECASE)


def _derived(group: Any) -> bool:
    """Whether a group is what a machine made of the recorded ones (PS3.3 C.10.9.1.1): mostly an averaged beat."""
    said = str(group.get("WaveformOriginality", "") or "").strip().upper()
    if said in ("ORIGINAL", "DERIVED"):
        return said == "DERIVED"
    return bool(_DERIVED_LABEL.search(str(group.get("MultiplexGroupLabel", "") or "")))


def _rate(group: Any, name: str) -> float:
    hz = float(group.get("SamplingFrequency", 0) or 0)
    if not 50 <= hz <= 50_000:
        raise ScanError(
            f"{name}: has no sensible sampling rate ({hz:g} samples a second). {_AGAIN}"
        )
    return hz


def _length(group: Any, name: str) -> float:
    return int(group.get("NumberOfWaveformSamples", 0) or 0) / _rate(group, name)


def _offset(thing: Any, keyword: str) -> float:
    value = float(thing.get(keyword, 0) or 0)
    return value if math.isfinite(value) else 0.0


def _signals(
    found: Any, number: int, names: list[str | None], name: str
) -> Iterable[tuple[str, Signal]]:
    """Name and signal of each channel of a group that is a lead."""
    group = found.WaveformSequence[number]
    hz, start = _rate(group, name), _offset(group, "MultiplexGroupTimeOffset") / 1000
    samples = _samples(found, number, name)
    for channel, column, lead in zip(
        group.ChannelDefinitionSequence, samples.values.T, names, strict=True
    ):
        if lead is not None:
            skew = _offset(channel, "ChannelTimeSkew") + _offset(channel, "ChannelSampleSkew") / hz
            mv = _millivolts(channel, _stored(channel, column, samples, name), name)
            yield lead, Signal(mv, hz, start + skew)


class _Samples(NamedTuple):
    values: npt.NDArray[Any]
    """(samples, channels), whole numbers."""
    padding: int | None
    """What stands where nothing was recorded."""
    bits: int
    signed: bool


_KINDS = {"SB": "<i1", "UB": "<u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}


def _samples(found: Any, number: int, name: str) -> _Samples:
    """The samples of a group as they are stored; their count, size and length are checked before pydicom unpacks them."""
    from pydicom.waveforms import multiplex_array

    group = found.WaveformSequence[number]
    said = str(group.get("WaveformSampleInterpretation", "nothing")).strip()
    kind = _KINDS.get(said)
    if kind is None:
        raise ScanError(
            f"{name}: keeps its ECG as {said}, which is not read. Export the page as PNG."
        )
    bits = 8 * np.dtype(kind).itemsize
    group.WaveformBitsAllocated = allocated = int(group.get("WaveformBitsAllocated", bits) or bits)
    channels, count = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    length, wanted = len(group.get("WaveformData", b"") or b""), count * channels * bits // 8
    if allocated != bits or count < 1 or channels < 1 or not wanted <= length <= wanted + 1:
        raise ScanError(
            f"{name}: is a DICOM file whose ECG is cut short or of another length than it says. Export it again."
        )
    if len(group.ChannelDefinitionSequence) != channels:
        raise ScanError(
            f"{name}: describes {len(group.ChannelDefinitionSequence)} of its {channels} channels. {_AGAIN}"
        )
    if _length(group, name) > LONGEST + 1:
        raise _too_long(name, _length(group, name))
    return _Samples(
        multiplex_array(found, number, as_raw=True), _padding(group, kind), bits, kind[1] == "i"
    )


def _padding(group: Any, kind: str) -> int | None:
    padding = group.get("WaveformPaddingValue")
    if isinstance(padding, bytes):
        size = np.dtype(kind).itemsize
        return int(np.frombuffer(padding[:size], kind)[0]) if len(padding) >= size else None
    if padding is not None:
        return int(padding)
    # Without a word, the smallest number of all still is no voltage: 82 mV at the usual 2.5 uV.
    return int(np.iinfo(kind).min) if kind in ("<i2", "<i4") else None


def _stored(
    channel: Any, column: npt.NDArray[Any], samples: _Samples, name: str
) -> npt.NDArray[np.float64]:
    """A channel's numbers, NaN where nothing was recorded. Fewer bits than there is room for are sign-extended."""
    values = column.astype(np.int64)
    recorded = (
        values != samples.padding if samples.padding is not None else np.ones(values.shape, bool)
    )
    bits = int(channel.get("WaveformBitsStored", samples.bits) or samples.bits)
    if samples.signed and 1 < bits < samples.bits:
        half = 1 << (bits - 1)
        some = values[recorded]
        if some.size and not (some.min() >= -half and some.max() < half):
            if some.min() < 0 or some.max() >= 2 * half:
                raise ScanError(
                    f"{name}: says that its ECG has {bits} bits, and holds larger numbers. {_AGAIN}"
                )
            extended = np.where(values >= half, values - 2 * half, values)
            # Numbers round the middle of the range, without a sign, would jump by all of it with each crossing.
            if np.abs(np.diff(extended[recorded])).sum() < np.abs(np.diff(some)).sum():
                values = extended
    return np.where(recorded, values.astype(np.float64), np.nan)


def _to_little_endian(found: Any) -> None:
    """Turn the samples of a big endian data set round, word by word of its VR; pydicom leaves them as they are."""
    if found.original_encoding[1] is not False:
        return
    for group in found.WaveformSequence:
        for keyword in ("WaveformData", "WaveformPaddingValue"):
            if keyword not in group or not isinstance(group[keyword].value, bytes):
                continue
            word = {"OW": 2, "OL": 4, "OV": 8, "UN": 2}.get(str(group[keyword].VR), 1)
            data = group[keyword].value
            whole = data[: len(data) // word * word]
            group[keyword].value = (
                np.frombuffer(whole, f">u{word}").astype(f"<u{word}").tobytes()
                if word > 1
                else data
            )


# --------------------------------------------------------------------------------------------------------------- units


_UNITS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}
_UNITS |= {"volt": 1e3, "millivolt": 1.0, "microvolt": 1e-3, "nanovolt": 1e-6}


def _millivolts(
    channel: Any, values: npt.NDArray[np.float64], name: str
) -> npt.NDArray[np.float64]:
    """PS3.3 C.10.9.1.4.2 and .5: samples times sensitivity and its correction, plus the baseline, in their unit."""
    scale = _unit(channel)
    step = channel.get("ChannelSensitivity")
    if step is None or not math.isfinite(float(step)) or float(step) == 0:
        raise ScanError(
            f"{name}: does not say how many millivolts a step of its ECG is (its channel sensitivity is missing). {_AGAIN}"
        )
    if scale is None:
        raise ScanError(f"{name}: does not say in which unit its ECG is kept. {_AGAIN}")
    factor = float(step) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
    return (values * factor + float(channel.get("ChannelBaseline", 0) or 0)) * scale


def _unit(channel: Any) -> float | None:
    """Millivolts of a channel's unit: by its code, or by its meaning where the code is a maker's own."""
    units = channel.get("ChannelSensitivityUnitsSequence")
    for keyword in ("CodeValue", "CodeMeaning") if units else ():
        said = str(units[0].get(keyword, "") or "").strip()
        # Both micro signs, and what becomes of them in a wrong character set: no other prefix is outside ASCII.
        said = re.sub(r"^[^\x00-\x7f]+(?=v)", "u", said, flags=re.IGNORECASE).lower()
        if (scale := _UNITS.get(said.removesuffix("s") if len(said) > 3 else said)) is not None:
            return scale
    return None


# --------------------------------------------------------------------------------------------------------- lead names


# MDC (2:1, ISO/IEEE 11073-10101) and SCP-ECG (5.6.3-9-1) number the leads alike. PS3.16 CID 3001.
_CODES = {
    1: "I",
    2: "II",
    **{n: f"V{n - 2}" for n in range(3, 10)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
}
_CODES |= {
    **{n: f"V{n - 8}R" for n in range(10, 16)},
    16: "X",
    17: "Y",
    18: "Z",
    65: "-aVR",
    66: "V8",
    67: "V9",
}
_CODE = re.compile(r"(?:2:|5\.6\.3-9-)(\d+)")
_BLOCK = 2 << 16
"""MDC codes as one number: 2:1 is 131073."""
_BEFORE = r"(?:mdc_ecg_lead_|(?:ecg|ekg)[ _]|)(?:(?:lead|leads|ableitung|abl\.?|d[eé]rivation|derivaci[oó]n|deriva[cç][aã]o)[ _]*)?"
_NAME = re.compile(
    rf"{_BEFORE}(-?avr|av[lf]|[vc][1-9]r?|r[vc][1-9]|d?i{{1,3}}|d[123]|[xyz])(?![\w+])(?!\s*[-/–]\s*\w)"
)


def _lead_name(channel: Any) -> str | None:
    """A channel's lead: by its code, or where that is a maker's own by its meaning, its label, or its MDC name."""
    source = channel.get("ChannelSourceSequence")
    texts = []
    if source:
        code = str(source[0].get("CodeValue", "") or "").strip()
        number = int(m[1]) if (m := _CODE.fullmatch(code)) else None
        if number is None and code.isdecimal() and _BLOCK < int(code) < _BLOCK + 256:
            number = int(code) - _BLOCK
        if number:  # 2:0 is a lead that is not named
            return _CODES.get(number)
        texts = [str(source[0].get("CodeMeaning", "") or "")]
        if code.upper().startswith(
            "MDC_ECG_LEAD_"
        ):  # no other code: a maker's "C1" may be channel 1
            texts.insert(0, code)
    return next(
        filter(None, map(lead_named, [*texts, str(channel.get("ChannelLabel", "") or "")])), None
    )


def lead_named(text: str) -> str | None:
    """The lead that a text names: `Lead I`, `DI`, `D1`, `aVR`, `C1`, `V4R`, `MDC_ECG_LEAD_V2`; None for any other."""
    match = _NAME.match(text.strip().lower())
    if match is None:
        return None
    said = match[1].upper().replace("C", "V")
    if said.startswith("D"):
        said = "I" * int(said[1]) if said[1].isdecimal() else said[1:]
    if said.startswith("RV"):
        said = f"{said[1:]}R"
    return said.replace("AV", "aV")


def _called(channel: Any) -> str:
    """What a channel that is no lead is called, for people."""
    source = channel.get("ChannelSourceSequence")
    texts = [
        channel.get("ChannelLabel", ""),
        *(source[0].get(k, "") for k in ("CodeMeaning", "CodeValue") if source),
    ]
    said = next((" ".join(str(t).split()) for t in texts if str(t or "").strip()), "")
    printable = "".join(c for c in said if c.isprintable())[:40]
    return f'channel "{printable}"' if printable else "a channel without a name"
