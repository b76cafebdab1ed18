"""The miniature's own SentencePiece model, and questions as its tokens."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from export.miniature.data import ROOT
from pulse_edge.common import child_process
from pulse_edge.kit.prompt import TEMPLATES, fill

BOS, EOS = 1, 2
LINES = 4000
"""Lines of the corpus that the vocabulary is learned from."""


def learn_vocabulary(lines: Iterable[str], path: Path, size: int) -> None:
    """Learn byte-pair pieces like Llama's: byte fallback, split digits, no normalisation.

    The file is written under another name and then renamed.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    temporary = path.with_suffix(".new")
    temporary.write_bytes(model.getvalue())
    os.replace(temporary, path)


def corpus(seed: int) -> list[str]:
    """Return questions, answers and the prompt, from the source's process."""
    command = child_process.command(
        "calibration.synthetic.stream", f"--seed={seed}", f"--sentences={LINES}"
    )
    done = subprocess.run(
        command, cwd=ROOT, env=child_process.environment(), stdout=subprocess.PIPE, check=True
    )
    return [*done.stdout.decode("utf-8").splitlines(), *TEMPLATES["llava_v1"]]


@dataclass
class Turns:
    """Questions about several pages, padded: page by page, turn by turn."""

    before: Tensor  # (b,) tokens before the image, BOS first
    tokens: Tensor  # (pages, turns, s) question and answer
    answers: Tensor  # (pages, turns, s) True for tokens to learn


class Speech:
    """The tokenizer of the miniature."""

    def __init__(self, path: Path) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._before, self._after = TEMPLATES["llava_v1"]

    def turns(
        self, words: Sequence[Sequence[tuple[str, str]]], rng: np.random.Generator, count: int
    ) -> Turns:
        """Return `count` turns of each page, chosen at random; pages with fewer repeat theirs."""
        pairs = []
        for page in words:
            picks = np.resize(rng.permutation(len(page))[:count], count)
            pairs.append([self._pair(*page[int(i)]) for i in picks])
        longest = max(len(q) + len(a) for turns in pairs for q, a in turns)
        tokens = torch.zeros(len(pairs), count, longest, dtype=torch.long)
        answers = torch.zeros_like(tokens, dtype=torch.bool)
        for i, turns in enumerate(pairs):
            for k, (q, a) in enumerate(turns):
                tokens[i, k, : len(q) + len(a)] = torch.tensor(q + a)
                answers[i, k, len(q) : len(q) + len(a)] = True
        return Turns(torch.tensor([BOS, *self._model.encode(self._before)]), tokens, answers)

    def _pair(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        return self._model.encode(fill(self._after, question)), [*self._model.encode(answer), EOS]
