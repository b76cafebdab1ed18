"""Turn text into token ids by the libraries themselves: sentencepiece or tokenizers.

The conversation is LLaVA's `llava_v1`, written again: each side of the image is tokenized on its
own, and BOS stands in front of the first side only (LLaVA's tokenizer_image_token).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import CheckpointError

from .facts import read

BEFORE = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions. USER: "
)
AFTER = "\n{question} ASSISTANT:"
QUESTION = "Please write a clinical report based on this ECG image."
MARK = "\u2581"
"""SentencePiece's space."""
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
"""Token types, in SentencePiece and in GGUF."""
PROBES = (
    "Atrial fibrillation with a rapid ventricular response at 130 bpm; QTc 512 ms.",
    "ST elevation \u2265 0.1 mV in V2-V4, 25 mm/s, 10 mm/mV, T wave 40 \u00b5V, \u00b15 %",
    "x  two spaces,\ttabs\nand\r\nlines  ",
    "Vorhofflimmern mit \u00dcberleitungsst\u00f6rung; \u5fc3\u623f\u7ea4\u98a4; \U0001f493",
    "a",
    "1234567890 3.14 I II III aVR aVL aVF V1 V2 V3 V4 V5 V6",
)
"""Texts that need letters, digits, spaces, bytes and words of many pieces."""


@dataclass(frozen=True)
class Piece:
    """What a token must be. `score` is None where no file states one."""

    text: bytes
    score: float | None
    types: frozenset[int]


class Words:
    """A checkpoint's tokenizer. Raises CheckpointError if there is none."""

    def __init__(self, folder: Path) -> None:
        self._settings = read(folder / "tokenizer_config.json")
        self._map = read(folder / "special_tokens_map.json")
        self._json = read(folder / "tokenizer.json")
        self._added = self._read_added(folder)
        self._model: Any = None
        if (folder / "tokenizer.model").is_file():
            self._model = self._sentencepiece((folder / "tokenizer.model").read_bytes())
        elif self._json:
            import tokenizers  # type: ignore[import-untyped]

            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            raise CheckpointError(
                f"{folder}: has neither tokenizer.model nor tokenizer.json. Fetch one from the "
                "base model."
            )

    def _sentencepiece(self, raw: bytes) -> Any:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        # transformers' slow tokenizer: `add_prefix_space` counts where `legacy` is false; null is
        # not false.
        if (
            self._settings.get("add_prefix_space") is False
            and self._settings.get("legacy") is False
        ):
            proto = sentencepiece_model_pb2.ModelProto.FromString(raw)
            proto.normalizer_spec.add_dummy_prefix = False
            raw = proto.SerializeToString()
        return sentencepiece.SentencePieceProcessor(model_proto=raw)

    def _read_added(self, folder: Path) -> dict[int, tuple[str, bool]]:
        """Return the added tokens: id -> (text, whether it is special).

        Files that state more come last.
        """
        tokens = {int(i): (text, False) for text, i in read(folder / "added_tokens.json").items()}
        listed = [(e["id"], e) for e in self._json.get("added_tokens") or ()]
        listed += list((self._settings.get("added_tokens_decoder") or {}).items())
        return tokens | {int(i): (str(e["content"]), bool(e.get("special"))) for i, e in listed}

    # --- text -------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without BOS or EOS."""
        if self._model is not None:
            return list(self._model.encode(text, add_bos=False, add_eos=False))
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt(self, question: str, bos: int | None) -> tuple[list[int], list[int]]:
        """Return the token ids on either side of the image, with BOS, if any, in front of the
        first."""
        first = [] if bos is None else [bos]
        return [*first, *self.encode(BEFORE)], self.encode(AFTER.replace("{question}", question))

    @property
    def begins(self) -> bool:
        """Whether BOS stands in front of a text.

        It does so by LlamaTokenizer's default, or as tokenizer.json states.
        """
        stated = self._settings.get("add_bos_token")
        if stated is not None or self._model is not None:
            return stated is None or bool(stated)
        if self._settings.get("tokenizer_class") not in (
            "PreTrainedTokenizerFast",
            "TokenizersBackend",
        ):
            return True
        return len(self._tokenizer.encode("a").ids) > len(self.encode("a"))

    @property
    def prefix(self) -> bool:
        """Whether a space is put in front of a text."""
        return self.pieces(0)[self.encode("a")[0]].text.decode("utf-8", "replace").startswith(MARK)

    # --- tokens -----------------------------------------------------------------------------------

    def special(self, key: str) -> int | None:
        """Return the id of bos, eos, unk or pad, by the text that the tokenizer's files give it."""
        places = (self._settings, self._map) if self._added else (self._map, self._settings)
        default = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}.get(key)  # LlamaTokenizer's
        value = next(
            (p[f"{key}_token"] for p in places if p.get(f"{key}_token") is not None), default
        )
        text = value.get("content") if isinstance(value, dict) else value
        if key == "unk" and self._model is not None:
            return int(self._model.unk_id())
        ids = {t: i for i, (t, _) in self._added.items()} | self._base()
        return None if text is None else ids.get(str(text))

    def _base(self) -> dict[str, int]:
        """Return text -> id of the model's own pieces."""
        if self._model is not None:
            return {self._model.id_to_piece(i): i for i in range(self._model.get_piece_size())}
        return {str(t): int(i) for t, i in self._json["model"]["vocab"].items()}

    def pieces(self, size: int) -> dict[int, Piece]:
        """Return every token by id: the model's own, and added ones below `size`.

        With 0 there are the model's own only.
        """
        unknown = self.special("unk")
        out = {}
        for text, i in self._base().items():
            out[i] = Piece(text.encode(), self._score(i), self._types(i, text, unknown))
        for i, (text, special) in self._added.items():
            if i < size:
                out[i] = self._added_piece(out.get(i), text, special)
        return out

    def _score(self, i: int) -> float | None:
        return float(self._model.get_score(i)) if self._model is not None else None

    def _types(self, i: int, text: str, unknown: int | None) -> frozenset[int]:
        if self._model is not None:
            m = self._model
            for kind, is_kind in (
                (UNKNOWN, m.is_unknown),
                (CONTROL, m.is_control),
                (BYTE, m.is_byte),
                (UNUSED, m.is_unused),
            ):
                if is_kind(i):
                    return frozenset({kind})
            return frozenset({NORMAL, USER})
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return frozenset({BYTE})
        return frozenset({UNKNOWN if i == unknown else NORMAL})

    @staticmethod
    def _added_piece(base: Piece | None, text: str, special: bool) -> Piece:
        """Return an added token's piece.

        llama.cpp's converter makes special ones control tokens, and others text that stays whole.
        """
        types = {CONTROL} if special else {USER, CONTROL}
        same = base is not None and base.text == text.encode()
        if same and base is not None:
            types |= (
                base.types
            )  # an added token that repeats one of the model's own changes nothing
        return Piece(
            text.encode() if special or same else text.replace(MARK, " ").encode(),
            None,
            frozenset(types),
        )

    def merges(self) -> list[int]:
        """Return the ids of merged pieces, the first merge first; none where scores give the
        order."""
        if self._model is not None:
            return []
        ids, merged = self._base(), dict[int, None]()
        for merge in self._json["model"].get("merges") or ():
            pair = merge.split(" ", 1) if isinstance(merge, str) else merge
            merged.setdefault(ids["".join(pair)])
        return list(merged)
