"""Measure what the trace adds to the verdict on a page.

`python benchmarks/admission_by_trace.py [POINT...]`. Points: leads (the real pages next to the
checkout), pieces (recordings as parts of pages), drawn (synthetic pages turned and mirrored), time;
all of them by default. Each verdict stands next to that of the picture alone.
"""

from __future__ import annotations

import csv
import io
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calibration.synthetic import draw, synthesize
from calibration.synthetic.style import LAYOUTS, NO_NAMES, random_style
from pulse_edge.errors import PulseEdgeError
from pulse_edge.measurement import admission as by_trace
from pulse_edge.measurement.consistency import residuals
from pulse_edge.measurement.signal import LEADS
from pulse_edge.page import admission, reader

ECG = ROOT.parent / "shared" / "ecg"
Array = npt.NDArray[Any]

SHORT_OF_LEADS = {"eik_00005.jpg", "eik_00008.jpg", "single_lead_029-62602410.png"}
"""Pages that the manifests call incomplete, or a single lead."""
CLIPPED = {"eik_00007.png", "eik_00008.jpg", "eik_00045.jpg", "single_lead_029-62602410.png"}
"""Pages that the manifests call cropped, clipped, or a close-up."""


def leads() -> Iterator[str]:
    """Verdict and reasons of every real page by its picture alone, and with its trace."""
    truth = {"leads": SHORT_OF_LEADS, "cut off": CLIPPED}
    wrong: dict[tuple[str, str], list[str]] = {}
    for path in every_page():
        try:
            page = reader.read(path)
        except PulseEdgeError:
            continue
        alone, final = admission.check(page).quality, by_trace.check(page).checked.quality
        if path.parent.name == "negatives":
            if final.verdict != "refused":
                wrong.setdefault(("with trace", "no ECG admitted"), []).append(path.name)
            continue
        words = [f"{q.verdict} {q.leads} {[r.check for r in q.reasons]}" for q in (alone, final)]
        yield f"{path.name}: {words[0]} -> {words[1]}"
        for how, judged in (("alone", alone), ("with trace", final)):
            named = {r.check for r in judged.reasons}
            for check, expected in truth.items():
                if judged.leads and (check in named) != (path.name in expected):
                    kind = "missing" if path.name in expected else "false"
                    wrong.setdefault((how, f"{kind} {check}"), []).append(path.name)
    for (how, what), names in sorted(wrong.items()):
        yield f"{how}, {what}: {len(names)} ({', '.join(names)})"


def every_page() -> Iterator[Path]:
    """The files of both manifests that show pages, or no ECG."""
    for name in ("MANIFEST.csv", "MANIFEST_more.csv"):
        with open(ECG / name, newline="") as table:
            names = [row["file"] for row in csv.DictReader(table)]
        yield from (ECG / n for n in names if n.startswith(("images/", "negatives/")))


# --- pieces of pages ------------------------------------------------------------------------------

NOISE_MV = 0.03
PIECES = {
    "3x4+1, complete": ("3x4+1", slice(0, None), 1.0, "3x4"),
    "6x2, complete": ("6x2", slice(0, None), 1.0, "6x2"),
    "12x1, complete": ("12x1", slice(0, None), 1.0, "12x1"),
    "3x4+1 without its first row": ("3x4+1", slice(1, None), 1.0, "3x4"),
    "upper half of 6x2": ("6x2", slice(0, 3), 1.0, "3x4"),
    "lower half of 6x2": ("6x2", slice(3, 6), 1.0, "3x4"),
    "left half of 6x2": ("6x2", slice(0, 6), 0.5, "6x2"),
    "upper quarter of 12x1": ("12x1", slice(0, 3), 1.0, "3x4"),
    "upper half of 12x1": ("12x1", slice(0, 6), 1.0, "6x2"),
    "lower half of 12x1": ("12x1", slice(6, 12), 1.0, "6x2"),
}
"""Part of a page -> its layout, the rows and the share of the width that remain, and the layout for
which they are taken."""


def pieces() -> Iterator[str]:
    """Does the trace tell complete pages from parts of pages that have as many rows?"""
    rng = np.random.default_rng(0)
    counts: dict[str, list[bool | None]] = {name: [] for name in PIECES}
    for file in ("ludb_dev", "ptbxl_cases_dev"):
        with np.load(ECG / f"{file}.npz") as stored:
            signals = stored["signal_uV"][::2] / 1000
        for signal in signals:
            noisy = signal + rng.normal(0, NOISE_MV, signal.shape)
            for name, piece in PIECES.items():
                laws = residuals(_as_named(noisy, *piece))
                counts[name].append(by_trace.obeys_laws(laws))
    for name, answers in counts.items():
        yes, no = answers.count(True), answers.count(False)
        yield f"{name}: complete {yes}, leads missing {no}, not clear {answers.count(None)}"


def _as_named(signal: Array, layout: str, rows: slice, share: float, taken_for: str) -> Array:
    """What remains of a page, under the names of the layout that it is taken for."""
    lines = []
    for row in LAYOUTS[layout][rows]:
        cuts = np.linspace(0, signal.shape[1], len(row) + 1).astype(int)
        parts = zip(row, itertools.pairwise(cuts), strict=True)
        lines.append(np.concatenate([signal[LEADS.index(lead), a:b] for lead, (a, b) in parts]))
    length = round(share * signal.shape[1])
    named = np.full((len(LEADS), length), np.nan, np.float32)
    for line, row in zip(lines, LAYOUTS[taken_for], strict=False):
        cuts = np.linspace(0, length, len(row) + 1).astype(int)
        for lead, (a, b) in zip(row, itertools.pairwise(cuts), strict=True):
            named[LEADS.index(lead), a:b] = line[a:b] - np.median(line[a:b])
    return named


# --- turned and mirrored pages --------------------------------------------------------------------

CHANGES = {
    "as drawn": (lambda a: a, (0, False)),
    "half a turn": (lambda a: a[::-1, ::-1], (180, False)),
    "mirrored": (lambda a: a[:, ::-1], (0, True)),
    "upside-down mirror image": (lambda a: a[::-1], (180, True)),
}


def drawn(count: int = 6) -> Iterator[str]:
    """Synthetic pages of each layout with and without print, turned and mirrored."""
    counts: dict[tuple[str, str, str], int] = {}
    for layout, print_, n in itertools.product(LAYOUTS, ("print", "no print"), range(count)):
        page = _page_of(layout, n, print_=print_ == "print")
        for what, (change, expected) in CHANGES.items():
            picture = Image.fromarray(np.ascontiguousarray(change(page)))
            for how in ("alone", "with trace"):
                result = _checked_how(picture, how)
                outcome = _outcome(result, expected, what)
                counts[how, what, outcome] = counts.get((how, what, outcome), 0) + 1
                if outcome not in ("corrected", "untouched and good"):
                    yield f"{layout} {n}, {print_}, {what}, {how}: {outcome}"
    for (how, what, outcome), number in sorted(counts.items()):
        yield f"{what}, {how}: {outcome} {number}"


def _page_of(layout: str, n: int, *, print_: bool) -> Array:
    rng = np.random.default_rng((20, list(LAYOUTS).index(layout), n))
    recording = synthesize(rng)
    style = random_style(rng, [layout])
    if not print_:
        style = replace(style, names=NO_NAMES, header=(), footer=())
    return draw(recording, style).image


def _checked_how(picture: Image.Image, how: str) -> admission.CheckedPage:
    page = reader.Page(picture, "", "drawn")
    return by_trace.check(page).checked if how == "with trace" else admission.check(page)


def _outcome(page: admission.CheckedPage, expected: tuple[int, bool], what: str) -> str:
    """What has become of a page that was turned or mirrored."""
    sheet, judged = page.flat.sheet, page.quality
    named = [r.check for r in judged.reasons]
    if (sheet.rotation, sheet.mirrored) == expected:
        if what != "as drawn":
            return "corrected"
        if judged.verdict == "good" and not page.flat.changed:
            return "untouched and good"
        return f"untouched, {judged.verdict} for {', '.join(named)}"
    if judged.verdict == "refused":
        return "refused"
    return "wrong, warned" if {"orientation", "mirrored"} & set(named) else "wrong, silent"


def timing() -> Iterator[str]:
    """Processor time of one core, including reading, of three pages."""
    cv2.setNumThreads(1)
    photo = io.BytesIO()
    big = Image.open(ECG / "images" / "photo" / "p2p_01924.jpg").convert("RGB")
    big.resize((4618, 2600)).save(photo, "JPEG", quality=92)
    images = ECG / "images"
    cases = {
        "clean render, 2200 x 1700": (images / "render/kg_892067079_clean.png").read_bytes(),
        "scan, 1566 x 1130": (images / "scan/jmao_test.jpg").read_bytes(),
        "12-megapixel photograph": photo.getvalue(),
    }
    for name, data in cases.items():
        seconds = [_seconds(check, data) for check in (admission.check, by_trace.check)]
        yield f"{name}: {seconds[0]:.2f} s by its picture alone, {seconds[1]:.2f} s with its trace"


def _seconds(check: Any, data: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        check(reader.read(data))
        best = min(best, time.process_time() - start)
    return best


POINTS = {"leads": leads, "pieces": pieces, "drawn": drawn, "time": timing}


def main() -> None:
    for name in sys.argv[1:] or POINTS:
        for line in POINTS[name]():
            print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
