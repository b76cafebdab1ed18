"""A page -> image tokens (T, d): tiles, vision encoder, packing, pruning, and the cache of image
tokens."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pulse_edge.common.arrays import Float, Mask, Positions
from pulse_edge.errors import KitError
from pulse_edge.inference import cache as page_cache
from pulse_edge.inference import tiling, token_pruning, vision_encoder
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import memory
from pulse_edge.measurement.page import PageMeasurement
from pulse_edge.page import admission, reader

Progress = Callable[[str, int, int], None]
"""Gets a stage, the amount done, and the total: `verify` bytes, `load` per mille, `encode` tiles,
`prefill` image tokens, `findings` questions."""


@dataclass(frozen=True)
class EncodedPage:
    """A page, ready for questions."""

    file: str
    page_sha256: str
    image_tokens: Float
    """(T, d) float32, the embeddings that the language model reads in the image's place."""
    tiles: int
    image_tokens_sha256: str
    seconds: dict[str, float]
    """Wall time of `read`, `check` and `encode`; `cached` replaces `encode` where the cache had the
    image tokens."""
    checked: admission.CheckedPage | None = None
    positions: Positions | None = None
    """(T + 1,) positions of the image tokens and of the token behind them, if some were pruned;
    None: consecutive."""
    image_tokens_read: str = token_pruning.ALL
    """Which of the page's image tokens these are, for the audit log."""
    measured: PageMeasurement | None = None
    """What was measured on the trace; None where it was not."""

    def picture(self, page: reader.Page) -> Image.Image:
        """The picture of `page` that the model was shown."""
        return page.image if self.checked is None else self.checked.flat.image


class PageEncoder:
    """Encodes the pages of one kit."""

    def __init__(
        self, kit: Kit, encoder: vision_encoder.VisionEncoder, device: str, progress: Progress
    ) -> None:
        self.kit = kit
        self.encoder = encoder
        self.device = device
        """cpu or cuda."""
        self.progress = progress
        self.wait_seconds = 0.0
        """Time that callers have waited for the session; part of loading."""
        name = kit.manifest.packing.newline_file
        self._newline = None if name is None else np.fromfile(kit.file(name), "<f4")

    def wait(self) -> float:
        """Wait until the session can be used; return the seconds. Raises EngineError."""
        start = time.perf_counter()
        self.encoder.ready()
        waited = time.perf_counter() - start
        self.wait_seconds += waited
        return waited

    def encode(
        self,
        page: reader.Page,
        checked: admission.CheckedPage | None,
        seconds: dict[str, float],
        cache: page_cache.ImageTokenCache | None,
        choice: str,
    ) -> EncodedPage:
        """Encode a page that was admitted, or that needs no check (`checked` None).

        `seconds` are those of the earlier stages. `cache` None: the image tokens are neither looked
        up nor stored. `choice` is parsed by `token_pruning`.
        """
        memory.give_back()  # what admission took, before the encoder takes its own
        start, image = time.perf_counter(), checked.flat.image if checked else page.image
        spec = self.kit.manifest.vision
        pixels = tiling.cut(image, mean=spec.mean, std=spec.std, **self._tiling())
        ranking = token_pruning.ranking(choice)
        tokens, importance, waited = self._image_tokens(
            pixels, image.size, cache, attention=ranking == token_pruning.ATTENTION
        )
        spent = time.perf_counter() - start - (waited or 0.0)
        seconds = seconds | {"cached" if waited is None else "encode": spent}
        digest = hashlib.sha256(tokens.tobytes())
        if ranking == token_pruning.SIMILARITY:
            importance = token_pruning.dissimilarity(tokens)
        read = token_pruning.positions(
            choice, self._padding(image.size), importance, spec.patches_per_side
        )
        positions, description = None, token_pruning.ALL
        if len(read) < len(tokens):
            digest.update(read.astype("<i8").tobytes())
            description = f"{choice}: {len(read)} of {len(tokens)}"
            positions = np.append(read, len(tokens))
            tokens = tokens[read]
        return EncodedPage(
            page.name,
            page.sha256,
            tokens,
            len(pixels),
            digest.hexdigest(),
            seconds,
            checked,
            positions,
            description,
        )

    def _image_tokens(
        self,
        pixels: Float,
        page_size: tuple[int, int],
        cache: page_cache.ImageTokenCache | None,
        *,
        attention: bool,
    ) -> tuple[Float, Float, float | None]:
        """All image tokens (T, d) of a page's tiles (n, 3, S, S), their importance (T,), and the
        wait for the encoder.

        The importance is the attention of CLS, or zero without `attention`. The wait is None if the
        cache had all.
        """
        key = "" if cache is None else page_cache.key_of(pixels, self._key_parts(page_size))
        cached = None if cache is None else cache.get(key)
        if cache is not None and cached is not None:
            if not attention:
                return cached, np.zeros(len(cached), np.float32), None
            importance = cache.get(f"{key}-attention")
            if importance is not None:
                return cached, importance, None
        waited = self.wait()
        features, weights = self._features(pixels, attention=attention)
        options: dict[str, Any] = {
            "page_size": page_size,
            "merge": self.kit.manifest.packing.merge,
            **self._tiling(),
        }
        tokens = tiling.pack(features, newline=self._newline, **options)
        newline = None if self._newline is None else np.zeros(1, np.float32)
        importance = tiling.pack(weights[..., None], newline=newline, **options)[:, 0]
        if cache is not None:
            cache.put(key, tokens)
            if attention:
                cache.put(f"{key}-attention", importance)
        return tokens, importance, waited

    def _features(self, pixels: Float, *, attention: bool) -> tuple[Float, Float]:
        """Features (n, P, d) of tiles, and the attention (n, P) of CLS, zeros without `attention`.
        Raises KitError."""

        def report(done: int, total: int) -> None:
            self.progress("encode", done, total)

        if attention:
            features, weights = self.encoder.attend(pixels, report)
        else:
            features = self.encoder.encode(pixels, report)
            weights = np.zeros(features.shape[:2], np.float32)
        m = self.kit.manifest
        expected = m.vision.patches_per_side**2, m.language.embedding_length
        if features.shape[1:] != expected:
            raise KitError(
                f"{self.kit.path}: its encoder gives {features.shape[1]} x {features.shape[2]} "
                "numbers "
                f"a tile, and the manifest says {expected[0]} x {expected[1]}. Copy the kit again, "
                "or "
                "convert the checkpoint again."
            )
        return features, weights

    def _tiling(self) -> dict[str, Any]:
        packing = self.kit.manifest.packing
        return {
            "size": self.kit.manifest.vision.image_size,
            "aspect_ratio": packing.aspect_ratio,
            "pinpoints": packing.grid_pinpoints,
        }

    def _padding(self, page_size: tuple[int, int]) -> Mask:
        """Which image tokens (T,) of a page see only padding."""
        return tiling.padding(
            page_size,
            patches=self.kit.manifest.vision.patches_per_side**2,
            merge=self.kit.manifest.packing.merge,
            newline=self._newline,
            **self._tiling(),
        )

    def _key_parts(self, page_size: tuple[int, int]) -> dict[str, Any]:
        """Everything but the pixels that image tokens depend on: weights, packing, engine,
        machine."""
        m = self.kit.manifest
        newline = m.packing.newline_file and m.files[m.packing.newline_file].sha256
        engine = [
            vision_encoder.installed_runtime(),
            vision_encoder.version(),
            vision_encoder.EXACT,
            self.device,
            platform.node(),
        ]
        packing = [m.packing.merge, newline, self._tiling(), page_size]
        # The hash of the whole kit: an encoder's weights may lie in files of any name.
        return {"kit": self.kit.sha256, "packing": packing, "engine": engine}
