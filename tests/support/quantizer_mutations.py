"""Faults that are put into the quantizer on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
from mutations import Patch

from export import ggml


@dataclass(frozen=True)
class Requantized:
    """One fault of the quantizer."""

    name: str
    apply: Callable[[Patch], None]
    notices: str


def written(change: Callable[[Path], None]) -> Callable[[Patch], None]:
    """The quantizer's file is changed as soon as it is there."""

    def apply(patch: Patch) -> None:
        right = ggml.quantize

        def wrong(source: Path, target: Path, *arguments: Any, **more: Any) -> None:
            right(source, target, *arguments, **more)
            change(target)

        patch.setattr(ggml, "quantize", wrong)

    return apply


def _tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path, "r+").tensors}


def _scales(factor: float, noise: float = 0.0) -> Callable[[Path], None]:
    """The scale of each Q8_0 block of one matrix times a factor, and noise."""

    def change(path: Path) -> None:
        data = _tensors(path)["blk.1.attn_q.weight"].data
        scales = data.reshape(len(data), -1, 34)[..., :2].view(np.float16)
        random = np.random.default_rng(0).standard_normal(scales.shape)
        scales[:] = (scales * (factor + noise * random)).astype(np.float16)

    return change


def _exchanged_tensors(path: Path) -> None:
    a, b = (_tensors(path)[f"blk.{n}.attn_q.weight"].data for n in (0, 2))
    a[:], b[:] = b.copy(), a.copy()


def _norm(path: Path) -> None:
    _tensors(path)["blk.0.attn_norm.weight"].data[5] += 0.01


def _field(name: str, value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        field = gguf.GGUFReader(path, "r+").fields[name]
        field.parts[field.data[0]][0] = value

    return change


def _unasked_importance(patch: Patch) -> None:
    right = ggml.quantize

    def wrong(source: Path, target: Path, kind: str, **more: Any) -> None:
        tensors = gguf.GGUFReader(source).tensors
        columns = {
            t.name: np.linspace(0.1, 9, int(t.shape[0]), dtype=np.float32)
            for t in tensors
            if len(t.shape) > 1
        }
        right(source, target, "Q4_K_M", **(more | {"importance": columns}))

    patch.setattr(ggml, "quantize", wrong)


def _longer_tokens(patch: Patch) -> None:
    right = onnx.save_model

    def save(model: Any, *arguments: Any, **more: Any) -> None:
        end = model.graph.output[0].name
        (last,) = (n for n in model.graph.node if end in n.output)
        last.output[0] = "shorter"
        two = onnx.numpy_helper.from_array(np.array(1.02, np.float32), "two")
        model.graph.initializer.append(two)
        model.graph.node.append(onnx.helper.make_node("Mul", ["shorter", "two"], [end], "longer"))
        right(model, *arguments, **more)

    patch.setattr(onnx, "save_model", save)


def _newline_lost(patch: Patch) -> None:
    right = shutil.copyfile

    def copy(source: Any, target: Any) -> Any:
        if str(source).endswith("image_newline.f32"):
            return Path(target).write_bytes(bytes(Path(source).stat().st_size))
        return right(source, target)

    patch.setattr(shutil, "copyfile", copy)


QUANTIZER = (
    Requantized(
        "one matrix scaled by 1.02",
        written(_scales(1.02)),
        "attn_q.weight .Q8_0. has other weights",
    ),
    Requantized("1 % noise on one matrix", written(_scales(1, 0.01)), "has other weights"),
    Requantized("two layers' matrices exchanged", written(_exchanged_tensors), "has other weights"),
    Requantized(
        "a norm changed in one place", written(_norm), "attn_norm.weight .F32. has other weights"
    ),
    Requantized(
        "rotary base of 12000",
        written(_field("llama.rope.freq_base", 12000.0)),
        "freq_base is 12000",
    ),
    Requantized(
        "EOS is token 0", written(_field("tokenizer.ggml.eos_token_id", 0)), "eos_token_id is 0"
    ),
    Requantized(
        "another type, with an importance that was not collected",
        _unasked_importance,
        "asked was Q8_0",
    ),
    Requantized("image tokens of 1.02 times the length", _longer_tokens, r"1\.02\d times as long"),
    Requantized("newline of zeros", _newline_lost, "image_newline.f32: not as in"),
)
