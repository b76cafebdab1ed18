"""The original against the converted, on the same page. The figures go into the manifest; a failed proof leaves no kit.

The kit's side runs through pulse_edge, as on the laptop; the original's side is torch in float32, one layer at a time, so
that a 7B model needs the memory of one layer. A GGUF too large to be mapped within the conversion's memory is compared
in windows of whole layers: each window is cut from the finished file's own bytes and runs in llama.cpp.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaTokenizer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from pulse_edge import prompt, scan, tiles
from pulse_edge.errors import ParityError
from pulse_edge.kit import Manifest
from pulse_edge.llm import LanguageModel
from pulse_edge.vision import VisionEncoder

from .checkpoint import Checkpoint
from .vision import Encoder

Float = npt.NDArray[np.float32]
PAGE = Path(__file__).parent.parent / "pulse_edge" / "example_page.png"

COSINE = {"fp32": 0.9999, "fp16": 0.999, "w8": 0.999, "int8": 0.998, "int8-static": 0.998}
"""Least cosine by vision type: of any image row when converting, of all rows on average when quantizing."""
DIVERGENCE = {"f32": 1e-4, "f16": 2e-3, "bf16": 2e-2}
"""Largest mean Kullback-Leibler divergence in nats, by language type."""
MARGIN = 0.05
"""Logits this close may change places: the top token must agree where the original's lead is larger."""
WINDOW_BYTES = 3 << 29
"""Language weights that are mapped at once (1.5 GiB)."""


@dataclass(frozen=True)
class Shared:
    """What both sides get."""

    pixels: Float
    rows: Float
    before: list[int]
    after: list[int]


def vision(encoder: Encoder, kit: Path, manifest: Manifest, threads: int) -> tuple[dict[str, Any], Float, Float]:
    """Figures of the encoder, the pixels (n, 3, S, S), and the kit's features (n, P, d). Raises ParityError."""
    spec, packing = manifest.vision, manifest.packing
    page = scan.read(PAGE)
    pixels = tiles.cut(
        page.image,
        size=spec.image_size,
        aspect_ratio=packing.aspect_ratio,
        pinpoints=packing.grid_pinpoints,
        mean=spec.mean,
        std=spec.std,
    )
    session = VisionEncoder(kit / spec.file, device="cpu", threads=threads)
    made = session.encode(pixels)
    session.close()
    with torch.inference_mode():
        original = np.concatenate([encoder(torch.from_numpy(p[None])).numpy() for p in pixels])
    cosines = cosine(made, original)
    figures = {
        "page": PAGE.name,
        "page_sha256": page.sha256,
        "rows": int(cosines.size),
        "cosine_min": round(float(cosines.min()), 8),
        "cosine_required": COSINE[spec.type],
        "largest_difference": float(np.abs(made - original).max()),
        "largest_value": float(np.abs(original).max()),
        "against": "torch float32, transformers CLIPVisionModel",
    }
    if not cosines.min() >= COSINE[spec.type]:
        raise ParityError(
            f"{spec.file}: image rows differ from the original (smallest cosine {cosines.min():.6f}, required "
            f"{COSINE[spec.type]}). No kit was written."
        )
    return figures, made, pixels


def cosine(made: Float, original: Float) -> npt.NDArray[np.float64]:
    """Cosine of each feature row: (n, P) from two (n, P, d)."""
    result: npt.NDArray[np.float64] = np.sum(made * original, -1, dtype=np.float64) / (
        np.linalg.norm(made.astype(np.float64), axis=-1) * np.linalg.norm(original.astype(np.float64), axis=-1)
    )
    return result


def pack(features: Float, manifest: Manifest, newline: Float | None) -> Float:
    """The kit's features as image rows, as the runtime packs them."""
    packing = manifest.packing
    return tiles.pack(
        features,
        page_size=scan.read(PAGE).image.size,
        size=manifest.vision.image_size,
        aspect_ratio=packing.aspect_ratio,
        pinpoints=packing.grid_pinpoints,
        merge=packing.merge,
        newline=newline,
    )


def tokens(checkpoint: Checkpoint, kit: Path, manifest: Manifest, threads: int) -> tuple[dict[str, Any], Any, Any]:
    """Prompt ids on either side of the image: llama.cpp's against the original tokenizer's. Raises ParityError."""
    original = LlamaTokenizer.from_pretrained(checkpoint.path, use_fast=False)
    before, after = manifest.prompt.before, prompt.fill(manifest.prompt.after, prompt.REPORT_QUESTION)
    # LLaVA's tokenizer_image_token: each side on its own, BOS in front of the first only.
    wanted = [original(before).input_ids, original(after).input_ids[1:]]
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=kit) as folder:
        small = Path(folder) / "tokenizer.gguf"
        _layers(kit / manifest.language.file, range(1), small)
        with closing(LanguageModel(small, context=256, threads=threads)) as model:
            made = [model.tokenize(before, first=True), model.tokenize(after, first=False)]
    if made != wanted:
        raise ParityError(
            f"{manifest.language.file}: the prompt's token ids differ from the original tokenizer's "
            f"({made} instead of {wanted}). No kit was written."
        )
    figures = {"question": prompt.REPORT_QUESTION, "equal": True, "before": len(made[0]), "after": len(made[1])}
    return figures, made[0], made[1]


def language(
    checkpoint: Checkpoint,
    kit: Path,
    manifest: Manifest,
    rows: Float,
    before: list[int],
    after: list[int],
    threads: int,
) -> dict[str, Any]:
    """Logits behind every token after the image: llama.cpp's against torch float32. Raises ParityError.

    `rows` (T, d) are the kit's own image rows, given to both sides, so that this compares the language model alone.
    """
    spec = manifest.language
    path = kit / spec.file
    with torch.inference_mode():
        original = _torch_logits(checkpoint, rows, before, after)
    made, how = logits(path, spec.layers, rows, before, after, threads, kit)
    mean = float(np.mean(divergence(original, made)))
    top, lead = int(original[-1].argmax()), float(np.diff(np.sort(original[-1])[-2:])[0])
    figures = {
        "image_rows": len(rows),
        "tokens": len(before) + len(after),
        "positions": len(after),
        "mean_kld": float(f"{mean:.3g}"),
        "kld_required": DIVERGENCE[spec.type],
        "same_top_token": bool(made[-1].argmax() == top),
        "top_token_lead": round(lead, 4),
        "largest_difference": float(np.abs(original - made).max()),
        "against": "torch float32, transformers LlamaDecoderLayer, one layer at a time",
        "compared": how,
    }
    wrong_top = not figures["same_top_token"] and lead > MARGIN
    if not mean <= DIVERGENCE[spec.type] or wrong_top:
        raise ParityError(
            f"{spec.file}: logits differ from the original (mean KLD {mean:.3g}, allowed {DIVERGENCE[spec.type]}; "
            f"top token {'differs' if wrong_top else 'agrees'}). No kit was written."
        )
    return figures


def divergence(original: Float, made: Float) -> npt.NDArray[np.float64]:
    """KL(original || made) in nats per position, from logits (n, vocabulary)."""
    p, q = (x.astype(np.float64) - x.max(-1, keepdims=True) for x in (original, made))
    p -= np.log(np.exp(p).sum(-1, keepdims=True))
    q -= np.log(np.exp(q).sum(-1, keepdims=True))
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result


# --- the original -----------------------------------------------------------------------------------------------------


def _torch_logits(checkpoint: Checkpoint, rows: Float, before: list[int], after: list[int]) -> Float:
    """Logits (len(after), vocabulary) float32 behind each token after the image; one layer in memory at a time."""
    text = checkpoint.config.text
    embeddings = checkpoint.tensor("model.embed_tokens.weight")
    first, last = (embeddings[torch.tensor(ids)].float() for ids in (before, after))
    hidden = torch.cat([first, torch.from_numpy(rows), last])[None]
    del embeddings
    settings = LlamaConfig(**(text.to_dict() | {"attn_implementation": "sdpa"}))
    settings._attn_implementation = "sdpa"
    positions = torch.arange(hidden.shape[1])[None]
    rotary = LlamaRotaryEmbedding(settings)(hidden, positions)
    for i in range(text.num_hidden_layers):
        hidden = _torch_layer(checkpoint, settings, i)(hidden, position_embeddings=rotary, position_ids=positions)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    norm = LlamaRMSNorm(text.hidden_size, eps=text.rms_norm_eps)
    norm.weight.data = checkpoint.tensor("model.norm.weight").float()
    kept = norm(hidden[0, -len(after) :])
    head = checkpoint.tensor("model.embed_tokens.weight" if text.tie_word_embeddings else "lm_head.weight")
    # In parts: a 7B model's head in float32 is half a gigabyte.
    logits = torch.cat([kept @ part.float().T for part in torch.split(head, 4096)], dim=-1)
    result: Float = logits.numpy()
    return result


def _torch_layer(checkpoint: Checkpoint, settings: LlamaConfig, i: int) -> Any:
    with torch.device("meta"):
        layer = LlamaDecoderLayer(settings, i)
    state = {name: checkpoint.tensor(f"model.layers.{i}.{name}").float() for name in layer.state_dict()}
    layer.load_state_dict(state, strict=True, assign=True)
    return layer.eval()


# --- the converted ----------------------------------------------------------------------------------------------------


def logits(
    path: Path,
    layers: int,
    rows: Float,
    before: list[int],
    after: list[int],
    threads: int,
    folder: Path,
    *,
    keys: str = "f16",
) -> tuple[Float, str]:
    """A GGUF's logits (len(after), vocabulary) behind each token after the image, and how they were had.

    A file too large to be mapped is cut into windows in `folder`. `keys` is the type of the key cache.
    """
    if path.stat().st_size <= WINDOW_BYTES:
        return _whole(path, rows, before, after, threads, keys), "the whole file"
    return _in_windows(path, layers, rows, before, after, threads, folder, keys)


def _whole(path: Path, rows: Float, before: list[int], after: list[int], threads: int, keys: str) -> Float:
    context = _context(rows, before, after)
    with closing(LanguageModel(path, context=context, threads=threads, keys=keys)) as model:
        model.feed_tokens(before)
        model.feed_rows(rows)
        return model.feed_tokens(after, every=True)


def _context(rows: Float, before: list[int], after: list[int]) -> int:
    return math.ceil((len(rows) + len(before) + len(after)) / 256) * 256


class _Capture:
    """Keeps one node's rows, batch by batch (an Observer of pulse_edge.llm)."""

    def __init__(self, name: str, width: int) -> None:
        self._name, self._width = name, width
        self._parts: list[Float] = []

    def wants(self, name: str) -> bool:
        return name == self._name

    def see(self, name: str, values: Float) -> None:
        self._parts.append(values.reshape(-1, self._width))

    def rows(self) -> Float:
        return np.concatenate(self._parts)


def _in_windows(
    path: Path, layers: int, rows: Float, before: list[int], after: list[int], threads: int, folder: Path, keys: str
) -> tuple[Float, str]:
    """Logits by way of partial models, each fed the hidden rows that the one before it made."""
    reader = gguf.GGUFReader(path)
    size = max(sum(int(t.n_bytes) for t in reader.tensors if t.name.startswith(f"blk.{i}.")) for i in range(layers))
    table = next(t for t in reader.tensors if t.name == "token_embd.weight")
    ids = np.asarray(before + after)
    embedded = gguf.quants.dequantize(np.ascontiguousarray(table.data[ids]), table.tensor_type)
    hidden = np.concatenate([embedded[: len(before)], rows, embedded[len(before) :]]).astype(np.float32)
    del reader, table
    each = max(1, WINDOW_BYTES // size)
    windows = [range(at, min(at + each, layers)) for at in range(0, layers, each)]
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=folder) as work:
        for window in windows:
            part = Path(work) / "window.gguf"
            _layers(path, window, part)
            # Each pass asks for every row's result, so that the last layer does not drop rows early.
            seen = _Capture(f"l_out-{len(window) - 1}", hidden.shape[1])
            with closing(
                LanguageModel(part, context=_context(rows, before, after), threads=threads, keys=keys, observer=seen)
            ) as model:
                for piece in _batches(hidden):
                    logits = model.feed_rows(piece, every=True)
            hidden = seen.rows()
            part.unlink()
    assert logits is not None
    return logits[-len(after) :], f"in {len(windows)} windows of up to {each} layers, cut from the file"


def _batches(hidden: Float) -> Iterator[Float]:
    for at in range(0, len(hidden), 256):
        yield hidden[at : at + 256]


def _layers(path: Path, window: range, out: Path) -> None:
    """A GGUF of some layers of another, with its head: bytes copied, layers numbered from 0."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        value = len(window) if field.name == "llama.block_count" else field.contents()
        if field.name == "tokenizer.ggml.tokens":
            value = [bytes(field.parts[i]) for i in field.data]
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        name = tensor.name
        if name.startswith("blk."):
            _, number, rest = name.split(".", 2)
            if int(number) not in window:
                continue
            name = f"blk.{int(number) - window.start}.{rest}"
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
