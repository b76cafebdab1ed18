"""A picture of an ECG sheet becomes the flat, upright page. All pages are synthetic."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from calibration.synthetic import PageStyle, draw, synthesize
from calibration.synthetic.distortions import folds
from pulse_edge.page import admission, reader, rectify

TURNS = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


@functools.cache
def synthetic_page(grid: str = "lines", px_per_mm: float = 4.5) -> np.ndarray:
    style = PageStyle(
        px_per_mm=px_per_mm,
        grid=grid,
        header=("12-lead ECG", "Page 1/1"),
        footer=("25 mm/s", "10 mm/mV"),
    )
    return draw(synthesize(3), style).image


@functools.cache
def on_a_desk(turn: float = 7.0) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of the page on dark wood, and the page's corners in it."""
    page = synthetic_page()
    h, w = page.shape[:2]
    size = (round(1.25 * w), round(1.7 * h))
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    tilt = np.deg2rad(turn)
    around = corners - corners.mean(axis=0)
    there = around @ np.array(
        [[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]], np.float32
    )
    there[:2] *= np.array([0.94, 0.97], np.float32)  # the far edge is shorter
    there += np.array(size, np.float32) / 2
    matrix = cv2.getPerspectiveTransform(corners, there.astype(np.float32))
    dice = np.random.default_rng(0)
    desk = np.clip(
        np.array([92, 66, 46]) + dice.normal(0, 6, (size[1], size[0], 1)), 0, 255
    ).astype(np.uint8)
    inside = cv2.warpPerspective(np.full((h, w), 255, np.uint8), matrix, size)[..., None] > 127
    return np.where(
        inside, cv2.warpPerspective(page, matrix, size, flags=cv2.INTER_CUBIC), desk
    ), there


def test_a_flat_upright_page_passes_untouched() -> None:
    page = Image.fromarray(synthetic_page())
    flat = rectify.flatten(page)
    assert flat.image is page
    assert not flat.changed
    assert flat.sheet.rotation == 0


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_page_comes_back_pixel_for_pixel(turn: int) -> None:
    page = Image.fromarray(synthetic_page())
    flat = rectify.flatten(page.transpose(TURNS[turn]))
    assert flat.sheet.rotation == 360 - turn
    assert np.array_equal(np.asarray(flat.image), synthetic_page())


def test_a_page_without_a_grid_is_turned_by_trace_and_names() -> None:
    page = Image.fromarray(synthetic_page("none"))
    flat = rectify.flatten(page.transpose(TURNS[180]))
    assert flat.grid is None
    assert flat.sheet.rotation == 180


@pytest.mark.parametrize("turn", TURNS)
def test_a_photograph_taken_from_another_side_comes_out_upright(turn: int) -> None:
    photo = Image.fromarray(on_a_desk()[0]).transpose(TURNS[turn])
    assert rectify.flatten(photo).sheet.rotation == 360 - turn


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", ["render/eik_00010.png", "scan/eik_00019.bmp"])
def test_a_real_page_is_turned_upright(name: str, turn: int, shared: Path) -> None:
    with Image.open(shared / "ecg" / "images" / name) as image:
        page = image.convert("RGB").transpose(TURNS[turn])
    assert rectify.flatten(page).sheet.rotation == 360 - turn


def test_page_upside_down_with_kept_pixels_has_negative_odds() -> None:
    head = Image.fromarray(synthetic_page()).transpose(TURNS[180])
    flat = rectify.describe(head)
    assert flat.image is head
    assert flat.orientation_log_odds < 0 < rectify.flatten(head).orientation_log_odds


def test_a_dark_panel_of_a_folded_page_is_not_cut_off() -> None:
    """The grid goes on beyond the fold, so the fold is no edge of the sheet."""
    page = synthetic_page(px_per_mm=8.0)
    folded = folds(page, 0.5, np.random.default_rng(0))
    flat = rectify.flatten(Image.fromarray(folded))
    assert flat.image.width >= 0.98 * folded.shape[1]
    assert flat.sheet.visible_edges == (False,) * 4


def test_grid_gives_the_scale() -> None:
    for px_per_mm in (3.5, 4.5, 6.0):
        result = rectify.flatten(Image.fromarray(synthetic_page("lines", px_per_mm))).grid
        assert result is not None
        assert result.pixels_per_mm == pytest.approx(px_per_mm, rel=0.01)


def test_corners_of_a_sheet_on_a_desk_are_exact_to_one_percent() -> None:
    photo, corners = on_a_desk()
    result = rectify.flatten(Image.fromarray(photo)).sheet
    assert result.corners is not None
    assert result.visible_edges == (True,) * 4
    off = np.linalg.norm(np.array(result.corners) - corners, axis=1)
    assert off.max() < 0.01 * np.hypot(*photo.shape[:2])


def test_a_photographed_sheet_comes_out_straight_and_upright() -> None:
    photo, _ = on_a_desk()
    flat = rectify.flatten(Image.fromarray(photo))
    assert flat.changed
    assert flat.sheet.rotation == 0
    assert abs(flat.sheet.skew_degrees or 9) < 0.5
    assert flat.image.width / flat.image.height == pytest.approx(
        synthetic_page().shape[1] / synthetic_page().shape[0], rel=0.04
    )


def test_shadows_are_evened_out_and_the_trace_stays_dark() -> None:
    photo, _ = on_a_desk()
    shaded = (photo * np.linspace(0.45, 1, photo.shape[1])[None, :, None]).astype(np.uint8)
    page = np.asarray(rectify.flatten(Image.fromarray(shaded)).image).max(axis=2)
    h, w = page.shape
    paper = [
        float(np.median(part))
        for part in np.array_split(page[h // 4 : -h // 4, w // 20 : -w // 20], 4, axis=1)
    ]
    assert max(paper) - min(paper) < 12
    assert (page < 120).mean() > 0.005


def test_pixels_are_left_alone_on_request() -> None:
    photo, _ = on_a_desk()
    image = Image.fromarray(photo)
    flat = rectify.describe(image)
    assert flat.image is image
    assert not flat.changed


def test_noise_stays_unchanged() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    flat = rectify.flatten(noise)
    assert flat.sheet.corners is None
    assert flat.grid is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (40, 9), (17, 300)])
def test_pictures_of_any_size_go_through(size: tuple[int, int]) -> None:
    rectify.flatten(Image.new("RGB", size, "white"))
    rectify.describe(Image.new("RGB", size, "black"))


@pytest.mark.parametrize(("step", "ink"), [(20, 160), (24, 160), (20, 0), (7, 160)])
@pytest.mark.parametrize("across", [True, False])
def test_lined_paper_is_refused_without_a_crash(step: int, ink: int, across: bool) -> None:
    paper = np.full((1123, 794, 3), 255, np.uint8)
    paper[::step] = ink
    if not across:
        paper = np.ascontiguousarray(paper.swapaxes(0, 1))
    assert (
        admission.check(reader.Page(Image.fromarray(paper), "0" * 64, "lined")).quality.verdict
        == "refused"
    )


@pytest.mark.parametrize(
    "name",
    [
        "03a_table_zero_division.pdf",
        "03c_table_singular_matrix.png",
        "03d_table_singular_matrix_2.pdf",
    ],
)
def test_a_table_of_numbers_does_not_crash(shared: Path, name: str) -> None:
    path = shared / "faults" / "intake" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert admission.check(reader.read(path)).quality.verdict in ("refused", "usable")
