from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from export import llm_logits, parity
from export.convert import Options, convert
from export.llm_logits import Input
from export.parity import gates
from pulse_edge.errors import ParityError

Change = Callable[[Path], None]


def test_windows_of_layers_give_the_logits_of_the_whole_model(
    tiny_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_tokens = np.random.default_rng(0).standard_normal((300, 256), np.float32) / 4
    inputs = Input(image_tokens, before=[1, 5, 6], after=[7, 8, 9, 10])
    whole = llm_logits.whole_model(tiny_kit / "llm.gguf", inputs, 2)
    monkeypatch.setattr(llm_logits, "WINDOW_BYTES", 1)
    windows, how = llm_logits.in_windows(tiny_kit / "llm.gguf", 3, inputs, 2, tmp_path)
    assert how.startswith("in 3 windows")
    assert np.abs(windows - whole).max() < 5e-3
    assert (windows.argmax(-1) == whole.argmax(-1)).all()


# --- every layout ---------------------------------------------------------------------------------


def config(**keys: Any) -> Change:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | keys))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def apply(folder: Path) -> None:
        file = next(folder.glob("*.safetensors"))
        save_file(
            {k: v.contiguous() for k, v in change(load_file(file)).items()}, file, {"format": "pt"}
        )

    return apply


def in_pytorch_files(folder: Path) -> None:
    file = next(folder.glob("*.safetensors"))
    whole = load_file(file)
    for old in [file, *folder.glob("*.index.json")]:
        old.unlink()
    names = sorted(whole)
    for n, part in enumerate((names[::2], names[1::2]), 1):
        torch.save({k: whole[k] for k in part}, folder / f"pytorch_model-{n:05d}-of-00002.bin")


def of_transformers_5(folder: Path) -> None:
    renamed = {
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
    }
    renamed |= {
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_": "model.multi_modal_",
    }

    def name(old: str) -> str:
        for begin, new in renamed.items():
            if old.startswith(begin):
                return new + old.removeprefix(begin)
        return f"model.{old}" if old == "image_newline" else old

    tensors(lambda t: {name(k): v for k, v in t.items()})(folder)
    for index in folder.glob("*.index.json"):
        index.unlink()


def tied(folder: Path) -> None:
    config(tie_word_embeddings=True)(folder)
    tensors(lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})(folder)


def grouped(folder: Path) -> None:
    config(num_key_value_heads=2)(folder)
    tensors(
        lambda t: {
            k: v[:128]
            if "model.layers" in k and ("k_proj" in k or "v_proj" in k) and "vision" not in k
            else v
            for k, v in t.items()
        }
    )(folder)


def between_f16(folder: Path) -> None:
    """float32 weights that float16 does not hold."""
    tensors(lambda t: {k: v.float() * 1.0003 for k, v in t.items()})(folder)


def in_bf16(folder: Path) -> None:
    tensors(lambda t: {k: v.to(torch.bfloat16) for k, v in t.items()})(folder)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
HUB, UNPAD = ("--hub-names",), ("--merge", "spatial_unpad")
LAYOUTS: dict[str, tuple[tuple[str, ...], tuple[Change, ...], Options]] = {
    "flat": ((), (), Options()),
    "spatial, a tower of its own folder": (("--merge", "spatial", "--no-vision"), (), Options()),
    "unpadded, PyTorch files": (UNPAD, (in_pytorch_files,), Options()),
    "transformers 4": (HUB, (), Options()),
    "transformers 5": (HUB, (of_transformers_5,), Options()),
    "an adapter": ((), (), Options(lora=Path("adapter"))),
    "one square tile": ((), (config(image_aspect_ratio="pad"),), Options()),
    "one tile of the middle": ((), (config(image_aspect_ratio=None),), Options()),
    "tied embeddings": ((), (tied,), Options()),
    "grouped heads": ((), (grouped,), Options()),
    "linear scaling": ((), (config(rope_scaling={"type": "linear", "factor": 2.0}),), Options()),
    "YaRN": ((), (config(rope_scaling=YARN),), Options()),
    "YaRN's own fields": (
        (),
        (config(rope_scaling=YARN | {"beta_fast": 16.0, "attention_factor": 1.1}),),
        Options(),
    ),
    "Llama 3's scaling": ((), (config(rope_scaling=LLAMA3),), Options()),
    "float32 weights": ((), (between_f16,), Options()),
    "float32 weights as bf16": ((), (between_f16,), Options(language="bf16")),
    "bfloat16 weights": (UNPAD, (in_bf16,), Options()),
    "everything float32": (UNPAD, (between_f16,), Options(language="f32", vision="fp32")),
    "another packing than the config's": (HUB, (), Options(merge="flat")),
}


@pytest.mark.parametrize(("n", "layout"), list(enumerate(LAYOUTS)), ids=LAYOUTS)
def test_every_layout_is_proven_from_page_to_logits(n: int, layout: str, tmp_path: Path) -> None:
    arguments, changes, options = LAYOUTS[layout]
    source = tiny.checkpoint(tmp_path / "source", *arguments, "--seed", str(n % 3))
    for change in changes:
        change(source)
    if options.lora:
        options = Options(lora=mutations.adapter(tmp_path, source))
    convert(source, tmp_path / "kit", options)
    figures = json.loads((tmp_path / "kit" / "manifest.json").read_text())["parity"]
    language, vision = figures["language"], figures["vision"]
    assert language["weights_equal"]
    assert language["mean_kld"] < 2 * language["kld_expected"]  # the gate leaves ten
    assert language["logit_error"] < 2 * language["logit_expected"]
    assert vision["token_error"] < 3 * vision["token_expected"]
    assert vision["pixel_difference"] == 0


# --- what cannot be proven ------------------------------------------------------------------------


Tensors = dict[str, torch.Tensor]


def without(*endings: str) -> Callable[[Tensors], Tensors]:
    """Set the tensors whose names end so to zero."""
    return lambda tensors: {
        name: t * 0 if name.endswith(endings) else t for name, t in tensors.items()
    }


def without_attention(tensors: Tensors) -> Tensors:
    """Make every token alike, and let no layer add anything."""
    name = "model.embed_tokens.weight"
    alike = {name: torch.ones_like(tensors[name])}
    return without("o_proj.weight", "down_proj.weight")(tensors) | alike


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("lm_head.weight"), "gives every token the same logit"),
        (without("model.norm.weight"), "gives every token the same logit"),
        (without("model.mm_projector.2.weight"), "the same image token"),
        (without_attention, "the same whatever it has read"),
    ],
    ids=["zero head", "zero norm", "zero projector", "constant logits"],
)
def test_a_degenerate_model_is_refused(
    change: Callable[[Tensors], Tensors], words: str, tmp_path: Path
) -> None:
    source = tiny.checkpoint(tmp_path / "source")
    tensors(change)(source)
    with pytest.raises(ParityError, match=words):
        convert(source, tmp_path / "out" / "kit", Options())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_gate_leaves_no_kit(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, words in (("token", "token error"), ("kld", "mean kld"), ("logit", "logit error")):
        monkeypatch.setattr(
            gates, "allowed", lambda name, expected, what=what: -1.0 if name == what else 1.0
        )
        with pytest.raises(ParityError, match=words):
            convert(tiny_checkpoint, tmp_path / "out" / "kit", Options())
        assert list((tmp_path / "out").iterdir()) == []


def test_a_large_model_is_compared_with_fewer_image_tokens(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_logits, "WINDOW_BYTES", 1)
    monkeypatch.setattr(parity, "FEW", 20)
    convert(tiny_checkpoint, tmp_path / "kit", Options())
    language = json.loads((tmp_path / "kit" / "manifest.json").read_text())["parity"]["language"]
    assert language["image_tokens"] == 20
    assert language["compared"].startswith("in 3 windows")
    assert language["mean_kld"] < 2 * language["kld_expected"]
