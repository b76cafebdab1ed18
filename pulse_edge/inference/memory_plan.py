"""The memory plan: what loading and using a kit will take, before anything is loaded, and how to make it fit.

Figures are resident bytes, as VmHWM counts them: mapped weights included, because llama.cpp touches all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.errors import MemoryShortage
from pulse_edge.inference import vision_encoder
from pulse_edge.inference.language_model import BATCH
from pulse_edge.kit import gguf_header
from pulse_edge.kit.gguf_header import Weights
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.manifest import Manifest
from pulse_edge.machine import cpu, memory
from pulse_edge.machine.memory import MIB, shown

BATCHES = (BATCH, 128, 64, 32)
SPARE = 512 * MIB
"""Left free before weights are repacked: those cannot be dropped when another program wants memory, mapped ones can."""
_PROGRAM = 150 * MIB
"""Python, NumPy, OpenCV, both engines' code, vocabulary, and a page of 2 MP that was read; measured."""
_PAGE = 112 * MIB
"""On top of it while a page is flattened and judged: the networks of upright.py, and 25 bytes a pixel, measured up to 16 MP;
here 2 MP."""
_KEPT = 16 * MIB
"""Of every page that waits for its questions: its picture, as read and as flattened."""
_ROUND = 256
"""llama.cpp rounds a context up to it."""
_KEY_BYTES = {"f16": 2.0, "q8_0": 34 / 32}
"""Of a number, by type of the key cache: q8_0 has a scale in f16 for every 32."""

_PART_NAMES = {"kv_cache": "KV cache", "image_tokens": "image tokens"}


@dataclass(frozen=True)
class Use:
    """What the caller is going to do. The default: anything."""

    pages: int | None = None
    """All of them are encoded before the first question, so that the encoder can be closed; None: not so."""
    tokens: int | None = None
    """Prompt, questions and answers beside the image tokens, at most; None: as many as the kit's context holds."""
    image_tokens: int | None = None
    """Image tokens of a page that are read, at most; None: all of them."""


@dataclass(frozen=True)
class Plan:
    """How a kit will be loaded, and what that will take."""

    context: int
    """Tokens that the context holds."""
    batch: int
    """Tokens or rows a decode call."""
    repack: bool
    """Weights are read into memory in the layout that this processor likes; else they stay mapped from the file."""
    encoder_first: bool
    """The encoder is closed before the language model is loaded."""
    parts: dict[str, int]
    """Bytes: `program`, `page`, `encoder`, `weights`, `kv_cache`, `compute`, `image_tokens`."""
    budget: int | None
    """Bytes that may be taken; None: the system does not tell."""
    idle: int = 0
    """Of the mapped weights what is not needed after loading, and can be dropped."""
    gpu_layers: int = 0
    """Layers on the GPU, the output as one more."""

    @property
    def peak(self) -> int:
        """Resident bytes at most."""
        p = self.parts
        encoding = p["program"] + p["page"] + p["encoder"]
        answering = p["program"] + p["weights"] + p["kv_cache"] + p["compute"] + p["image_tokens"]
        return (
            max(encoding, answering) if self.encoder_first else answering + p["page"] + p["encoder"]
        )

    @property
    def text(self) -> str:
        """The part that can change the last digits of a result, for the record."""
        layout = "repacked" if self.repack else "mapped"
        return f"{layout} weights, batches of {self.batch}"

    @property
    def fits(self) -> bool:
        """Whether it stays within the budget, and leaves something where nothing of it could be dropped."""
        spare = SPARE if self.repack else -self.idle
        return self.budget is None or self.peak + spare <= self.budget

    def figures(self) -> str:
        """`needs 6.2 GiB of memory (weights 3.8 GiB, ...)`."""
        parts = ", ".join(
            f"{_PART_NAMES.get(name, name)} {shown(size)}"
            for name, size in self.parts.items()
            if size
        )
        return f"needs {shown(self.peak)} of memory ({parts}{'; not all at once' if self.encoder_first else ''})"


def make(
    kit: Kit,
    use: Use | None = None,
    *,
    limit: int | None = None,
    flags: frozenset[str] | None = None,
) -> Plan:
    """The best plan that fits into what is free, and into `limit` bytes.

    Raises MemoryShortage, with the figures of the smallest plan, when none fits; KitError for a broken GGUF header.
    """
    free = memory.available()
    if free is not None:
        free += memory.resident()  # the plan counts what this process has taken already
    budget = limit if free is None else free if limit is None else min(free, limit)
    plans = ladder(kit, use or Use(), budget, cpu.flags() if flags is None else flags)
    for plan in plans:
        if plan.fits:
            return plan
    least = min(plans, key=lambda plan: plan.peak)
    told = (
        f"{shown(limit)} are allowed (--memory)" if limit is not None and budget == limit else None
    )
    raise MemoryShortage(
        f"{kit.path}: {least.figures()}, and {told or f'{shown(budget or 0)} are free'}. "
        + (
            "Allow more, or use a smaller kit."
            if told
            else "Close other programs, or use a smaller kit."
        )
    )


def ladder(kit: Kit, use: Use, budget: int | None, flags: frozenset[str]) -> list[Plan]:
    """Every plan worth trying, best first: large batches before small ones, then repacked before mapped.

    One page's encoder is always closed first, which costs nothing; several pages' only where that makes it fit, since
    their first answer then waits for all of them to be encoded.
    """
    held = gguf_header.read(kit.file(kit.manifest.language.file))
    worth = cpu.repacked(set(held.by_kind), flags)
    repacking = (
        2 * sum(held.by_kind[kind] for kind in worth) > held.bytes
    )  # llama.cpp does all of them or none
    closing = [True] if use.pages == 1 else [False] if use.pages is None else [False, True]
    context = context_for(kit.manifest, use)
    return [
        Plan(
            context=context,
            batch=batch,
            repack=repack,
            encoder_first=first,
            parts=parts(kit.manifest, held, use, context, batch),
            budget=budget,
            idle=0 if repack else held.embedding,
        )
        for batch in BATCHES
        for repack in ([True, False] if repacking else [False])
        for first in closing
    ]


def context_for(manifest: Manifest, use: Use) -> int:
    """Tokens: the kit's context, or less where the caller's page and words cannot fill it.

    An answer does not depend on it, for an answer that the kit's context would cut off gets all of that.
    """
    most = manifest.language.context_length
    if use.tokens is None:
        return most
    read = (
        image_tokens(manifest)
        if use.image_tokens is None
        else min(use.image_tokens, image_tokens(manifest))
    )
    return min(most, -(-(read + use.tokens) // _ROUND) * _ROUND)


def image_tokens(manifest: Manifest) -> int:
    """Image tokens of the largest page."""
    packing, side = manifest.packing, manifest.vision.patches_per_side
    size = manifest.vision.image_size
    grid = max(((w // size) * (h // size) for w, h in packing.grid_pinpoints), default=0)
    newlines = 0
    if packing.newline_file is not None:
        newlines = max(((h // size) * side for _, h in packing.grid_pinpoints), default=0) + 1
    return (grid + 1 if packing.aspect_ratio == "anyres" else 1) * side**2 + newlines


def parts(manifest: Manifest, held: Weights, use: Use, context: int, batch: int) -> dict[str, int]:
    """Bytes of each part; see `Plan.parts`.

    `compute` is llama.cpp's buffer for the largest graph without flash attention (scores of every head over the whole
    context, their mask, and seven rows of the width for each token; or the logits), and the copy of the scores in f16
    with which they are multiplied by the values.
    """
    language, m = manifest.language, manifest
    wide, pairs = language.embedding_length, language.key_value_length
    scores = 4 * context * held.heads
    attention = scores + 4 * context + 4 * (5 * wide + 2 * pairs)
    return {
        "program": _PROGRAM,
        "page": _PAGE,
        "encoder": encoder(m),
        "weights": held.bytes,
        "kv_cache": int(
            (_KEY_BYTES[language.key_cache_type] + 2) * language.layers * pairs * context
        ),
        "compute": batch * (max(attention, 4 * (language.vocabulary + 3 * wide)) + scores // 2),
        "image_tokens": image_tokens(m) * wide * 4
        + ((use.pages or 1) - 1) * (image_tokens(m) * wide * 4 + _KEPT),
    }


def encoder(manifest: Manifest) -> int:
    """Bytes of the encoder while it works: its weights, in float32 where they are fp16, and the activations of a tile.

    Fitted to ViT-L/14-336 (fp16 1.5 GB, int8 0.55 GB with ONNX Runtime itself) and to the miniature. Exact sums of int8 took
    144 and 179 MiB more there, of 302 MiB of weights.
    """
    m = manifest.vision
    held = sum(file.bytes for name, file in manifest.files.items() if name.startswith(m.file))
    exact = int(0.6 * held) if m.type.startswith("int8") and vision_encoder.saturates() else 0
    return held * (2 if m.type == "fp16" else 1) + exact + 600 * m.patches_per_side**4


def on_gpu(free: int, held: Weights, kv_cache: int, compute: int) -> int:
    """How many layers go to a GPU with `free` bytes, the output as one more; 0: none.

    A layer takes its weights and its keys and values along. The buffers and CUDA's own half gigabyte come first.
    """
    left = free - compute - 512 * MIB
    cached = kv_cache // held.layers
    taken = 0
    # llama.cpp fills from the last layer down, and counts the output first.
    for size in (
        held.bytes - sum(held.by_layer),
        *(layer + cached for layer in reversed(held.by_layer)),
    ):
        left -= size
        if left < 0:
            break
        taken += 1
    return taken if taken > 1 else 0


def with_gpu(plan: Plan, layers: int, held: Weights) -> Plan:
    """`plan` with so many layers on the GPU; what remains of the parts is what the machine's own memory takes."""
    share = 1 - layers / (held.layers + 1)
    moved = {name: int(plan.parts[name] * share) for name in ("weights", "kv_cache", "compute")}
    return replace(plan, gpu_layers=layers, repack=False, parts=plan.parts | moved)
