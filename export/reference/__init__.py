"""The original's side of the proof: a checkpoint read, prepared and computed without any code of the converter or the runtime.

    source   tensors of the source files, under a name table of its own, adapters merged in
    facts    what the checkpoint's small files say: configuration, packing, special tokens
    page     a picture -> pixels, and features -> image tokens, as LLaVA's and transformers' code does it
    tower    pixels -> features; plain torch, one layer in memory at a time
    llama    image tokens between prompt ids -> logits; plain torch, one layer in memory at a time
    words    text -> token ids, by sentencepiece or tokenizers themselves
    expect   what the kit must therefore say: every key of the GGUF, every tensor of it, the manifest

It shares only error classes with the rest, which tests/test_imports.py holds: what both sides got wrong in the same way, no
comparison would notice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .facts import Facts
from .source import Source
from .words import Words

Float = npt.NDArray[np.float32]


class Reference:
    """A checkpoint as its own files define it.

    `lora` is an adapter's folder, `tower` a vision tower's, `merge` a packing that replaces the config's. Raises
    CheckpointError for files that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lora: Path | None = None,
        tower: Path | None = None,
        merge: str | None = None,
    ) -> None:
        self.facts = Facts(folder, lora=lora, tower=tower, merge=merge)
        self.source = Source(folder, lora=lora, tower=self.facts.tower_folder)
        self.words = Words(folder)

    @property
    def newline(self) -> Float | None:
        """The image token (d,) that ends a line of the grid, where the packing has one."""
        return self.source.tensor("newline").float().numpy() if self.facts.newline else None
