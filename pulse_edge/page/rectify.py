"""From a picture of an ECG sheet to the flat, upright page.

In: an RGB picture. Out: `Flat`. A page that is flat and upright already passes through untouched.

1. The grid is a wave: short Fourier transforms of patches give its two wave vectors all over the
   sheet, whatever the perspective (grid.py), and one homography is fitted to them (plane.py).
2. The sheet's edges are found in that flattened view (sheet_edges.py).
3. Small networks say which of the four turns is upright, whether the page is a mirror image, and
   which layout it shows (page_turn.py, orientation.py).
4. The picture is resampled once, and shadows and colour casts are divided out (warp.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pulse_edge.common.arrays import Pixels, Points
from pulse_edge.page import orientation
from pulse_edge.page.channels import brightest, pixels, reduced
from pulse_edge.page.grid import PATCH, Waves, grid_waves
from pulse_edge.page.page_turn import PageTurn, find_turn
from pulse_edge.page.plane import fit_plane, project
from pulse_edge.page.sheet_edges import SheetEdges, find_edges
from pulse_edge.page.warp import LARGEST, even_out_light, paper_light, plan_target, warp

WORK = 1400
"""Longer side in pixels of the copy on which the grid is measured: 5 pixels a millimetre of a whole
page."""
MAX_TURN, MAX_TILT = 0.45, 1.5
"""Degrees by which grid lines may be off in the middle of a picture and at its corners. Beyond them
it is straightened."""
STRETCH_LIMIT = 1.12
"""Pixels per millimetre across over down, or down over across, from which on a picture is made
square. Real pages that were left alone have up to 1.04, one has 1.08."""
_STEEPEST = 40
"""Degrees of tilt at a corner beyond which the waves are no sheet on a desk."""
_NO_ECG = 0.8
"""Probability of no ECG from which on the part of a picture with a grid is looked at by itself;
real pages have 0.5 at most."""
_BENT, _FLAT = 0.15, 0.06
"""Unevenness of a grid from which on a page is refused, and below which a part of it is flat."""


@dataclass(frozen=True)
class Sheet:
    """Where the page lies in the picture."""

    corners: tuple[tuple[float, float], ...] | None
    """Four (x, y) in pixels of the picture, clockwise from its top left; None where no edge of a
    sheet shows."""
    visible_edges: tuple[bool, bool, bool, bool]
    """Whether the left, top, right and bottom edge show in the picture."""
    rotation: int
    """Degrees clockwise to apply: 0, 90, 180 or 270. Then left and right are exchanged where the
    page is `mirrored`."""
    skew_degrees: float | None
    """Angle that remains between the grid lines and the sides of the flat page; None without a
    grid."""
    mirrored: bool = False
    """The picture was a mirror image, and the flat page was mirrored back."""


@dataclass(frozen=True)
class Grid:
    """The grid of a flat page."""

    pixels_per_mm: float
    """Geometric mean of `across` and `down`."""
    across: float
    """Pixels per millimetre along the rows. It differs from `down` in a stretched picture."""
    down: float
    """Pixels per millimetre along the columns."""
    strength: float
    """Height of the grid's waves over neighbouring waves; 1 is no grid."""
    moire: float
    """Height above the noise of the clearest wave all over the page that is no wave of the grid."""
    uneven: float
    """Share by which spacing and direction of the grid vary over the page."""


@dataclass(frozen=True)
class Flat:
    """A page as the model may see it."""

    image: Image.Image
    """RGB, upright, without metadata. The same object that came in where `changed` is False."""
    changed: bool
    """Whether any pixel differs from the picture."""
    sheet: Sheet
    grid: Grid | None
    """None where no grid shows."""
    layout: dict[str, float]
    """Probability of each of orientation.LAYOUTS; they sum to 1."""
    orientation_log_odds: float
    """Log odds of this turn of the page against the likeliest other one; below 0 where it
    contradicts the networks."""
    to_page: Points | None
    """Homography (3, 3) from the picture's pixels to the page's; None where pixels were only turned
    or left alone."""
    frame: Points | None
    """(4, 2) where the picture's corners lie on the page; None where the page is the whole picture,
    turned or stretched."""
    light: Pixels
    """(h, w) brightness of the page's paper in the picture, coarsely, before shadows were evened
    out."""
    stretch: float = 1.0
    """Pixels per millimetre across over down of the picture as it came; 1 for a photograph."""
    mirror: float = 0.0
    """Log odds that the picture is a mirror image."""
    part: float = 1.0
    """Share of the picture that the page takes, where it was cut out of a larger one."""


def flatten(image: Image.Image) -> Flat:
    """Find the sheet in an RGB picture, flatten it, turn it upright and even out its light.

    Never raises an error of its own.

    What cannot be determined stays as it is. Where the whole picture is bent or no ECG, the band
    with a grid is tried.
    """
    flat = _flatten(image)
    doubtful = flat.grid is not None and (flat.grid.uneven > _BENT or flat.layout["none"] > _NO_ECG)
    if doubtful and (box := _grid_band(image)) is not None:
        part = _flatten(image.crop(box))
        if part.grid is not None and part.grid.uneven < _FLAT and part.layout["none"] < 0.5:
            return _in_picture(part, box, image)
    return flat


def describe(image: Image.Image) -> Flat:
    """Measure the same facts about an RGB picture, and leave its pixels as they are."""
    picture = pixels(image)
    work, scale = reduced(picture, WORK)
    return _unwarped(image, picture, grid_waves(work), (work, scale), keep_pixels=True)


def _flatten(image: Image.Image) -> Flat:
    picture = pixels(image)
    work, scale = reduced(picture, WORK)
    waves = grid_waves(work)
    plane = None if waves is None else fit_plane(waves, work.shape)
    if plane is not None and plane.tilt > _STEEPEST:
        plane = None
    edges = SheetEdges((None,) * 4) if plane is None else find_edges(work, plane)
    tilted = plane is not None and (abs(plane.turn) > MAX_TURN or plane.tilt > MAX_TILT)
    cropped = edges.count >= 2
    if plane is None or not (tilted or cropped):
        return _squared(image, waves, scale) or _unwarped(image, picture, waves, (work, scale))
    target = plan_target(picture.shape, scale, plane, edges if cropped else None)
    small_scale = min(1.0, WORK / max(target.size))
    small, mm = warp(picture, target, small_scale), target.px_per_mm * small_scale
    turn = find_turn(small, mm, mm)
    page = turn.turn(warp(picture, target, 1.0))
    light = paper_light(page)
    page = even_out_light(page, light)
    to_page = turn.matrix(target.size) @ target.matrix
    corners = _clockwise(target.corners) if cropped else None
    work, scale = reduced(page, WORK)
    grid, skew = _grid(grid_waves(work, PATCH), scale)
    visible = edges.visible if cropped else (False,) * 4
    return Flat(
        image=Image.fromarray(page),
        changed=True,
        sheet=Sheet(corners, visible, 90 * turn.quarters, skew, turn.mirrored),
        grid=grid,
        layout=orientation.layout_probabilities(turn.turn(small)),
        orientation_log_odds=turn.log_odds,
        to_page=to_page,
        frame=project(_corners(image.width, image.height), to_page),
        light=brightest(light),
        mirror=turn.mirror_log_odds,
    )


def _unwarped(
    image: Image.Image,
    picture: Pixels,
    waves: Waves | None,
    work_and_scale: tuple[Pixels, float],
    *,
    keep_pixels: bool = False,
) -> Flat:
    """Turn the picture upright without resampling it; with `keep_pixels` it is not even turned."""
    work, scale = work_and_scale
    grid, _ = _grid(waves, scale)
    mm = (
        (grid.across * scale, grid.down * scale)
        if grid
        else (max(work.shape) / orientation.PAGE_MM,) * 2
    )
    turn = find_turn(work, *mm, keep_pixels=keep_pixels)
    page = turn.transpose(image)
    grid, skew = _grid(waves, scale, sideways=turn.quarters in (1, 3))
    return Flat(
        image=page,
        changed=page is not image,
        sheet=Sheet(None, (False,) * 4, 90 * turn.quarters, skew, turn.mirrored),
        grid=grid,
        layout=orientation.layout_probabilities(turn.turn(work)),
        orientation_log_odds=turn.log_odds,
        to_page=None,
        frame=None,
        light=brightest(paper_light(picture if page is image else pixels(page))),
        stretch=grid.across / grid.down if grid else 1.0,
        mirror=turn.mirror_log_odds,
    )


def _squared(image: Image.Image, waves: Waves | None, scale: float) -> Flat | None:
    """Return the page of a picture with longer millimetres in one direction than in the other, None
    for any other picture.

    The direction with fewer pixels gets as many as the other, up to LARGEST.
    """
    grid, _ = _grid(waves, scale)
    if (
        grid is None
        or grid.uneven > _FLAT
        or max(grid.across / grid.down, grid.down / grid.across) < STRETCH_LIMIT
    ):
        return None
    dense = max(grid.across, grid.down)
    size = image.width * dense / grid.across, image.height * dense / grid.down
    shrink = min(1.0, max(LARGEST, *image.size) / max(size))
    square = image.resize(
        (max(1, round(shrink * size[0])), max(1, round(shrink * size[1]))), Image.Resampling.BICUBIC
    )
    picture = pixels(square)
    work, square_scale = reduced(picture, WORK)
    flat = _unwarped(square, picture, grid_waves(work), (work, square_scale))
    to_page = np.diag([square.width / image.width, square.height / image.height, 1.0])
    turn = _turn_of(flat.sheet)
    stretch = grid.down / grid.across if turn.quarters in (1, 3) else grid.across / grid.down
    return replace(flat, changed=True, to_page=turn.matrix(square.size) @ to_page, stretch=stretch)


def _turn_of(sheet: Sheet) -> PageTurn:
    return PageTurn(sheet.rotation // 90, 0.0, mirrored=sheet.mirrored)


def turned(flat: Flat, picture: Image.Image, turn: PageTurn) -> Flat:
    """Turn a flat page by half a turn, mirror it, or both, for reasons outside its picture.

    `picture` is the page as it was read; its pixels come back where the turns cancel out. The log
    odds of `turn` become those of the page's orientation.
    """
    before = _turn_of(flat.sheet)
    quarters = before.quarters + (-turn.quarters if before.mirrored else turn.quarters)
    sheet = replace(
        flat.sheet,
        rotation=90 * (quarters % 4),
        mirrored=before.mirrored != turn.mirrored,
    )
    matrix = turn.matrix(flat.image.size)
    untouched = flat.to_page is None and sheet.rotation == 0 and not sheet.mirrored
    page = picture if untouched else turn.transpose(flat.image)
    return replace(
        flat,
        image=page,
        changed=not untouched,
        sheet=sheet,
        layout=orientation.layout_probabilities(reduced(pixels(page), WORK)[0]),
        orientation_log_odds=turn.log_odds,
        to_page=None if flat.to_page is None else matrix @ flat.to_page,
        frame=None if flat.frame is None else project(flat.frame, matrix),
        light=turn.turn(flat.light),
        mirror=turn.log_odds if sheet.mirrored else -turn.log_odds,
    )


# --- the band of a picture that has a grid ------------------------------------------------------


def _grid_band(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the box (left, top, right, bottom) of a flat page that has a grid, with text above or
    below it; else None.

    Text grows to waves like a grid's, but their spacing differs from patch to patch.
    """
    work, scale = reduced(pixels(image), WORK)
    waves = grid_waves(work)
    if waves is None:
        return None
    length = np.linalg.norm(waves.vectors, axis=2)
    off = np.linalg.norm(waves.vectors[:, None] - waves.vectors[None], axis=3) / length[:, None]
    alike = (off < 0.04).all(axis=2)
    usual = alike[int(np.argmax(alike.sum(axis=1)))]
    vectors = np.median(waves.vectors[usual], axis=0)
    slant = np.degrees(np.arctan2([vectors[0, 1], vectors[1, 0]], [vectors[0, 0], vectors[1, 1]]))
    centres = waves.centres[usual]
    if (
        len(centres) < 12
        or np.abs(slant).max() > MAX_TILT
        or np.ptp(centres[:, 0]) < 0.5 * work.shape[1]
    ):
        return None
    heights = np.unique(waves.centres[:, 1])
    rows = [y for y in heights if usual[waves.centres[:, 1] == y].mean() > 0.5]
    if not rows:
        return None
    top, bottom = max(0.0, min(rows) - PATCH / 4), min(float(work.shape[0]), max(rows) + PATCH / 4)
    if bottom - top > 0.85 * work.shape[0]:
        return None
    spacing = np.linalg.norm(vectors, axis=1) * waves.period_mm
    for rest in (work[: int(top)], work[int(bottom) :]):
        if _has_grid(rest, spacing):  # another ECG there is another patient's
            return None
    return 0, round(top / scale), image.width, round(bottom / scale)


def _has_grid(picture: Pixels, spacing: Points) -> bool:
    """Whether a picture has a grid of about the `spacing` (2,), in cycles a pixel times millimetres
    across and down."""
    waves = grid_waves(np.ascontiguousarray(picture)) if len(picture) >= PATCH else None
    if waves is None:
        return False
    other = np.median(np.linalg.norm(waves.vectors, axis=2), axis=0) * waves.period_mm
    return bool(np.abs(other / spacing - 1).max() < 0.1)


def _in_picture(part: Flat, box: tuple[int, int, int, int], image: Image.Image) -> Flat:
    """Move the page of a picture's `box` into the coordinates of the whole picture."""
    left, top, right, bottom = box
    inner = (
        _turn_of(part.sheet).matrix((right - left, bottom - top))
        if part.to_page is None
        else part.to_page
    )
    corners = part.sheet.corners and tuple((x + left, y + top) for x, y in part.sheet.corners)
    return replace(
        part,
        changed=True,
        to_page=inner @ np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], float),
        sheet=replace(part.sheet, corners=corners),
        part=(right - left) * (bottom - top) / (image.width * image.height),
    )


# --- facts about the page -----------------------------------------------------------------------


def _corners(width: int, height: int) -> Points:
    """Return the corners (4, 2) of a picture, clockwise from its top left."""
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], float)


def _clockwise(corners: Points) -> tuple[tuple[float, float], ...]:
    """Begin four clockwise corners with the one nearest the picture's top left."""
    rolled = np.roll(corners, -int(np.argmin(corners.sum(axis=1))), axis=0)
    return tuple((float(x), float(y)) for x, y in rolled)


def _grid(
    waves: Waves | None, scale: float, *, sideways: bool = False
) -> tuple[Grid | None, float | None]:
    """Return the grid of a flat page, and the angle of its lines in degrees.

    `sideways`: measured before a quarter turn.
    """
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
