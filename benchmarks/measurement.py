"""How well pages are traced: SNR and correlation against the signals that were printed.

    python benchmarks/measurement.py trace [--pages 40] [--seed 0] [--shared ../shared] [--sets clean,photos]

`clean`: recordings of LUDB and PTB-XL drawn in all layouts. `photos`: phone photographs of printed
recordings. The SNR of a page is the power of its leads over that of their errors, with a shift of
up to 0.2 s and an offset of each lead free. Pages without a pulse whose gain or speed is not the
usual one are counted apart: nothing on them tells the scale.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from calibration.synthetic.findings import Labels
from calibration.synthetic.pages import draw
from calibration.synthetic.recording import UNKNOWN, Recording
from calibration.synthetic.style import random_style
from calibration.synthetic.wfdb import read_header, read_signals
from pulse_edge.measurement.admission import trace
from pulse_edge.measurement.digitise import digitise
from pulse_edge.measurement.signal import LEADS, TracedSignal

Signals = npt.NDArray[np.float64]
SHIFT = 100
"""Samples by which a lead may be shifted: 0.2 s."""
VALID = 0.5
"""Score above which a lead counts as valid."""


@dataclass(frozen=True)
class Score:
    """One page."""

    name: str
    snr: float | None
    """dB; None where nothing was traced."""
    correlations: tuple[tuple[str, float, float], ...]
    """(lead, correlation, the tracer's own score)."""
    seconds: float
    scale_known: bool = True


def compared(truth: Signals, traced: npt.NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Power of the truth, power of the error, correlation, at the best shift; None where there is
    less than 0.2 s."""
    at = np.flatnonzero(np.isfinite(traced))
    best: tuple[float, float, float] | None = None
    for shift in range(-SHIFT, SHIFT + 1):
        place = at + shift
        inside = (place >= 0) & (place < len(truth))
        want, got = truth[place[inside]], traced[at[inside]].astype(np.float64)
        both = np.isfinite(want)
        if both.sum() < max(100, 0.7 * at.size):
            continue
        want, got = want[both] - want[both].mean(), got[both] - got[both].mean()
        power, error = float((want**2).sum()), float(((want - got) ** 2).sum())
        if best is None or error / max(power, 1e-9) < best[1] / max(best[0], 1e-9):
            best = (
                power,
                error,
                float((want * got).sum() / np.sqrt(max(power * (got**2).sum(), 1e-12))),
            )
    return best


def scored(
    name: str, truth: Signals, signal: TracedSignal, seconds: float, *, scale_known: bool = True
) -> Score:
    """Score the leads of a page; `truth` (12, samples) is NaN where nothing was printed."""
    powers, errors, correlations = [], [], []
    for n, lead in enumerate(LEADS):
        result = compared(truth[n], signal.millivolts[n]) if signal.millivolts.shape[1] else None
        if result is not None:
            powers.append(result[0])
            errors.append(result[1])
            correlations.append((lead, result[2], signal.scores[n]))
    snr = 10 * float(np.log10(sum(powers) / max(sum(errors), 1e-9))) if powers else None
    return Score(name, snr, tuple(correlations), seconds, scale_known)


def clean(shared: Path, pages: int, seed: int) -> Iterator[Score]:
    """Recordings drawn in all layouts, traced with the scale of the drawing."""
    rng = np.random.default_rng(seed)
    signals = np.concatenate(
        [np.load(shared / "ecg" / f"{n}.npz")["signal_uV"] for n in ("ptbxl_cases_dev", "ludb_dev")]
    )
    for index, chosen in enumerate(rng.permutation(len(signals))[:pages]):
        mv = (signals[chosen] / 1000).astype(np.float32)
        record = Recording(mv, None, Labels(None, None, None), UNKNOWN, source=str(chosen))
        style = random_style(np.random.default_rng((seed, index)))
        page = draw(record, style)
        truth = np.full((len(LEADS), mv.shape[1]), np.nan)
        for t in page.traces[::-1]:  # the lead in the body over the one in a strip
            truth[LEADS.index(t.lead)] = np.nan
            truth[LEADS.index(t.lead), t.start : t.stop] = record.lead(t.lead)[t.start : t.stop]
        scale = None if style.grid == "none" else style.px_per_mm
        start = time.perf_counter()
        signal = digitise(page.image, scale, scale, {style.layout: 1.0}).signal
        expected = style.pulse != "none" or (style.speed, style.gain) == (25.0, 10.0)
        name = f"{chosen} {style.layout} {style.speed:g} mm/s {style.gain:g} mm/mV"
        yield scored(name, truth, signal, time.perf_counter() - start, scale_known=expected)


def photographed(shared: Path) -> Iterator[tuple[str, Signals]]:
    """Names of photographs, and the signals (12, samples) that were printed on them."""
    records = json.loads((shared / "ecg" / "photos_more_dev.json").read_text(encoding="utf-8"))[
        "records"
    ]
    packed = np.load(shared / "ecg" / "photos_more_dev.npz")
    with_signal = [r for r in records if r["has_signal"]]
    for entry, uv, valid in zip(with_signal, packed["signal_uV"], packed["valid"], strict=True):
        yield f"p2p_{entry['record']}", np.where(valid, uv / 1000.0, np.nan)
    for path in sorted((shared / "ecg" / "records" / "paper2pulse").glob("*.hea")):
        header = read_header(path)
        mv, names = read_signals(header), [c.name.lower() for c in header.channels]
        truth = np.full((len(LEADS), 5000), np.nan)
        for n, lead in enumerate(LEADS):
            part = slice(n // 3 * 1250, (n // 3 + 1) * 1250)
            truth[n, part] = mv[names.index(lead.lower())][part]
        yield f"p2p_{path.stem.split('_')[0]}", truth


def photos(shared: Path) -> Iterator[Score]:
    """Phone photographs through the whole of admission."""
    from pulse_edge.page import admission, reader

    for name, truth in photographed(shared):
        checked = admission.check(
            reader.read(
                Image.open(shared / "ecg" / "images" / "photo" / f"{name}.jpg").convert("RGB")
            )
        )
        start = time.perf_counter()
        signal = trace(checked).signal
        yield scored(name, truth, signal, time.perf_counter() - start)


def table(title: str, scores: list[Score]) -> None:
    """Print one set."""
    judged = [s for s in scores if s.scale_known]
    snr = np.array([s.snr for s in judged if s.snr is not None])
    leads = [c for s in judged for c in s.correlations]
    valid = [c for c in leads if c[2] > VALID]
    wrong = [c for c in valid if c[1] < 0.8]
    spread = (
        np.quantile(np.random.default_rng(0).choice(snr, (2000, snr.size)), 0.5, axis=1)
        if snr.size
        else np.zeros(1)
    )
    low, high = np.quantile(spread, [0.025, 0.975])
    median = float(np.median(snr)) if snr.size else float("nan")
    print(
        f"{title}: {len(judged)} pages, {len(scores) - len(judged)} more whose scale is not on the page"
    )
    print(
        f"  SNR median {median:.1f} dB [{low:.1f}, {high:.1f}], 1st decile {np.quantile(snr, 0.1) if snr.size else 0:.1f}"
    )
    print(f"  correlation median {np.median([c[1] for c in leads]) if leads else 0:.3f}")
    print(
        f"  valid leads {len(valid)} of {len(LEADS) * len(judged)}, with a correlation below 0.8: "
        f"{len(wrong)} ({len(wrong) / max(len(valid), 1):.1%})"
    )
    print(f"  nothing traced: {sum(s.snr is None for s in judged)} of {len(judged)}")
    print(
        f"  seconds median {np.median([s.seconds for s in scores]):.2f}, most {max(s.seconds for s in scores):.2f}"
    )
    for s in sorted(judged, key=lambda s: -99.0 if s.snr is None else s.snr)[:5]:
        print(f"  worst: {s.name}: {'nothing' if s.snr is None else f'{s.snr:.1f} dB'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=["trace"])
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--sets", default="clean,photos")
    options = parser.parse_args()
    for name in options.sets.split(","):
        scores = (
            clean(options.shared, options.pages, options.seed)
            if name == "clean"
            else photos(options.shared)
        )
        table(name, list(scores))


if __name__ == "__main__":
    main()
