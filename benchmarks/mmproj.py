"""Write a checkpoint's tower and projector as llama.cpp's mmproj file, with the clip.* keys that
its clip.cpp reads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from export.checkpoint import PROJECTOR, TOWER, Checkpoint
from export.config import Config, read_config

LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
"""Names inside a layer: the checkpoint's and llama.cpp's."""

POSITIONS = "v.position_embd.weight"
"""llama.cpp's LLaVA graph puts CLS behind the patches where the checkpoint has it in front, so its
position goes there too. It then takes rows 1 to n as if CLS were row 0: the first patch is lost,
and the last row is CLS. See `comparable`.
"""


def comparable(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Features (n, P, d) of both encoders cut to the patches that both give, in one order."""
    return ours[:, 1:], theirs[:, :-1]


def opened(source: Path) -> Checkpoint:
    """Open a checkpoint directory with its tower inside. Raises CheckpointError."""
    return Checkpoint(source, read_config(source / "config.json", tower_dir=None), tower_dir=None)


def write(source: Path, path: Path) -> None:
    """Weights in float16 as the kit's encoder has them, vectors in float32.

    Raises CheckpointError.
    """
    checkpoint = opened(source)
    writer = gguf.GGUFWriter(path, "clip")
    _settings(writer, checkpoint.config)
    for name, inside in _names(checkpoint.config):
        tensor = checkpoint.tensor(inside).float().numpy()
        if name == POSITIONS:
            tensor = np.roll(tensor, -1, axis=0)
        writer.add_tensor(name, tensor.astype(np.float16 if tensor.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _settings(writer: gguf.GGUFWriter, config: Config) -> None:
    v = config.vision
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", v.hidden_act == "gelu")
    numbers = {
        "image_size": v.image_size,
        "patch_size": v.patch_size,
        "embedding_length": v.hidden_size,
        "feed_forward_length": v.intermediate_size,
        "projection_dim": config.text.hidden_size,
        "attention.head_count": v.num_attention_heads,
        # llama.cpp stops one layer before this number.
        "block_count": config.vision_layers + 1,
    }
    for key, value in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", v.layer_norm_eps)
    writer.add_string("clip.vision.mm_patch_merge_type", config.merge)
    writer.add_array(
        "clip.vision.image_grid_pinpoints", [side for grid in config.pinpoints for side in grid]
    )
    writer.add_array("clip.vision.image_mean", list(config.mean))
    writer.add_array("clip.vision.image_std", list(config.std))


def _names(config: Config) -> Iterator[tuple[str, str]]:
    """Each tensor's name in llama.cpp and in the checkpoint."""
    embeddings = TOWER + "embeddings."
    yield "v.class_embd", embeddings + "class_embedding"
    yield "v.patch_embd.weight", embeddings + "patch_embedding.weight"
    yield POSITIONS, embeddings + "position_embedding.weight"
    for kind in ("weight", "bias"):
        yield f"v.pre_ln.{kind}", f"{TOWER}pre_layrnorm.{kind}"
        for i in range(config.vision_layers + 1):
            for here, there in LAYER.items():
                yield f"v.blk.{i}.{there}.{kind}", f"{TOWER}encoder.layers.{i}.{here}.{kind}"
        for i in (0, 2):
            yield f"mm.{i}.{kind}", f"{PROJECTOR}{i}.{kind}"
