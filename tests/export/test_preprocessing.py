"""The image processor's files: means, deviations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_folders import GRID, HUB, LLAVA, lay, read

from pulse_edge.errors import CheckpointError

OTHER = {"image_mean": [0.9, 0.8, 0.7], "image_std": [0.2, 0.3, 0.4]}
RIGHT = {
    "resample": 3,
    "do_normalize": True,
    "do_resize": True,
    "size": {"shortest_edge": 56},
    "crop_size": 56,
}
FIRST, SECOND = "preprocessor_config.json", "processor_config.json"


@pytest.mark.parametrize(
    "files",
    [
        {FIRST: OTHER | RIGHT},
        {
            SECOND: {
                "image_processor": OTHER | RIGHT,
                "processor_class": "LlavaNextProcessor",
                "patch_size": 14,
            }
        },
        {FIRST: {"image_processor": OTHER}},
        {FIRST: OTHER, SECOND: {"image_processor": OTHER | RIGHT}},
        {FIRST: OTHER | {"size": {"height": 56, "width": 56}, "do_resize": False, "do_pad": False}},
        {
            FIRST: OTHER
            | {"image_grid_pinpoints": GRID, "image_processor_type": "LlavaNextImageProcessorFast"}
        },
    ],
)
def test_means_and_deviations_come_from_the_image_processors_files(
    files: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = read(lay(checkpoints[HUB], tmp_path / "source", {}, files))
    assert (config.mean, config.std) == ((0.9, 0.8, 0.7), (0.2, 0.3, 0.4))
    assert {path.name for path in config.files} == {"config.json", *files}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({FIRST: {"do_normalize": False}}, f"{FIRST}: do_normalize is False"),
        ({SECOND: {"image_processor": {"do_rescale": False}}}, f"{SECOND}: do_rescale is False"),
        (
            {FIRST: {"size": {"shortest_edge": 224}}},
            r"size is .*224.*, the vision tower's image_size 56",
        ),
        (
            {FIRST: {"crop_size": {"height": 56, "width": 28}}},
            "crop_size is .*, the vision tower's image_size 56",
        ),
        ({FIRST: {"resample": 2}}, "resample is 2 .*bicubic"),
        ({FIRST: {"rescale_factor": 1.0}}, r"rescale_factor is 1\.0, expected 1/255"),
        (
            {FIRST: {"image_mean": [0.5, 0.5]}},
            r"image_mean is \[0\.5, 0\.5\], expected three numbers",
        ),
        (
            {FIRST: {"image_std": [0.5, 0.5, 0.0]}},
            "image_std is .*, expected three numbers above 0",
        ),
        (
            {FIRST: {"image_processor_type": "SiglipImageProcessor"}},
            "image_processor_type is 'SiglipImageProcessor'",
        ),
        (
            {FIRST: {"image_grid_pinpoints": [[56, 112]]}},
            r"image_grid_pinpoints is \[\[56, 112\]\], config\.json says",
        ),
        ({FIRST: {"do_thumbnail": True}}, r"do_thumbnail \(True\) is not known"),
        ({SECOND: {"patch_size": 16}}, "patch_size is 16, the tower's 14"),
        (
            {SECOND: {"vision_feature_select_strategy": "full"}},
            "vision_feature_select_strategy is 'full'",
        ),
        ({FIRST: OTHER, SECOND: {"image_processor": RIGHT}}, "give different means or deviations"),
    ],
)
def test_pixels_that_the_runtime_cannot_make_are_refused(
    files: dict[str, Any], words: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words) as refusal:
        read(lay(checkpoints[HUB], tmp_path / "source", {}, files))
    assert not str(refusal.value).startswith(str(tmp_path / "source" / "config.json"))


@pytest.mark.parametrize(
    ("aspect", "settings", "refused"),
    [
        ("anyres", {"do_resize": False, "do_center_crop": False}, None),
        ("pad", {"do_center_crop": False}, None),
        ("pad", {"do_resize": False}, "do_resize is False, and image_aspect_ratio pad needs it"),
        (
            "square",
            {"do_center_crop": False},
            "do_center_crop is False, and image_aspect_ratio square needs it",
        ),
        ("square", {"size": {"height": 56, "width": 56}}, "size is"),
    ],
)
def test_switches_count_where_tiles_are_not_cut_to_size(
    aspect: str,
    settings: dict[str, Any],
    refused: str | None,
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    files = {f"vision_tower/{FIRST}": settings}  # LLaVA reads the tower's own file
    source = lay(checkpoints[LLAVA], tmp_path / "source", {"image_aspect_ratio": aspect}, files)
    if refused is None:
        assert read(source).aspect_ratio == aspect
    else:
        with pytest.raises(CheckpointError, match=refused):
            read(source)
