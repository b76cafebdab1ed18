"""A picture of an ECG sheet -> the flat, upright page, and where the sheet lay.

In: an RGB picture. Out: `Flat`. A page that is flat and upright already passes through untouched.

1. The grid is a wave: short Fourier transforms of patches give its two wave vectors all over the sheet, whatever the
   perspective, and one homography is fitted to them (least squares, Tukey-like weights against folds).
2. In that flattened view the sheet's edges run straight across or down: rays go outward from the grid to the strongest
   step from paper to something darker or of another colour, and a line is fitted to the steps of each side (RANSAC).
3. Small networks (upright.py) say which of the four turns is upright, whether the page is a mirror image, and what
   layout is seen.
4. The picture is resampled once, and shadows and colour casts are divided out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.page import orientation
from pulse_edge.page.channels import brightest, pixels
from pulse_edge.page.grid import PATCH, Waves, grid_waves

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

WORK = 1400
"""Longer side in pixels of the copy on which the grid is measured: 5 pixels a millimetre of a whole page."""
LARGEST = 3600
"""Longer side of a resampled page at most."""
MAX_TURN, MAX_TILT = 0.45, 1.5
"""Degrees that grid lines may be off in the middle of a picture, and at its corners, before it is straightened."""
STRETCHED = 1.12
"""Pixels per millimetre across over down, or down over across, from which on a picture is made square. Real pages that were
left alone have up to 1.04, one has 1.08."""
MIRRORED = 12.0
"""Log odds of both networks together, from which on a page counts as a mirror image; real pages have 8.0 at most."""
_DISAGREES = 1.0
"""Log odds of the network for mirror images against what the one for turns says of half a turn. On the real pages it agrees, by
0.3 to 47; on drawn pages at 50 mm/s that the latter turned upside down by 15 to 17, it disagrees by 2 to 8."""
_NO_PAGE = 0.8
"""Likelihood of no ECG from which on a part of a picture that has a grid is looked at by itself; real pages have 0.5 at most."""
_BENT, _EVEN = 0.15, 0.06
"""Unevenness of a grid from which on a page is refused, and below which a part of it is flat."""


@dataclass(frozen=True)
class Sheet:
    """Where the page lies in the picture."""

    corners: tuple[tuple[float, float], ...] | None
    """Four (x, y) in pixels of the picture, from its top left clockwise; None where no edge of a sheet is seen."""
    visible_edges: tuple[bool, bool, bool, bool]
    """Whether the left, top, right, bottom edge was found in the picture; the other ones lie outside it or do not show."""
    rotation: int
    """0, 90, 180 or 270 degrees clockwise to apply; then left and right are exchanged where `mirrored`."""
    skew_degrees: float | None
    """What the grid lines of the flat page are still off; None without a grid."""
    mirrored: bool = False
    """The picture shows the page as a mirror does, and the flat page was mirrored back."""


@dataclass(frozen=True)
class Grid:
    """The grid of a flat page."""

    pixels_per_mm: float
    across: float
    """Pixels per millimetre along the rows, and `down` the columns: a stretched picture has two."""
    down: float
    strength: float
    """How much the grid's waves stand out from waves beside them, 1 being not at all."""
    moire: float
    """Height above the noise of the clearest wave all over the page that is not the grid's."""
    uneven: float
    """Share by which its spacing and direction vary over the page."""


@dataclass(frozen=True)
class Flat:
    """A page as the model may see it."""

    image: Image.Image
    """RGB, upright, without metadata. The very object that came in where `changed` is False."""
    changed: bool
    sheet: Sheet
    grid: Grid | None
    layout: dict[str, float]
    """How probable each of upright.LAYOUTS is; they sum to 1."""
    orientation_log_odds: float
    """Log odds of this turn of the page against the likeliest other one; below 0 where pixels were to stay."""
    to_page: Points | None
    """Homography (3, 3) from the picture's pixels to the page's, None where pixels were only turned or left alone."""
    frame: Points | None
    """(4, 2) where the picture's corners lie on the page, None where the page is the picture, turned or stretched."""
    light: Pixels
    """(h, w) how bright the page's paper is in the picture, coarsely, before shadows were evened out."""
    stretch: float = 1.0
    """Pixels per millimetre across over down of the picture as it came; 1 where it was photographed."""
    mirror: float = 0.0
    """Log odds that the picture is a mirror image against that it is not."""
    part: float = 1.0
    """Share of the picture that the page takes, where it was cut out of a larger one."""


def flatten(image: Image.Image) -> Flat:
    """Find the sheet, flatten it, turn it upright, even its light out. Nothing is raised: what is not found stays."""
    flat = _flattened(image)
    odd = flat.grid is not None and (flat.grid.uneven > _BENT or flat.layout["none"] > _NO_PAGE)
    if odd and (box := _gridded(image)) is not None:
        part = _flattened(image.crop(box))
        if part.grid is not None and part.grid.uneven < _EVEN and part.layout["none"] < 0.5:
            return _within(part, box, image)
    return flat


def _flattened(image: Image.Image) -> Flat:
    picture = pixels(image)
    work, scale = _reduced(picture, WORK)
    waves = grid_waves(work)
    plane = None if waves is None else _plane(waves, work.shape)
    if plane is not None and plane.tilt > 40:  # no sheet on a desk looks like this
        plane = None
    edges = _Edges((None,) * 4) if plane is None else _edges(work, plane)
    tilted = plane is not None and (abs(plane.turn) > MAX_TURN or plane.tilt > MAX_TILT)
    cropped = edges.found >= 2
    if plane is None or not (tilted or cropped):
        return _squared(image, waves, scale) or _unwarped(image, picture, waves, (work, scale))
    target = _target(picture.shape, scale, plane, edges if cropped else None)
    small_scale = min(1.0, WORK / max(target.size))
    small, mm = _warped(picture, target, small_scale), target.px_per_mm * small_scale
    way = _way(small, mm, mm)
    page = way.applied(_warped(picture, target, 1.0))
    light = _paper(page)
    page = _even(page, light)
    to_page = way.matrix(target.size) @ target.matrix
    corners = (
        tuple((float(x), float(y)) for x, y in _clockwise(target.corners)) if cropped else None
    )
    work, scale = _reduced(page, WORK)
    grid, skew = _grid_of(grid_waves(work, PATCH), scale)
    return Flat(
        image=Image.fromarray(page),
        changed=True,
        sheet=Sheet(
            corners, edges.seen if cropped else (False,) * 4, 90 * way.turn, skew, way.mirrored
        ),
        grid=grid,
        layout=orientation.layout_probabilities(way.applied(small)),
        orientation_log_odds=way.odds,
        to_page=to_page,
        frame=_moved(
            np.array(
                [[0, 0], [image.width, 0], [image.width, image.height], [0, image.height]], float
            ),
            to_page,
        ),
        light=brightest(light),
        mirror=way.mirror,
    )


def describe(image: Image.Image) -> Flat:
    """The same facts about a picture whose pixels are to stay."""
    picture = pixels(image)
    work, scale = _reduced(picture, WORK)
    return _unwarped(image, picture, grid_waves(work), (work, scale), stays=True)


def _unwarped(
    image: Image.Image,
    picture: Pixels,
    waves: Waves | None,
    reduced: tuple[Pixels, float],
    *,
    stays: bool = False,
) -> Flat:
    """The picture turned upright, its pixels as they are; not even turned where it `stays`."""
    work, scale = reduced
    grid, _ = _grid_of(waves, scale)
    mm = (
        (grid.across * scale, grid.down * scale)
        if grid
        else (max(work.shape) / orientation.PAGE_MM,) * 2
    )
    way = _way(work, *mm, stays=stays)
    page = way.transposed(image)
    sideways = way.turn in (1, 3)
    grid, skew = _grid_of(waves, scale, sideways=sideways)
    return Flat(
        image=page,
        changed=page is not image,
        sheet=Sheet(None, (False,) * 4, 90 * way.turn, skew, way.mirrored),
        grid=grid,
        layout=orientation.layout_probabilities(way.applied(work)),
        orientation_log_odds=way.odds,
        to_page=None,
        frame=None,
        light=brightest(_paper(picture if page is image else pixels(page))),
        stretch=grid.across / grid.down if grid else 1.0,
        mirror=way.mirror,
    )


def _squared(image: Image.Image, waves: Waves | None, scale: float) -> Flat | None:
    """The page of a picture whose millimetres are longer in one direction than in the other; None where they are not.

    The direction with fewer pixels gets as many as the other, as long as the page does not become larger than LARGEST.
    """
    grid, _ = _grid_of(waves, scale)
    if (
        grid is None
        or grid.uneven > _EVEN
        or max(grid.across / grid.down, grid.down / grid.across) < STRETCHED
    ):
        return None
    dense = max(grid.across, grid.down)
    size = image.width * dense / grid.across, image.height * dense / grid.down
    shrink = min(1.0, max(LARGEST, *image.size) / max(size))
    square = image.resize(
        (max(1, round(shrink * size[0])), max(1, round(shrink * size[1]))), Image.Resampling.BICUBIC
    )
    picture = pixels(square)
    work, new_scale = _reduced(picture, WORK)
    flat = _unwarped(square, picture, grid_waves(work), (work, new_scale))
    to_page = np.diag([square.width / image.width, square.height / image.height, 1.0])
    way = _Way(flat.sheet.rotation // 90, 0.0, mirrored=flat.sheet.mirrored)
    stretch = grid.down / grid.across if way.turn in (1, 3) else grid.across / grid.down
    return replace(flat, changed=True, to_page=way.matrix(square.size) @ to_page, stretch=stretch)


def _gridded(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The band of a flat page that has the grid, with text above or below; None where that is not so.

    Text takes up a grid's waves, but not at the same spacing from patch to patch.
    """
    work, scale = _reduced(pixels(image), WORK)
    waves = grid_waves(work)
    if waves is None:
        return None
    size = np.linalg.norm(waves.vectors, axis=2)
    off = np.linalg.norm(waves.vectors[:, None] - waves.vectors[None], axis=3) / size[:, None]
    alike = (off < 0.04).all(axis=2)
    usual = alike[int(np.argmax(alike.sum(axis=1)))]
    vectors = np.median(waves.vectors[usual], axis=0)
    slant = np.degrees(np.arctan2([vectors[0, 1], vectors[1, 0]], [vectors[0, 0], vectors[1, 1]]))
    places = waves.centres[usual]
    if (
        len(places) < 12
        or np.abs(slant).max() > MAX_TILT
        or np.ptp(places[:, 0]) < 0.5 * work.shape[1]
    ):
        return None
    step = np.unique(waves.centres[:, 1])
    rows = [y for y in step if usual[waves.centres[:, 1] == y].mean() > 0.5]
    if not rows:
        return None
    top, bottom = max(0.0, min(rows) - PATCH / 4), min(float(work.shape[0]), max(rows) + PATCH / 4)
    if bottom - top > 0.85 * work.shape[0]:
        return None
    wanted = np.linalg.norm(vectors, axis=1) * waves.period_mm
    for rest in (work[: int(top)], work[int(bottom) :]):  # another ECG there is another patient's
        other = grid_waves(np.ascontiguousarray(rest)) if len(rest) >= PATCH else None
        if other is not None:
            spacing = np.median(np.linalg.norm(other.vectors, axis=2), axis=0) * other.period_mm
            if np.abs(spacing / wanted - 1).max() < 0.1:
                return None
    return 0, round(top / scale), image.width, round(bottom / scale)


def _within(part: Flat, box: tuple[int, int, int, int], image: Image.Image) -> Flat:
    """The page that was found in `box` of a picture, in the picture's own coordinates."""
    left, top, right, bottom = box
    way = _Way(part.sheet.rotation // 90, 0.0, mirrored=part.sheet.mirrored)
    inner = way.matrix((right - left, bottom - top)) if part.to_page is None else part.to_page
    moved = part.sheet.corners and tuple((x + left, y + top) for x, y in part.sheet.corners)
    return replace(
        part,
        changed=True,
        to_page=inner @ np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], float),
        sheet=replace(part.sheet, corners=moved),
        part=(right - left) * (bottom - top) / (image.width * image.height),
    )


@dataclass(frozen=True)
class _Way:
    """How to get a page upright: quarter turns clockwise, then left and right exchanged where it is `mirrored`."""

    turn: int
    odds: float
    """Log odds of this turn against the likeliest other one."""
    mirror: float = 0.0
    """Log odds of a mirror image against none."""
    mirrored: bool = False

    def applied(self, page: Pixels) -> Pixels:
        turned = np.rot90(page, -self.turn)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)

    def transposed(self, image: Image.Image) -> Image.Image:
        """The same of a picture, which is that very object where nothing is to do."""
        if self.turn:
            turns = (
                Image.Transpose.ROTATE_270,
                Image.Transpose.ROTATE_180,
                Image.Transpose.ROTATE_90,
            )
            image = image.transpose(turns[self.turn - 1])
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else image

    def matrix(self, size: tuple[int, int]) -> Points:
        """(3, 3): where pixels of a page of `size` come to lie."""
        turned = _turned(size, self.turn)
        if not self.mirrored:
            return turned
        width = size[1] if self.turn in (1, 3) else size[0]
        return np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float) @ turned


def _way(page: Pixels, across: float, down: float, *, stays: bool = False) -> _Way:
    """Which way is up on a page, and whether it is a mirror image.

    It is mirrored back only where both networks agree: the one for mirror images says so, and the one for turns finds the
    mirrored page upright, and more clearly so than the page as it came. What both say is added up.
    """
    turn, odds = _turn(page, across, down, stays=stays)
    way = _Way(turn, odds)
    if not page.size or min(page.shape[:2]) < PATCH:
        return way
    sides = (down, across) if turn in (1, 3) else (across, down)
    right, mirrored, flipped, half = orientation.mirror_log_odds(way.applied(page), *sides)
    mirror = float(max(mirrored, flipped) - right)
    if half - right > _DISAGREES and mirror < MIRRORED:
        return _undecided(way, float(half - right), stays=stays)
    if mirror <= 0:
        return replace(way, mirror=mirror)
    # Top and bottom exchanged is left and right exchanged after half a turn.
    back = _Way(turn if mirrored > flipped else (turn + 2) % 4, odds, mirrored=True)
    again, clearer = _turn(back.applied(page), *sides)
    way = replace(way, mirror=mirror + clearer - odds if again == 0 and clearer > odds else 0.0)
    if stays or way.mirror < MIRRORED:
        return way
    return replace(back, odds=clearer, mirror=way.mirror)


def _undecided(way: _Way, against: float, *, stays: bool) -> _Way:
    """The page of which one network says the one way is up, and the other the opposite: as it came, where that is either.

    `against`: log odds of the other network. The odds that are noted are negative, so that people are warned.
    """
    if way.turn == 2 and not stays:
        return _Way(0, -way.odds)
    return replace(way, odds=min(way.odds, -against))


def _turn(page: Pixels, across: float, down: float, *, stays: bool = False) -> tuple[int, float]:
    """Quarter turns clockwise to apply, and their log odds against the likeliest other turn."""
    odds = orientation.turn_log_odds(page, across, down)
    turn = 0 if stays else int(np.argmax(odds))
    return turn, float(odds[turn] - np.delete(odds, turn).max())


def _reduced(picture: Pixels, longest: int) -> tuple[Pixels, float]:
    """The picture with its longer side at most `longest`, and by how much it was scaled."""
    scale = min(1.0, longest / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


# ------------------------------------------------------------------------------------------- waves -> homography


@dataclass(frozen=True)
class _Plane:
    """The flattened view. `matrix` (3, 3): pixels of the reduced picture -> periods of the grid, shape as it was."""

    matrix: Points
    centres: Points
    """(n, 2) of the patches that agree with it."""
    turn: float
    """Degrees that the lines are off in the picture's middle."""
    tilt: float
    """The same at the worst corner."""
    period_mm: float


def _plane(waves: Waves, shape: tuple[int, ...]) -> _Plane:
    size = np.array([shape[1], shape[0]], float)
    length = float(size.max())
    x = (waves.centres - size / 2) / length
    wanted = waves.vectors * length
    p = np.array([*np.median(wanted, axis=0).reshape(-1), 0, 0])
    free = 6 if len(x) >= 12 else 4
    for _ in range(12):
        rest = (wanted - _gradient(p, x)).reshape(len(x), -1)
        off = np.linalg.norm(rest, axis=1)
        weight = np.repeat(1 / (1 + (off / (3 * np.median(off) + 1e-9)) ** 4), 4)
        columns = [
            (_gradient(p + d, x) - _gradient(p, x)).reshape(-1) / 1e-4
            for d in 1e-4 * np.eye(6)[:free]
        ]
        slope = np.stack(columns, axis=1)
        normal = slope.T @ (slope * weight[:, None])
        # Held towards no perspective, by a little: a cropped page has no far edge to show it.
        normal += np.diag([0, 0, 0, 0, *[1e-4 * normal[0, 0]] * (free - 4)]) + 1e-12 * np.eye(free)
        pull = slope.T @ (weight * rest.reshape(-1))
        pull[4:] -= 1e-4 * normal[0, 0] * p[4:free]
        p[:free] += np.linalg.solve(normal, pull)
    off = np.linalg.norm((wanted - _gradient(p, x)).reshape(len(x), -1), axis=1)
    good = off < 0.15 * np.linalg.norm(wanted.reshape(len(x), -1), axis=1)
    if good.sum() < max(3, 0.3 * len(x)):
        good[:] = True
    move = np.array(
        [[1 / length, 0, -size[0] / 2 / length], [0, 1 / length, -size[1] / 2 / length], [0, 0, 1]]
    )
    matrix = np.array([[p[0], p[1], 0], [p[2], p[3], 0], [p[4], p[5], 1]]) @ move
    ends = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0, 0]]) * size / 2 / length * 0.9
    slopes = _gradient(p, ends)
    tilts = [
        np.degrees(np.arctan2(slopes[:, 0, 1], slopes[:, 0, 0])),
        np.degrees(np.arctan2(-slopes[:, 1, 0], slopes[:, 1, 1])),
    ]
    turn = float(np.mean([t[4] for t in tilts]))
    return _Plane(matrix, waves.centres[good], turn, float(np.abs(tilts).max()), waves.period_mm)


def _gradient(p: Points, x: Points) -> Points:
    """(n, 2, 2) of u = (p0 x + p1 y) / w, v = (p2 x + p3 y) / w, w = p4 x + p5 y + 1."""
    w = x @ p[4:6] + 1
    u, v = x @ p[0:2] / w, x @ p[2:4] / w
    return (
        np.stack([(p[0:2] - u[:, None] * p[4:6]), (p[2:4] - v[:, None] * p[4:6])], axis=1)
        / w[:, None, None]
    )


def _moved(points: npt.NDArray[Any], matrix: npt.NDArray[Any]) -> Points:
    """(n, 2) through a homography."""
    out = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return np.asarray(out[:, :2] / out[:, 2:])


# ------------------------------------------------------------------------------------------------- edges of the sheet


_VIEW = 640
_REACH = 7
"""Pixels of the flattened view that are averaged on either side of a step."""


@dataclass(frozen=True)
class _Edges:
    lines: tuple[tuple[float, float] | None, ...]
    """Left, top, right, bottom in the flattened view, in periods: u = a + b v for left and right, v = a + b u."""

    @property
    def found(self) -> int:
        return sum(line is not None for line in self.lines)

    @property
    def seen(self) -> tuple[bool, bool, bool, bool]:
        left, top, right, bottom = (line is not None for line in self.lines)
        return left, top, right, bottom


def _edges(work: Pixels, plane: _Plane) -> _Edges:
    """The sheet's edges that are in the picture."""
    height, width = work.shape[:2]
    box = _moved(np.array([[0, 0], [width, 0], [width, height], [0, height]], float), plane.matrix)
    low, high = box.min(axis=0), box.max(axis=0)
    k = _VIEW / float((high - low).max())
    view = np.array([[k, 0, -k * low[0]], [0, k, -k * low[1]], [0, 0, 1]])
    size = tuple(int(v) for v in np.ceil(k * (high - low)))
    small, scale = _reduced(work, 900)
    matrix = view @ plane.matrix @ np.diag([1 / scale, 1 / scale, 1])
    # Grid, trace and text are closed before the view shrinks them.
    closed = cv2.medianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), 5)
    flat = np.asarray(cv2.warpPerspective(closed, matrix, size, flags=cv2.INTER_LINEAR))
    inside = (
        np.asarray(cv2.warpPerspective(np.full(closed.shape[:2], 255, np.uint8), matrix, size))
        > 250
    )
    inside = np.asarray(cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0
    grid = _moved(plane.centres, view @ plane.matrix)
    half = 0.5 * PATCH * k * float(np.abs(np.linalg.det(plane.matrix[:2, :2])) ** 0.5)
    lines: list[tuple[float, float] | None] = []
    for side in range(4):
        # Each side is looked for to the right, in a view turned and mirrored to suit.
        swap, mirror = side in (1, 3), side in (0, 1)
        f, i, g = (
            (flat.transpose(1, 0, 2), inside.T, grid[:, ::-1]) if swap else (flat, inside, grid)
        )
        if mirror:
            f, i, g = f[:, ::-1], i[:, ::-1], np.stack([f.shape[1] - 1 - g[:, 0], g[:, 1]], axis=1)
        line = _right_edge(np.ascontiguousarray(f), i, g, half)
        if line is not None:
            a, b = line
            if mirror:
                a, b = f.shape[1] - 1 - a, -b
            along, over = (
                (0, 1) if swap else (1, 0)
            )  # of low: the axis that the line runs along, and the other
            line = a / k + low[over] - b * low[along], b
        lines.append(line)
    return _Edges(tuple(lines))


def _right_edge(
    flat: Pixels, inside: npt.NDArray[np.bool_], grid: Points, half: float
) -> tuple[float, float] | None:
    """x = a + b y of the sheet's right edge, None where it does not show."""
    steps = _steps(flat)
    steps[:, : _REACH + 1] = 0
    padded = np.pad(inside, ((0, 0), (0, _REACH)))
    steps[~padded[:, _REACH:]] = 0
    top, bottom = (
        max(0, int(grid[:, 1].min() - 0.5 * half)),
        min(len(flat), int(grid[:, 1].max() + 0.5 * half)),
    )
    rows, places, heights = [], [], []
    for y in range(top, bottom, 2):
        near = grid[np.abs(grid[:, 1] - y) < 1.2 * half]
        if not len(near) or not inside[y].any():
            continue
        start = max(0, int(near[:, 0].max() - 0.6 * half))
        if start >= flat.shape[1] - 2:
            continue
        x = start + int(np.argmax(steps[y, start:]))
        rows.append(y)
        places.append(x)
        heights.append(steps[y, x])
    if len(rows) < 12:
        return None
    return _line(
        np.array(rows, float), np.array(places, float), np.array(heights), padded[:, _REACH:]
    )


def _steps(flat: Pixels) -> Float:
    """(H, W): how much paper on the left turns into something else on the right, 0 and more."""
    mean = cv2.blur(flat.astype(np.float32), (_REACH, 3))
    shift = (_REACH + 1) // 2 + 1
    left, right = np.zeros_like(mean), np.zeros_like(mean)
    left[:, shift:] = mean[:, :-shift]
    right[:, :-shift] = mean[:, shift:]
    bright_left, bright_right = brightest(left), brightest(right)
    drop = (bright_left - bright_right) / np.maximum(bright_left, 30)
    colour_left, colour_right = (x / np.maximum(_total(x), 60)[..., None] for x in (left, right))
    colour = _total(np.abs(colour_left - colour_right))
    step = np.maximum(drop, 0) + 2.5 * colour
    step[(drop < -0.1) | (bright_left < 50)] = 0  # paper is not darker than what it lies on
    return np.asarray(step, np.float32)


def _total(picture: Float) -> Float:
    """(H, W): the sum of the channels."""
    return np.asarray(picture[..., 0] + picture[..., 1] + picture[..., 2], np.float32)


def _line(
    rows: Points, places: Points, heights: Points, inside: npt.NDArray[np.bool_]
) -> tuple[float, float] | None:
    """The line that most step height lies on, if it can be followed along enough of its way through the picture."""
    strong = heights > 0.13
    if strong.sum() < 10:
        return None
    picks = np.random.default_rng(0).choice(np.flatnonzero(strong), (400, 2))
    apart = rows[picks[:, 1]] - rows[picks[:, 0]]
    slopes = (places[picks[:, 1]] - places[picks[:, 0]]) / np.where(apart == 0, 1, apart)
    fair = (np.abs(apart) >= 0.1 * np.ptp(rows)) & (np.abs(slopes) < 0.12)
    if not fair.any():
        return None
    picks, slopes = picks[fair], slopes[fair]
    off = np.abs(places - places[picks[:, :1]] - slopes[:, None] * (rows - rows[picks[:, :1]]))
    weights = np.minimum(heights, 0.6) * strong
    chosen = off[int(np.argmax((weights * np.maximum(0, 1 - (off / 4) ** 2)).sum(axis=1)))] < 4
    chosen &= strong
    b, a = np.polyfit(rows[chosen], places[chosen], 1)
    expected = np.round(a + b * rows).astype(int)
    visible = (expected >= 0) & (expected < inside.shape[1])
    visible[visible] = inside[rows[visible].astype(int), expected[visible]]
    if (
        chosen.sum() < 12
        or chosen.sum() < 0.15 * len(rows)
        or (chosen & visible).sum() < 0.5 * visible.sum()
    ):
        return None
    return float(a), float(b)


# ------------------------------------------------------------------------------------------------ picture -> page


@dataclass(frozen=True)
class _Target:
    matrix: Points  # (3, 3) picture's pixels -> page's
    size: tuple[int, int]
    corners: Points  # (4, 2) of the sheet in the picture
    px_per_mm: float


def _target(shape: tuple[int, ...], scale: float, plane: _Plane, edges: _Edges | None) -> _Target:
    """Where the page's pixels come from: as fine as the picture is at the page's middle."""
    height, width = shape[:2]
    matrix = plane.matrix @ np.diag([scale, scale, 1])  # full picture -> periods
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    quad = _sheet(_moved(frame, matrix), edges)
    low, high = quad.min(axis=0), quad.max(axis=0)
    if edges is not None:  # an edge that curls is cut half way
        low, high = (
            (quad[[0, 0], [0, 1]] + quad[[3, 1], [0, 1]]) / 2,
            (quad[[1, 3], [0, 1]] + quad[[2, 2], [0, 1]]) / 2,
        )
    flat = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    middle = np.linalg.inv(matrix)
    centre = _moved(np.array([[*((low + high) / 2)]]) + np.array([[0, 0], [1, 0], [0, 1]]), middle)
    k = float(max(np.linalg.norm(centre[1] - centre[0]), np.linalg.norm(centre[2] - centre[0])))
    k = min(k, LARGEST / float((high - low).max()))
    size = max(8, round(k * (high[0] - low[0]))), max(8, round(k * (high[1] - low[1])))
    ends = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    fit = np.asarray(cv2.getPerspectiveTransform(flat.astype(np.float32), ends), float)
    return _Target(fit @ matrix, size, _moved(quad, middle), k / plane.period_mm)


def _sheet(frame: Points, edges: _Edges | None) -> Points:
    """The sheet's corners in periods: where its lines meet; the picture's own border stands in for a line not seen."""
    low, high = frame.min(axis=0), frame.max(axis=0)
    if edges is None:
        return np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    border = ((low[0], 0.0), (low[1], 0.0), (high[0], 0.0), (high[1], 0.0))
    left, top, right, bottom = (line or border[n] for n, line in enumerate(edges.lines))

    def meet(upright: tuple[float, float], level: tuple[float, float]) -> tuple[float, float]:
        u = (upright[0] + upright[1] * level[0]) / (1 - upright[1] * level[1])
        return u, level[0] + level[1] * u

    return np.array([meet(left, top), meet(right, top), meet(right, bottom), meet(left, bottom)])


def _warped(picture: Pixels, target: _Target, scale: float) -> Pixels:
    """The page, at `scale` of its size when that is below 1; what lies outside the picture is white."""
    scale = min(scale, 1.0)
    size = max(1, round(target.size[0] * scale)), max(1, round(target.size[1] * scale))
    matrix = np.diag([scale, scale, 1]) @ target.matrix
    source = picture
    if scale < 0.6:  # resampling does not average
        source, shrunk = _reduced(picture, round(max(picture.shape[:2]) * scale * 1.3))
        matrix = matrix @ np.diag([1 / shrunk, 1 / shrunk, 1])
    how = cv2.INTER_CUBIC if scale == 1 else cv2.INTER_LINEAR
    out = cv2.warpPerspective(
        source, matrix, size, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=(255,) * 3
    )
    return np.asarray(out, np.uint8)


def _paper(page: Pixels) -> Pixels:
    """(h, w, 3): what is left, coarsely, when all ink is closed over."""
    small, _ = _reduced(page, 450)
    small = np.asarray(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)))
    return np.asarray(cv2.GaussianBlur(cv2.medianBlur(small, 11), (0, 0), 3), np.uint8)


def _even(page: Pixels, paper: Pixels) -> Pixels:
    """Divided by its paper's own light, channel by channel."""
    light = cv2.resize(
        np.maximum(paper, 60), (page.shape[1], page.shape[0]), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(cv2.divide(page, light, scale=245), np.uint8)


def _turned(size: tuple[int, int], turn: int) -> Points:
    """(3, 3): the same pixels after `turn` quarter turns clockwise of a page of `size`."""
    width, height = size
    return (
        np.eye(3),
        np.array([[0, -1, height - 1], [1, 0, 0], [0, 0, 1]], float),
        np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], float),
        np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]], float),
    )[turn]


def _clockwise(quad: Points) -> Points:
    """From the corner nearest the picture's top left."""
    return np.roll(quad, -int(np.argmin(quad.sum(axis=1))), axis=0)


def _grid_of(
    waves: Waves | None, scale: float, *, sideways: bool = False
) -> tuple[Grid | None, float | None]:
    """The grid of a flat page, and the degrees that it is off; `sideways`: measured before a quarter turn."""
    if waves is None:
        return None, None
    across, down = (
        1 / (np.median(np.linalg.norm(waves.vectors, axis=2), axis=0) * waves.period_mm * scale)
    ).tolist()
    if sideways:
        across, down = down, across
    v = waves.vectors
    tilts = np.degrees([np.arctan2(v[:, 0, 1], v[:, 0, 0]), np.arctan2(-v[:, 1, 0], v[:, 1, 1])])
    grid = Grid(math.sqrt(across * down), across, down, waves.strength, waves.moire, waves.uneven)
    return grid, float(np.median(tilts))
