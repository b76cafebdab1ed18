"""Read how the pixels of a tile are prepared, as transformers would read it.

The files are preprocessor_config.json and processor_config.json. The runtime cuts tiles of the
tower's own side with Pillow's bicubic, divides by 255, subtracts a mean and divides by a deviation.
A file that asks for anything else is refused, by key.

transformers 4.57 reads preprocessor_config.json first, and transformers 5 the image processor
inside processor_config.json; if both exist they must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig

from export.keys import check, grid_of, read_json, shown

Three = tuple[float, float, float]
CLIP_MEAN: Three = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Three = (0.26862954, 0.26130258, 0.27577711)
"""CLIPImageProcessor and LlavaNextImageProcessor use these values where no file states others."""
_PROCESSORS = ("CLIPImageProcessor", "CLIPFeatureExtractor", "LlavaNextImageProcessor")
_SUFFIXES = ("", "Fast", "Pil")


@dataclass(frozen=True)
class Pixels:
    """Normalisation per channel of RGB in 0 to 1, and the files that state it."""

    mean: Three = CLIP_MEAN
    std: Three = CLIP_STD
    files: tuple[Path, ...] = ()


def read(
    folder: Path | None,
    hub: bool,
    vision: CLIPVisionConfig,
    aspect: str,
    pinpoints: tuple[tuple[int, int], ...],
    wrong: list[str],
) -> Pixels:
    """Read the image processor's files in `folder`; without any, CLIP's own values count.

    With `hub`, as in LlavaNext, the tiles' grid is the image processor's too. Appends to `wrong`
    what contradicts the tower or cannot be done.
    """
    if folder is None:
        return Pixels()
    settings: dict[Path, dict[str, Any]] = {}
    first, second = folder / "preprocessor_config.json", folder / "processor_config.json"
    if first.is_file():
        settings[first] = _inner(read_json(first))
    files = tuple(settings)
    if second.is_file():
        files += (second,)
        outer = read_json(second)
        problems: list[str] = []
        check(outer, ("processor", "preprocessor"), problems, where=f"{second.name}: ")
        if not problems and outer.get("patch_size") not in (None, vision.patch_size):
            problems.append(
                f"{second.name}: patch_size is {outer['patch_size']}, the tower's "
                f"{vision.patch_size}"
            )
        wrong += problems
        if isinstance(outer.get("image_processor"), dict):
            settings[second] = outer["image_processor"]
    normalisations = [
        _one(path, raw, hub, vision, aspect, pinpoints, wrong) for path, raw in settings.items()
    ]
    if len(normalisations) == 2 and normalisations[0] != normalisations[1]:
        wrong.append(f"{first.name} and {second.name} give different means or deviations")
    mean, std = normalisations[0] if normalisations else (CLIP_MEAN, CLIP_STD)
    return Pixels(mean, std, files)


def _is_side(value: Any, names: tuple[str, ...], side: int, *, square: bool) -> bool:
    """Whether a size, as a number or as an object with `names`, is the tower's.

    None states no size and passes. `square` accepts only the shortest edge, because height and
    width would squeeze a page that is not square.
    """
    if value is None or value == side:
        return True
    if not isinstance(value, dict) or not value or (square and set(value) != {"shortest_edge"}):
        return False
    return set(value) <= set(names) and all(edge == side for edge in value.values())


def _inner(raw: dict[str, Any]) -> dict[str, Any]:
    inner = raw.get("image_processor")
    return inner if isinstance(inner, dict) else raw


def _one(
    path: Path,
    raw: dict[str, Any],
    hub: bool,
    vision: CLIPVisionConfig,
    aspect: str,
    pinpoints: tuple[tuple[int, int], ...],
    wrong: list[str],
) -> tuple[Three, Three]:
    """Return mean and deviation of one file."""
    where, problems = f"{path.name}: ", list[str]()
    check(raw, ("preprocessor",), problems, where=where)
    wrong += problems
    if problems:
        return CLIP_MEAN, CLIP_STD
    side = int(vision.image_size)
    for key in ("image_processor_type", "feature_extractor_type"):
        if raw.get(key) is not None and raw[key] not in [
            p + s for p in _PROCESSORS for s in _SUFFIXES
        ]:
            wrong.append(f"{where}{key} is {shown(raw[key])} (known: {', '.join(_PROCESSORS)})")
    for key, names in (
        ("size", ("shortest_edge", "height", "width")),
        ("crop_size", ("height", "width")),
    ):
        if not _is_side(raw.get(key), names, side, square=key == "size" and aspect == "square"):
            wrong.append(f"{where}{key} is {shown(raw[key])}, the vision tower's image_size {side}")
    # A tile of anyres is cut to the tower's side; the one tile of `pad` is a square that must be
    # resized.
    needed = {"anyres": (), "pad": ("do_resize",), "square": ("do_resize", "do_center_crop")}.get(
        aspect, ()
    )
    wrong += [
        f"{where}{k} is False, and image_aspect_ratio {aspect} needs it"
        for k in needed
        if raw.get(k) is False
    ]
    if raw.get("rescale_factor") is not None and abs(raw["rescale_factor"] - 1 / 255) > 1e-9:
        wrong.append(f"{where}rescale_factor is {raw['rescale_factor']}, expected 1/255")
    stated = raw.get("image_grid_pinpoints")
    if hub and aspect == "anyres" and stated is not None and grid_of(stated) != pinpoints:
        wrong.append(
            f"{where}image_grid_pinpoints is {shown(stated)}, config.json says "
            f"{shown(list(pinpoints))}"
        )
    mean, std = raw.get("image_mean") or CLIP_MEAN, raw.get("image_std") or CLIP_STD
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
