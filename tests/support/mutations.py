"""Faults inserted into the converter and the runtime on purpose, which the proof must detect.

A mutation changes one thing in this process by monkeypatching. `needs` says which halves of the kit
it changes: the other half is copied from a right kit, so that a mutation costs seconds. `layout`
names the checkpoint on which it changes anything at all: a newline of zeros, for example, needs a
packing with newlines.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
import tiny
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from export import checkpoint, convert, ggml, llm, vision
from pulse_edge.inference import tiling
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.write import listing, write_manifest

Patch = pytest.MonkeyPatch


LAYOUTS = {
    "flat": ("--seed", "3"),
    "unpad": ("--seed", "4", "--merge", "spatial_unpad"),
    "adapter": ("--seed", "5"),
}


def source(folder: Path, layout: str) -> tuple[Path, convert.Options]:
    """A micro checkpoint of a layout, and the options to convert it."""
    path = tiny.checkpoint(folder / f"{layout}-checkpoint", *LAYOUTS[layout])
    options = convert.Options(demonstration=True)
    return path, dataclasses.replace(
        options, lora=adapter(folder, path)
    ) if layout == "adapter" else options


@dataclass(frozen=True)
class Mutation:
    """One fault."""

    name: str
    apply: Callable[[Patch, Path], None]
    """Gets the checkpoint's folder too."""
    notices: str
    """A regular expression of the refusal."""
    needs: str = ""
    """language, vision, or empty: neither file of weights is another one."""
    layout: str = "flat"


# --- kits -------------------------------------------------------------------------------------


def adapter(folder: Path, base: Path) -> Path:
    """A LoRA folder with non-zero B, as PEFT writes it."""
    out, random = folder / "adapter", torch.Generator().manual_seed(1)
    out.mkdir()
    tensors = {}
    with safe_open(next(base.glob("*.safetensors")), "pt") as f:
        for name in f.keys():  # noqa: SIM118
            if name.startswith("model.layers.") and name.endswith(
                ("q_proj.weight", "down_proj.weight")
            ):
                rows, columns = f.get_slice(name).get_shape()
                stem = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{stem}.lora_A.weight"] = torch.randn(4, columns, generator=random) * 0.05
                tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, 4, generator=random) * 0.05
    save_file(tensors, out / "adapter_model.safetensors", {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "bias": "none",
        "target_modules": ["q_proj", "down_proj"],
    }
    (out / "adapter_config.json").write_text(json.dumps(settings))
    return out


def mutated(
    mutation: Mutation,
    folder: Path,
    right: Path,
    options: convert.Options,
    target: Path,
    patch: Patch,
) -> None:
    """Convert with the fault; raises what the proof raises."""
    if mutation.needs != "language":
        patch.setattr(
            llm, "write", lambda _c, path, *_a, **_k: shutil.copy(right / "llm.gguf", path)
        )
    if mutation.needs != "vision":
        patch.setattr(vision, "Encoder", lambda _checkpoint: None)
        patch.setattr(
            vision, "write", lambda _e, path, *_a, **_k: _copy_encoder(right, path.parent)
        )
    mutation.apply(patch, folder)
    convert.convert(folder, target, options)


def _copy_encoder(right: Path, target: Path) -> None:
    for file in right.glob("vision.onnx*"):
        shutil.copy(file, target / file.name)


# --- faults in the quantizer ------------------------------------------------------------------


def noisy(kit: Path, share: float = 0.01) -> None:
    """Put noise on every weight of a finished kit's language model, as a share of it, and write its
    manifest again.
    """
    opened, random = open_kit(kit), np.random.default_rng(0)
    for t in gguf.GGUFReader(kit / "llm.gguf", "r+").tensors:
        if len(t.shape) > 1:
            values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
            values *= 1 + share * random.standard_normal(values.shape, np.float32)
            t.data[:] = (
                ggml.packed(values, t.tensor_type, None).view(t.data.dtype).reshape(t.data.shape)
            )
    write_manifest(kit, dataclasses.replace(opened.manifest, files=listing(kit)))


# --- ways to be wrong -------------------------------------------------------------------------


def weights(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Callable[[Patch, Path], None]:
    """The converter reads changed tensors."""

    def apply(patch: Patch, _folder: Path) -> None:
        read = checkpoint.Checkpoint.tensor
        patch.setattr(
            checkpoint.Checkpoint, "tensor", lambda self, name: change(name, read(self, name))
        )

    return apply


def exchanged(one: str, other: str) -> Callable[[Patch, Path], None]:
    """The converter reads tensors whose names hold `one` where it asks for `other`, and the other
    way round.
    """

    def apply(patch: Patch, _folder: Path) -> None:
        read = checkpoint.Checkpoint.tensor

        def tensor(self: Any, name: str) -> torch.Tensor:
            return read(self, name.replace(one, "?").replace(other, one).replace("?", other))

        patch.setattr(checkpoint.Checkpoint, "tensor", tensor)

    return apply


def says(method: str, value: Any) -> Callable[[Patch, Path], None]:
    """The GGUF gets another value of a key; `value` may be a function of the right one."""

    def apply(patch: Patch, _folder: Path) -> None:
        right = getattr(gguf.GGUFWriter, method)
        changed = value if callable(value) else lambda _right: value
        patch.setattr(
            gguf.GGUFWriter, method, lambda self, given, *more: right(self, changed(given), *more)
        )

    return apply


def manifest(part: str, **fields: Any) -> Callable[[Patch, Path], None]:
    """The manifest gets other fields; each may be a function of the right one."""

    def apply(patch: Patch, _folder: Path) -> None:
        right = convert._manifest

        def wrong(*arguments: Any) -> Any:
            m = right(*arguments)
            old = getattr(m, part)
            new = {k: v(getattr(old, k)) if callable(v) else v for k, v in fields.items()}
            return dataclasses.replace(m, **{part: dataclasses.replace(old, **new)})

        patch.setattr(convert, "_manifest", wrong)

    return apply


def config(**fields: Any) -> Callable[[Patch, Path], None]:
    """The configuration is read wrongly."""

    def apply(patch: Patch, _folder: Path) -> None:
        right = convert.read_config  # type: ignore[attr-defined]

        def wrong(*arguments: Any, **more: Any) -> Any:
            c = right(*arguments, **more)
            return dataclasses.replace(
                c, **{k: v(getattr(c, k)) if callable(v) else v for k, v in fields.items()}
            )

        patch.setattr(convert, "read_config", wrong)

    return apply


def pictures(
    change: Callable[[list[Image.Image], Image.Image], list[Image.Image]],
) -> Callable[[Patch, Path], None]:
    """The runtime cuts other tiles; `change` gets the right ones and the page."""

    def apply(patch: Patch, _folder: Path) -> None:
        right = tiling.pictures
        patch.setattr(tiling, "pictures", lambda page, **more: change(right(page, **more), page))

    return apply


def packed(
    change: Callable[[np.ndarray, dict[str, Any]], np.ndarray],
) -> Callable[[Patch, Path], None]:
    """The runtime packs other features; `change` gets them and the settings."""

    def apply(patch: Patch, _folder: Path) -> None:
        right = tiling.pack
        patch.setattr(
            tiling, "pack", lambda features, **more: right(change(features, more), **more)
        )

    return apply


def scaled(part: str, factor: float) -> Callable[[Patch, Path], None]:
    return weights(lambda name, t: t * factor if part in name else t)


def _no_rotary_of_k(patch: Patch, _folder: Path) -> None:
    right = llm._rotary
    patch.setattr(
        llm,
        "_rotary",
        lambda name, t, c: t if name.endswith("k_proj.weight") else right(name, t, c),
    )


def _gelu(patch: Patch, _folder: Path) -> None:
    right = vision.CLIPVisionConfig  # type: ignore[attr-defined]
    patch.setattr(
        vision, "CLIPVisionConfig", lambda **settings: right(**(settings | {"hidden_act": "gelu"}))
    )


def _cls_kept(patch: Patch, _folder: Path) -> None:
    def forward(self: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.tower.vision_model
        hidden = model.pre_layrnorm(model.embeddings(pixel_values))
        return self.projector(model.encoder(inputs_embeds=hidden).last_hidden_state[:, :-1])

    patch.setattr(vision.Encoder, "forward", forward)


def _noise_in_the_file(patch: Patch, _folder: Path) -> None:
    right = onnx.save_model

    def save(model: Any, *arguments: Any, **more: Any) -> None:
        random = np.random.default_rng(0)
        for t in model.graph.initializer:
            if t.data_type == onnx.TensorProto.FLOAT16:
                values = onnx.numpy_helper.to_array(t)
                noisy = values * (1 + 0.01 * random.standard_normal(values.shape)).astype(
                    np.float16
                )
                t.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float16), t.name))
        right(model, *arguments, **more)

    patch.setattr(onnx, "save_model", save)


def _coarse(patch: Patch, _folder: Path) -> None:
    right = llm.encode

    def encode(tensor: torch.Tensor, target: Any) -> Any:
        data = right(tensor, target)
        if data.dtype == np.float16:
            step = np.abs(data).max(1, keepdims=True) / 31
            data = (np.round(data / step) * step).astype(np.float16)
        return data

    patch.setattr(llm, "encode", encode)


def _swapped_names(one: str, other: str) -> Callable[[Patch, Path], None]:
    def apply(patch: Patch, _folder: Path) -> None:
        names = dict(llm._LAYER)
        patch.setitem(llm._LAYER, one, names[other])
        patch.setitem(llm._LAYER, other, names[one])

    return apply


def _linear_rope(patch: Patch, _folder: Path) -> None:
    right = gguf.GGUFWriter.add_rope_freq_base

    def add(self: Any, base: float) -> None:
        right(self, base)
        self.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        self.add_rope_scaling_factor(2.0)

    patch.setattr(gguf.GGUFWriter, "add_rope_freq_base", add)


def _bilinear(patch: Patch, _folder: Path) -> None:
    wrong = SimpleNamespace(BICUBIC=Image.Resampling.BILINEAR)
    patch.setattr(
        tiling, "Image", SimpleNamespace(Resampling=wrong, new=Image.new, Image=Image.Image)
    )


def _adapter_left_out(patch: Patch, folder: Path) -> None:
    read = checkpoint.Checkpoint.tensor

    def tensor(self: Any, name: str) -> torch.Tensor:
        if not name.endswith("q_proj.weight") or "vision" in name:
            return read(self, name)
        with safe_open(next(folder.glob("*.safetensors")), "pt") as f:
            return f.get_tensor(name)  # type: ignore[no-any-return]

    patch.setattr(checkpoint.Checkpoint, "tensor", tensor)


def _transposed_tile(features: np.ndarray, more: dict[str, Any]) -> np.ndarray:
    changed, side = features.copy(), round(features.shape[1] ** 0.5)
    changed[-1] = features[-1].reshape(side, side, -1).swapaxes(0, 1).reshape(features[-1].shape)
    return changed


def _letterboxed(tiles: list[Image.Image], page: Image.Image) -> list[Image.Image]:
    size = tiles[0].size
    inner = page.copy()
    inner.thumbnail(size, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", size)
    canvas.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return [canvas, *tiles[1:]]


def _system_prompt(patch: Patch, _folder: Path) -> None:
    before, after = prompt.TEMPLATES["llava_v1"]
    patch.setitem(prompt.TEMPLATES, "llava_v1", (before.replace("polite", "kind"), after))


WEIGHTS, SAYS = "its weights are not the source's", "does not say what the source files say"
TOKENS, PIXELS, PACKED = "token error", "pixel difference", "not packed as the original"
