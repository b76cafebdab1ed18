"""How far the score of a traced lead can be trusted on photographs that did not choose its limit.

    python benchmarks/trace_trust.py [--data ../shared/ecg] [--photos N]

For each limit: leads at or above it, and how many of those are wrong (a correlation with the
printed signal below 0.8). Then, for each photograph, the lowest limit with at most 1 % wrong leads
on all other photographs is applied to it.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from calibration.measurements.pages import TruthPage, photographed_records, photographs
from calibration.measurements.tracing import compare
from pulse_edge.measurement import admission, digitise, trust
from pulse_edge.measurement.signal import LEADS, TracedSignal
from pulse_edge.page import reader

LIMITS = np.round(np.arange(0.90, 0.991, 0.01), 2)
WRONG, MOST = 0.8, 0.01
"""Correlation below which a lead is wrong, and the largest share of wrong leads."""


@dataclass(frozen=True)
class Lead:
    """One lead that was traced, before any is left out."""

    photo: str
    score: float
    wrong: bool


class Recorder:
    """Keeps each signal before leads are left out, with the one that was reported."""

    def __init__(self) -> None:
        self.pairs: list[tuple[TracedSignal, TracedSignal]] = []

    def reported(self, signal: TracedSignal, *, layout_sure: bool = True) -> TracedSignal:
        """Stand in for `trust.reported`."""
        self.pairs.append((signal, trust.reported(signal, layout_sure=layout_sure)))
        return self.pairs[-1][1]


def leads_of(page: TruthPage, recorder: Recorder) -> Iterator[Lead]:
    """The judged leads of one photograph; none where nothing was traced."""
    if page.picture is None or page.printed is None:
        return
    recorder.pairs.clear()
    picture = Image.open(io.BytesIO(page.picture)).convert("RGB")
    final = admission.check(reader.read(picture)).trace.signal
    whole = next((before for before, after in recorder.pairs if after is final), None)
    if whole is None:
        return
    for lead, evidence in trust.evidence_of(whole).items():
        number = LEADS.index(lead)
        match = compare(page.printed.millivolts[number], whole.millivolts[number])
        if match is not None and evidence.whole >= trust.HIDDEN:
            yield Lead(page.name, trust.scored(evidence), match.correlation < WRONG)


def counted(leads: list[Lead], limit: float) -> tuple[int, int]:
    """Leads at or above a limit, and the wrong ones of them."""
    chosen = [lead.wrong for lead in leads if lead.score >= limit]
    return len(chosen), sum(chosen)


def held_out(leads: list[Lead]) -> tuple[int, int]:
    """The same, each photograph with the limit that all others choose."""
    total = wrong = 0
    for photo in sorted({lead.photo for lead in leads}):
        others = [lead for lead in leads if lead.photo != photo]
        counts = [counted(others, limit) for limit in LIMITS]
        fit = [limit for limit, (n, bad) in zip(LIMITS, counts, strict=True) if bad <= MOST * n]
        own = counted([lead for lead in leads if lead.photo == photo], fit[0] if fit else 1.0)
        total, wrong = total + own[0], wrong + own[1]
    return total, wrong


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "ecg")
    parser.add_argument("--photos", type=int, help="Photographs at most. [default: all]")
    options = parser.parse_args()
    recorder = Recorder()
    digitise.reported = recorder.reported  # type: ignore[assignment,attr-defined]
    pages = chain(photographs(options.data, "photos_more_dev"), photographed_records(options.data))
    leads = [x for page in islice(pages, options.photos) for x in leads_of(page, recorder)]
    print(f"{len(leads)} leads are judged, {sum(lead.wrong for lead in leads)} of them wrong")
    for limit in LIMITS:
        print("limit {:.2f}: {} leads, {} wrong".format(limit, *counted(leads, limit)))
    print("limit from the other photographs: {} leads, {} wrong".format(*held_out(leads)))


if __name__ == "__main__":
    main()
