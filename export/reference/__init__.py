"""The original's side of the proof, without any code of the converter or the runtime.

    source   tensors of the source files, under a name table of its own, adapters merged in
    facts    content of the checkpoint's small files: configuration, packing, special tokens
    page     a picture -> pixels, and features -> image tokens, as LLaVA and transformers make them
    tower    pixels -> features; plain torch, one layer in memory at a time
    llama    image tokens between prompt ids -> logits; plain torch, one layer in memory at a time
    words    text -> token ids, by sentencepiece or tokenizers themselves
    expect   what the kit must therefore state: every key and tensor of the GGUF, the manifest

It shares only error classes with the rest, which tests/test_imports.py holds. A mistake that both
sides made in the same way would stay unseen in any comparison.
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

    `lora` is an adapter's folder, `tower` a vision tower's, `merge` a packing that replaces the
    config's. Raises CheckpointError for files that cannot be read.
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
        """The image token (d,) that ends a line of the grid, if the packing has one."""
        return self.source.tensor("newline").float().numpy() if self.facts.newline else None
