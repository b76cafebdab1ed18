#!/usr/bin/env python3
"""Write a random-weight checkpoint in the original LLaVA layout, as PULSE-7B is published.

    python tests/support/random_llava.py OUT --tokenizer FILE --shape micro            a few MB, seconds; for parity tests
    python random_llava.py OUT --shape 7b               14 GB, PULSE-7B's own shapes; for size, speed and memory
    --merge flat|spatial|spatial_unpad   the packing written into config.json (PULSE's training script leaves it at flat)
    --no-vision                          leave the vision tower out of the shards and write it next to them as an HF CLIP
                                         folder (vision_tower/), as checkpoints trained with a frozen tower do
    --hub-names                          write transformers' LlavaNext names and config instead (language_model.*, ...)

Needs numpy only. Tensors are written one at a time, so memory stays small. Same seed, same bytes.
The tokenizer is given with --tokenizer, a SentencePiece model.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

SHAPES = {
    # llm: width, ffn, layers, heads, kv heads   vision: width, ffn, layers, heads, image, patch
    "micro": {
        "d": 256,
        "ff": 688,
        "layers": 3,
        "heads": 4,
        "kv": 4,
        "vd": 128,
        "vff": 512,
        "vlayers": 4,
        "vheads": 4,
        "image": 56,
        "patch": 14,
    },
    "small": {
        "d": 512,
        "ff": 1376,
        "layers": 6,
        "heads": 8,
        "kv": 8,
        "vd": 256,
        "vff": 1024,
        "vlayers": 6,
        "vheads": 8,
        "image": 112,
        "patch": 14,
    },
    "7b": {
        "d": 4096,
        "ff": 11008,
        "layers": 32,
        "heads": 32,
        "kv": 32,
        "vd": 1024,
        "vff": 4096,
        "vlayers": 24,
        "vheads": 16,
        "image": 336,
        "patch": 14,
    },
}
VOCAB = 32000  # --vocabulary changes it


def tensors(s):
    """Yield (original LLaVA name, shape, kind) in file order."""
    d, ff = s["d"], s["ff"]
    head = d // s["heads"]
    yield "model.embed_tokens.weight", (VOCAB, d), "w"
    for i in range(s["layers"]):
        p = f"model.layers.{i}."
        yield p + "self_attn.q_proj.weight", (d, d), "w"
        yield p + "self_attn.k_proj.weight", (s["kv"] * head, d), "w"
        yield p + "self_attn.v_proj.weight", (s["kv"] * head, d), "w"
        yield p + "self_attn.o_proj.weight", (d, d), "w"
        yield p + "mlp.gate_proj.weight", (ff, d), "w"
        yield p + "mlp.up_proj.weight", (ff, d), "w"
        yield p + "mlp.down_proj.weight", (d, ff), "w"
        yield p + "input_layernorm.weight", (d,), "one"
        yield p + "post_attention_layernorm.weight", (d,), "one"
    yield "model.norm.weight", (d,), "one"
    yield "lm_head.weight", (VOCAB, d), "w"
    yield "model.image_newline", (d,), "w"
    vd, vff = s["vd"], s["vff"]
    v = "model.vision_tower.vision_tower.vision_model."
    n = (s["image"] // s["patch"]) ** 2
    yield v + "embeddings.class_embedding", (vd,), "w"
    yield v + "embeddings.patch_embedding.weight", (vd, 3, s["patch"], s["patch"]), "w"
    yield v + "embeddings.position_embedding.weight", (n + 1, vd), "w"
    yield v + "pre_layrnorm.weight", (vd,), "one"
    yield v + "pre_layrnorm.bias", (vd,), "w"
    for i in range(s["vlayers"]):
        p = f"{v}encoder.layers.{i}."
        for x in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{p}self_attn.{x}.weight", (vd, vd), "w"
            yield f"{p}self_attn.{x}.bias", (vd,), "w"
        for x in ("layer_norm1", "layer_norm2"):
            yield f"{p}{x}.weight", (vd,), "one"
            yield f"{p}{x}.bias", (vd,), "w"
        yield p + "mlp.fc1.weight", (vff, vd), "w"
        yield p + "mlp.fc1.bias", (vff,), "w"
        yield p + "mlp.fc2.weight", (vd, vff), "w"
        yield p + "mlp.fc2.bias", (vd,), "w"
    yield v + "post_layernorm.weight", (vd,), "one"
    yield v + "post_layernorm.bias", (vd,), "w"
    yield "model.mm_projector.0.weight", (d, vd), "w"
    yield "model.mm_projector.0.bias", (d,), "w"
    yield "model.mm_projector.2.weight", (d, d), "w"
    yield "model.mm_projector.2.bias", (d,), "w"


def hub_name(name):
    """The same tensor's name in transformers' LlavaNext checkpoints."""
    if name == "model.image_newline":
        return "image_newline"
    if name.startswith("model.vision_tower.vision_tower."):
        return "vision_tower." + name.removeprefix("model.vision_tower.vision_tower.")
    if name.startswith("model.mm_projector."):
        return name.replace("model.mm_projector.0", "multi_modal_projector.linear_1").replace(
            "model.mm_projector.2", "multi_modal_projector.linear_2"
        )
    return "language_model." + name


def values(rng, shape, kind, chunk=1 << 22):
    """Yield little float16 arrays that make up one tensor."""
    left = int(np.prod(shape))
    scale = 0.6 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.02
    while left:
        n = min(left, chunk)
        a = rng.standard_normal(n, dtype=np.float32)
        yield (1 + 0.05 * a if kind == "one" else scale * a).astype(np.float16)
        left -= n


def write_shard(path, names_shapes, rng):
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape, _ in names_shapes:
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    blob = json.dumps(header).encode()
    blob += b" " * (-len(blob) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(blob)) + blob)
        for _, shape, kind in names_shapes:
            for part in values(rng, shape, kind):
                f.write(part.tobytes())
    return at


def options():
    """The command line."""
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument("out", type=Path)
    a.add_argument("--shape", choices=SHAPES, default="micro")
    a.add_argument("--merge", choices=("flat", "spatial", "spatial_unpad"), default="flat")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--shard-gb", type=float, default=4.9)
    a.add_argument("--no-vision", action="store_true")
    a.add_argument("--hub-names", action="store_true")
    a.add_argument("--tokenizer", type=Path, required=True)
    a.add_argument("--vocabulary", type=int, default=32000)
    return a.parse_args()


def in_shards(todo, most):
    """Tensors in groups of at most `most` bytes, in order."""
    shards: list[list] = [[]]
    size = 0
    for t in todo:
        b = int(np.prod(t[1])) * 2
        if shards[-1] and size + b > most:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += b
    return shards


def text_config(s):
    """The language model's part of config.json."""
    return {
        "hidden_size": s["d"],
        "intermediate_size": s["ff"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "vocab_size": VOCAB,
        "rms_norm_eps": 1e-05,
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def vision_config(s):
    """The tower's part of config.json."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": s["vd"],
        "intermediate_size": s["vff"],
        "num_hidden_layers": s["vlayers"],
        "num_attention_heads": s["vheads"],
        "image_size": s["image"],
        "patch_size": s["patch"],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": 768,
    }


def config_of(o, s):
    """config.json in LLaVA's names, or the hub's."""
    side, text, vision = s["image"], text_config(s), vision_config(s)
    pinpoints = [
        [side, 2 * side],
        [2 * side, side],
        [2 * side, 2 * side],
        [3 * side, side],
        [side, 3 * side],
    ]
    tower = "openai/clip-vit-large-patch14-336"
    if o.hub_names:
        return {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "model_type": "llava_next",
            "image_grid_pinpoints": pinpoints,
            "image_token_index": 32000,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "torch_dtype": "float16",
            "text_config": dict(model_type="llama", **text),
            "vision_config": vision,
        }
    return dict(
        architectures=["LlavaLlamaForCausalLM"],
        model_type="llava_llama",
        **text,
        image_aspect_ratio="anyres",
        image_grid_pinpoints=pinpoints,
        mm_patch_merge_type=o.merge,
        mm_hidden_size=s["vd"],
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_feature="patch",
        mm_vision_select_layer=-2,
        mm_vision_tower=tower if o.shape == "7b" else "vision_tower",
        mm_use_im_start_end=False,
        mm_use_im_patch_token=False,
        use_mm_proj=True,
        unfreeze_mm_vision_tower=True,
        tokenizer_model_max_length=4096,
        tokenizer_padding_side="right",
        torch_dtype="float16",
    )


def write_tower(o, s, apart, rng):
    """The tower's folder: its configuration, and with --no-vision its weights."""
    side, vision = s["image"], vision_config(s)
    folder = o.out / "vision_tower"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(dict(architectures=["CLIPVisionModel"], **vision), indent=1)
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": side,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor",
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "resample": 3,
                "size": side,
            },
            indent=1,
        )
    )
    if apart:
        write_shard(
            folder / "model.safetensors",
            [(n.removeprefix("model.vision_tower.vision_tower."), sh, k) for n, sh, k in apart],
            rng,
        )


def write_tokenizer(o):
    """The tokenizer's files."""
    (o.out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "add_bos_token": True,
                "add_eos_token": False,
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<unk>",
                "legacy": False,
                "model_max_length": 4096,
                "padding_side": "right",
                "tokenizer_class": "LlamaTokenizer",
            },
            indent=1,
        )
    )
    (o.out / "special_tokens_map.json").write_text(
        json.dumps(
            {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
            indent=1,
        )
    )
    (o.out / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    )
    shutil.copy(o.tokenizer, o.out / "tokenizer.model")


def main():
    """Write the checkpoint."""
    global VOCAB
    o = options()
    VOCAB = o.vocabulary
    s = SHAPES[o.shape]
    o.out.mkdir(parents=True, exist_ok=False)
    rng = np.random.default_rng(o.seed)
    todo = list(tensors(s))
    vision_prefix = "model.vision_tower.vision_tower."
    apart = [t for t in todo if t[0].startswith(vision_prefix)] if o.no_vision else []
    todo = [t for t in todo if t not in apart]
    if o.hub_names:
        todo = [(hub_name(n), sh, k) for n, sh, k in todo]
    shards = in_shards(todo, o.shard_gb * 1e9)
    index: dict[str, str] = {}
    total = 0
    for i, sh in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        total += write_shard(o.out / file, sh, rng)
        index |= {n: file for n, _, _ in sh}
    (o.out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    )
    (o.out / "config.json").write_text(json.dumps(config_of(o, s), indent=1))
    # The tower's own configuration: LLaVA keeps it in the tower's folder, which shapes other than
    # ViT-L/14-336 need.
    if o.no_vision or o.shape != "7b":
        write_tower(o, s, apart, rng)
    write_tokenizer(o)
    print(f"{o.out}: {len(index)} tensors, {total / 1e9:.2f} GB in {len(shards)} shard(s)")


if __name__ == "__main__":
    main()
