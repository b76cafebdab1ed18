"""Which way is up on a page, and is it a mirror image?

Two small networks are asked (`pulse_edge.page.orientation`). Where they contradict one another, the
page stays as it came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pulse_edge.common.arrays import Pixels, Points
from pulse_edge.page import orientation
from pulse_edge.page.grid import PATCH

MIRROR_LOG_ODDS = 12.0
"""Log odds of both networks together, from which on a page counts as a mirror image; real pages
have 8.0 at most."""
_HALF_TURN_LOG_ODDS = 1.0
"""Log odds of half a turn by the network for mirror images, from which on it contradicts the
network for turns.

On the real pages the two agree, by 0.3 to 47. On synthetic pages at 50 mm/s that the network for
turns turned upside down by 15 to 17, they disagree by 2 to 8.
"""


@dataclass(frozen=True)
class PageTurn:
    """What makes a page upright: quarter turns clockwise, then an exchange of left and right where
    it is `mirrored`."""

    quarters: int
    """Quarter turns clockwise to apply, 0 to 3."""
    log_odds: float
    """Log odds of this turn against the likeliest other one."""
    mirror_log_odds: float = 0.0
    """Log odds that the page is a mirror image."""
    mirrored: bool = False

    def turn(self, page: Pixels) -> Pixels:
        """Apply this to a page (H, W, 3)."""
        turned = np.rot90(page, -self.quarters)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)

    def transpose(self, image: Image.Image) -> Image.Image:
        """Apply this to an image; the same object comes back where there is nothing to do."""
        if self.quarters:
            turns = (
                Image.Transpose.ROTATE_270,
                Image.Transpose.ROTATE_180,
                Image.Transpose.ROTATE_90,
            )
            image = image.transpose(turns[self.quarters - 1])
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else image

    def matrix(self, size: tuple[int, int]) -> Points:
        """Return the homography (3, 3) that this is for the pixels of a page of `size` (width,
        height)."""
        turned = _quarter_turns(size, self.quarters)
        if not self.mirrored:
            return turned
        width = size[1] if self.quarters in (1, 3) else size[0]
        return np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float) @ turned


def find_turn(page: Pixels, across: float, down: float, *, keep_pixels: bool = False) -> PageTurn:
    """Find which way is up on a page (H, W, 3), and whether it is a mirror image.

    It counts as a mirror image only where both networks agree: the one for mirror images says so,
    and the one for turns finds the mirrored page upright with higher odds than the page as it came.
    The two log odds are added.

    `across`, `down`: pixels per millimetre. `keep_pixels`: the odds are measured, but the page
    stays as it came.
    """
    quarters, log_odds = _likeliest_turn(page, across, down, keep_pixels=keep_pixels)
    turn = PageTurn(quarters, log_odds)
    if not page.size or min(page.shape[:2]) < PATCH:
        return turn
    sides = (down, across) if quarters in (1, 3) else (across, down)
    as_is, left_right, top_bottom, both = orientation.mirror_log_odds(turn.turn(page), *sides)
    mirror = float(max(left_right, top_bottom) - as_is)
    if both - as_is > _HALF_TURN_LOG_ODDS and mirror < MIRROR_LOG_ODDS:
        return _contradicted(turn, float(both - as_is), keep_pixels=keep_pixels)
    if mirror <= 0:
        return replace(turn, mirror_log_odds=mirror)
    # Top and bottom exchanged is left and right exchanged after half a turn.
    unmirror = PageTurn(
        quarters if left_right > top_bottom else (quarters + 2) % 4, log_odds, mirrored=True
    )
    further, mirrored_odds = _likeliest_turn(unmirror.turn(page), *sides)
    agrees = further == 0 and mirrored_odds > log_odds
    turn = replace(turn, mirror_log_odds=mirror + mirrored_odds - log_odds if agrees else 0.0)
    if keep_pixels or turn.mirror_log_odds < MIRROR_LOG_ODDS:
        return turn
    return replace(unmirror, log_odds=mirrored_odds, mirror_log_odds=turn.mirror_log_odds)


def _contradicted(turn: PageTurn, opposite: float, *, keep_pixels: bool) -> PageTurn:
    """Return the turn for a page whose two networks see opposite sides up: as it came, where that
    is one of the two.

    `opposite`: log odds of the opposite by the network for mirror images. The log odds become
    negative, which warns.
    """
    if turn.quarters == 2 and not keep_pixels:
        return PageTurn(0, -turn.log_odds)
    return replace(turn, log_odds=min(turn.log_odds, -opposite))


def _likeliest_turn(
    page: Pixels, across: float, down: float, *, keep_pixels: bool = False
) -> tuple[int, float]:
    """Return the quarter turns clockwise to apply, and their log odds against the likeliest other
    turn."""
    odds = orientation.turn_log_odds(page, across, down)
    quarters = 0 if keep_pixels else int(np.argmax(odds))
    return quarters, float(odds[quarters] - np.delete(odds, quarters).max())


def _quarter_turns(size: tuple[int, int], quarters: int) -> Points:
    """Return the homography (3, 3) of clockwise quarter turns of a page of `size` (w, h)."""
    width, height = size
    return (
        np.eye(3),
        np.array([[0, -1, height - 1], [1, 0, 0], [0, 0, 1]], float),
        np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], float),
        np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]], float),
    )[quarters]
