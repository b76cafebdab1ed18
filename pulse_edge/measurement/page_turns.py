"""Is a page upside down or mirrored by its own trace?

In: a page and its trace. Out: the turn that its trace asks for, and how certain that is.

Where the leads, as they were traced, say little or nothing for the page as it stands, it is traced
again as turned by half a turn and as its mirror images, and the four are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pulse_edge.common.arrays import Pixels
from pulse_edge.measurement.digitise import Digitised, digitise
from pulse_edge.measurement.layout import LAYOUTS
from pulse_edge.page.page_turn import PageTurn
from pulse_edge.page.rectify import Flat

HALF_TURN, MIRROR, UPSIDE_DOWN_MIRROR = (
    PageTurn(2, 0.0),
    PageTurn(0, 0.0, mirrored=True),
    PageTurn(2, 0.0, mirrored=True),
)
COMPLETE = frozenset(layout.name for layout in LAYOUTS if not layout.partial)
"""Layouts that show twelve leads; others obey no laws that could tell the turns apart."""
BY_PULSE = 4.0
"""Log odds of a calibration pulse: upside down, none is found."""
BY_LAWS, USUAL = 5.0, 0.9
"""Log odds for each unit by which the residuals of Einthoven's and Goldberger's law, added up, lie
below what photographs have."""
LEAST = -5.0
"""Log odds that the laws give at least."""
BY_NETWORK, MOST_BY_NETWORK = 0.25, 3.0
"""Share of the network's log odds of a mirror image that counts, and how much of it at most."""
DOUBTED = 6.5
"""Log odds below which the other turns of a page without a calibration pulse are tried. Upright
synthetic pages have 4 to 19, real ones -7 to 17, turned and mirrored ones -12 to 5."""
BACKWARD = 0.1
"""Excess of waves after the QRS below which a page with a calibration pulse may run backward."""
MARGIN, LIKELY = 6.0, 4.0
"""Log odds by which another turn must be likelier than the page as it stands, and that it must
have, for the page to be turned."""
LAWFUL_MARGIN = 9.0
"""The same where the page as it stands obeys the laws. Upright recordings of LUDB and PTB-XL have
up to 8.8 for another turn (1 in 700 above 6)."""
STRICTLY, LAWLESS = 0.4, 1.35
"""Sum of both residuals below which leads obey the laws, and above which they break them: then the
laws alone tell two turns apart."""
DOUBTFUL = 4.0
"""Log odds by which another turn must be likelier for the page to warn."""


@dataclass(frozen=True)
class TurnByTrace:
    """What the trace says about which way up a page is."""

    log_odds: float
    """Of the page as it stands."""
    turn: PageTurn | None = None
    """A turn that is likelier, if any."""
    margin: float = 0.0
    """Log odds of `turn` less those of the page as it stands."""
    certain: bool = False
    """Whether the page must be turned."""


def log_odds(traced: Digitised) -> float:
    """Log odds by its trace that a page is upright; 0 where no leads were traced."""
    polarity = traced.rows.polarity
    if not traced.signal.layout:
        return 0.0
    return polarity.upright + BY_PULSE * bool(traced.rows.pulse) + _by_laws(traced)


def _by_laws(traced: Digitised) -> float:
    apart = _apart(traced)
    return 0.0 if math.isnan(apart) else max(BY_LAWS * (USUAL - apart), LEAST)


def turn_by_trace(
    flat: Flat, layouts: Mapping[str, float], rows: tuple[float, ...], traced: Digitised
) -> TurnByTrace:
    """Compare a traced page with the same page turned and mirrored, where its trace leaves a doubt.

    `layouts` and `rows` as for `digitise`.
    """
    here = log_odds(traced)
    pulse = bool(traced.rows.pulse)
    if traced.signal.layout not in COMPLETE or traced.rows.all_flat:
        return TurnByTrace(here)
    if traced.rows.polarity.forward >= BACKWARD if pulse else here >= DOUBTED:
        return TurnByTrace(here)
    page = np.asarray(flat.image)
    turns = (MIRROR,) if pulse else (HALF_TURN, MIRROR, UPSIDE_DOWN_MIRROR)
    mirrored = BY_NETWORK * (-flat.mirror if flat.sheet.mirrored else flat.mirror)
    mirrored = min(max(mirrored, -MOST_BY_NETWORK), MOST_BY_NETWORK)
    tried = []
    for turn in turns:
        other = _traced(flat, page, turn, layouts, rows)
        tried.append((log_odds(other) + mirrored * turn.mirrored, turn, _apart(other)))
    best, turn, apart = max(tried, key=lambda t: t[0])
    margin = best - here
    if margin < DOUBTFUL:
        return TurnByTrace(here)
    needed = LAWFUL_MARGIN if _by_laws(traced) > 0 else MARGIN
    likelier = margin >= needed and best >= LIKELY
    next_best = sorted(odds for odds, _, _ in tried)[-2:][0] if len(tried) > 1 else here
    by_laws = apart < STRICTLY and _apart(traced) > LAWLESS and best - next_best >= DOUBTFUL
    return TurnByTrace(here, turn, margin, certain=likelier or by_laws)


def _apart(traced: Digitised) -> float:
    """Both residuals added up; NaN where unknown."""
    laws = traced.rows.polarity.residuals
    return laws.einthoven + laws.goldberger


def _traced(
    flat: Flat,
    page: Pixels,
    turn: PageTurn,
    layouts: Mapping[str, float],
    rows: tuple[float, ...],
) -> Digitised:
    """Trace a page after a turn that leaves rows level."""
    hints = tuple(len(page) - 1 - y for y in reversed(rows)) if turn.quarters else rows
    grid = flat.grid
    across, down = (grid.across, grid.down) if grid else (None, None)
    return digitise(turn.turn(page), across, down, layouts, hints)
