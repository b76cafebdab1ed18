"""Prefill a page, or restore its KV cache from the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from pulse_edge.inference import llama_cpp
from pulse_edge.inference.cache import PrefixCache
from pulse_edge.inference.language_model import LanguageModel
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.kit.kit import Kit
from pulse_edge.machine import profile


def prefill_page(
    language: LanguageModel,
    before: str,
    encoded: EncodedPage,
    cache: PrefixCache | None,
    entry: str,
    progress: Callable[[int, int], None],
) -> None:
    """Fill the context with the text `before` and the page, from `cache` where it is stored there.

    `entry` is the name that `prefix_key` gives; `progress` gets image tokens done and in total.
    """
    key = encoded.image_tokens_sha256
    if cache is not None and not language.has(key):
        cache.load(entry, lambda path: language.load(path, key))
    computed = language.prefill(
        key, before, encoded.image_tokens, progress, positions=encoded.positions
    )
    if cache is not None and computed:
        cache.save(entry, language.state_bytes, language.save)


def prefix_key(kit: Kit, encoded: EncodedPage, settings: list[object]) -> str:
    """Return a hash of everything that a page's KV cache depends on.

    `settings` are the device's text, which names layout, batch and threads, and those of the
    context.
    """
    build = [llama_cpp.version(), llama_cpp.system(), profile.key()]
    before = kit.manifest.prompt.before
    parts = [kit.sha256, before, encoded.image_tokens_sha256, settings, build]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
