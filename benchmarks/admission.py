"""Measure reading, rectifying and judging on the real pages that lie next to the checkout.

`python benchmarks/admission.py [POINT...]`. Points: corners, turns, identical, grid, verdicts,
thresholds, traces, time, curve; all of them by default. Each prints its lines and adds them to
`.cache/admission.json`, so that they may be run one by one. Hostile files are read by
`benchmarks/hostile.py`; what the trace adds to the verdict is measured by
`benchmarks/admission_by_trace.py`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from threshold_fit import midway, refused
from trace_agreement import agreement, drawn_reference, trace_mask

from calibration.synthetic.distortions import DISTORTIONS, blur, glare, moire, pale, shadow, small
from calibration.synthetic.pages import Page as SyntheticPage
from calibration.synthetic.pages import page_at
from pulse_edge.errors import PulseEdgeError
from pulse_edge.measurement import admission as by_trace
from pulse_edge.page import admission, reader, rectify
from pulse_edge.page.quality import Quality
from pulse_edge.page.quality_limits import LIMITS

ECG = ROOT.parent / "shared" / "ecg"
Array = npt.NDArray[Any]
TURNS = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}
INCOMPLETE = {
    "eik_00005.jpg": "leads",
    "eik_00008.jpg": "leads",
    "eik_00007.png": "cut off",
    "eik_00045.jpg": "cut off",
}
"""Pages that MANIFEST.csv calls incomplete or cropped, and the check that must warn."""


@lru_cache(maxsize=1)
def files() -> list[Path]:
    with open(ECG / "MANIFEST.csv", newline="") as table:
        names = [row["file"] for row in csv.DictReader(table)]
    return [ECG / n for n in names if n.startswith(("images/", "negatives/"))]


@dataclass(frozen=True)
class PageFacts:
    """The facts of a checked page, without its pictures."""

    sheet: rectify.Sheet
    frame: Array | None
    grid: rectify.Grid | None
    untouched: bool
    quality: Quality


@cache
def checked(path: Path, turn: int = 0) -> PageFacts:
    """Check a real file, turned by `turn` degrees clockwise beforehand."""
    page = reader.read(path)
    if turn:
        page = reader.Page(page.image.transpose(TURNS[turn]), page.sha256, page.name)
    done = by_trace.check(page).checked
    flat = done.flat
    return PageFacts(flat.sheet, flat.frame, flat.grid, flat.image is page.image, done.quality)


def pages(*kinds: str) -> list[Path]:
    return [p for p in files() if p.parent.name in kinds]


def half(path: Path) -> str:
    """Which half a file belongs to, by its name's hash."""
    return "even" if hashlib.sha256(path.name.encode()).digest()[0] % 2 == 0 else "odd"


# --- the points -----------------------------------------------------------------------------------


def corners() -> Iterator[str]:
    marked = json.loads((ECG / "CORNERS.json").read_text())
    errors: dict[bool, list[float]] = {True: [], False: []}
    areas = []
    for path in pages("photo"):
        truth, facts = marked[path.name], checked(path)
        if truth["corners"] is None:
            areas.append((1.0 if facts.sheet.corners is None else _area(facts), path.name))
            continue
        if facts.sheet.corners is None:
            yield f"{path.name}: no sheet detected"
            continue
        off = np.linalg.norm(np.array(truth["corners"]) - np.array(facts.sheet.corners), axis=1)
        for error, inside in zip(
            off / np.hypot(*truth["image_size"]), truth["inside"], strict=True
        ):
            errors[inside].append(100 * float(error))
    for inside, what in ((True, "inside the picture"), (False, "outside it")):
        e = errors[inside]
        yield (
            f"corners {what}: {len(e)}, mean {np.mean(e):.2f} %, worst {max(e):.2f} % of the "
            "diagonal"
        )
    yield (
        f"cropped photographs: {len(areas)}, least share of the area {100 * min(areas)[0]:.1f} % "
        f"({min(areas)[1]})"
    )


def _area(page: PageFacts) -> float:
    quad = np.array(page.sheet.corners, np.float32)
    return float(cv2.contourArea(quad)) / float(
        cv2.contourArea(np.asarray(page.frame).astype(np.float32))
    )


def turns() -> Iterator[str]:
    skews = []
    for group in ("even", "odd"):
        wrong, silent, warned, margins, count = [], [], 0, [], 0
        for path in pages("photo", "render", "scan"):
            if half(path) != group:
                continue
            for turn in (0, 90, 180, 270):
                facts, count = checked(path, turn), count + 1
                name, warns = (
                    f"{path.name}@{turn}",
                    "orientation" in [r.check for r in facts.quality.reasons],
                )
                margins.append((facts.quality.facts["orientation"], name))
                warned += warns
                if facts.sheet.rotation != (360 - turn) % 360:
                    wrong.append(name)
                    silent += [] if warns else [name]
                if facts.sheet.skew_degrees is not None:
                    skews.append((abs(facts.sheet.skew_degrees), path.name))
        least = ", ".join(f"{name} {margin:.1f}" for margin, name in sorted(margins)[:4])
        yield (
            f"{group} half: {count} turned pages, turned upright {count - len(wrong)}, warned "
            f"about {warned}, wrong without a "
            f"warning {len(silent)}; least log odds {least}"
            + (f"; wrong: {', '.join(wrong)}" if wrong else "")
        )
    yield (
        f"remaining skew: median {np.median([s for s, _ in skews]):.2f}, worst {max(skews)[0]:.2f} "
        f"degrees ({max(skews)[1]})"
    )


def identical() -> Iterator[str]:
    same, changed = 0, []
    for path in pages("render", "scan"):
        if checked(path).untouched:
            same += 1
        else:
            changed.append(path.name)
    yield f"upright renders and scans: {same} unchanged" + (
        f"; changed: {', '.join(changed)}" if changed else ""
    )


KNOWN_SCALE = {
    "kg_892067079_clean.png": 2200 / 279.4,
    "kg_892067079_bwscan.png": 2132 / 279.4,
    "eik_00053.png": 2200 / 279.4,
    "ohsu_fullScan.png": 2200 / 279.4,
    "cinc_00005.png": 2200 / 279.4,
    "ptbxl_00009.pdf": 300 / 25.4,
}
"""Pixels per millimetre of letter pages of known width, and of a PDF page rendered at 300 dpi."""


def grid() -> Iterator[str]:
    for name, truth in KNOWN_SCALE.items():
        path = next(p for p in files() if p.name == name)
        grid = checked(path).grid
        text = (
            "none"
            if grid is None
            else f"{grid.pixels_per_mm:.3f}, {100 * (grid.pixels_per_mm / truth - 1):+.1f} %"
        )
        yield f"{name}: {truth:.3f} pixels/mm, measured {text}"
    errors = []
    for n in range(40):
        synthetic = page_at(77, n)
        if synthetic.style.grid == "none":
            continue
        measured = admission.check(
            reader.Page(Image.fromarray(synthetic.image), "", f"synthetic {n}")
        ).flat.grid
        errors.append(
            1.0 if measured is None else abs(measured.pixels_per_mm / synthetic.px_per_mm - 1)
        )
    e = np.array(errors)
    yield (
        f"synthetic pages with a grid: {len(e)}, within 2 %: {(e < 0.02).sum()}, within 5 %: "
        f"{(e < 0.05).sum()}, no grid: {(e == 1).sum()}"
    )


def verdicts() -> Iterator[str]:
    for group in ("even", "odd"):
        names_by_verdict: dict[str, list[str]] = {}
        for path in files():
            if half(path) != group:
                continue
            kind = (
                "near misses"
                if path.parent.name == "near"
                else "no ECG"
                if path.parent.name == "negatives"
                else "pages"
            )
            try:
                judged = checked(path).quality
            except PulseEdgeError:
                names_by_verdict.setdefault(f"{kind}: unreadable", []).append(path.name)
                continue
            if path.name in INCOMPLETE:
                text = INCOMPLETE[path.name] in [r.check for r in judged.reasons]
                names_by_verdict.setdefault(
                    f"incomplete: {'named' if text else 'NOT NAMED'}", []
                ).append(path.name)
                continue
            names_by_verdict.setdefault(f"{kind}: {judged.verdict}", []).append(path.name)
        for what, names in sorted(names_by_verdict.items()):
            shown = (
                ""
                if what.startswith(("pages: good", "no ECG: refused"))
                else f" ({', '.join(names)})"
            )
            yield f"{group} half, {what}: {len(names)}{shown}"


def traces() -> Iterator[str]:
    rows = []
    for path in pages("photo"):
        if path.name.startswith("p2p_"):
            rows.append((path.name, *_pair(path, drawn_reference(path.name[4:9]))))
    clean = next(p for p in files() if p.name == "kg_892067079_clean.png")
    other = next(p for p in files() if p.name == "kg_892067079_bwscan.png")
    rows.append((other.name, *_pair(other, trace_mask(admission.check(reader.read(clean))))))
    for name, before, after in rows:
        yield f"{name}: trace correlation {before:.3f} before, {after:.3f} after"
    b, a = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    yield (
        f"pairs: {len(rows)}, better after: {(a > b).sum()}; "
        f"median {np.median(b):.3f} -> {np.median(a):.3f}, "
        f"worst {b.min():.3f} -> {a.min():.3f}"
    )


def _pair(path: Path, reference: Array) -> tuple[float, float]:
    page = reader.read(path)
    return agreement(reference, trace_mask(admission.check(page, straighten=False))), agreement(
        reference, trace_mask(admission.check(page))
    )


def timing() -> Iterator[str]:
    cv2.setNumThreads(1)
    big = Image.open(next(p for p in files() if p.name == "p2p_01924.jpg")).convert("RGB")
    clean = Image.open(next(p for p in files() if p.name == "kg_892067079_clean.png")).convert(
        "RGB"
    )
    cases = {"12-megapixel photograph": big.resize((4618, 2600)), "2200 x 1700 scan": clean}
    for name, image in cases.items():
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        best = np.inf
        for _ in range(5):
            start = time.process_time()
            by_trace.check(reader.read(buffer.getvalue()))
            best = min(best, time.process_time() - start)
        yield f"{name}: {best:.2f} s of one core, including reading"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "40mp.jpg"
        big.resize((8430, 4746)).save(path, "JPEG", quality=90)
        yield (
            f"40 megapixels: {_peak(path):.0f} MiB at the peak, "
            f"{platform.processor() or platform.machine()}"
        )


def _peak(path: Path) -> float:
    """Return the peak memory in MiB of a process that reads and checks a file; Linux only."""
    code = (
        "import cv2, sys\nfrom pulse_edge.measurement import admission\n"
        "from pulse_edge.page import reader\ncv2.setNumThreads(1)\n"
        "admission.check(reader.read(sys.argv[1]))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if "
        "line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(done.stdout) / 1024


# --- thresholds -----------------------------------------------------------------------------------


FITTED = ("ecg", "resolution", "sharpness", "contrast", "glare", "shadow", "moire")
"""The checks whose refusal is a matter of degree; 3 leads is a count."""


def thresholds() -> Iterator[str]:
    """Each refusal's threshold by a rule from one half of the pages, applied to the other half.

    The rule: half-way, in logarithms (`ecg` linearly), from the worst complete legible page of the
    half to the mildest page of the half that must be refused: files without an ECG for `ecg`, for
    the other checks two synthetic pages distorted with full strength. Where those overlap: at the
    worst legible page, because no legible page may be refused.
    """
    legible = {
        g: [
            checked(p).quality.facts
            for p in pages("photo", "render", "scan")
            if half(p) == g and p.name not in INCOMPLETE
        ]
        for g in ("even", "odd")
    }
    bad = {"even": _unfit("even", 0), "odd": _unfit("odd", 2)}
    present = {name: float(LIMITS[name].refuses or 0) for name in FITTED}
    for one, other in (("even", "odd"), ("odd", "even")):
        fitted = {name: midway(name, legible[one], bad[one][name]) for name in FITTED}
        yield f"from the {one} half: " + ", ".join(
            f"{name} {limit:.3g}" for name, limit in fitted.items()
        )
        for what, limits in (
            (f"these on the {other} half", fitted),
            (f"the present ones on the {other} half", present),
        ):
            wrong = sum(
                any(refused(name, f, limits[name]) for name in FITTED) for f in legible[other]
            )
            passed = {n: [f for f in bad[other][n] if not refused(n, f, limits[n])] for n in FITTED}
            text = ", ".join(f"{n} {len(p)} of {len(bad[other][n])}" for n, p in passed.items())
            yield f"{what}: {wrong} of {len(legible[other])} legible pages refused; admitted {text}"


def _unfit(group: str, first: int) -> dict[str, list[dict[str, float]]]:
    """Return the facts of pages that must be refused, by the check that must refuse them."""
    out: dict[str, list[dict[str, float]]] = {name: [] for name in FITTED}
    for path in (p for p in pages("negatives", "near") if half(p) == group):
        try:
            out["ecg"].append(checked(path).quality.facts)
        except PulseEdgeError:  # unreadable
            continue
    for name, distort in {
        "resolution": small,
        "sharpness": blur,
        "contrast": pale,
        "glare": glare,
        "shadow": shadow,
        "moire": moire,
    }.items():
        for synthetic in _clean(first + 2)[first:]:
            distorted = Image.fromarray(distort(synthetic.image, 1.0, np.random.default_rng(0)))
            out[name].append(admission.check(reader.Page(distorted, "", name)).quality.facts)
    return out


# --- curve ----------------------------------------------------------------------------------------


def _clean(count: int) -> list[SyntheticPage]:
    """Return the first synthetic pages with a grid of lines, twelve leads and a strip."""
    synthetic = (page_at(5, n) for n in range(200))
    return list(
        islice(
            (p for p in synthetic if p.style.grid == "lines" and p.style.layout == "3x4+1"), count
        )
    )


def curve(count: int = 3) -> Iterator[str]:
    """Distortions of rising strength on clean synthetic pages: verdicts, and the trace's
    correlation with the clean page."""
    clean = _clean(count)
    pages_ = [admission.check(reader.Page(Image.fromarray(p.image), "", "clean")) for p in clean]
    for name, distort in DISTORTIONS.items():
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            verdicts, agreements = [], []
            for n, (synthetic, before) in enumerate(zip(clean, pages_, strict=True)):
                distorted = distort(synthetic.image, strength, np.random.default_rng(n))
                after = admission.check(reader.Page(Image.fromarray(distorted), "", name))
                verdicts.append(after.quality.verdict[0])
                agreements.append(agreement(trace_mask(before), trace_mask(after)))
            yield (
                f"{name} {strength:.1f}: {''.join(sorted(verdicts))}, correlation "
                f"{np.median(agreements):.2f}"
            )


POINTS = {
    "corners": corners,
    "turns": turns,
    "identical": identical,
    "grid": grid,
    "verdicts": verdicts,
    "thresholds": thresholds,
    "traces": traces,
    "time": timing,
    "curve": curve,
}


def main() -> None:
    cache = ROOT / ".cache" / "admission.json"
    cache.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:] or POINTS:
        lines = []
        for line in POINTS[name]():
            lines.append(line)
            print(f"{name}: {line}", flush=True)
        results = json.loads(cache.read_text()) if cache.exists() else {}
        cache.write_text(json.dumps(results | {name: lines}, indent=1))


if __name__ == "__main__":
    main()
