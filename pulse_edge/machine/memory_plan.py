"""The memory plan: what loading and using a kit will take, computed before anything is loaded, and
how to make it fit.

Figures are resident bytes, as VmHWM counts them: mapped weights are included, because llama.cpp
touches all of them. docs/machine.md compares the figures with measured ones. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.errors import MemoryShortage
from pulse_edge.kit import gguf_header
from pulse_edge.kit.gguf_header import Header
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.manifest import Manifest
from pulse_edge.machine import cpu, memory
from pulse_edge.machine.memory import MIB, shown

BATCHES = (256, 128, 64, 32)
"""Tokens or image tokens of a decode call, best first. Larger batches than 256 are not faster on a
CPU."""
SPARE = 512 * MIB
"""Memory left free before weights are repacked: repacked weights cannot be dropped when another
program needs memory."""
_PROGRAM = 150 * MIB
"""Python, NumPy, OpenCV, the code of both engines, the vocabulary, and a page of 2 MP; measured."""
_PAGE = 112 * MIB
"""Memory added while a page is flattened and judged: the networks for orientation, and 25 bytes a
pixel of a page of 2 MP. Measured up to 16 MP."""
_WAITING_PAGE = 16 * MIB
"""A page that waits for its questions: its picture, as read and as flattened."""
_CONTEXT_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_BYTES_PER_KEY = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes of a number by type of the key cache: q8_0 has a scale in f16 for every 32 numbers."""
_BYTES_PER_VALUE = 2
_CUDA = 512 * MIB
"""Memory of the GPU that CUDA itself takes."""

_PART_NAMES = {"kv_cache": "KV cache", "image_tokens": "image tokens"}


@dataclass(frozen=True)
class Workload:
    """What the caller is going to do with the kit. The default allows anything."""

    pages: int | None = None
    """Number of pages, all encoded before the first question so that the encoder can be closed;
    None: no such order."""
    tokens: int | None = None
    """Limit of tokens of prompt, questions and answers, without image tokens; None: the kit's
    context."""
    image_tokens: int | None = None
    """Limit of image tokens of a page that are prefilled; None: all of them."""


@dataclass(frozen=True)
class Plan:
    """How a kit will be loaded, and what that will take."""

    context: int
    """Tokens that the context holds."""
    batch: int
    """Tokens or image tokens of a decode call."""
    repack: bool
    """True: weights are read into memory in the layout that suits this processor; False: they stay
    mapped from the file."""
    encoder_first: bool
    """True: the encoder is closed before the language model is loaded."""
    parts: dict[str, int]
    """Bytes: `program`, `page`, `encoder`, `weights`, `kv_cache`, `compute`, `image_tokens`."""
    budget: int | None
    """Bytes that may be taken; None: the system does not say."""
    idle: int = 0
    """Bytes of mapped weights that are not needed after loading and can be dropped."""
    gpu_layers: int = 0
    """Layers on the GPU, the output counted as one more."""

    @property
    def peak(self) -> int:
        """Largest number of resident bytes."""
        p = self.parts
        encoding = p["program"] + p["page"] + p["encoder"]
        answering = p["program"] + p["weights"] + p["kv_cache"] + p["compute"] + p["image_tokens"]
        if self.encoder_first:
            return max(encoding, answering)
        return answering + p["page"] + p["encoder"]

    @property
    def text(self) -> str:
        """The part that can change the last digits of a result, for the audit log."""
        layout = "repacked" if self.repack else "mapped"
        return f"{layout} weights, batches of {self.batch}"

    @property
    def fits(self) -> bool:
        """Whether the plan stays within the budget, with SPARE to spare if none of its weights can
        be dropped."""
        spare = SPARE if self.repack else -self.idle
        return self.budget is None or self.peak + spare <= self.budget

    def figures(self) -> str:
        """`needs 6.2 GiB of memory (weights 3.8 GiB, ...)`."""
        parts = ", ".join(
            f"{_PART_NAMES.get(name, name)} {shown(size)}"
            for name, size in self.parts.items()
            if size
        )
        note = "; not all at once" if self.encoder_first else ""
        return f"needs {shown(self.peak)} of memory ({parts}{note})"


def make(
    kit: Kit,
    workload: Workload,
    *,
    exact_int8: bool,
    limit: int | None = None,
    flags: frozenset[str] | None = None,
) -> Plan:
    """Return the best plan that fits into the free memory and into `limit` bytes.

    `exact_int8` as in `encoder_bytes`; `flags` are the processor's (None: this machine's). Raises
    MemoryShortage with the figures of the smallest plan when none fits, KitError for a broken GGUF
    header.
    """
    free = memory.available()
    if free is not None:
        free += memory.resident()  # the plan counts what this process has taken already
    budget = limit if free is None else free if limit is None else min(free, limit)
    plans = ladder(
        kit, workload, budget, cpu.flags() if flags is None else flags, exact_int8=exact_int8
    )
    for plan in plans:
        if plan.fits:
            return plan
    smallest = min(plans, key=lambda plan: plan.peak)
    if limit is not None and budget == limit:
        room, advice = f"{shown(limit)} are allowed (--memory)", "Allow more"
    else:
        room, advice = f"{shown(budget or 0)} are free", "Close other programs"
    raise MemoryShortage(
        f"{kit.path}: {smallest.figures()}, and {room}. {advice}, or use a smaller kit."
    )


def ladder(
    kit: Kit, workload: Workload, budget: int | None, flags: frozenset[str], *, exact_int8: bool
) -> list[Plan]:
    """Return every plan worth trying, best first: large batches before small ones, then repacked
    before mapped.

    The encoder of a single page is always closed first, which costs nothing. For several pages it
    is closed only where that makes the plan fit, because their first answer then waits until all of
    them are encoded.
    """
    header = gguf_header.read(kit.file(kit.manifest.language.file))
    faster = cpu.repacked(set(header.by_type), flags)
    # llama.cpp repacks all matrices of these types or none.
    repacking = 2 * sum(header.by_type[kind] for kind in faster) > header.bytes
    closing = (
        [True] if workload.pages == 1 else [False] if workload.pages is None else [False, True]
    )
    context = context_for(kit.manifest, workload)
    return [
        Plan(
            context=context,
            batch=batch,
            repack=repack,
            encoder_first=first,
            parts=part_bytes(kit.manifest, header, workload, context, batch, exact_int8=exact_int8),
            budget=budget,
            idle=0 if repack else header.embedding,
        )
        for batch in BATCHES
        for repack in ([True, False] if repacking else [False])
        for first in closing
    ]


def context_for(manifest: Manifest, workload: Workload) -> int:
    """Tokens of the context: the kit's, or fewer where the workload cannot fill it.

    No answer depends on it: an answer that the kit's context would cut off gets the whole of that
    context.
    """
    limit = manifest.language.context_length
    if workload.tokens is None:
        return limit
    largest = most_image_tokens(manifest)
    read = largest if workload.image_tokens is None else min(workload.image_tokens, largest)
    steps = -(-(read + workload.tokens) // _CONTEXT_STEP)
    return min(limit, steps * _CONTEXT_STEP)


def most_image_tokens(manifest: Manifest) -> int:
    """Image tokens of the largest page."""
    packing, side = manifest.packing, manifest.vision.patches_per_side
    size = manifest.vision.image_size
    grid = max(((w // size) * (h // size) for w, h in packing.grid_pinpoints), default=0)
    newlines = 0
    if packing.newline_file is not None:
        newlines = max(((h // size) * side for _, h in packing.grid_pinpoints), default=0) + 1
    return (grid + 1 if packing.aspect_ratio == "anyres" else 1) * side**2 + newlines


def part_bytes(
    manifest: Manifest,
    header: Header,
    workload: Workload,
    context: int,
    batch: int,
    *,
    exact_int8: bool,
) -> dict[str, int]:
    """Bytes of each part; see `Plan.parts`.

    `compute` is llama.cpp's buffer for the largest graph without flash attention (scores of every
    head over the whole context, their mask, and seven vectors of the width for each token; or the
    logits), and the copy of the scores in f16 with which they are multiplied by the values.
    """
    language = manifest.language
    width, kv_width = language.embedding_length, language.key_value_length
    scores = 4 * context * header.heads
    attention = scores + 4 * context + 4 * (5 * width + 2 * kv_width)
    logits = 4 * (language.vocabulary + 3 * width)
    per_pair = _BYTES_PER_KEY[language.key_cache_type] + _BYTES_PER_VALUE
    page = most_image_tokens(manifest) * width * 4
    return {
        "program": _PROGRAM,
        "page": _PAGE,
        "encoder": encoder_bytes(manifest, exact_int8=exact_int8),
        "weights": header.bytes,
        "kv_cache": int(per_pair * language.layers * kv_width * context),
        "compute": batch * (max(attention, logits) + scores // 2),
        "image_tokens": page + ((workload.pages or 1) - 1) * (page + _WAITING_PAGE),
    }


def encoder_bytes(manifest: Manifest, *, exact_int8: bool) -> int:
    """Bytes of the encoder while it works: its weights, in float32 where they are fp16, and the
    activations of a tile.

    `exact_int8` says that ONNX Runtime needs the setting for exact sums of an int8 encoder here. It
    took 144 and 179 MiB more for 302 MiB of weights. Fitted to ViT-L/14-336 (fp16 1.5 GB, int8 0.55
    GB with ONNX Runtime itself) and to the miniature.
    """
    m = manifest.vision
    weights = sum(file.bytes for name, file in manifest.files.items() if name.startswith(m.file))
    exact = int(0.6 * weights) if m.type.startswith("int8") and exact_int8 else 0
    return weights * (2 if m.type == "fp16" else 1) + exact + 600 * m.patches_per_side**4


def gpu_layers(free: int, header: Header, kv_cache: int, compute: int) -> int:
    """Return how many layers go to a GPU with `free` bytes, the output counted as one more; 0:
    none.

    A layer takes its weights and its share of the KV cache along. The compute buffer and CUDA's own
    memory come first.
    """
    room = free - compute - _CUDA
    cached = kv_cache // header.layers
    layers = 0
    # llama.cpp fills from the last layer down, and counts the output first.
    output = header.bytes - sum(header.by_layer)
    for size in (output, *(layer + cached for layer in reversed(header.by_layer))):
        room -= size
        if room < 0:
            break
        layers += 1
    return layers if layers > 1 else 0


def with_gpu(plan: Plan, layers: int, header: Header) -> Plan:
    """Return `plan` with that many layers on the GPU; the parts count the machine's own memory
    only."""
    share = 1 - layers / (header.layers + 1)
    moved = {name: int(plan.parts[name] * share) for name in ("weights", "kv_cache", "compute")}
    return replace(plan, gpu_layers=layers, repack=False, parts=plan.parts | moved)
