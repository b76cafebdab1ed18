"""Measure the grid of a page as waves.

Short Fourier transforms of patches give its two wave vectors all over the sheet.

In: a reduced RGB picture. Out: `Waves`, or None without a grid.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pulse_edge.common.arrays import Float, Pixels, Points
from pulse_edge.page.channels import darkest

MIN_STRENGTH = 2.3
"""Height of the grid's waves over waves half-way between them, below which there is no grid."""
MIN_CROSSING = 0.1
"""Sine of the angle between the two directions of a grid's lines, below which there is no grid; 0.5
is a steep photograph."""
PATCH = 160
"""Side of a patch in pixels."""
_STEP, _FFT = 80, 192
"""Pixels from patch to patch, and the size of their transforms."""
_FAINT = 0.6
"""Amplitude of a wave, of 255, below which it is no printed line. Real grids have 1.1 and more,
JPEG's noise on a smooth desk 0.05 to 0.4."""


@dataclass(frozen=True)
class Waves:
    """The waves of a grid on the patches where it shows."""

    centres: Points
    """(n, 2) centres of the patches, in pixels of the reduced picture."""
    vectors: Points
    """(n, 2, 2) cycles a pixel: of the lines that follow one another across, then down."""
    period_mm: float
    """Millimetres of paper for one cycle: 1 or 5."""
    strength: float
    """Height of the grid's waves over waves half-way between them."""
    moire: float
    """Height above the noise of the clearest wave all over the page that no line of the grid makes
    (`_Spectra.foreign`)."""

    @property
    def uneven(self) -> float:
        """Share of its length by which a wave vector differs from the median one, at the 9th decile
        of the patches.

        It says how much spacing and direction of the grid vary on a flat page; 0 where the grid is
        even.
        """
        usual = np.median(self.vectors, axis=0)
        off = np.linalg.norm(self.vectors - usual, axis=2) / np.linalg.norm(usual, axis=1)
        return float(np.quantile(off, 0.9))


def grid_waves(work: Pixels, step: int = _STEP) -> Waves | None:
    """Return the grid's waves all over the sheet, grown from the clearest patch outwards.

    It is None without a grid.

    `work`: RGB pixels (H, W, 3). `step`: pixels from patch to patch.
    """
    if min(work.shape[:2]) < 64:  # too few lines to be a wave
        return None
    spectra = _Spectra(work, step)
    tried: set[tuple[int, int]] = set()
    best: tuple[float, Waves | None] = (0.0, None)
    patches: list[tuple[int, int]] = []
    for at, vectors in spectra.seeds():
        if at in tried and best[1] is not None:
            continue
        grown = _grow_patches(spectra, at, vectors)
        tried |= grown.keys()
        if not _is_crossing(np.median(list(grown.values()), axis=0)):
            continue
        vectors, waves = np.array(list(grown.values())), _spacing(spectra, grown, work.shape)
        score = waves.strength * math.sqrt(len(grown))
        if waves.strength > MIN_STRENGTH and score > best[0]:
            centres = np.array([spectra.centre(at) for at in grown])
            match = Waves(
                centres, vectors / waves.divisors[:, None], waves.period_mm, waves.strength, 0.0
            )
            best, patches = (score, match), list(grown)
    return (
        None
        if best[1] is None
        else replace(best[1], moire=spectra.foreign(patches, best[1].vectors))
    )


class _Spectra:
    """Spectra of overlapping patches of a picture: amplitudes (rows, columns, fy, fx), where fx and
    fy begin at -1/2."""

    def __init__(self, work: Pixels, step: int) -> None:
        dark, self._levels = _line_darkness(work)
        self.patch = min(PATCH, int(0.9 * min(dark.shape)))
        self.ys, self.xs = (_patch_starts(length, self.patch, step) for length in dark.shape)
        window = np.hanning(self.patch).astype(np.float32)
        window = window[:, None] * window[None]
        self.amplitude = np.array(
            [
                [_spectrum(dark[y : y + self.patch, x : x + self.patch] * window) for x in self.xs]
                for y in self.ys
            ]
        )
        x, y = np.meshgrid(*(np.arange(_FFT) / _FFT - 0.5,) * 2)
        radius = np.hypot(x, y)
        half = (x > 0) | ((x == 0) & (y > 0))  # the picture is real: both halves are alike
        self.band = np.flatnonzero(
            half & (radius > max(1 / 40, 3 / self.patch)) & (radius < 1 / 3.0)
        )
        heights = self.amplitude.reshape(*self.amplitude.shape[:2], -1)[:, :, self.band]
        noise = np.median(heights[:, :, ::13], axis=2)
        self.noise = (
            np.maximum(noise, 0.3 * np.median(noise)) + 1e-6
        )  # blank paper has hardly any noise
        self.clearest = self.band[np.argmax(heights, axis=2)]

    def centre(self, at: tuple[int, int]) -> tuple[float, float]:
        """Return the centre (x, y) of a patch in pixels."""
        return float(self.xs[at[1]] + (self.patch - 1) / 2), float(
            self.ys[at[0]] + (self.patch - 1) / 2
        )

    def near(self, at: tuple[int, int], wave: Points, reach: float) -> tuple[Points, float]:
        """Return the strongest wave within `reach` cycles a pixel of `wave`, and its height above
        the noise."""
        m, middle = self.amplitude[at], _FFT // 2
        r = max(1, round(reach * _FFT))
        y, x = round(float(wave[1]) * _FFT) + middle, round(float(wave[0]) * _FFT) + middle
        top, left = max(y - r, 1), max(x - r, 1)
        part = m[top : max(y + r + 1, 0), left : max(x + r + 1, 0)]
        if not part.size:
            return wave, 0.0
        i, j = divmod(int(np.argmax(part)), part.shape[1])
        return self._exact(at, top + i, left + j)

    def _exact(self, at: tuple[int, int], y: int, x: int) -> tuple[Points, float]:
        """Return a peak's wave, exact to a fraction of a cell, and its height above the noise."""
        m = self.amplitude[at]
        dx = _parabola_vertex(m[y, x - 1], m[y, x], m[y, x + 1]) if 0 < x < m.shape[1] - 1 else 0.0
        dy = _parabola_vertex(m[y - 1, x], m[y, x], m[y + 1, x]) if 0 < y < m.shape[0] - 1 else 0.0
        return np.array([x + dx - _FFT // 2, y + dy - _FFT // 2]) / _FFT, float(
            m[y, x] / self.noise[at]
        )

    def seeds(self) -> list[tuple[tuple[int, int], Points]]:
        """Return the clearest patches with their two wave vectors, best first."""
        candidates = []
        for row, column in np.ndindex(self.noise.shape):
            at = (row, column)
            one, high = self._exact(at, *divmod(int(self.clearest[at]), _FFT))
            length = math.hypot(*one)
            two, second = self.near(at, np.array([-one[1], one[0]]), 0.3 * length)
            if (
                min(high, second) > 8
                and 0.7 < math.hypot(*two) / length < 1.43
                and self.printed(at, np.array([one, two]))
            ):
                candidates.append((min(high, second), at, _ordered(one, two)))
        candidates.sort(key=lambda candidate: -candidate[0])
        return [(at, vectors) for _, at, vectors in candidates[:8]]

    def printed(self, at: tuple[int, int], waves: Points) -> bool:
        """Whether waves (n, 2) of a patch are dark enough to be printed.

        On a smooth desk the waves of JPEG itself stand out as much.
        """
        top, left = int(self.ys[at[0]]), int(self.xs[at[1]])
        part = self._levels[top : top + self.patch, left : left + self.patch]
        if float(part.std()) > 10 * _FAINT:
            return True
        window = np.hanning(self.patch)
        weighed = part * window[:, None] * window[None]
        place = np.arange(self.patch)
        for wave in waves:
            y, x = (np.exp(-2j * np.pi * wave[n] * place) for n in (1, 0))
            if 2 * abs(complex(y @ weighed @ x)) / float(window.sum()) ** 2 < _FAINT:
                return False
        return True

    def comb(self, grown: dict[tuple[int, int], Points], multiples: tuple[float, ...]) -> Points:
        """Return the median height above the noise at multiples of the waves: (2, len(multiples));
        0 where none can show."""
        ats = np.array(list(grown))
        waves = (
            np.array(list(grown.values()))[:, :, None] * np.array(multiples)[:, None]
        )  # (n, 2, multiples, xy)
        size = np.hypot(waves[..., 0], waves[..., 1])
        index = np.clip(np.round(waves * _FFT).astype(int) + _FFT // 2, 1, _FFT - 2)
        heights = np.zeros(size.shape)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                there = self.amplitude[
                    ats[:, 0, None, None],
                    ats[:, 1, None, None],
                    index[..., 1] + dy,
                    index[..., 0] + dx,
                ]
                heights = np.maximum(heights, there)
        heights /= self.noise[ats[:, 0], ats[:, 1]][:, None, None]
        heights[(size < 0.008) | (size > 0.48)] = 0
        return np.asarray(np.median(heights, axis=0))

    def foreign(self, ats: list[tuple[int, int]], vectors: Points) -> float:
        """Return the height above the noise of the clearest wave that the patches share and that is
        none of the grid's.

        `vectors` (n, 2, 2): waves of the grid on the patches. Along its two directions lie its
        harmonics, the traces' baselines and the edges of boxes: a strip around both is omitted, as
        are sums of harmonics. So moire whose waves lie exactly along the grid is not detected.
        """
        every = max(1, len(ats) // 60)
        y, x = np.array(ats[::every]).T
        waves = np.stack(np.meshgrid(*(np.arange(_FFT) - _FFT // 2,) * 2), axis=-1).astype(float)
        grid = np.median(vectors, axis=0) * _FFT
        counts = waves @ np.linalg.inv(grid)
        width = 2.5 * PATCH / self.patch
        off = np.linalg.norm((counts - np.round(counts)) @ grid, axis=-1) > width
        for along in grid / np.linalg.norm(grid, axis=1)[:, None]:
            off &= np.abs(waves @ np.array([-along[1], along[0]])) > 1.6 * width
        off &= np.linalg.norm(waves, axis=-1) > 0.06 * _FFT
        off &= (waves[..., 0] >= 0) | (waves[..., 0] == -(_FFT // 2))  # the other half is the same
        common = np.median(self.amplitude[y, x][:, off] / self.noise[y, x][:, None], axis=0)
        return float(common.max(initial=0.0))


def _spectrum(patch: Float) -> Float:
    """Return amplitudes (_FFT, _FFT), with frequency 0 in the middle."""
    padded = np.zeros((_FFT, _FFT), np.float32)
    padded[: patch.shape[0], : patch.shape[1]] = patch
    parts = cv2.dft(padded, flags=cv2.DFT_COMPLEX_OUTPUT, nonzeroRows=patch.shape[0])
    return np.fft.fftshift(cv2.magnitude(parts[..., 0], parts[..., 1]))


def _patch_starts(length: int, patch: int, step: int) -> npt.NDArray[np.int_]:
    """Return where patches begin, from edge to edge."""
    count = 1 + math.ceil((length - patch) / max(min(step, patch), 8))
    return np.unique(np.linspace(0, length - patch, count).astype(int))


def _line_darkness(work: Pixels) -> tuple[Float, Pixels]:
    """Return how dark each pixel is (H, W) against the paper around it, and the same in levels of
    255.

    In the first, the trace is clipped to the darkness of grid lines.
    """
    grey = darkest(work)
    paper = cv2.blur(cv2.dilate(grey, np.ones((9, 9), np.uint8)), (41, 41))
    levels = cv2.subtract(paper, grey)
    dark = levels.astype(np.float32) / np.maximum(paper, 40)
    limit = np.maximum(cv2.blur(dark, (81, 81)) * 3, 0.02)
    clipped = np.minimum(dark, limit) / limit
    return np.asarray(clipped - cv2.blur(clipped, (61, 61)), np.float32), levels


def _parabola_vertex(a: float, b: float, c: float) -> float:
    """Return where the parabola through three neighbours is highest, -0.5 to 0.5."""
    bend = a - 2 * b + c
    return (
        0.0 if bend >= 0 else min(max(float(0.5 * (a - c) / bend), -0.5), 0.5)
    )  # np.clip: ten times as long


def _ordered(one: Points, two: Points) -> Points:
    """Return the wave across, pointing right, then the wave down, pointing down."""
    across, down = (one, two) if abs(one[0]) >= abs(two[0]) else (two, one)
    return np.array([across if across[0] >= 0 else -across, down if down[1] >= 0 else -down])


def _grow_patches(
    spectra: _Spectra, start: tuple[int, int], vectors: Points
) -> dict[tuple[int, int], Points]:
    """Follow the waves of the clearest patch to its neighbours, while a similar wave stands out.

    Return patch -> waves.

    The next harmonic of 5 mm lines may be 20 % away: waves of neighbours differ by less than half
    of that.
    """
    grown: dict[tuple[int, int], Points] = {}
    pushed = 0
    queue = [(-math.inf, 0, start, vectors)]
    while queue:
        _, _, (row, column), waves = heapq.heappop(queue)
        if (row, column) in grown:
            continue
        grown[row, column] = waves
        for at in ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)):
            if at in grown or not (0 <= at[0] < len(spectra.ys) and 0 <= at[1] < len(spectra.xs)):
                continue
            match = [
                spectra.near(at, wave, max(0.09 * math.hypot(*wave), 1.5 / _FFT)) for wave in waves
            ]
            height = min(height for _, height in match)
            if height > 10 and spectra.printed(at, np.array([wave for wave, _ in match])):
                pushed += 1
                heapq.heappush(queue, (-height, pushed, at, np.array([wave for wave, _ in match])))
    return grown


def _is_crossing(pair: Points) -> bool:
    """Whether two waves (2, 2) make a grid: the lines of rules and tables grow to waves of one
    direction, or to none."""
    lengths = np.linalg.norm(pair, axis=1)
    return bool(abs(np.linalg.det(pair)) > MIN_CROSSING * lengths[0] * lengths[1])


def _line_contrast(
    spectra: _Spectra, grown: dict[tuple[int, int], Points], base: int
) -> tuple[Points, Points]:
    """Return how much the harmonics of a `base` times wider spacing, and its clearest one, stand
    out: (2,) each.

    Across and down, against the waves half-way between them.
    """
    harmonics = spectra.comb(
        grown, tuple(n / base for n in range(1, max(base, 2)))
    )  # below the clearest
    clearest = spectra.comb(grown, (1.0, 2.0)).max(axis=1)
    between = spectra.comb(grown, tuple((n + 0.5) / base for n in range(max(base, 3))))
    noise = np.maximum(between.sum(axis=1) / np.maximum((between > 0).sum(axis=1), 1), 1e-6)
    return np.asarray(np.median(harmonics, axis=1) / noise), np.asarray(clearest / noise)


_BOTH, _ONE = 1.7, 2.5
"""Contrast from which on a wider spacing of lines exists: where both directions have the same, and
where they differ. On real pages the harmonics of a spacing that does not exist have up to 1.2, in
one case 1.6; others have 2 to 9."""
MAX_STRETCH = 2.5
"""Largest stretch that is believed; a fax of standard resolution is stretched by 2.08."""


@dataclass(frozen=True)
class _Spacing:
    """Which lines of the grid the clearest waves are."""

    divisors: Points
    """(2,) numbers that divide the waves across and down to give one wave each `period_mm`."""
    period_mm: float
    strength: float


def _spacing(
    spectra: _Spectra, grown: dict[tuple[int, int], Points], shape: tuple[int, ...]
) -> _Spacing:
    """Determine which lines the clearest waves are.

    A grid of 1 and 5 mm has waves at fifths of its 1 mm wave. The clearest wave may also be the
    second or third harmonic of lines that stand alone; and on a page that is stretched in one
    direction it is another one across than down, since the 1 mm lines are too narrow to be seen in
    the direction that has fewer pixels.
    """
    contrasts = {base: _line_contrast(spectra, grown, base) for base in (5, 4, 3, 2, 1)}
    base = next((b for b in (5, 4, 3, 2) if contrasts[b][0].min() > _BOTH), 1)
    periods = 1 / np.median([np.linalg.norm(v, axis=1) for v in grown.values()], axis=0)
    if base == 1:
        bases = [
            next((b for b in (5, 4, 3, 2) if contrasts[b][0][axis] > _ONE), 1) for axis in (0, 1)
        ]
        if bases[0] != bases[1]:
            mm = _stretched_periods(periods * bases, bases, shape)
            if mm is not None:
                strength = min(float(contrasts[b][1][axis]) for axis, b in enumerate(bases))
                return _Spacing(np.array(bases) * max(mm) / np.array(mm), max(mm), strength)
    # Lines of one kind only: 1 mm or 5 mm apart is what makes a sheet of a sensible size.
    period = base / float(np.median([np.linalg.norm(v, axis=1).mean() for v in grown.values()]))
    millimetres = 1.0 if base != 5 and max(shape[:2]) / period > 110 else 5.0
    return _Spacing(np.array([base, base], float), millimetres, float(contrasts[base][1].min()))


def _stretched_periods(
    periods: Points, bases: list[int], shape: tuple[int, ...]
) -> tuple[float, float] | None:
    """Return the millimetres of the widest `periods` (2,) across and down, None where no stretch
    explains them.

    Their waves are not alike. Five times wider lines are 5 mm apart; among what the others may be,
    the least stretch is right.
    """
    choices = [(5.0,) if base == 5 else (1.0, 5.0) for base in bases]
    pairs = [(across, down) for across in choices[0] for down in choices[1]]
    if 5 not in bases:
        pairs = [(1.0, 1.0) if max(shape[:2]) / float(periods.mean()) > 110 else (5.0, 5.0)]
    stretch = {mm: abs(math.log(periods[0] / mm[0] / (periods[1] / mm[1]))) for mm in pairs}
    best = min(stretch, key=lambda mm: stretch[mm])
    return best if stretch[best] < math.log(MAX_STRETCH) else None
