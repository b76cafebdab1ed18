"""Read the waveform of a DICOM data set as a `Recording`.

After PS3.3 C.10.9 (Waveform) and A.34.3 (12-lead and General ECG). pydicom unpacks the samples.
Everything that it does not check is checked here: length, padding, sign, units. Runs in the decoder
(decoder_worker.py).
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
from pulse_edge.page.recording import LEADS, Recording, Signal, complete_leads

LONGEST = 300.0
"""Seconds of a recording at most: thirty pages. A Holter recording is no page."""
SHORTEST = 1.0
"""Seconds of a recording at least."""
_AVERAGE = 2.5
"""Seconds below which a derived group is an averaged beat, not a rhythm."""
_EXPORT_AGAIN = "Export it again, or the page as PNG."
_RESTING = "Export the resting 12-lead ECG."


def recording(dataset: Any, name: str) -> Recording:
    """Return the ECG of a data set with a WaveformSequence; `name` is the file's, for messages.

    Groups are put on one time axis by their offsets. Recorded groups come first; groups that a
    machine derived (averaged beats) are used for leads that no other group has, and only where they
    are long enough to be a rhythm. Raises ScanError and PageRefused.
    """
    groups = list(dataset.WaveformSequence)
    if not groups:
        raise ScanError(f"{name}: is a DICOM file whose ECG is empty. {_EXPORT_AGAIN}")
    _to_little_endian(dataset)
    derived = [n for n, group in enumerate(groups) if _is_derived(group)]
    collector = _LeadCollector(dataset, name)
    for n in range(len(groups)):
        if n not in derived:
            collector.add(n)
    averaged = False
    if not collector.complete():
        before = set(collector.leads)
        for n in derived:
            if _length(groups[n], name) >= _AVERAGE:
                collector.add(n)
        averaged = set(collector.leads) > before
        if derived and not collector.leads:
            raise PageRefused(f"{name}: holds an averaged beat and no rhythm. {_RESTING}")
    return collector.recording(averaged)


class _LeadCollector:
    """The leads of the groups that were added so far."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        self.leads: dict[str, Signal] = {}
        self._not_shown: list[str] = []
        self._channels = 0

    def complete(self) -> bool:
        """Whether all twelve leads are there or can be computed."""
        return all(lead in complete_leads(self.leads)[0] for lead in LEADS)

    def add(self, number: int) -> None:
        """Add the leads of a multiplex group.

        Where two groups have a lead, the one with more seconds stays.
        """
        group = self._dataset.WaveformSequence[number]
        channels = list(group.get("ChannelDefinitionSequence", ()))
        names = [_lead_name(channel) for channel in channels]
        self._channels += len(channels)
        self._not_shown += [
            _channel_title(c) for c, lead in zip(channels, names, strict=True) if lead is None
        ]
        if not any(names):
            return
        signals: dict[str, Signal] = {}
        for lead, signal in _signals(self._dataset, number, names, self._name):
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
        if len(dropped) >= 8:  # more leads than a rhythm strip repeats: an ECG of its own
            seconds = max(s.mv.size / s.hz for s in dropped.values())
            self._not_shown.append(f"another ECG of {seconds:.3g} seconds")
        self.leads |= new

    def recording(self, averaged: bool) -> Recording:
        leads, computed = complete_leads(self.leads)
        if not leads:
            raise PageRefused(
                f"{self._name}: names none of its {self._channels} channels as a lead of an ECG. "
                f"{_RESTING}"
            )
        if missing := [lead for lead in LEADS if lead not in leads]:
            raise PageRefused(f"{self._name}: lacks lead {', '.join(missing)}. {_RESTING}")
        leads.pop("-aVR", None)  # aVR upside down; aVR itself is there now
        zero = min(signal.start for signal in leads.values())
        leads = {lead: replace(signal, start=signal.start - zero) for lead, signal in leads.items()}
        whole = Recording(leads, computed, averaged, tuple(dict.fromkeys(self._not_shown)))
        if whole.seconds < SHORTEST:
            raise PageRefused(
                f"{self._name}: holds {whole.seconds:.2g} seconds of ECG; {SHORTEST:g} is needed. "
                f"{_RESTING}"
            )
        if whole.seconds > LONGEST + 1:
            raise _too_long(self._name, whole.seconds)
        if not any(signal.recorded() for signal in leads.values()):
            raise PageRefused(
                f"{self._name}: holds an ECG in which no lead was recorded. {_RESTING}"
            )
        return whole


def _too_long(name: str, seconds: float) -> PageRefused:
    long = f"{seconds / 60:,.0f} minutes" if seconds >= 600 else f"{seconds:.0f} seconds"
    return PageRefused(
        f"{name}: holds {long} of ECG; {LONGEST / 60:g} minutes are the limit. Export the seconds "
        "that are to be read."
    )


# --- groups, samples ------------------------------------------------------------------------------


_DERIVED_LABEL = re.compile(r"median|average|mean\b|representative|template", re.IGNORECASE)


def _is_derived(group: Any) -> bool:
    """Whether a machine derived a group from the recorded ones (PS3.3 C.10.9.1.1): mostly an
    averaged beat."""
    originality = str(group.get("WaveformOriginality", "") or "").strip().upper()
    if originality in ("ORIGINAL", "DERIVED"):
        return originality == "DERIVED"
    return bool(_DERIVED_LABEL.search(str(group.get("MultiplexGroupLabel", "") or "")))


def _rate(group: Any, name: str) -> float:
    hz = float(group.get("SamplingFrequency", 0) or 0)
    if not 50 <= hz <= 50_000:
        raise ScanError(
            f"{name}: has no sensible sampling rate ({hz:g} samples a second). {_EXPORT_AGAIN}"
        )
    return hz


def _length(group: Any, name: str) -> float:
    return int(group.get("NumberOfWaveformSamples", 0) or 0) / _rate(group, name)


def _offset(thing: Any, keyword: str) -> float:
    value = float(thing.get(keyword, 0) or 0)
    return value if math.isfinite(value) else 0.0


def _signals(
    dataset: Any, number: int, names: list[str | None], name: str
) -> Iterable[tuple[str, Signal]]:
    """Return name and signal of each channel of a group that is a lead."""
    group = dataset.WaveformSequence[number]
    hz, start = _rate(group, name), _offset(group, "MultiplexGroupTimeOffset") / 1000
    samples = _samples(dataset, number, name)
    for channel, column, lead in zip(
        group.ChannelDefinitionSequence, samples.values.T, names, strict=True
    ):
        if lead is not None:
            skew = _offset(channel, "ChannelTimeSkew") + _offset(channel, "ChannelSampleSkew") / hz
            mv = _millivolts(channel, _channel_numbers(channel, column, samples, name), name)
            yield lead, Signal(mv, hz, start + skew)


class _Samples(NamedTuple):
    values: npt.NDArray[Any]
    """(samples, channels), whole numbers."""
    padding: int | None
    """Number that marks a sample that was not recorded; None: all were recorded."""
    bits: int
    """Bits of a stored number."""
    signed: bool


_KINDS = {"SB": "<i1", "UB": "<u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}


def _samples(dataset: Any, number: int, name: str) -> _Samples:
    """Return the samples of a group as they are stored.

    Count, size and length are checked before pydicom unpacks them.
    """
    from pydicom.waveforms import multiplex_array

    group = dataset.WaveformSequence[number]
    interpretation = str(group.get("WaveformSampleInterpretation", "nothing")).strip()
    kind = _KINDS.get(interpretation)
    if kind is None:
        raise ScanError(
            f"{name}: stores its ECG as {interpretation}, which is not read. Export the page as "
            "PNG."
        )
    bits = 8 * np.dtype(kind).itemsize
    group.WaveformBitsAllocated = allocated = int(group.get("WaveformBitsAllocated", bits) or bits)
    channels, count = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    length, expected = len(group.get("WaveformData", b"") or b""), count * channels * bits // 8
    if allocated != bits or count < 1 or channels < 1 or not expected <= length <= expected + 1:
        raise ScanError(
            f"{name}: is a DICOM file whose ECG is cut short or of another length than it says. "
            "Export it again."
        )
    if len(group.ChannelDefinitionSequence) != channels:
        raise ScanError(
            f"{name}: describes {len(group.ChannelDefinitionSequence)} of its {channels} channels. "
            f"{_EXPORT_AGAIN}"
        )
    if _length(group, name) > LONGEST + 1:
        raise _too_long(name, _length(group, name))
    return _Samples(
        multiplex_array(dataset, number, as_raw=True), _padding(group, kind), bits, kind[1] == "i"
    )


def _padding(group: Any, kind: str) -> int | None:
    padding = group.get("WaveformPaddingValue")
    if isinstance(padding, bytes):
        size = np.dtype(kind).itemsize
        return int(np.frombuffer(padding[:size], kind)[0]) if len(padding) >= size else None
    if padding is not None:
        return int(padding)
    # Even where no padding is stated, the smallest number of all is no voltage: 82 mV at the usual
    # 2.5 uV.
    return int(np.iinfo(kind).min) if kind in ("<i2", "<i4") else None


def _channel_numbers(
    channel: Any, column: npt.NDArray[Any], samples: _Samples, name: str
) -> npt.NDArray[np.float64]:
    """Return a channel's numbers, NaN where none was recorded.

    Numbers with fewer bits than stored are sign-extended.
    """
    values = column.astype(np.int64)
    recorded = (
        values != samples.padding if samples.padding is not None else np.ones(values.shape, bool)
    )
    bits = int(channel.get("WaveformBitsStored", samples.bits) or samples.bits)
    if samples.signed and 1 < bits < samples.bits:
        half = 1 << (bits - 1)
        measured = values[recorded]
        if measured.size and not (measured.min() >= -half and measured.max() < half):
            if measured.min() < 0 or measured.max() >= 2 * half:
                raise ScanError(
                    f"{name}: says that its ECG has {bits} bits, and holds larger numbers. "
                    f"{_EXPORT_AGAIN}"
                )
            extended = np.where(values >= half, values - 2 * half, values)
            # Unsigned numbers around the middle of the range would jump by all of it with each
            # crossing.
            if np.abs(np.diff(extended[recorded])).sum() < np.abs(np.diff(measured)).sum():
                values = extended
    return np.where(recorded, values.astype(np.float64), np.nan)


def _to_little_endian(dataset: Any) -> None:
    """Swap the bytes of a big endian data set's samples, by the word length of its VR.

    pydicom leaves them as they are.
    """
    if dataset.original_encoding[1] is not False:
        return
    for group in dataset.WaveformSequence:
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


# --- units ----------------------------------------------------------------------------------------


_UNITS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}
_UNITS |= {"volt": 1e3, "millivolt": 1.0, "microvolt": 1e-3, "nanovolt": 1e-6}


def _millivolts(
    channel: Any, values: npt.NDArray[np.float64], name: str
) -> npt.NDArray[np.float64]:
    """Return millivolts: samples times sensitivity and its correction, plus the baseline, in their
    unit.

    PS3.3 C.10.9.1.4.2 and C.10.9.1.4.5.
    """
    scale = _unit(channel)
    step = channel.get("ChannelSensitivity")
    if step is None or not math.isfinite(float(step)) or float(step) == 0:
        raise ScanError(
            f"{name}: does not say how many millivolts a step of its ECG is (its channel "
            f"sensitivity is missing). {_EXPORT_AGAIN}"
        )
    if scale is None:
        raise ScanError(f"{name}: does not say in which unit its ECG is stored. {_EXPORT_AGAIN}")
    factor = float(step) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
    return (values * factor + float(channel.get("ChannelBaseline", 0) or 0)) * scale


def _unit(channel: Any) -> float | None:
    """Return the millivolts of a channel's unit: by its code, or by its meaning where the code is a
    maker's own."""
    units = channel.get("ChannelSensitivityUnitsSequence")
    for keyword in ("CodeValue", "CodeMeaning") if units else ():
        unit = str(units[0].get(keyword, "") or "").strip()
        # Both micro signs, also in a wrong character set: no other prefix is outside ASCII.
        unit = re.sub(r"^[^\x00-\x7f]+(?=v)", "u", unit, flags=re.IGNORECASE).lower()
        if (scale := _UNITS.get(unit.removesuffix("s") if len(unit) > 3 else unit)) is not None:
            return scale
    return None


# --- lead names -----------------------------------------------------------------------------------


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
"""Start of the MDC codes as one number: 2:1 is 131073."""
_LEAD_WORD = r"lead|leads|ableitung|abl\.?|d[eé]rivation|derivaci[oó]n|deriva[cç][aã]o"
_BEFORE = rf"(?:mdc_ecg_lead_|(?:ecg|ekg)[ _]|)(?:(?:{_LEAD_WORD})[ _]*)?"
_NAME = re.compile(
    rf"{_BEFORE}(-?avr|av[lf]|[vc][1-9]r?|r[vc][1-9]|d?i{{1,3}}|d[123]|[xyz])(?![\w+])(?!\s*[-/–]\s*\w)"
)


def _lead_name(channel: Any) -> str | None:
    """Return a channel's lead: by its code, or where that is a maker's own, by its meaning, label,
    or MDC name."""
    source = channel.get("ChannelSourceSequence")
    texts = []
    if source:
        code = str(source[0].get("CodeValue", "") or "").strip()
        number = int(m[1]) if (m := _CODE.fullmatch(code)) else None
        if number is None and code.isdecimal() and _BLOCK < int(code) < _BLOCK + 256:
            number = int(code) - _BLOCK
        if number:  # 2:0 is a lead without a name
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
    """Return the lead that a text names: `Lead I`, `DI`, `D1`, `aVR`, `C1`, `V4R`,
    `MDC_ECG_LEAD_V2`; None for any other."""
    match = _NAME.match(text.strip().lower())
    if match is None:
        return None
    lead = match[1].upper().replace("C", "V")
    if lead.startswith("D"):
        lead = "I" * int(lead[1]) if lead[1].isdecimal() else lead[1:]
    if lead.startswith("RV"):
        lead = f"{lead[1:]}R"
    return lead.replace("AV", "aV")


def _channel_title(channel: Any) -> str:
    """Return the title of a channel that is no lead, for people."""
    source = channel.get("ChannelSourceSequence")
    texts = [
        channel.get("ChannelLabel", ""),
        *(source[0].get(k, "") for k in ("CodeMeaning", "CodeValue") if source),
    ]
    title = next((" ".join(str(t).split()) for t in texts if str(t or "").strip()), "")
    printable = "".join(c for c in title if c.isprintable())[:40]
    return f'channel "{printable}"' if printable else "a channel without a name"
