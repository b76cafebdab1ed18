"""The kit against the original, on the same page. The figures go into the manifest; a failed proof leaves no kit.

The kit's side runs through pulse_edge, as on the laptop; the original's side is `export.reference`, which shares no code with
the converter or the runtime. Compared are, in this order: what the GGUF and the manifest say, pixels and packing of pages of
several shapes, image tokens, token ids, every weight of the language model bit by bit, and logits from page to prediction.

Both sides hold one layer in memory at a time, so that a 7B model needs little. A GGUF too large to be mapped within the
conversion's memory is compared in windows of whole layers: each window is cut from the finished file's own bytes and runs in
llama.cpp.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pulse_edge.errors import ParityError
from pulse_edge.inference import tiling
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.kit import prompt
from pulse_edge.kit.manifest import Manifest
from pulse_edge.page import reader as scan

from .reference import Reference, expect, llama, page, tower, words

Float = npt.NDArray[np.float32]
PAGE = Path(__file__).parent.parent / "pulse_edge" / "assets" / "example_page.png"

COSINE = {"fp32": 0.999999, "fp16": 0.99999, "w8": 0.999, "int8": 0.998, "int8-static": 0.998}
"""Least mean cosine of image tokens by vision type, when quantizing."""
MARGIN = 0.05
"""Logits this close may change places: the top token must agree where the original's lead is larger."""
WINDOW_BYTES = 3 << 29
"""Language weights that are mapped at once (1.5 GiB)."""
ROPE = "rope_freqs.weight"
SHOWN = 8
"""Differences that a message lists."""


FACTOR = 10
"""A right kit's differences are what its types make of this very model, which the original's side computes too: in the kit's types for the
language model, in float64 for the encoder. Right kits stay within 0.3 to 1.5 times that (docs/proof.md); ten times is refused."""
PIXEL = 1e-6
"""Largest difference of a normalised pixel: both sides take Pillow's levels from a table of 256 values."""
FLOOR = {"token": 1e-6, "attention": 1e-6, "kld": 1e-9, "logit": 1e-5}
"""Added to what is expected, for models so small that rounding nearly vanishes: a few units in the last place of float32."""
FEW = 256
"""Image tokens of a model that is compared in windows: minutes instead of an hour on a CPU; the figures say how many."""


def allowed(what: str, expected: float) -> float:
    """The largest difference that passes, by what is compared and the difference that a right kit would have."""
    return FACTOR * expected + FLOOR[what]


def prove(reference: Reference, kit: Path, manifest: Manifest, threads: int) -> dict[str, Any]:
    """Compare everything; the figures for the manifest. Raises ParityError with what differs."""
    checked = metadata(reference, kit, manifest)
    figures, ours, theirs = vision(reference, kit, manifest, threads)
    told, before, after = prompts(reference, kit, manifest, threads)
    if (kit / manifest.language.file).stat().st_size > WINDOW_BYTES:
        ours, theirs = ours[:FEW], theirs[:FEW]
    spoken = language(reference, kit, manifest, ours, theirs, before, after, threads)
    return {"metadata": checked, "vision": figures, "prompt": told, "language": spoken}


def _refuse(file: str, problems: list[str], what: str) -> None:
    """Raise ParityError where there are problems."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ParityError(
            f"{file}: {what}: {'; '.join(problems[:SHOWN])}{more}. No kit was written."
        )


# --- what the kit says ------------------------------------------------------------------------------------------------


def metadata(reference: Reference, kit: Path, manifest: Manifest) -> dict[str, Any]:
    """Compare the GGUF's keys and token list, the manifest, and the newline with what the source files ask for."""
    path = kit / manifest.language.file
    reader = gguf.GGUFReader(path)
    fields = reader.fields
    wrong, texts = _keys(reference, manifest, fields)
    factors = next((np.array(t.data) for t in reader.tensors if t.name == ROPE), None)
    wrong += expect.rope(
        reference, {n: fields[n].contents() for n in expect.SCALED if n in fields}, factors
    )
    del reader
    scores, types = (fields[f"tokenizer.ggml.{x}"].contents() for x in ("scores", "token_type"))
    wrong += expect.tokens(reference, texts, scores, types)
    wrong += expect.chat(str(fields["tokenizer.chat_template"].contents()), "<s>")
    _refuse(manifest.language.file, wrong, "does not say what the source files say")
    known = expect.manifest(reference, manifest.language.type)
    _refuse(
        "manifest.json", _differences(known, manifest), "does not say what the source files say"
    )
    _newline(reference, kit, manifest)
    return {"keys": len(fields), "tokens": len(texts), "manifest_fields": len(known), "equal": True}


def _keys(reference: Reference, manifest: Manifest, fields: Any) -> tuple[list[str], list[bytes]]:
    """What is wrong with the GGUF's keys, and its token list."""
    known = expect.fields(reference, manifest.language.type)
    of_source = {
        "name": "name",
        "license": "licence",
        "source.url": "path",
        "source.revision": "revision",
    }
    # gguf reads an empty text as None.
    known |= {
        f"general.{theirs}": (manifest.source[ours] or None,) for theirs, ours in of_source.items()
    }
    elsewhere = {f"tokenizer.ggml.{x}" for x in ("tokens", "scores", "token_type")} | {
        "tokenizer.chat_template"
    }
    judged = elsewhere | set(expect.SCALED)
    found = {
        n: f.contents() for n, f in fields.items() if not n.startswith("GGUF.") and n not in judged
    }
    wrong = [f"{n} is absent" for n in sorted(elsewhere - fields.keys())]
    wrong += [f"{n} is {v!r}, expected no such key" for n, v in found.items() if n not in known]
    for name, allowed in known.items():
        value = found.get(name)
        if not any(_same(value, a) for a in allowed):
            wrong.append(
                f"{name} is {value!r}, expected {' or '.join(map(repr, allowed)) or 'no such key'}"
            )
    _refuse(manifest.language.file, wrong, "does not say what the source files say")
    tokens = fields["tokenizer.ggml.tokens"]
    return wrong, [bytes(tokens.parts[i]) for i in tokens.data]


def _same(value: Any, allowed: Any) -> bool:
    """Whether a GGUF's value is the allowed one; its floats have 32 bits."""
    if isinstance(allowed, float) and isinstance(value, float):
        return bool(np.float32(value) == np.float32(allowed))
    return type(value) is type(allowed) and bool(value == allowed)


def _differences(known: dict[str, Any], manifest: Manifest) -> list[str]:
    """Fields of the manifest, by path, that are not as they should be."""
    wrong, said = [], asdict(manifest)
    for path, wanted in known.items():
        part, name = path.split(".")
        if said[part][name] != wanted:
            wrong.append(f"{path} is {said[part][name]!r}, expected {wanted!r}")
    return wrong


def _newline(reference: Reference, kit: Path, manifest: Manifest) -> None:
    name, wanted = manifest.packing.newline_file, reference.newline
    if (name is None) != (wanted is None):
        raise ParityError(
            f"manifest.json: newline_file is {name!r}, which the packing contradicts. No kit was written."
        )
    if (
        name is not None
        and wanted is not None
        and (kit / name).read_bytes() != wanted.astype("<f4").tobytes()
    ):
        raise ParityError(f"{name}: is not the source's image_newline. No kit was written.")


# --- image tokens -----------------------------------------------------------------------------------------------------


def vision(
    reference: Reference, kit: Path, manifest: Manifest, threads: int
) -> tuple[dict[str, Any], Float, Float]:
    """Figures of pixels and image tokens; the kit's image tokens (T, d), and the original's. Raises ParityError."""
    spec, side = manifest.vision, tower.side(reference.source)
    pixel, pages = _pages(reference, manifest, side)
    with closing(VisionEncoder(kit / spec.file, device="cpu", threads=threads)) as session:
        features, attention = session.attend(cut(scan.read(PAGE).image, manifest))
    newline = (
        np.fromfile(kit / manifest.packing.newline_file, "<f4")
        if manifest.packing.newline_file
        else None
    )
    ours = pack(features, manifest, newline)
    picture = page.shapes(PAGE)[0]
    made = page.Pixels(reference.facts, side)(picture)
    original, seen = tower.features(reference.source, reference.facts, made)
    theirs = page.pack(reference.facts, original, picture.size, side, reference.newline)
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{spec.file}: {ours.shape} image tokens, expected {theirs.shape}. No kit was written."
        )
    _not_constant(theirs, "the vision encoder gives the same image token everywhere")
    # What rounding makes of the first tile: in float64, with the weights that the kit holds.
    how = tower.Arithmetic(torch.float64, torch.float16 if spec.type == "fp16" else None)
    rounded, watched = tower.features(reference.source, reference.facts, made[:1], how)
    figures = {
        "page": PAGE.name,
        "page_sha256": scan.read(PAGE).sha256,
        "pages": pages,
        "rows": len(ours),
        "cosine_min": float(cosine(ours, theirs).min()),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "largest_value": float(np.abs(theirs).max()),
        "pixel_difference": pixel,
        "pixel_required": PIXEL,
        "against": "torch float32, read from the source files, one layer at a time",
    }
    figures |= _figures("token", row_errors(ours, theirs), row_errors(rounded[0], original[0]))
    figures |= _figures(
        "attention", np.abs(attention - seen) / seen.max(), np.abs(watched - seen[:1]) / seen.max()
    )
    _within(
        spec.file,
        figures,
        ("pixel_difference", "pixel"),
        ("token_error", "token"),
        ("attention_error", "attention"),
    )
    return figures, ours, theirs


def _figures(what: str, errors: npt.NDArray[Any], expected: npt.NDArray[Any]) -> dict[str, float]:
    """The largest error, the one that is expected, and the one that passes."""
    bound = allowed(what, float(expected.max()))
    told = {"error": float(errors.max()), "expected": float(expected.max()), "required": bound}
    return {f"{what}_{name}": float(f"{value:.3g}") for name, value in told.items()}


def _within(file: str, figures: dict[str, Any], *gates: tuple[str, str]) -> None:
    """Raise ParityError where a figure is above what its gate requires, or is no number."""
    wrong = [
        f"{name.replace('_', ' ')} {figures[name]:.3g}, at most {figures[f'{gate}_required']:.3g}"
        for name, gate in gates
        if not figures[name] <= figures[f"{gate}_required"]
    ]
    _refuse(file, wrong, "differs from the original")


def _pages(reference: Reference, manifest: Manifest, side: int) -> tuple[float, int]:
    """Pixels and packing of pages of several shapes: the largest difference of a pixel, and of how many pages."""
    largest, make, pages = 0.0, page.Pixels(reference.facts, side), page.shapes(PAGE)
    for picture in pages:
        ours, theirs = cut(picture, manifest), make(picture)
        shown = f"of a page of {picture.width} x {picture.height} pixels"
        if ours.shape != theirs.shape:
            raise ParityError(
                f"{ours.shape} pixels {shown}, expected {theirs.shape}. No kit was written."
            )
        largest = max(largest, float(np.abs(ours - theirs).max()))
        patches = manifest.vision.patches_per_side**2
        numbered = np.arange(len(ours) * patches, dtype=np.float32).reshape(len(ours), patches, 1)
        newline = np.full(1, -1, np.float32) if reference.facts.newline else None
        order = pack(numbered, manifest, newline, picture.size)
        wanted = page.pack(reference.facts, numbered, picture.size, side, newline)
        if not np.array_equal(order, wanted):
            raise ParityError(
                f"image tokens {shown} are not packed as the original packs them. No kit was written."
            )
    return largest, len(pages)


def cut(picture: Image.Image, manifest: Manifest) -> Float:
    """Pixels of a picture, as the runtime cuts them."""
    return tiling.cut(
        picture,
        size=manifest.vision.image_size,
        aspect_ratio=manifest.packing.aspect_ratio,
        pinpoints=manifest.packing.grid_pinpoints,
        mean=manifest.vision.mean,
        std=manifest.vision.std,
    )


def pack(
    features: Float,
    manifest: Manifest,
    newline: Float | None,
    page_size: tuple[int, int] | None = None,
) -> Float:
    """Features of a page (None: the example page) as image tokens, as the runtime packs them."""
    packing = manifest.packing
    return tiling.pack(
        features,
        page_size=page_size or scan.read(PAGE).image.size,
        size=manifest.vision.image_size,
        aspect_ratio=packing.aspect_ratio,
        pinpoints=packing.grid_pinpoints,
        merge=packing.merge,
        newline=newline,
    )


def row_errors(made: Float, original: Float) -> npt.NDArray[np.float64]:
    """Distance of each row from the original's, as a share of that one's length: (n,) from two (n, d)."""
    difference = np.linalg.norm(made.astype(np.float64) - original, axis=-1)
    result: npt.NDArray[np.float64] = difference / np.linalg.norm(
        original.astype(np.float64), axis=-1
    )
    return result


def _not_constant(rows: Float, what: str) -> None:
    """Raise ParityError where every row is the same: then any comparison would pass."""
    spread = np.abs(rows - rows[:1]).max()
    if not spread > 1e-4 * np.abs(rows).max():
        raise ParityError(
            f"nothing can be proven: {what}. Fetch the checkpoint again. No kit was written."
        )


def cosine(made: Float, original: Float) -> npt.NDArray[np.float64]:
    """Cosine of each feature row: (..., P) from two (..., P, d)."""
    a, b = made.astype(np.float64), original.astype(np.float64)
    result: npt.NDArray[np.float64] = np.sum(a * b, -1) / (
        np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    )
    return result


# --- text -------------------------------------------------------------------------------------------------------------


def prompts(
    reference: Reference, kit: Path, manifest: Manifest, threads: int
) -> tuple[dict[str, Any], list[int], list[int]]:
    """Token ids of the prompt and of difficult texts: llama.cpp's against the original tokenizer's. Raises ParityError."""
    bos = expect.bos(reference) if reference.words.begins else None
    wanted = [
        *reference.words.prompt(words.QUESTION, bos),
        *map(reference.words.encode, words.PROBES),
    ]
    after = prompt.fill(manifest.prompt.after, prompt.REPORT_QUESTION)
    with tempfile.TemporaryDirectory(prefix="pulse-edge-", dir=kit) as folder:
        small = Path(folder) / "tokenizer.gguf"
        _layers(kit / manifest.language.file, range(1), small)
        with closing(LanguageModel(small, Settings(context=256, threads=threads))) as model:
            made = [
                model.tokenize(manifest.prompt.before, first=True),
                model.tokenize(after, first=False),
            ]
            made += [model.tokenize(text, first=False) for text in words.PROBES]
    texts = ("the prompt", "the prompt", *map(repr, words.PROBES))
    wrong = [
        f"{t}: {m} instead of {w}" for t, m, w in zip(texts, made, wanted, strict=True) if m != w
    ]
    _refuse(manifest.language.file, wrong, "token ids differ from the original tokenizer's")
    counts = {"before": len(made[0]), "after": len(made[1]), "texts": len(words.PROBES)}
    return {"question": prompt.REPORT_QUESTION, "equal": True, **counts}, made[0], made[1]


# --- logits -----------------------------------------------------------------------------------------------------------


class _Weights:
    """Compares every tensor of a GGUF with the source's, bit by bit, as the original's side reads it."""

    def __init__(self, path: Path, reference: Reference, kind: str) -> None:
        self._path, self._kind = path, kind
        self._shape = llama.shape(reference.source, reference.facts)
        # Offsets alone: pages of a mapping would count as this process's memory.
        self._at = {
            t.name: (t.tensor_type.name.lower(), int(t.data_offset))
            for t in gguf.GGUFReader(path).tensors
        }
        self._left = set(self._at) - {ROPE}
        self.wrong: list[str] = []

    def see(self, role: str, stored: torch.Tensor) -> None:
        """A tensor of the source."""
        name, wanted = expect.name(role), expect.tensor(role, stored, self._shape, self._kind)
        kind = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[wanted.dtype]
        if name not in self._at or self._at[name][0] != kind:
            self.wrong.append(f"{name} is {self._at.get(name, ('absent', 0))[0]}, expected {kind}")
        elif not np.array_equal(
            self._bytes(name, wanted), wanted.contiguous().view(torch.uint8).numpy().ravel()
        ):
            self.wrong.append(f"{name} has other weights")
        self._left.discard(name)

    def _bytes(self, name: str, like: torch.Tensor) -> npt.NDArray[np.uint8]:
        """As many bytes of a tensor as `like` has; fewer where the file ends."""
        count = like.numel() * like.element_size()
        return (
            np.fromfile(self._path, np.uint8, count, offset=self._at[name][1])
            if name in self._at
            else np.empty(0, np.uint8)
        )

    def problems(self) -> list[str]:
        """What differs, once all have been seen."""
        return self.wrong + [f"{name} is not of the source" for name in sorted(self._left)]


def language(
    reference: Reference,
    kit: Path,
    manifest: Manifest,
    ours: Float,
    theirs: Float,
    before: list[int],
    after: list[int],
    threads: int,
) -> dict[str, Any]:
    """Logits behind every token after the image: llama.cpp's behind the kit's image tokens `ours` (T, d) against torch's in
    float32 behind the original's, `theirs`. Raises ParityError.
    """
    spec = manifest.language
    path = kit / spec.file
    weights = _Weights(path, reference, spec.type)
    kind = expect.DTYPES[spec.type]
    original, rounded = llama.logits(
        reference.source, reference.facts, theirs, before, after, kind, weights.see
    )
    _refuse(spec.file, weights.problems(), "its weights are not the source's")
    _alive(original)
    made, how = logits(path, spec.layers, ours, before, after, threads, kit)
    top, lead = int(original[-1].argmax()), float(np.diff(np.sort(original[-1])[-2:])[0])
    expected = float(divergence(original, rounded).mean())
    figures = {
        "image_tokens": len(ours),
        "tokens": len(before) + len(after),
        "positions": len(after),
        "weights_equal": True,
        "mean_kld": float(f"{divergence(original, made).mean():.3g}"),
        "kld_expected": float(f"{expected:.3g}"),
        "kld_required": float(f"{allowed('kld', expected):.3g}"),
        "same_top_token": bool(made[-1].argmax() == top),
        "top_token_lead": round(lead, 4),
        "largest_difference": float(np.abs(original - made).max()),
        "against": "torch float32, read from the source files, one layer at a time",
        "compared": how,
    }
    figures |= _figures("logit", *(np.abs(original - x) / original.std() for x in (made, rounded)))
    _within(spec.file, figures, ("mean_kld", "kld"), ("logit_error", "logit"))
    if not figures["same_top_token"] and lead > MARGIN:
        raise ParityError(
            f"{spec.file}: predicts another token than the original, whose lead is {lead:.3g}. No kit was written."
        )
    return figures


def _alive(original: Float) -> None:
    """Raise ParityError for a model whose logits are constant, over tokens or over positions: any kit would equal it."""
    if not np.isfinite(original).all():
        raise ParityError(
            "nothing can be proven: the original's logits are not numbers. Fetch the checkpoint again."
        )
    if not original.std(-1).min() > 1e-3:
        raise ParityError(
            "nothing can be proven: the original gives every token the same logit. Fetch the checkpoint again."
        )
    _not_constant(original, "the original's logits are the same whatever it has read")


def divergence(original: Float, made: Float) -> npt.NDArray[np.float64]:
    """KL(original || made) in nats per position, from logits (n, vocabulary)."""
    p, q = (x.astype(np.float64) - x.max(-1, keepdims=True) for x in (original, made))
    p -= np.log(np.exp(p).sum(-1, keepdims=True))
    q -= np.log(np.exp(q).sum(-1, keepdims=True))
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result


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
    key_cache_type: str = "f16",
) -> tuple[Float, str]:
    """A GGUF's logits (len(after), vocabulary) behind each token after the image, and how they were had.

    A file too large to be mapped is cut into windows in `folder`. `key_cache_type` is the type of the keys in the KV cache.
    """
    if path.stat().st_size <= WINDOW_BYTES:
        return _whole(path, rows, before, after, threads, key_cache_type), "the whole file"
    return _in_windows(path, layers, rows, before, after, threads, folder, key_cache_type)


def _whole(
    path: Path, rows: Float, before: list[int], after: list[int], threads: int, key_cache_type: str
) -> Float:
    context = _context(rows, before, after)
    with closing(
        LanguageModel(
            path, Settings(context=context, threads=threads, key_cache_type=key_cache_type)
        )
    ) as model:
        model.feed_tokens(before)
        model.feed_embeddings(rows)
        return model.feed_tokens(after, every=True)


def _context(rows: Float, before: list[int], after: list[int]) -> int:
    return math.ceil((len(rows) + len(before) + len(after)) / 256) * 256


class _Capture:
    """Keeps one node's rows, batch by batch (an Observer of pulse_edge.inference.language_model)."""

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
    path: Path,
    layers: int,
    rows: Float,
    before: list[int],
    after: list[int],
    threads: int,
    folder: Path,
    key_cache_type: str,
) -> tuple[Float, str]:
    """Logits by way of partial models, each fed the hidden rows that the one before it made."""
    reader = gguf.GGUFReader(path)
    size = max(
        sum(int(t.n_bytes) for t in reader.tensors if t.name.startswith(f"blk.{i}."))
        for i in range(layers)
    )
    table = next(t for t in reader.tensors if t.name == "token_embd.weight")
    ids = np.asarray(before + after)
    embedded = gguf.quants.dequantize(np.ascontiguousarray(table.data[ids]), table.tensor_type)
    hidden = np.concatenate([embedded[: len(before)], rows, embedded[len(before) :]]).astype(
        np.float32
    )
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
                LanguageModel(
                    part,
                    Settings(
                        context=_context(rows, before, after),
                        threads=threads,
                        key_cache_type=key_cache_type,
                    ),
                    observer=seen,
                )
            ) as model:
                for piece in _batches(hidden):
                    logits = model.feed_embeddings(piece, every=True)
            hidden = seen.rows()
            part.unlink()
    assert logits is not None
    return logits[
        -len(after) :
    ], f"in {len(windows)} windows of up to {each} layers, cut from the file"


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
        writer.add_key_value(
            field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        )
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
