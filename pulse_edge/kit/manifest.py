"""The fields of a kit's manifest, `manifest.json`. Standard library only.

The manifest says everything that the runtime must know about a kit, and it is written last: a
directory without one is an unfinished kit. `manifest_reader` builds these classes from JSON and
checks them; docs/manifest.schema.json is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

Merge = Literal["flat", "spatial", "spatial_unpad"]
Aspect = Literal["anyres", "pad", "square"]
KeyCacheType = Literal["f16", "q8_0"]


@dataclass(frozen=True)
class File:
    """One file of the kit."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Language:
    """The language model, a GGUF file."""

    file: str
    type: str
    """Weight type: f16, bf16, f32, Q8_0, ..."""
    context_length: int
    """Tokens that the context holds, image tokens included."""
    embedding_length: int
    """Width d of the embedding of a token or an image token."""
    layers: int
    key_value_length: int
    """Numbers per token and layer in the key cache; the value cache has as many."""
    vocabulary: int
    key_cache_type: KeyCacheType = "f16"
    """Type of the keys in the KV cache. It belongs to the kit, because other keys give other
    answers, and the kit is measured with its own. Values stay f16: smaller ones need flash
    attention, whose sums depend on the number of threads."""


@dataclass(frozen=True)
class Vision:
    """The vision encoder with its projector, an ONNX file: pixel_values (n,3,S,S) -> image_features
    (n,P,d)."""

    file: str
    type: str
    """Weight type: fp32, fp16, ..."""
    image_size: int
    """Side S of a tile in pixels."""
    patches_per_side: int
    """Square root of P, the patches of a tile."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Packing:
    """How a page becomes tiles, and their features become image tokens (LLaVA's config fields of
    the same names)."""

    aspect_ratio: Aspect
    merge: Merge
    grid_pinpoints: tuple[tuple[int, int], ...]
    """Allowed grid sizes (width, height) in pixels; empty unless anyres."""
    newline_file: str | None
    """File of the image_newline token, d little-endian float32; null unless the packing inserts it.
    """


@dataclass(frozen=True)
class Prompt:
    """The conversation's text on either side of the image; `{question}` stands in `after`."""

    template: str
    before: str
    after: str
    max_tokens: int
    """Limit of new tokens of an answer; decoding is greedy."""


@dataclass(frozen=True)
class Quantization:
    """How a kit was quantized from another one; export.quantize says when the same bytes come out
    again."""

    base: dict[str, str]
    """SHA-256 of the other kit's language model (`language`) and encoder (`vision`), which identify
    its weights."""
    settings: dict[str, Any]
    """Options of `export quantize` by name; `recipe` is a name in models.yaml."""
    tensors: dict[str, str]
    """Weight type of every tensor of the language model that is not float32."""
    notes: tuple[str, ...]
    """Settings that could not be followed, each with the reason."""
    statistics_sha256: str | None
    """SHA-256 of the statistics file of `calibration collect`; null: none was used."""
    calibration: dict[str, tuple[str, ...]]
    """Task -> ids that calibrated the kit, on which it must not be tested."""
    calibration_sha256: str | None
    """SHA-256 over these ids and their pictures."""


@dataclass(frozen=True)
class Calibration:
    """How the log odds of yes against no become a finding's probability: logistic(scale * log odds
    + offset)."""

    scale: float
    offset: float
    uncertain_from: float
    """Lowest probability at which the kit abstains."""
    uncertain_to: float
    """Highest probability at which the kit abstains."""
    pages: int
    """Pages of the calibration split that the figures were fitted on."""
    auc: float | None
    """Area under the ROC curve on other pages; null: none of them has the finding, or all have it.
    """
    reason: str = ""
    """Why the kit always abstains; empty if it does not."""


@dataclass(frozen=True)
class Manifest:
    """All of manifest.json."""

    manifest_version: int
    id: str
    """Name for people: model and weight types."""
    demonstration: bool
    """True: the weights are not fit for patients, and every answer says so."""
    created: str
    """UTC, ISO 8601; a quantized kit keeps its base's, so that it can be made again
    (export.quantize: same bytes)."""
    files: dict[str, File]
    language: Language
    vision: Vision
    packing: Packing
    prompt: Prompt
    source: dict[str, Any]
    """Provenance: checkpoint, files with sha256, revision, licence, adapters."""
    parity: dict[str, Any]
    """How the kit was proven against the original, with figures."""
    versions: dict[str, str]
    """Versions of the programs that made the kit."""
    accuracy: dict[str, Any] | None = None
    """Figures measured on ECGBench; null: not measured yet."""
    quantization: Quantization | None = None
    """Null: the kit was converted from a checkpoint without quantizing."""
    findings: dict[str, Calibration] | None = None
    """Calibration by finding (pulse_edge.report.findings); null: never calibrated. An absent
    finding has none."""
    draft_table_file: str | None = None
    """Draft table for speculative decoding (pulse_edge.inference.speculative); null: the kit has
    none."""
