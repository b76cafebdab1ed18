"""The settings of a quantization, and one quantization under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.image_tokens import Float
from export.llm_logits import Input
from export.models import Recipe
from export.stats import Stats
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.manifest import KeyCacheType

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """The settings of a quantization: at most one of `llm`, `size` and `bpw`.

    Without any of them the language model becomes Q4_K_M.
    """

    llm: str | None = None
    """One of llama.cpp's types, for the whole language model."""
    size: int | None = None
    """Bytes of the whole kit; each matrix gets a type of its own."""
    bpw: float | None = None
    """Bits per weight of the language model; each matrix gets a type of its own."""
    vision: str | None = None
    """Type of the encoder, a key of vision.KINDS; None keeps the base's encoder."""
    key_cache_type: KeyCacheType | None = None
    """Type of the keys in the KV cache; None stands for f16."""
    stats: Path | None = None
    """File of `calibration collect`."""
    sensitivity: bool | None = None
    """Weigh each matrix's error by its measured effect on answers, where types are chosen. None
    stands for yes with a model of up to llm_logits.WINDOW_BYTES; with a larger one it takes days,
    so that the caller has to choose."""
    recipe: Recipe | None = None
    threads: int | None = None
    force: bool = False
    golden: tuple[Path, ...] = ()
    """Pages of golden cases; without any, the program's example page."""


@dataclass(frozen=True)
class Job:
    """One quantization under way: the base kit, the folder that becomes the new one, and how."""

    base: Kit
    work: Path
    options: Options
    stats: Stats | None
    threads: int
    say: Say
    progress: Progress

    @property
    def key_cache_type(self) -> KeyCacheType:
        """Type of the keys in the KV cache."""
        return self.options.key_cache_type or "f16"

    @property
    def source(self) -> Path:
        """The base's GGUF."""
        return self.base.file(self.base.manifest.language.file)

    @property
    def target(self) -> Path:
        """The GGUF to write."""
        return self.work / self.base.manifest.language.file

    @property
    def importance(self) -> Mapping[str, Float]:
        """Matrix -> mean square of each input column; empty without statistics."""
        return self.stats.importance if self.stats else {}

    @property
    def probes(self) -> list[Input]:
        """Inputs of the calibration sample; none without statistics."""
        probes = self.stats.probes if self.stats else ()
        return [Input(p.image_tokens.astype("float32"), p.before, p.after) for p in probes]
