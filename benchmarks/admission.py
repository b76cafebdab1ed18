"""`python benchmarks/intake.py [POINT...]`: measure reading, rectifying and judging on the real pages beside the checkout.

Points: corners, turns, identical, grid, gate, thresholds, traces, time, curve; all of them by default. Each prints its lines, and adds
them to `.cache/intake.json`, so that they may be run one by one. Hostile files are read by `benchmarks/hostile.py`.
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
from collections.abc import Callable, Iterator
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
sys.path.insert(0, str(ROOT))

from calibration.synthetic import wfdb
from calibration.synthetic.pages import Page as DrawnPage
from calibration.synthetic.pages import page_at
from pulse_edge.errors import PulseEdgeError
from pulse_edge.page import admission, reader, rectify
from pulse_edge.page.ink import Ink
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
"""What MANIFEST.csv calls incomplete or cropped, and the check that must say so."""


@lru_cache(maxsize=1)
def files() -> list[Path]:
    with open(ECG / "MANIFEST.csv", newline="") as table:
        names = [row["file"] for row in csv.DictReader(table)]
    return [ECG / n for n in names if n.startswith(("images/", "negatives/"))]


@dataclass(frozen=True)
class Found:
    """What is kept of a checked page: no pictures."""

    sheet: rectify.Sheet
    frame: Array | None
    grid: rectify.Grid | None
    untouched: bool
    quality: Quality


@cache
def found(path: Path, turn: int = 0) -> Found:
    """A real file, turned by hand beforehand."""
    page = reader.read(path)
    if turn:
        page = reader.Page(page.image.transpose(TURNS[turn]), page.sha256, page.name)
    done = admission.check(page)
    flat = done.flat
    return Found(flat.sheet, flat.frame, flat.grid, flat.image is page.image, done.quality)


def pages(*kinds: str) -> list[Path]:
    return [p for p in files() if p.parent.name in kinds]


def half(path: Path) -> str:
    """Which half a file belongs to, by its name's hash."""
    return "even" if hashlib.sha256(path.name.encode()).digest()[0] % 2 == 0 else "odd"


# ---------------------------------------------------------------------------------------------------------- the points


def corners() -> Iterator[str]:
    marked = json.loads((ECG / "CORNERS.json").read_text())
    errors: dict[bool, list[float]] = {True: [], False: []}
    kept = []
    for path in pages("photo"):
        truth, it = marked[path.name], found(path)
        if truth["corners"] is None:
            kept.append((1.0 if it.sheet.corners is None else _area(it), path.name))
            continue
        if it.sheet.corners is None:
            yield f"{path.name}: no sheet found"
            continue
        off = np.linalg.norm(np.array(truth["corners"]) - np.array(it.sheet.corners), axis=1)
        for error, inside in zip(
            off / np.hypot(*truth["image_size"]), truth["inside"], strict=True
        ):
            errors[inside].append(100 * float(error))
    for inside, what in ((True, "inside the picture"), (False, "outside it")):
        e = errors[inside]
        yield f"corners {what}: {len(e)}, mean {np.mean(e):.2f} %, worst {max(e):.2f} % of the diagonal"
    yield f"cropped photographs: {len(kept)}, least area kept {100 * min(kept)[0]:.1f} % ({min(kept)[1]})"


def _area(it: Found) -> float:
    quad = np.array(it.sheet.corners, np.float32)
    return float(cv2.contourArea(quad)) / float(
        cv2.contourArea(np.asarray(it.frame).astype(np.float32))
    )


def turns() -> Iterator[str]:
    skews = []
    for group in ("even", "odd"):
        wrong, silent, warned, margins, count = [], [], 0, [], 0
        for path in pages("photo", "render", "scan"):
            if half(path) != group:
                continue
            for turn in (0, 90, 180, 270):
                it, count = found(path, turn), count + 1
                name, warns = (
                    f"{path.name}@{turn}",
                    "orientation" in [r.check for r in it.quality.reasons],
                )
                margins.append((it.quality.facts["orientation"], name))
                warned += warns
                if it.sheet.rotation != (360 - turn) % 360:
                    wrong.append(name)
                    silent += [] if warns else [name]
                if it.sheet.skew_degrees is not None:
                    skews.append((abs(it.sheet.skew_degrees), path.name))
        least = ", ".join(f"{name} {margin:.1f}" for margin, name in sorted(margins)[:4])
        yield (f"{group} half: {count} turned pages, upright {count - len(wrong)}, warned about {warned}, wrong without a "
               f"warning {len(silent)}; least log odds {least}" + (f"; wrong: {', '.join(wrong)}" if wrong else ""))  # fmt: skip
    yield f"skew left: median {np.median([s for s, _ in skews]):.2f}, worst {max(skews)[0]:.2f} degrees ({max(skews)[1]})"


def identical() -> Iterator[str]:
    same, changed = 0, []
    for path in pages("render", "scan"):
        if found(path).untouched:
            same += 1
        else:
            changed.append(path.name)
    yield f"upright renders and scans: {same} untouched" + (
        f"; changed: {', '.join(changed)}" if changed else ""
    )


KNOWN_SCALE = {"kg_892067079_clean.png": 2200 / 279.4, "kg_892067079_bwscan.png": 2132 / 279.4,
               "eik_00053.png": 2200 / 279.4, "ohsu_fullScan.png": 2200 / 279.4, "cinc_00005.png": 2200 / 279.4,
               "ptbxl_00009.pdf": 300 / 25.4}  # fmt: skip
"""Pixels per millimetre of letter pages of known width, and of a page drawn at 300 dpi."""


def grid() -> Iterator[str]:
    for name, truth in KNOWN_SCALE.items():
        path = next(p for p in files() if p.name == name)
        grid = found(path).grid
        said = (
            "none"
            if grid is None
            else f"{grid.pixels_per_mm:.3f}, {100 * (grid.pixels_per_mm / truth - 1):+.1f} %"
        )
        yield f"{name}: {truth:.3f} pixels/mm, found {said}"
    errors = []
    for n in range(40):
        drawn = page_at(77, n)
        if drawn.style.grid == "none":
            continue
        seen = admission.check(
            reader.Page(Image.fromarray(drawn.image), "", f"drawn {n}")
        ).flat.grid
        errors.append(1.0 if seen is None else abs(seen.pixels_per_mm / drawn.px_per_mm - 1))
    e = np.array(errors)
    yield f"drawn pages with a grid: {len(e)}, within 2 %: {(e < 0.02).sum()}, within 5 %: {(e < 0.05).sum()}, none found: {(e == 1).sum()}"


def gate() -> Iterator[str]:
    for group in ("even", "odd"):
        verdicts: dict[str, list[str]] = {}
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
                judged = found(path).quality
            except PulseEdgeError:
                verdicts.setdefault(f"{kind}: unreadable", []).append(path.name)
                continue
            if path.name in INCOMPLETE:
                said = INCOMPLETE[path.name] in [r.check for r in judged.reasons]
                verdicts.setdefault(f"incomplete: {'named' if said else 'NOT NAMED'}", []).append(
                    path.name
                )
                continue
            verdicts.setdefault(f"{kind}: {judged.verdict}", []).append(path.name)
        for what, names in sorted(verdicts.items()):
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
            rows.append((path.name, *_pair(path, _reference(path.name[4:9]))))
    clean = next(p for p in files() if p.name == "kg_892067079_clean.png")
    other = next(p for p in files() if p.name == "kg_892067079_bwscan.png")
    rows.append((other.name, *_pair(other, _trace(admission.check(reader.read(clean))))))
    for name, before, after in rows:
        yield f"{name}: trace correlation {before:.3f} before, {after:.3f} after"
    b, a = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    yield (f"pairs: {len(rows)}, better after: {(a > b).sum()}; median {np.median(b):.3f} -> {np.median(a):.3f}, "
           f"worst {b.min():.3f} -> {a.min():.3f}")  # fmt: skip


PAGE_MM, FINE = (279.4, 215.9), 4


def _pair(path: Path, reference: Array) -> tuple[float, float]:
    page = reader.read(path)
    return _agree(reference, _trace(admission.check(page, straighten=False))), _agree(
        reference, _trace(admission.check(page))
    )


def _trace(page: admission.CheckedPage) -> Array:
    """The trace's mask at FINE pixels per millimetre of its own grid, softened by a millimetre.

    Not by the page's size: a print is rarely as large as what was printed, but its grid shrinks along.
    """
    pixels, g = np.asarray(page.flat.image), page.flat.grid
    across, down = (g.across, g.down) if g else (max(pixels.shape) / 270,) * 2
    ink = Ink(pixels, across, down, min(1.0, 4 / (across * down) ** 0.5), grid=g is not None)
    size = round(pixels.shape[1] / across * FINE), round(pixels.shape[0] / down * FINE)
    return cv2.GaussianBlur(
        cv2.resize(ink.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA), (0, 0), FINE
    )


def _reference(number: str) -> Array:
    """The page that the photographs' prints show, drawn from its signal: 3x4 and a strip of lead II."""
    header = wfdb.read_header(ECG / "records" / "paper2pulse" / f"{number}_hr.hea")
    record = dict(
        zip((c.name.upper() for c in header.channels), wfdb.read_signals(header), strict=True)
    )
    mask = np.zeros((round(PAGE_MM[1] * FINE), round(PAGE_MM[0] * FINE)), np.uint8)
    layout = (
        ("I", "aVR", "V1", "V4"),
        ("II", "aVL", "V2", "V5"),
        ("III", "aVF", "V3", "V6"),
        ("II",),
    )
    for y, row in zip((92.0, 127.5, 163.0, 196.0), layout, strict=True):
        for c, name in enumerate(row):
            mv = record[name.upper()]
            n = len(mv) // len(row)
            part = mv[c * n : (c + 1) * n]
            x = 15.3 + (c * n + np.arange(n)) / 500 * 25
            good = np.isfinite(part)
            if good.any():
                points = np.stack([x, y - 10 * part], axis=1)[good] * FINE * 16
                cv2.polylines(
                    mask, [np.round(points).astype(np.int32)], False, (255,), 1, cv2.LINE_AA, 4
                )
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), FINE)


def _agree(reference: Array, other: Array) -> float:
    """Pearson's correlation at the best shift, of up to 20 mm out of the picture."""
    y, x = (20 * FINE + max(0, n - m) for n, m in zip(reference.shape, other.shape, strict=True))
    padded = cv2.copyMakeBorder(other, y, y, x, x, cv2.BORDER_CONSTANT, value=0)
    return float(
        cv2.matchTemplate(
            padded.astype(np.float32), reference.astype(np.float32), cv2.TM_CCOEFF_NORMED
        ).max()
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
            admission.check(reader.read(buffer.getvalue()))
            best = min(best, time.process_time() - start)
        yield f"{name}: {best:.2f} s of one core, reading included"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "40mp.jpg"
        big.resize((8430, 4746)).save(path, "JPEG", quality=90)
        yield f"40 megapixels: {_peak(path):.0f} MiB at the peak, {platform.processor() or platform.machine()}"


def _peak(path: Path) -> float:
    """MiB that a process of its own holds at most while it reads and checks a file; Linux only."""
    code = (
        "import cv2, sys\nfrom pulse_edge.page import admission as intake, reader as scan\ncv2.setNumThreads(1)\n"
        "intake.check(scan.read(sys.argv[1]))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(done.stdout) / 1024


# ---------------------------------------------------------------------------------------------------------- thresholds


def pale(image: Array, s: float, dice: np.random.Generator) -> Array:
    return (255 - (255 - image.astype(np.float32)) * (1 - 0.95 * s)).astype(np.uint8)


FITTED = ("ecg", "resolution", "sharpness", "contrast", "glare", "shadow", "moire")
"""The checks whose refusal is a matter of degree; 3 leads is a count."""


def thresholds() -> Iterator[str]:
    """Each refusal's threshold by a rule from one half of the pages, applied to the other half.

    The rule: half way, in logarithms (`ecg` linearly), from the worst complete legible page of the half to the mildest
    page of the half that must be refused: files without an ECG for `ecg`, for the other checks two drawn pages spoilt with
    full strength. Where those overlap: at the worst legible page, for no legible page may be refused.
    """
    legible = {g: [found(p).quality.facts for p in pages("photo", "render", "scan")
                   if half(p) == g and p.name not in INCOMPLETE] for g in ("even", "odd")}  # fmt: skip
    bad = {"even": _unfit("even", 0), "odd": _unfit("odd", 2)}
    present = {name: float(LIMITS[name].refuses or 0) for name in FITTED}
    for one, other in (("even", "odd"), ("odd", "even")):
        fitted = {name: _midway(name, legible[one], bad[one][name]) for name in FITTED}
        yield f"from the {one} half: " + ", ".join(
            f"{name} {limit:.3g}" for name, limit in fitted.items()
        )
        for what, limits in (
            (f"these on the {other} half", fitted),
            (f"the present ones on the {other} half", present),
        ):
            wrong = sum(
                any(_refused(name, f, limits[name]) for name in FITTED) for f in legible[other]
            )
            passed = {
                n: [f for f in bad[other][n] if not _refused(n, f, limits[n])] for n in FITTED
            }
            said = ", ".join(f"{n} {len(p)} of {len(bad[other][n])}" for n, p in passed.items())
            yield f"{what}: {wrong} of {len(legible[other])} legible pages refused; let through {said}"


def _unfit(group: str, first: int) -> dict[str, list[dict[str, float]]]:
    """Facts of what must be refused, by the check that must do so."""
    out: dict[str, list[dict[str, float]]] = {name: [] for name in FITTED}
    for path in (p for p in pages("negatives", "near") if half(p) == group):
        try:
            out["ecg"].append(found(path).quality.facts)
        except PulseEdgeError:  # unreadable
            continue
    for name, spoil in {"resolution": small, "sharpness": blur, "contrast": pale, "glare": glare, "shadow": shadow,
                        "moire": moire}.items():  # fmt: skip
        for drawn in _clean(first + 2)[first:]:
            spoilt = Image.fromarray(spoil(drawn.image, 1.0, np.random.default_rng(0)))
            out[name].append(admission.check(reader.Page(spoilt, "", name)).quality.facts)
    return out


def _midway(name: str, good: list[dict[str, float]], bad: list[dict[str, float]]) -> float:
    high = LIMITS[name].high_is_bad
    least, most = (min, max) if high else (max, min)
    worst = most(f[name] for f in good if name in f)
    mildest = least((f[name] for f in bad if name in f), default=worst)
    if (mildest <= worst) if high else (mildest >= worst):
        return worst
    return (
        (worst + mildest) / 2
        if name == "ecg"
        else float(np.sqrt(max(worst, 1e-3) * max(mildest, 1e-3)))
    )


def _refused(name: str, facts: dict[str, float], limit: float) -> bool:
    if name not in facts:
        return False
    return facts[name] > limit if LIMITS[name].high_is_bad else facts[name] < limit


# --------------------------------------------------------------------------------------------------------------- curve


def _clean(count: int) -> list[DrawnPage]:
    """The first drawn pages with a grid of lines, twelve leads and a strip."""
    drawn = (page_at(5, n) for n in range(200))
    return list(
        islice((p for p in drawn if p.style.grid == "lines" and p.style.layout == "3x4+1"), count)
    )


def curve(count: int = 3) -> Iterator[str]:
    """Distortions of rising strength on clean drawn pages: verdicts, and the trace's correlation with the clean page."""
    clean = _clean(count)
    pages_ = [admission.check(reader.Page(Image.fromarray(p.image), "", "clean")) for p in clean]
    for name, spoil in SPOILS.items():
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            verdicts, agreements = [], []
            for n, (drawn, before) in enumerate(zip(clean, pages_, strict=True)):
                spoilt = spoil(drawn.image, strength, np.random.default_rng(n))
                after = admission.check(reader.Page(Image.fromarray(spoilt), "", name))
                verdicts.append(after.quality.verdict[0])
                agreements.append(_agree(_trace(before), _trace(after)))
            yield f"{name} {strength:.1f}: {''.join(sorted(verdicts))}, correlation {np.median(agreements):.2f}"


def _on_desk(image: Array, matrix: Array, size: tuple[int, int]) -> Array:
    desk = np.full((size[1], size[0], 3), (96, 70, 50), np.uint8)
    mask = cv2.warpPerspective(np.full(image.shape[:2], 255, np.uint8), matrix, size)
    return np.where(
        mask[..., None] > 127, cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_CUBIC), desk
    )


def perspective(image: Array, s: float, dice: np.random.Generator) -> Array:
    h, w = image.shape[:2]
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    squeeze = 0.25 * s * w
    target = source + np.array([[squeeze, 0], [-squeeze, 0], [0, 0], [0, 0]], np.float32) + 0.06 * w
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    return _on_desk(image, matrix, (round(1.12 * w), round(h + 0.12 * w)))


def rotation(image: Array, s: float, dice: np.random.Generator) -> Array:
    h, w = image.shape[:2]
    side = round(np.hypot(h, w) * 1.05)
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), 30 * s, 1)
    matrix[:, 2] += side / 2 - np.array([w / 2, h / 2])
    return _on_desk(image, np.vstack([matrix, [0, 0, 1]]), (side, side))


def folds(image: Array, s: float, dice: np.random.Generator) -> Array:
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    bump = np.abs((x / w * 3) % 1 - 0.5) * 2
    shade = 1 - 0.35 * s * (bump[..., None] > 0.5)
    return np.clip(
        cv2.remap(
            image, x, y + 0.03 * s * h * bump, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        * shade,
        0,
        255,
    ).astype(np.uint8)


def shadow(image: Array, s: float, dice: np.random.Generator) -> Array:
    ramp = np.linspace(-1, 1, image.shape[1])
    return (image * (1 - 0.95 * s / (1 + np.exp(-12 * ramp)))[None, :, None]).astype(np.uint8)


def glare(image: Array, s: float, dice: np.random.Generator) -> Array:
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w]
    spot = np.exp(-(((x - w / 2) / (0.45 * s * w)) ** 2 + ((y - h / 2) / (0.45 * s * h)) ** 2))
    return np.clip(image * 0.8 + 400 * s * spot[..., None], 0, 255).astype(np.uint8)


def blur(image: Array, s: float, dice: np.random.Generator) -> Array:
    return cv2.GaussianBlur(image, (0, 0), 6 * s)


def jpeg(image: Array, s: float, dice: np.random.Generator) -> Array:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, max(1, round(40 * (1 - s)))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def moire(image: Array, s: float, dice: np.random.Generator) -> Array:
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    wave = np.sin(2 * np.pi * (x * 0.19 + y * 0.03)) * np.sin(2 * np.pi * (y * 0.21 - x * 0.02))
    return np.clip(image + 110 * s * wave[..., None], 0, 255).astype(np.uint8)


def handwriting(image: Array, s: float, dice: np.random.Generator) -> Array:
    out = image.copy()
    h, w = image.shape[:2]
    for _ in range(round(30 * s)):
        walk = np.cumsum(dice.normal(0, w / 90, (25, 2)), axis=0) + dice.uniform([0, 0], [w, h])
        cv2.polylines(out, [walk.astype(np.int32)], False, (30, 40, 120), 3, cv2.LINE_AA)
    return out


def small(image: Array, s: float, dice: np.random.Generator) -> Array:
    return cv2.resize(image, None, fx=1 - 0.8 * s, fy=1 - 0.8 * s, interpolation=cv2.INTER_AREA)


SPOILS: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    f.__name__: f
    for f in (perspective, rotation, folds, shadow, glare, blur, jpeg, moire, handwriting, small)
}
POINTS = {"corners": corners, "turns": turns, "identical": identical, "grid": grid, "gate": gate,
          "thresholds": thresholds, "traces": traces, "time": timing, "curve": curve}  # fmt: skip


def main() -> None:
    cache = ROOT / ".cache" / "intake.json"
    cache.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:] or POINTS:
        lines = []
        for line in POINTS[name]():
            lines.append(line)
            print(f"{name}: {line}", flush=True)
        kept = json.loads(cache.read_text()) if cache.exists() else {}
        cache.write_text(json.dumps(kept | {name: lines}, indent=1))


if __name__ == "__main__":
    main()
