"""The parts of benchmarks/laptop.py that run in Python, each in a process of its own; figures go to
OUT as JSON.

    python benchmarks/laptop_parts.py mmproj CHECKPOINT MMPROJ
    python benchmarks/laptop_parts.py encoder OUT KIT THREADS ours|clip|torch [MMPROJ|CHECKPOINT]
    python benchmarks/laptop_parts.py command OUT BEGAN UNTIL ARGUMENT...

`command` runs `pulse-edge` with these arguments and stop watches in its functions; BEGAN is the
time at which its process was started. UNTIL names the watch at which it ends (`encode`,
`load_model`), or is `end`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from pulse_edge.inference import llama_cpp, tiling
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.machine import memory
from pulse_edge.page import reader

PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
Encode = Callable[[int], Any]
"""Features (n, P, d) float32 of the first so many tiles."""


def pictures(kit: Kit) -> list[Any]:
    """The page's tiles as RGB pictures."""
    m = kit.manifest
    how: dict[str, Any] = {
        "aspect_ratio": m.packing.aspect_ratio,
        "pinpoints": m.packing.grid_pinpoints,
        "mean": m.vision.mean,
    }
    return tiling.pictures(reader.read(PAGE).image, size=m.vision.image_size, **how)


def pixels(kit: Kit) -> Any:
    """(n, 3, S, S) float32 of the same tiles."""
    m = kit.manifest
    how: dict[str, Any] = {
        "aspect_ratio": m.packing.aspect_ratio,
        "pinpoints": m.packing.grid_pinpoints,
        "mean": m.vision.mean,
    }
    return tiling.cut(reader.read(PAGE).image, size=m.vision.image_size, std=m.vision.std, **how)


def ours(kit: Kit, threads: int, _other: Path) -> Encode:
    """The kit's encoder."""
    from pulse_edge.inference.vision_encoder import VisionEncoder

    encoder = VisionEncoder(kit.file(kit.manifest.vision.file), device="cpu", threads=threads)
    cut = pixels(kit)
    return lambda n: encoder.encode(cut[:n])


def torch(kit: Kit, threads: int, checkpoint: Path) -> Encode:
    """transformers' CLIP in float32, all tiles in one call as LLaVA does, without the layers that
    LLaVA does not use.
    """
    import torch
    from mmproj import opened

    from export.vision import Encoder

    torch.set_num_threads(threads)
    encoder, cut = Encoder(opened(checkpoint)), torch.from_numpy(pixels(kit))
    encoder.tower.set_attn_implementation("sdpa")
    return lambda n: encoder(cut[:n]).numpy()


def clip(kit: Kit, threads: int, mmproj: Path) -> Encode:
    """llama.cpp's, by the libmtmd that is installed.

    A tile is as large as it wants them, so that it resizes nothing.
    """
    from llama_cpp import llama_cpp as lib
    from llama_cpp import mtmd_cpp as mtmd

    llama_cpp.system()  # loads the backends
    params = lib.llama_model_default_params()
    params.no_alloc, params.load_mode = (
        True,
        lib.LLAMA_LOAD_MODE_NONE,
    )  # only its vocabulary and width are asked for
    model = lib.llama_model_load_from_file(
        str(kit.file(kit.manifest.language.file)).encode(), params
    )
    settings = mtmd.mtmd_context_params_default()
    settings.use_gpu, settings.n_threads, settings.warmup, settings.print_timings = (
        False,
        threads,
        False,
        False,
    )
    context = mtmd.mtmd_init_from_file(str(mmproj).encode(), model, settings)
    if not context:
        raise SystemExit(f"{mmproj}: libmtmd cannot load it")
    width = lib.llama_model_n_embd(model)
    chunks = [_image_chunk(mtmd, context, picture) for picture in pictures(kit)]

    def encode(n: int) -> Any:
        matches = []
        for chunk in chunks[:n]:
            if mtmd.mtmd_encode_chunk(context, chunk):
                raise SystemExit("libmtmd cannot encode a tile")
            rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            matches.append(
                np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), (rows, width)).copy()
            )
        return np.stack(matches)

    return encode


def _image_chunk(mtmd: Any, context: Any, picture: Any) -> Any:
    """A picture as libmtmd prepares it."""
    raw = np.ascontiguousarray(picture)
    data = raw.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = mtmd.mtmd_bitmap_init(picture.width, picture.height, data)
    marker, chunks = mtmd.mtmd_default_marker(), mtmd.mtmd_input_chunks_init()
    text = mtmd.mtmd_input_text(marker, len(marker), False, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    if mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1):
        raise SystemExit("libmtmd cannot prepare a tile")
    every = [
        mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))
    ]
    images = [
        c for c in every if mtmd.mtmd_input_chunk_get_type(c) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
    ]
    if len(images) != 1:
        raise SystemExit(f"libmtmd makes {len(images)} pictures of a tile")
    return images[0]


def encoder(out: Path, kit: Path, threads: int, who: str, other: Path) -> None:
    """Seconds of all tiles behind one that warms up; the features go next to `out`."""
    began = time.perf_counter()
    encode = {"ours": ours, "clip": clip, "torch": torch}[who](open_kit(kit), threads, other)
    loaded = time.perf_counter()
    encode(1)
    start = time.perf_counter()
    features = encode(99)
    seconds = time.perf_counter() - start
    np.save(out.with_suffix(".npy"), features.astype(np.float32))
    figures = {
        "seconds": seconds,
        "load": loaded - began,
        "tiles": len(features),
        "peak": memory.peak(),
    }
    out.write_text(json.dumps(figures))


class Watches:
    """Seconds spent in functions of the runtime, and when each was entered first, since the process
    was started.
    """

    def __init__(self, out: Path, began: float, until: str) -> None:
        self.out, self.began, self.until = out, began, until
        self.seconds: dict[str, float] = {}
        self.entered: dict[str, list[float]] = {}
        self.said: list[float] = []
        """When each answer's first token was there."""
        self.facts: dict[str, Any] = {}

    def now(self) -> float:
        """Seconds since the process was started."""
        return time.time() - self.began

    def put(self, owner: Any, name: str, key: str) -> None:
        """Watch a function."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def watched(*args: Any, **more: Any) -> Any:
            self.entered.setdefault(key, []).append(self.now())
            if key == self.until:
                self.finish()
            start = time.perf_counter()
            try:
                return inner(*args, **more)
            finally:
                self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start

        setattr(owner, name, watched)

    def finish(self) -> None:
        """Write the figures, and end the process where it is."""
        figures = {
            "seconds": self.seconds,
            "entered": self.entered,
            "said": self.said,
            "end": self.now(),
        }
        self.out.write_text(json.dumps(figures | self.facts | {"peak": memory.peak()}))
        sys.stdout.flush()
        os._exit(0)

    def first_words(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`, noting when its first token comes."""

        def watched(*args: Any, **more: Any) -> Any:
            pieces = generate(*args, **more)
            piece = next(pieces, None)  # None: the model had nothing to say
            self.said.append(self.now())
            if piece is not None:
                yield piece
            return (yield from pieces)

        return watched

    def model(self, load: Callable[..., None]) -> Callable[..., None]:
        """`LanguageModel.__init__`, noting how it was called, and watching llama.cpp from then on."""

        def watched(model: Any, path: Path, settings: Any, **how: Any) -> None:
            from llama_cpp import llama_cpp as lib

            self.facts |= dataclasses.asdict(settings)
            self.put(lib, "llama_decode", "decode")
            load(model, path, settings, **how)

        return watched

    def rows(self, feed: Callable[..., Any]) -> Callable[..., Any]:
        """`feed_embeddings`, noting how many."""

        def watched(model: Any, rows: Any, *args: Any, **more: Any) -> Any:
            self.facts["rows"] = len(rows)
            return feed(model, rows, *args, **more)

        return watched


def command(out: Path, began: float, until: str, arguments: list[str]) -> None:
    """Run the command with watches. Its exit code is ours unless it was 0."""
    from pulse_edge.inference import cache, decoding
    from pulse_edge.inference import model as interpret
    from pulse_edge.inference.language_model import LanguageModel
    from pulse_edge.inference.vision_encoder import VisionEncoder
    from pulse_edge.measurement import admission

    watches = Watches(out, began, until)
    decoding.generate = watches.first_words(decoding.generate)
    LanguageModel.__init__ = watches.model(LanguageModel.__init__)  # type: ignore[method-assign]
    LanguageModel.feed_embeddings = watches.rows(LanguageModel.feed_embeddings)  # type: ignore[method-assign]
    for owner, name, key in (
        (interpret, "verify", "verify"),
        (reader.Document, "page", "read"),
        (admission, "admit", "check"),
        (tiling, "cut", "cut"),
        (tiling, "pack", "pack"),
        (cache, "key_of", "key"),
        (cache.ImageTokenCache, "get", "get_rows"),
        (cache.ImageTokenCache, "put", "put_rows"),
        (VisionEncoder, "__init__", "load_encoder"),
        (VisionEncoder, "ready", "wait_encoder"),
        (VisionEncoder, "encode", "encode"),
        (LanguageModel, "__init__", "load_model"),
        (LanguageModel, "tokenize", "tokenize"),
        (LanguageModel, "feed_embeddings", "feed_embeddings"),
        (LanguageModel, "_decode", "decode_call"),
        (interpret.PulseModel, "prefill", "reach"),
    ):
        watches.put(owner, name, key)
    sys.argv = ["pulse-edge", *arguments]
    try:
        runpy.run_module("pulse_edge", run_name="__main__")
    except SystemExit as e:
        if e.code:
            raise
    watches.finish()


def main(what: str, *words: str) -> None:
    """Command line."""
    if what == "mmproj":
        import mmproj

        mmproj.write(Path(words[0]), Path(words[1]))
    elif what == "encoder":
        encoder(Path(words[0]), Path(words[1]), int(words[2]), words[3], Path(*words[4:5]))
    else:
        command(Path(words[0]), float(words[1]), words[2], list(words[3:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
