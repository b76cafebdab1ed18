"""Quality and `pulse-edge check`: facts, verdicts, and advice. Pages come from
calibration.synthetic."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from calibration.synthetic import PageStyle, draw, synthesize
from pulse_edge.cli.main import cli
from pulse_edge.errors import PageRefused
from pulse_edge.measurement import admission as final
from pulse_edge.page import admission, orientation, overlay, quality, reader
from pulse_edge.page.ink import grid_lines
from pulse_edge.page.light import glare_share
from pulse_edge.page.traces import ROWS


@functools.cache
def synthetic_page(layout: str = "3x4+1", px_per_mm: float = 5.0) -> np.ndarray:
    rows = {"12x1": 15.0, "6x2": 22.0}.get(layout, 30.0)
    return draw(synthesize(3), PageStyle(layout=layout, px_per_mm=px_per_mm, row_mm=rows)).image


def judge(image: np.ndarray) -> quality.Quality:
    return admission.check(reader.Page(Image.fromarray(image), "", "page")).quality


def checks(result: quality.Quality) -> set[str]:
    return {reason.check for reason in result.reasons}


def test_a_clean_page_is_good_and_its_leads_are_counted() -> None:
    result = judge(synthetic_page())
    assert (result.verdict, result.layout, result.leads, result.reasons) == (
        quality.GOOD,
        "3x4+1",
        12,
        (),
    )
    assert result.facts["resolution"] == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize(("layout", "rows"), [("3x4", 3), ("3x4+3", 6), ("6x2", 6), ("12x1", 12)])
def test_rows_of_traces_are_counted(layout: str, rows: int) -> None:
    result = judge(synthetic_page(layout))
    assert len(result.rows) == rows
    assert result.layout == layout


def test_a_blurred_page_is_refused_for_its_blur() -> None:
    result = judge(cv2.GaussianBlur(synthetic_page(), (0, 0), 6))
    assert result.verdict == quality.REFUSED
    assert result.facts["sharpness"] > judge(synthetic_page()).facts["sharpness"]


def test_blur_is_measured_in_millimetres() -> None:
    once, twice = (
        judge(cv2.GaussianBlur(synthetic_page("3x4+1", k), (0, 0), 0.3 * k)).facts["sharpness"]
        for k in (4.0, 8.0)
    )
    assert once == pytest.approx(twice, rel=0.25)


def test_a_page_that_is_too_small_warns_with_its_resolution() -> None:
    small = cv2.resize(synthetic_page(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert "resolution" in checks(judge(small))


def test_a_page_with_two_rows_left_is_refused_for_its_leads() -> None:
    result = judge(
        synthetic_page()[
            : int(0.47 * synthetic_page().shape[0]), : synthetic_page().shape[1] // 2
        ].copy()
    )
    assert result.verdict == quality.REFUSED
    assert checks(result) & {"leads", "ecg"}


def test_page_that_looks_the_same_upside_down_warns_about_orientation() -> None:
    page = synthetic_page("3x4")
    result = judge(np.minimum(page, page[::-1, ::-1]))
    assert "orientation" in checks(result)
    assert "orientation" not in checks(judge(page))


def test_a_trace_that_runs_out_of_the_picture_warns() -> None:
    page = synthetic_page().copy()
    bottom = page.shape[0] - round(10 * 5.0) - round(30 * 5.0 * 0.44)
    result = judge(page[: bottom - round(3 * 5.0)])
    assert "cut off" in checks(result)


@pytest.mark.parametrize("kind", ["noise", "white", "black", "text", "bricks"])
def test_pictures_without_ecg_are_refused(kind: str) -> None:
    image = np.full((600, 800, 3), 255, np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    elif kind == "black":
        image[:] = 0
    elif kind == "text":
        for y in range(40, 590, 30):
            cv2.putText(
                image,
                "The quick brown fox jumps over the lazy dog 123",
                (20, y),
                0,
                0.8,
                (0, 0, 0),
                2,
            )
    elif kind == "bricks":
        for y in range(0, 600, 40):
            cv2.rectangle(image, (0, y), (799, y + 36), (150, 80, 60), -1)
            for x in range(20 * (y // 40 % 2), 800, 90):
                cv2.line(image, (x, y), (x, y + 36), (230, 230, 230), 4)
    assert judge(image).verdict == quality.REFUSED


def test_glare_counts_only_where_the_rest_is_not_white() -> None:
    light, page = np.full((100, 100), 180, np.uint8), np.full((200, 200, 3), 180, np.uint8)
    light[:20, :50] = 255
    everywhere = light > 0
    assert glare_share(light, everywhere, page, 1.0) == pytest.approx(0.1)
    assert glare_share(np.full((100, 100), 255, np.uint8), everywhere, page, 1.0) == 0


def test_white_paper_beside_a_shadow_is_no_glare() -> None:
    page = synthetic_page()
    shaded = page.copy()
    shaded[:, : int(0.6 * page.shape[1])] //= 2
    result = judge(shaded)
    assert result.facts["shadow"] < 0.6
    assert result.facts["glare"] == pytest.approx(0, abs=0.01)
    assert result.verdict == quality.GOOD


@pytest.mark.parametrize("strength", [40, 110])
def test_moire_is_refused_and_distinguished_from_the_grid(strength: int) -> None:
    page = synthetic_page()
    y, x = np.mgrid[0 : page.shape[0], 0 : page.shape[1]]
    wave = np.sin(2 * np.pi * (x * 0.19 + y * 0.03)) * np.sin(2 * np.pi * (y * 0.21 - x * 0.02))
    result = judge(np.clip(page + strength * wave[..., None], 0, 255).astype(np.uint8))
    assert result.verdict == quality.REFUSED
    assert "moire" in checks(result)
    assert judge(page).facts["moire"] < 10


def test_waves_of_a_page_that_is_bent_are_uneven() -> None:
    page = synthetic_page()
    y, x = np.mgrid[0 : page.shape[0], 0 : page.shape[1]].astype(np.float32)
    bent = cv2.remap(
        page, x, y + 20 * np.sin(x / 150), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    assert judge(bent).facts["uneven"] > 10 * judge(page).facts["uneven"]


def test_dark_grid_lines_are_separated_from_the_trace_over_a_fold() -> None:
    y, x = np.mgrid[0:400, 0:600].astype(np.float32)
    bent = y + 4 * np.abs(x / 600 - 0.5)
    lines = (
        (np.minimum(bent % 20, 20 - bent % 20) < 1) | (np.minimum(x % 20, 20 - x % 20) < 1)
    ).astype(np.float32)
    result = grid_lines(lines, 4.0, 4.0)
    assert (result & (lines > 0)).sum() > 0.95 * (lines > 0).sum()
    assert result.mean() < 0.45


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 10**6),
    st.sampled_from(["L", "RGB", "1", "P", "RGBA"]),
)
def test_any_picture_is_judged(width: int, height: int, seed: int, mode: str) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    page = reader.read_all(Image.fromarray(pixels).convert(mode))[0]
    done = admission.check(page)
    assert done.quality.verdict in (quality.GOOD, quality.USABLE, quality.REFUSED)
    json.dumps(admission.facts(done))


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "page.png"
    Image.fromarray(synthetic_page()).save(path)
    return path


def test_check_prints_one_json_object_per_page_with_all_fields(page_file: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(page_file), "--json"])
    output = json.loads(done.stdout)
    assert done.exit_code == 0
    assert set(output) >= {
        "file",
        "page",
        "verdict",
        "reasons",
        "sheet",
        "grid",
        "layout",
        "leads",
        "changed",
        "seconds",
    }
    assert (output["file"], output["page"], output["changed"]) == (str(page_file), 1, False)
    assert set(output["sheet"]) == {"corners", "rotation", "mirrored", "skew_degrees"}
    assert set(output["grid"]) == {"pixels_per_mm", "across", "down"}


def test_check_exits_with_3_for_a_refused_page_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.new("RGB", (800, 600), "white").save(path)
    done = CliRunner().invoke(cli, ["check", str(path)])
    assert done.exit_code == 3
    assert "refused" in done.stdout
    assert "Check that the right file or sheet was taken." in done.stdout


def test_check_goes_on_after_a_file_that_is_no_page(page_file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(tmp_path / "none.png"), str(page_file), "--json"])
    assert done.exit_code == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [
        str(tmp_path / "none.png"),
        str(page_file),
    ]


def test_check_saves_the_page_and_its_overlay(page_file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(page_file), "--save-page", str(tmp_path / "out")])
    assert done.exit_code == 0
    saved = Image.open(tmp_path / "out" / "page.png.png")
    assert np.array_equal(np.asarray(saved), synthetic_page())
    assert Image.open(tmp_path / "out" / "page.png.overlay.png").height > saved.height


def test_photographs_are_saved_as_jpeg_with_the_page_number_in_the_name(
    tmp_path: Path,
) -> None:
    page = synthetic_page()
    tilted = cv2.getRotationMatrix2D((page.shape[1] / 2, page.shape[0] / 2), 5, 0.9)
    photo = cv2.warpAffine(page, tilted, page.shape[1::-1], borderValue=(90, 70, 50))
    Image.fromarray(photo).save(
        tmp_path / "two.tiff", save_all=True, append_images=[Image.fromarray(page)]
    )
    CliRunner().invoke(
        cli, ["check", str(tmp_path / "two.tiff"), "--save-page", str(tmp_path / "out")]
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"two.tiff.page1{end}.jpg" for end in ("", ".overlay", ".sheet")} | {
        f"two.tiff.page2{end}.png" for end in ("", ".overlay")
    }


@pytest.mark.parametrize("width", [340, 700, 2500])
def test_the_text_over_a_saved_page_fits_its_width(width: int) -> None:
    page = Image.new("RGB", (width, width // 2), "white")
    reasons = quality.judge_facts({"glare": 0.2, "sharpness": 0.9, "shadow": 0.2})
    assert len(reasons) == 3
    result = quality.Quality(quality.USABLE, reasons, {}, "3x4", 12, ())
    strip = np.asarray(overlay.page_overlay(page, result, None, None))[: -width // 2]
    assert (strip[:, -4:] == 255).all()
    assert (strip < 255).any()
    thin = overlay.wrapped("one two three four", 1.0, 1, 120)
    assert " ".join(thin) == "one two three four"
    assert len(thin) > 1


def test_a_refused_page_raises_with_what_is_wrong_and_what_to_do() -> None:
    done = admission.check(reader.Page(Image.new("RGB", (400, 300), "white"), "", "empty.png"))
    with pytest.raises(
        PageRefused,
        match=r"^empty\.png: This does not look like an ECG page\. Check that the right file",
    ):
        final.raise_if_refused(done)


def test_networks_and_rows_use_the_same_names_of_layouts() -> None:
    assert set(ROWS) | {"partial", "none"} == set(orientation.LAYOUTS)


def test_a_page_on_which_the_program_fails_leaves_the_others(
    page_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pulse_edge.page import admission

    real = admission.check

    def check(page: reader.Page, *, straighten: bool = True) -> admission.CheckedPage:
        if page.name.endswith("poison.png"):
            raise ZeroDivisionError("float division by zero")
        return real(page, straighten=straighten)

    monkeypatch.setattr(admission, "check", check)
    poison = tmp_path / "poison.png"
    poison.write_bytes(page_file.read_bytes())
    done = CliRunner().invoke(cli, ["check", str(poison), str(page_file), "--json"])
    assert done.exit_code == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (
        "the program failed on this page (ZeroDivisionError: float division by zero)"
        in first["error"]
    )
    assert second["verdict"] == "good"
    assert "2 pages: 0 refused, 1 could not be read" in done.stderr
