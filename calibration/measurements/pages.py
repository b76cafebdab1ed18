"""A page whose signal is known, and how synthetic pages and photographs become one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.measurements.recordings import MarkedRecording, Signals, identity, open_file
from calibration.synthetic.findings import Labels
from calibration.synthetic.pages import Page, draw
from calibration.synthetic.recording import SAMPLES, UNKNOWN, Recording
from calibration.synthetic.style import PageStyle
from calibration.synthetic.wfdb import read_header, read_signals
from pulse_edge.errors import BenchError
from pulse_edge.measurement.signal import LEADS, TracedSignal

COLUMN = 1250
"""Samples of a column of the photographed pages: 2.5 s."""


@dataclass(frozen=True, eq=False)
class PrintedSignal:
    """What a page shows, on the time axis of its traces."""

    millivolts: Signals
    """(12, samples); NaN where a lead is not printed."""
    strips: tuple[tuple[str, Signals], ...] = ()
    """Rhythm strips: lead and (samples,)."""
    layout: str = ""

    def as_traced(self) -> TracedSignal:
        """The same signal as a perfect tracing would return it."""
        certain = (1.0,) * len(LEADS)
        return TracedSignal(
            self.millivolts, certain, 25.0, 10.0, True, True, self.layout, self.strips
        )


@dataclass(frozen=True, eq=False)
class TruthPage:
    """One page of a set."""

    name: str
    group: str
    """The recording; pages of one recording are drawn together by the bootstrap."""
    picture: bytes | None
    """The file; None where the signal itself is measured."""
    printed: PrintedSignal | None
    """None where no signal was published: `clean` is its stand-in."""
    clean: bytes | None = None
    """A clean picture of the same page; its own trace is the truth."""
    marks: Mapping[str, Any] = field(default_factory=dict)
    paced: bool = False
    kind: str = ""
    """Layout, distortion or scanner, by which the report tells pages of a set apart."""
    scale_printed: bool = True
    """False for unusual speed or gain without a calibration pulse: nothing on the page tells it."""


def whole(recording: MarkedRecording) -> TruthPage:
    """The recording itself: twelve leads over its whole time."""
    printed = PrintedSignal(recording.millivolts, (), "12x1")
    return TruthPage(
        recording.name, recording.name, None, printed, None, recording.marks, recording.paced
    )


def synthetic(
    recording: MarkedRecording, style: PageStyle
) -> tuple[NDArray[np.uint8], PrintedSignal]:
    """Draw a recording: pixels of the page, and what it shows."""
    shown = recording.millivolts[:, :SAMPLES]
    padding = ((0, 0), (0, SAMPLES - shown.shape[1]))
    millivolts = np.pad(shown, padding, constant_values=np.nan)
    labels = Labels(None, None, None)
    page = draw(Recording(millivolts, None, labels, UNKNOWN, source=recording.name), style)
    return page.image, _printed(page)


def _printed(page: Page) -> PrintedSignal:
    """The stretches of each lead that a synthetic page shows."""
    stop = max(trace.stop for trace in page.traces)
    body = np.full((len(LEADS), stop), np.nan, np.float32)
    strips: list[tuple[str, Signals]] = []
    columns = max(trace.column for trace in page.traces)
    for trace in page.traces:
        part = np.full(stop, np.nan, np.float32)
        part[trace.start : trace.stop] = page.recording.lead(trace.lead)[trace.start : trace.stop]
        if columns and trace.stop - trace.start == stop:
            strips.append((trace.lead, part))
        else:
            body[LEADS.index(trace.lead)] = part
    return PrintedSignal(body, tuple(strips), page.style.layout)


def scale_printed(style: PageStyle) -> bool:
    """Whether a page tells its speed and gain, by a pulse or by having the usual ones."""
    return style.pulse != "none" or (style.speed, style.gain) == (25.0, 10.0)


def encoded(pixels: NDArray[np.uint8], file_format: str = "PNG") -> bytes:
    """A page as a file; JPEG with the quality of phones."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, quality=90)
    return file.getvalue()


# --- photographs and scans that exist ---------------------------------------------------------


def photographs(folder: Path, name: str) -> Iterator[TruthPage]:
    """Photographs of printed 3x4 pages with a strip of lead II, with the signal that was printed.

    `NAME.json` names each picture (`file`) and says whether it `has_signal`; `NAME.npz` has the
    signals of those in the same order, and `valid`, true where a sample was printed.
    """
    file = open_file(folder / name)
    rows = [row for row in file.rows if row.get("has_signal")]
    if len(rows) != len(file.arrays["signal_uV"]) or "valid" not in file.arrays:
        raise BenchError(
            f"{file.path}: needs one signal for each row with has_signal, and an array valid; it "
            f"has {len(file.arrays['signal_uV'])} for {len(rows)} rows"
        )
    for index, row in enumerate(rows):
        millivolts = np.where(file.arrays["valid"][index], file.millivolts(index), np.nan)
        page = folder / str(row.get("file", ""))
        yield _photograph(page, identity(row), millivolts.astype(np.float32))


def photographed_records(folder: Path) -> Iterator[TruthPage]:
    """Photographs `images/photo/p2p_ID.jpg` of the WFDB records `records/paper2pulse/ID_hr.hea`."""
    for path in sorted((folder / "records" / "paper2pulse").glob("*.hea")):
        header = read_header(path)
        names = [channel.name.lower() for channel in header.channels]
        signals = read_signals(header)
        millivolts = np.stack([signals[names.index(lead.lower())] for lead in LEADS])
        record = path.stem.split("_")[0]
        picture = folder / "images" / "photo" / f"p2p_{record}.jpg"
        yield _photograph(picture, record, millivolts.astype(np.float32))


def _photograph(path: Path, record: str, millivolts: Signals) -> TruthPage:
    body = np.full(millivolts.shape, np.nan, np.float32)
    for n in range(len(LEADS)):
        part = slice(n // 3 * COLUMN, (n // 3 + 1) * COLUMN)
        body[n, part] = millivolts[n, part]
    strips = (("II", millivolts[LEADS.index("II")]),)
    printed = PrintedSignal(body, strips, "3x4+1")
    return TruthPage(path.stem, f"ptbxl-{int(record)}", _file(path), printed)


def scanned_pairs(folder: Path) -> Iterator[TruthPage]:
    """Real scans `images/scan/NAME_bwscan.png` of pages whose clean picture is
    `images/render/NAME_clean.png`."""
    for path in sorted((folder / "images" / "scan").glob("*_bwscan.png")):
        clean = folder / "images" / "render" / path.name.replace("_bwscan", "_clean")
        name = path.stem.removesuffix("_bwscan")
        page = TruthPage(path.stem, name, _file(path), None, _file(clean))
        yield replace(page, kind="real")


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be read ({error.strerror}); the picture that belongs to a signal is "
            "needed"
        ) from error
