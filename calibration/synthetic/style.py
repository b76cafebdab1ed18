"""The look of a page, and random looks.

They never depend on the recording: a look must not give a label away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]
Rows = tuple[tuple[str, ...], ...]

_THREE_BY_FOUR: Rows = (
    ("I", "aVR", "V1", "V4"),
    ("II", "aVL", "V2", "V5"),
    ("III", "aVF", "V3", "V6"),
)
LAYOUTS: Mapping[str, Rows] = {
    "3x4": _THREE_BY_FOUR,
    "3x4+1": (*_THREE_BY_FOUR, ("II",)),
    "3x4+3": (*_THREE_BY_FOUR, ("V1",), ("II",), ("V5",)),
    "6x2": (("I", "V1"), ("II", "V2"), ("III", "V3"), ("aVR", "V4"), ("aVL", "V5"), ("aVF", "V6")),
    "12x1": tuple(
        (name,)
        for name in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    ),
}
"""Rows of leads from top to bottom; the leads of a row share the strip's time, one after the other."""
_LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
_CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
RARE_LAYOUTS: Mapping[str, Rows] = {
    "3x4+2": (*_THREE_BY_FOUR, ("V1",), ("II",)),
    "6x1": tuple((n,) for n in _LIMB),
    "6x1v": tuple((n,) for n in _CHEST),
    "3x1": (("II",), ("V1",), ("V5",)),
    "2x1": (("V4",), ("V5",)),
    "1x1": (("II",),),
    "3x2": (("I", "aVR"), ("II", "aVL"), ("III", "aVF")),
    "3x5": tuple(
        (*row, extra) for row, extra in zip(_THREE_BY_FOUR, ("V4", "V5", "V6"), strict=True)
    ),
}
"""Layouts that only the page networks are trained on."""
ROWS: Mapping[str, Rows] = {**LAYOUTS, **RARE_LAYOUTS}
"""The rows of every layout that can be drawn."""
FONTS = ("simplex", "duplex", "complex", "pillow")
GRIDS = ("lines", "dots", "major", "none")
JOINS = ("none", "bar", "ticks", "dots", "gap")
NAME_PLACES = ("above", "below", "left")
NO_NAMES = "none"
"""In place of one of NAME_PLACES: the leads are not named, as on pages whose print is lost."""
PULSES = ("left", "right", "none")


@dataclass(frozen=True)
class PageStyle:
    """The look of a page: everything apart from the signal.

    Lengths in millimetres of paper, colours RGB.
    """

    layout: str = "3x4+1"  # a key of ROWS
    speed: float = 25.0  # mm/s
    gain: float = 10.0  # mm/mV
    seconds: float = 10.0  # time across the width of a full row
    px_per_mm: float = 4.6
    row_mm: float = 30.0  # from one row's baseline to the next
    left_mm: float = 5.0  # margins round the traces; the pulse has its own room
    right_mm: float = 5.0
    top_mm: float = 16.0  # holds the header
    bottom_mm: float = 10.0  # holds the footer
    paper: Rgb = (255, 255, 255)
    grid: str = "lines"  # one of GRIDS
    grid_everywhere: bool = True  # False: header, footer and margin stay blank
    minor: Rgb = (250, 205, 205)
    major: Rgb = (240, 150, 150)
    minor_mm: float = 0.15  # line widths of the 1 mm and 5 mm grid
    major_mm: float = 0.25
    ink: Rgb = (20, 20, 25)
    ink_px: float = 1.4  # trace width; the fraction thickens the antialiased edge
    text: Rgb = (20, 20, 25)
    font: str = "pillow"  # one of FONTS
    face: str | None = None  # a TrueType file for "pillow"; None: Pillow's own
    face_scale: float = 1.0  # size of `face` against the usual size
    label_mm: float = 3.5  # height of lead names
    text_mm: float = 3.0  # height of header and footer
    names: str = (
        "above"  # one of NAME_PLACES, or NO_NAMES; "left" puts the first column's into the margin
    )
    pulse: str = "left"  # one of PULSES: 1 mV for 0.2 s
    join: str = "bar"  # one of JOINS: what separates the columns
    header: tuple[str, ...] = ()  # spread over the page's top; an entry may have several lines
    footer: tuple[str, ...] = ()  # spread over the page's foot
    soft_px: float = 0.0  # sigma of a blur over all of it, as from scanning

    def __post_init__(self) -> None:
        choices: Mapping[str, Iterable[str]] = {
            "layout": ROWS,
            "font": FONTS,
            "grid": GRIDS,
            "join": JOINS,
            "pulse": PULSES,
            "names": (*NAME_PLACES, NO_NAMES),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; known are {', '.join(allowed)}"
                )
        if not 0 < self.seconds <= 10:
            raise ValueError(f"seconds must lie in (0, 10], not {self.seconds}")

    @property
    def pulse_mm(self) -> float:
        """Room for the calibration pulse next to the traces."""
        return 0.0 if self.pulse == "none" else 0.2 * self.speed + 4.0

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the page in pixels."""
        width = self.left_mm + self.pulse_mm + self.seconds * self.speed + self.right_mm
        height = self.top_mm + len(ROWS[self.layout]) * self.row_mm + self.bottom_mm
        return round(width * self.px_per_mm), round(height * self.px_per_mm)


PALETTES: tuple[tuple[Rgb, Rgb, Rgb], ...] = (
    ((255, 255, 255), (250, 200, 200), (238, 140, 140)),
    ((255, 250, 248), (255, 190, 180), (240, 110, 100)),
    ((255, 240, 240), (248, 190, 195), (232, 130, 140)),
    ((254, 247, 235), (245, 205, 160), (235, 150, 60)),
    ((255, 255, 255), (210, 210, 210), (160, 160, 160)),
    ((247, 252, 247), (190, 225, 190), (120, 180, 120)),
    ((250, 252, 255), (190, 210, 240), (120, 160, 215)),
    ((255, 253, 240), (235, 200, 190), (205, 130, 120)),
)
"""Paper, minor and major grid: mostly reds, as paper is; also orange, grey, green, blue."""
INKS: tuple[Rgb, ...] = ((15, 15, 15), (35, 35, 40), (10, 10, 60), (60, 60, 65), (90, 10, 20))


LAYOUT_SHARES: Mapping[str, float] = {
    "3x4": 0.15,
    "3x4+1": 0.44,
    "3x4+3": 0.12,
    "6x2": 0.17,
    "12x1": 0.12,
}
"""How often each of LAYOUTS is drawn."""


def random_style(
    rng: np.random.Generator, layouts: Sequence[str] = tuple(LAYOUT_SHARES)
) -> PageStyle:
    """A page of some device, in one of `layouts`.

    Its words are date, number, speed, gain, filter: no name, no measurement, no diagnosis.
    """
    shares = np.array([LAYOUT_SHARES[name] for name in layouts])
    layout = str(rng.choice(list(layouts), p=shares / shares.sum()))
    rows = len(LAYOUTS[layout])
    fast = layout in ("6x2", "12x1") and rng.random() < 0.3
    speed = 50.0 if fast else 25.0
    gain = float(
        rng.choice([5.0, 10.0, 20.0], p=[0.12, 0.80, 0.08] if rows <= 4 else [0.2, 0.8, 0.0])
    )
    paper, minor, major = _palette(rng)
    ink = INKS[rng.choice(len(INKS), p=[0.45, 0.25, 0.12, 0.12, 0.06])]
    px_per_mm = float(np.round(rng.uniform(4.0, 5.4), 3))
    names = str(rng.choice(NAME_PLACES, p=[0.2, 0.1, 0.7] if rows == 12 else [0.75, 0.15, 0.1]))
    low, high = {3: (28, 40), 4: (26, 36), 6: (19, 26)}.get(rows, (13, 17))
    return PageStyle(
        layout=layout,
        speed=speed,
        gain=gain,
        seconds=5.0 if fast else 10.0,
        px_per_mm=px_per_mm,
        row_mm=_round(rng.uniform(low, high)),
        left_mm=_round(rng.uniform(9, 12) if names == "left" else rng.uniform(2, 9)),
        right_mm=_round(rng.uniform(2, 9)),
        top_mm=_round(rng.uniform(6, 26)),
        bottom_mm=_round(rng.uniform(7, 14)),
        paper=paper,
        grid=str(rng.choice(GRIDS, p=[0.78, 0.08, 0.08, 0.06])),
        grid_everywhere=bool(rng.random() < 0.6),
        minor=minor,
        major=major,
        minor_mm=_round(rng.uniform(0.08, 0.24)),
        major_mm=_round(rng.uniform(0.18, 0.42)),
        ink=ink,
        ink_px=_round(rng.uniform(0.8, 2.0) if rng.random() < 0.65 else rng.uniform(2.0, 2.8)),
        text=ink if rng.random() < 0.7 else (30, 30, 30),
        font=str(rng.choice(FONTS, p=[0.25, 0.15, 0.1, 0.5])),
        label_mm=_round(rng.uniform(2.6, 4.4)),
        text_mm=_round(rng.uniform(2.3, 3.4)),
        names=names,
        pulse=str(rng.choice(PULSES, p=[0.6, 0.2, 0.2])),
        join=str(rng.choice(JOINS, p=[0.3, 0.25, 0.2, 0.1, 0.15])),
        header=_header(rng),
        footer=_footer(rng, speed, gain),
        soft_px=_round(rng.uniform(0.35, 0.7)) if rng.random() < 0.25 else 0.0,
    )


def _round(mm: float) -> float:
    """To a hundredth, so that a style prints and compares well."""
    return float(np.round(mm, 2))


def _palette(rng: np.random.Generator) -> tuple[Rgb, Rgb, Rgb]:
    """Paper, minor, major with a little variation."""
    base = PALETTES[rng.choice(len(PALETTES), p=[0.26, 0.2, 0.18, 0.1, 0.08, 0.05, 0.05, 0.08])]
    paper, minor, major = (np.clip(np.array(c) + rng.integers(-8, 9), 0, 255) for c in base)
    return _rgb(paper), _rgb(minor), _rgb(major)


def _rgb(colour: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Rgb:
    r, g, b = (int(c) for c in colour)
    return r, g, b


def _header(rng: np.random.Generator) -> tuple[str, ...]:
    """Number, date and the like; sometimes nothing."""
    if rng.random() < 0.2:
        return ()
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1998, 2026)
    date = (
        f"{day:02d}.{month:02d}.{year}" if rng.random() < 0.5 else f"{year}-{month:02d}-{day:02d}"
    )
    clock = f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}"
    number, ward = rng.integers(10**5, 10**8), rng.integers(1, 20)
    parts = [f"ID: {number}", f"{date} {clock}", f"Ward {ward}", "12-lead ECG", "Page 1/1"]
    return tuple(str(p) for p in rng.permutation(parts)[: rng.integers(1, 4)])


def _footer(rng: np.random.Generator, speed: float, gain: float) -> tuple[str, ...]:
    """Speed and gain in one of their spellings, filter, device; sometimes nothing."""
    if rng.random() < 0.12:
        return ()
    tight = rng.random() < 0.4
    space = "" if tight else " "
    parts = [f"{speed:g}{space}mm/s", f"{gain:g}{space}mm/mV"]
    if rng.random() < 0.6:
        filters = [
            "0.05-150 Hz",
            "0.15-40 Hz",
            "0.5-35 Hz",
            "F 50~ 0.15-100 Hz",
            "F 60~ 0.05-100 Hz",
        ]
        parts.append(str(rng.choice(filters)))
    if rng.random() < 0.4:
        parts.append(str(rng.choice(["Cart 3", "SN 20417", "v2.11", "Rev. C"])))
    return tuple(parts)
