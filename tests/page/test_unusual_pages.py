"""What clinics send besides plain pages: stretched, mirrored, square, on coloured paper, in a
letter; and what is no ECG."""

from __future__ import annotations

import dataclasses
import functools
import io
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from calibration.synthetic import PageStyle, draw, synthesize
from calibration.synthetic.style import random_style
from pulse_edge.page import admission, file_errors, quality, reader, rectify, rgb_page
from pulse_edge.page.quality_limits import LIMITS

SCALE = 5.0
NAMED = {"header": ("12-lead ECG", "Page 1/1"), "footer": ("25 mm/s", "10 mm/mV")}


@functools.cache
def synthetic_page(
    layout: str = "3x4+1", seed: int = 3, row_mm: float = 0.0, **more: object
) -> np.ndarray:
    rows = row_mm or {"12x1": 15.0, "6x2": 22.0}.get(layout, 30.0)
    style = PageStyle(layout=layout, px_per_mm=SCALE, row_mm=rows, **NAMED)
    return draw(synthesize(seed), dataclasses.replace(style, **more)).image


def checked(page: np.ndarray | Image.Image, *, straighten: bool = True) -> admission.CheckedPage:
    image = page if isinstance(page, Image.Image) else Image.fromarray(page)
    return admission.check(reader.Page(image, "", "page"), straighten=straighten)


def reasons(page: admission.CheckedPage) -> set[str]:
    return {reason.check for reason in page.quality.reasons}


# --- stretched ------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["across", "down"])
@pytest.mark.parametrize("factor", [0.48, 0.5, 0.6, 0.7, 0.8])
def test_a_stretched_page_is_squared_by_its_grid_and_says_so(factor: float, axis: str) -> None:
    page = Image.fromarray(synthetic_page())
    size = (factor, 1.0) if axis == "across" else (1.0, factor)
    pressed = page.resize(
        (round(page.width * size[0]), round(page.height * size[1])), Image.Resampling.BICUBIC
    )
    result = checked(pressed)
    grid = result.flat.grid
    assert grid is not None
    assert (grid.across, grid.down) == pytest.approx((SCALE, SCALE), rel=0.02)
    assert result.flat.image.size == pytest.approx(page.size, rel=0.02)
    assert result.quality.facts["stretched"] == pytest.approx(1 / factor, rel=0.02)
    assert reasons(result) == {"stretched"}
    assert (result.quality.layout, result.quality.leads) == ("3x4+1", 12)
    assert result.flat.to_page is not None
    corner = result.flat.to_page @ np.array([pressed.width, pressed.height, 1.0])
    assert corner[:2] / corner[2] == pytest.approx(result.flat.image.size, abs=1.5)


def test_a_stretched_page_that_stays_as_it_is_gives_the_scale_of_both_directions() -> None:
    page = Image.fromarray(synthetic_page())
    result = checked(
        page.resize((page.width, round(0.6 * page.height)), Image.Resampling.BICUBIC),
        straighten=False,
    )
    assert "stretched" in reasons(result)
    facts = admission.facts(result)
    assert (facts["grid"]["across"], facts["grid"]["down"]) == pytest.approx(
        (SCALE, 0.6 * SCALE), rel=0.02
    )


@pytest.mark.parametrize("factor", [0.95, 1.0, 1.05])
def test_a_page_that_is_hardly_stretched_stays_untouched(factor: float) -> None:
    page = Image.fromarray(synthetic_page())
    page = page.resize((page.width, round(factor * page.height)), Image.Resampling.BICUBIC)
    assert checked(page).flat.image is page


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF", "BMP"])
def test_the_resolution_of_a_fax_stretches_pictures_of_every_kind(fmt: str) -> None:
    def read(across: float, down: float) -> tuple[int, int]:
        file = io.BytesIO()
        Image.new("L", (172, 108), 255).save(file, fmt, dpi=(across, down))
        return reader.read(file.getvalue()).image.size

    if fmt != "BMP":
        assert read(204, 98) == (172, pytest.approx(225, abs=1))
        assert read(200, 100) == (172, 216)
    assert read(204, 196) == (172, 108)
    assert read(300, 72) == (172, 108)


# --- mirrored -------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("layout", ["3x4+1", "6x2"])
def test_a_mirrored_page_comes_back_pixel_for_pixel_with_a_warning(layout: str, turn: int) -> None:
    page = synthetic_page(layout)
    result = checked(np.ascontiguousarray(np.rot90(page[:, ::-1], turn)))
    assert result.flat.sheet.mirrored
    assert np.array_equal(np.asarray(result.flat.image), page)
    assert reasons(result) == {"mirrored"}
    assert result.quality.verdict == quality.USABLE


def test_a_mirrored_page_whose_pixels_stay_is_named() -> None:
    page = Image.fromarray(np.ascontiguousarray(synthetic_page()[:, ::-1]))
    result = checked(page, straighten=False)
    assert result.flat.image is page
    assert "mirrored" in reasons(result)


@pytest.mark.parametrize("seed", range(6))
def test_a_page_that_is_right_is_never_mirrored(seed: int) -> None:
    page = synthetic_page(("3x4+1", "6x2", "12x1")[seed % 3], seed=seed)
    for turn in (0, 1):
        result = checked(np.ascontiguousarray(np.rot90(page, turn)))
        assert not result.flat.sheet.mirrored
        assert "mirrored" not in reasons(result)


@pytest.mark.parametrize(
    "name", ["render/cinc_00005.png", "render/kg_892067079_clean.png", "render/eik_00016.jpg"]
)
def test_a_real_page_is_mirrored_back(name: str, shared: Path) -> None:
    with Image.open(shared / "ecg" / "images" / name) as image:
        page = image.convert("RGB")
    assert not checked(page).flat.sheet.mirrored
    result = checked(page.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert result.flat.sheet.mirrored
    assert np.array_equal(np.asarray(result.flat.image), np.asarray(page))


@pytest.mark.parametrize("seed", [274, 353])
def test_a_page_on_which_the_networks_disagree_stays_and_warns(seed: int) -> None:
    """Prints at 50 mm/s, which the network for turns takes for upside down."""
    rng = np.random.default_rng(seed)
    style = random_style(rng)
    if seed % 2:
        colour = PAPERS["khaki"]
        minor, major = (tuple(int(share * v) for v in colour) for share in (0.88, 0.72))
        style = dataclasses.replace(style, paper=colour, minor=minor, major=major)
    page = Image.fromarray(draw(synthesize(seed), style).image)
    result = checked(page)
    assert result.flat.image is page
    assert "orientation" in reasons(result)
    assert result.quality.leads == 12


# --- other shapes, other colours of paper -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "row_mm"),
    [("3x4+1", 55.0), ("6x2", 37.0), ("3x4+3", 37.0), ("3x4+1", 62.0), ("6x2", 45.0)],
)
def test_a_square_or_tall_page_keeps_its_layout(layout: str, row_mm: float) -> None:
    page = synthetic_page(layout, row_mm=row_mm)
    assert page.shape[0] > 0.85 * page.shape[1]
    result = checked(page)
    assert (result.quality.layout, result.quality.leads) == (layout, 12)
    assert "leads" not in reasons(result)


def test_an_ecg_in_the_upper_half_of_a_tall_page_keeps_its_layout() -> None:
    page = synthetic_page()
    below = np.full((page.shape[1], page.shape[1], 3), 255, np.uint8)
    below[: len(page)] = page
    assert checked(np.vstack([below, below[len(page) :]])).quality.leads == 12


@pytest.mark.parametrize("part", ["left", "right"])
@pytest.mark.parametrize("layout", ["3x4+1", "6x2", "3x4"])
def test_half_a_page_has_not_all_its_leads(layout: str, part: str) -> None:
    page = synthetic_page(layout)
    middle = page.shape[1] // 2
    result = checked(np.ascontiguousarray(page[:, :middle] if part == "left" else page[:, middle:]))
    assert result.quality.leads < 12


PAPERS = {
    "olive": (107, 142, 35),
    "khaki": (195, 176, 145),
    "pink": (255, 182, 193),
    "blue": (135, 170, 220),
    "grey": (160, 160, 160),
    "brown": (150, 110, 80),
    "yellow": (255, 235, 100),
}


@pytest.mark.parametrize("ink_px", [1.2, 2.6])
@pytest.mark.parametrize("layout", ["3x4+1", "12x1"])
@pytest.mark.parametrize("paper", PAPERS)
def test_a_clean_page_on_paper_of_any_colour_passes_untouched(
    paper: str, layout: str, ink_px: float
) -> None:
    colour = PAPERS[paper]
    minor, major = (tuple(int(share * v) for v in colour) for share in (0.88, 0.72))
    page = Image.fromarray(
        synthetic_page(layout, paper=colour, minor=minor, major=major, ink_px=ink_px)
    )
    result = checked(page)
    assert result.flat.image is page
    assert (result.quality.layout, result.quality.leads) == (layout, 12)


# --- photographs on a smooth desk -----------------------------------------------------------------


@pytest.mark.parametrize("level", [30, 52, 90])
@pytest.mark.parametrize("jpeg", [40, 75, 92])
def test_the_noise_of_a_jpeg_on_a_smooth_desk_is_no_grid(jpeg: int, level: int) -> None:
    page = synthetic_page()
    height, width = page.shape[:2]
    ends = np.array([[180, 210], [1180, 150], [1250, 900], [140, 940]], np.float32)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, ends)
    desk = np.full((1200, 1400, 3), (level + 10, level, level - 8), np.uint8)
    photo = cv2.warpPerspective(page, matrix, (1400, 1200), desk, borderMode=cv2.BORDER_TRANSPARENT)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=jpeg)
    result = checked(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    assert result.flat.sheet.corners is not None
    assert np.linalg.norm(np.array(result.flat.sheet.corners) - ends, axis=1).max() < 20
    assert result.quality.verdict != quality.REFUSED
    assert result.quality.leads == 12


# --- more, or less, than one ECG ------------------------------------------------------------------


def table(seed: int) -> Image.Image:
    """A page of numbers: columns as they are printed, with or without ruled lines, in one of
    several sizes."""
    dice = random.Random(seed)
    width, height = dice.choice([(1240, 1754), (1654, 1169), (1400, 1082), (1700, 2200)])
    page = Image.new("RGB", (width, height), "white")
    pen, size = ImageDraw.Draw(page), dice.choice([14, 18, 24, 30])
    font = ImageFont.load_default(size)
    columns, pitch = dice.randint(3, 13), int(size * dice.choice([1.3, 1.6, 2.2]))
    step = (width - 120) // columns
    ruled = dice.choice(["none", "rows", "all"])
    for y in range(60, height - 60, pitch):
        for column in range(columns):
            pen.text(
                (60 + column * step, y),
                f"{dice.uniform(0, 999):.{dice.randint(0, 2)}f}",
                (20, 20, 20),
                font,
            )
        if ruled != "none":
            pen.line([(60, y - 3), (width - 60, y - 3)], (90, 90, 90), dice.choice([1, 2]))
    if ruled == "all":
        for column in range(columns + 1):
            pen.line([(54 + column * step, 57), (54 + column * step, height - 60)], (90, 90, 90), 1)
    return page


@pytest.mark.parametrize("seed", range(24))
def test_a_table_is_no_ecg(seed: int) -> None:
    assert checked(table(seed)).quality.verdict == quality.REFUSED


@pytest.mark.parametrize("gap_mm", [0, 8, 30])
@pytest.mark.parametrize("layout", ["3x4+1", "3x4"])
def test_two_ecgs_on_one_scan_are_refused_as_two(layout: str, gap_mm: int) -> None:
    one, two = synthetic_page(layout), synthetic_page(layout, seed=8)
    gap = np.full((round(gap_mm * SCALE), one.shape[1], 3), 255, np.uint8)
    result = checked(np.vstack([one, gap, two]))
    assert result.quality.reasons[0].check == "ecgs"
    assert "two ECGs" in result.quality.reasons[0].advice
    assert result.quality.verdict == (
        quality.USABLE if result.quality.leads == 12 else quality.REFUSED
    )


@pytest.mark.parametrize("layout", ["3x4+3", "6x2", "12x1"])
def test_one_ecg_of_many_rows_is_one(layout: str) -> None:
    assert "ecgs" not in checked(synthetic_page(layout)).quality.facts


def letter(ecg: np.ndarray) -> np.ndarray:
    """The ECG pasted into a page of text, above and below."""
    page = Image.new("RGB", (ecg.shape[1], 2 * ecg.shape[1]), "white")
    pen, font, dice = ImageDraw.Draw(page), ImageFont.load_default(22), random.Random(5)
    words = (
        "patient",
        "was",
        "seen again",
        "and",
        "had",
        "no further",
        "pain",
        "since",
        "the last",
        "visit",
        "to us",
    )
    top = 560
    for y in range(50, page.height - 50, 32):
        if not top - 40 < y < top + len(ecg) + 10:
            line = " ".join(dice.choice(words) for _ in range(15))
            pen.text((70, y), line, (25, 25, 25), font)
    page.paste(Image.fromarray(ecg), (0, top))
    return np.asarray(page)


def test_an_ecg_in_a_letter_is_cut_out_of_it() -> None:
    result = checked(letter(synthetic_page()))
    assert result.quality.verdict != quality.REFUSED
    assert (result.quality.layout, result.quality.leads) == ("3x4+1", 12)
    grid = result.flat.grid
    assert grid is not None
    assert (grid.across, grid.down) == pytest.approx((SCALE, SCALE), rel=0.02)


@pytest.mark.parametrize("level", [0, 25])
def test_light_on_dark_is_named(level: int) -> None:
    dark = np.maximum(255 - synthetic_page(), level).astype(np.uint8)
    result = checked(dark)
    assert result.quality.verdict == quality.REFUSED
    assert result.quality.reasons[0].check == "dark"
    assert "Print it, or invert its colours" in result.quality.reasons[0].advice
    assert checked(np.full_like(dark, level)).quality.reasons[0].check == "ecg"


# --- the made-up failures -------------------------------------------------------------------------

EXPECTED = {
    "05a_mirrored.png": ("usable", 12, "mirrored"),
    "05b_flipped.png": ("usable", 12, "mirrored"),
    "06a_height_x0.5.png": ("usable", 12, "stretched"),
    "06a_height_x0.6.png": ("usable", 12, "stretched"),
    "06a_height_x0.8.png": ("usable", 12, "stretched"),
    "06c_pHYs_204x98.png": ("good", 12, None),
    "03a_table_zero_division.pdf": ("refused", 0, "ecg"),
    "03c_table_singular_matrix.png": ("refused", 0, "ecg"),
    "03d_table_singular_matrix_2.pdf": ("refused", 0, "ecg"),
    "04a_table_called_12x1.pdf": ("refused", 0, "ecg"),
    "04b_table_called_8_leads.pdf": ("refused", 0, "ecg"),
    "16a_UserUnit_10.pdf": ("good", 12, None),
    "16b_page_of_5_cm.pdf": ("good", 12, None),
    "18_two_ecgs_on_one_scan.jpg": ("refused", 8, "ecgs"),
    "19_control_6x2_landscape.png": ("good", 12, None),
    "19a_6x2_square.png": ("good", 12, None),
    "19b_6x2_portrait.png": ("good", 12, None),
    "19c_3x4+3_square.png": ("good", 12, None),
    "19d_3x4+1_square.png": ("good", 12, None),
    "19e_3x4+1_upper_half_of_A4.png": ("good", 12, None),
    "20_photo_on_smooth_desk_jpeg75.jpg": ("good", 12, None),
    "21_ecg_in_a_letter.jpg": ("usable", 12, "part"),
    "22_dark_theme.png": ("refused", 0, "dark"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_file_that_was_once_misjudged_gets_the_right_verdict(name: str, shared: Path) -> None:
    path = shared / "faults" / "intake" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    verdict, leads, reason = EXPECTED[name]
    result = admission.check(reader.read(path))
    first = result.quality.reasons[0].check if result.quality.reasons else None
    assert (result.quality.verdict, result.quality.leads, first) == (verdict, leads, reason)


def test_limits_of_pixels_and_stretch_equal_the_documented_ones() -> None:
    assert (rgb_page.HALVED, file_errors.MAX_PIXELS) == (40_000_000, 100_000_000)
    assert LIMITS["stretched"].warns == rectify.STRETCH_LIMIT
