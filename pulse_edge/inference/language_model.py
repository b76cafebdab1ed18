"""A GGUF model with one context: tokens and image embeddings in, logits out.

Image embeddings enter through `llama_batch.embd`; llama-cpp-python's own LLaVA handlers use another
prompt and another resampler, and clear the KV cache at every call. A prefix (system prompt and
page) stays in the cache between questions.

The same bytes always come on processors with the same instruction sets (another one takes other
kernels, whose sums differ in the last bits): batches are cut the same way whether or not the prefix
was there before, and flash attention is off, because llama.cpp's CPU kernel sums partial results in
an order that depends on the number of threads.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pulse_edge.common.arrays import Float, Positions
from pulse_edge.errors import ContextError, DeviceError, EngineError
from pulse_edge.inference import kv_state, llama_cpp
from pulse_edge.inference.interrupts import Interrupts
from pulse_edge.machine.memory_plan import BATCHES

GENTLE_TOKENS = 32
"""Tokens of the largest batch that is decoded to its end when a signal comes: a second or two."""


@dataclass(frozen=True)
class Settings:
    """How a model is loaded and run. Results depend on `key_cache_type`, `step_width` and
    `flash_attention`."""

    context: int
    """Tokens that the context holds."""
    threads: int
    """Threads that prefill."""
    decode_threads: int | None = None
    """Threads that decode single tokens; None: as many as prefill."""
    device: str = "cpu"
    """cpu or cuda."""
    gpu_layers: int = -1
    """Layers on the GPU, the output included, for `cuda`; negative: all."""
    batch: int = BATCHES[0]
    """Tokens or image tokens of a decode call: the step of the progress display."""
    mapped: bool = True
    """Weights stay mapped from the file; together with `repack` they take their memory twice."""
    repack: bool = False
    """Weights are read in the layout that suits this processor."""
    key_cache_type: str = "f16"
    """Type of the keys in the KV cache: f16 or q8_0."""
    flash_attention: bool = False
    step_width: int = 1
    """Tokens of a verification step on the CPU (see `decoding`); on a GPU it is 1."""


class LanguageModel:
    """A GGUF model with one context. Close it after use.

    `observer` sees results of the compute graph's nodes, `progress` gets the loaded fraction.
    Raises EngineError for a file that llama.cpp cannot load, DeviceError when CUDA is asked for and
    absent.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        observer: llama_cpp.Observer | None = None,
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> None:
        self._model: Any = None
        self._context: Any = None
        self._memory: Any = None
        self.path = path
        self.lib = lib = llama_cpp.library()
        if settings.device == "cuda" and (reason := llama_cpp.cuda_missing()):
            raise DeviceError(f"cuda: {reason}; or use --device cpu.")
        self._interrupts = Interrupts(self._stopped)
        self.context = settings.context
        self.batch = settings.batch
        self.step_width = settings.step_width if settings.device == "cpu" else 1
        """Tokens of a verification step; another width can give another answer where two tokens are
        as good."""
        self.steps = 0
        """Verification steps of all answers so far."""
        self.position = 0
        """Position of the next token."""
        self.cells = 0
        """KV cells in use; fewer than positions where image tokens were pruned."""
        self._prefix: tuple[Hashable, int, int] | None = None
        try:
            self._load(settings, progress)
            self.vocab = lib.llama_model_get_vocab(self._model)
            self.embedding_length: int = lib.llama_model_n_embd(self._model)
            self.vocabulary: int = lib.llama_vocab_n_tokens(self.vocab)
            self.end: int = lib.llama_vocab_eos(self.vocab)
            self.trained_context: int = lib.llama_model_n_ctx_train(self._model)
            self._start_context(settings, observer)
        except BaseException:
            self.close()
            raise

    def _load(self, settings: Settings, progress: Callable[[float], None]) -> None:
        lib = self.lib
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if settings.mapped else lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = settings.repack
        params.n_gpu_layers = settings.gpu_layers if settings.device == "cuda" else 0
        no_devices = (ctypes.c_void_p * 1)(None)
        if not params.n_gpu_layers:  # an empty list: a GPU must not take part in silence
            params.devices = ctypes.cast(no_devices, ctypes.c_void_p)

        def loading(fraction: float, _data: Any) -> bool:
            with self._interrupts.guard():
                progress(fraction)
            return not self._interrupts.is_set()

        callback = lib.llama_progress_callback(loading)  # this name keeps it alive
        params.progress_callback = callback
        with llama_cpp.log() as log, self._interrupts.deferred():
            self._model = lib.llama_model_load_from_file(str(self.path).encode(), params)
        del callback
        if not self._model:
            raise EngineError(
                f"{self.path}: llama.cpp cannot load it: {log.reason()}. Copy the kit again."
            )

    def _start_context(self, settings: Settings, observer: llama_cpp.Observer | None) -> None:
        lib, flash = self.lib, settings.flash_attention
        params = lib.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = self.batch
        # The second sequence is for `_skip_positions`; both share the cells.
        params.n_seq_max, params.kv_unified = 2, True
        params.n_threads_batch = settings.threads
        params.n_threads = settings.decode_threads or settings.threads
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = kv_state.KEY_TYPES[settings.key_cache_type]
        params.offload_kqv = params.op_offload = settings.device == "cuda"
        params.no_perf = True
        # Attributes, because ctypes callbacks must outlive the context.
        self._abort = lib.ggml_abort_callback(lambda _data: self._interrupts.is_set())
        params.abort_callback = self._abort
        if observer is not None:
            self._eval = llama_cpp.eval_callback(lib, observer, self._interrupts.guard)
            params.cb_eval = self._eval
        with llama_cpp.log() as log, self._interrupts.deferred():
            self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise EngineError(f"{self.path}: llama.cpp cannot make a context: {log.reason()}.")
        self._memory = lib.llama_get_memory(self._context)
        heads = lib.llama_model_n_head(self._model)
        width = self.embedding_length // heads * lib.llama_model_n_head_kv(self._model)
        layers = lib.llama_model_n_layer(self._model)
        self._shape = kv_state.Shape(layers, width, settings.key_cache_type, not flash)

    def _stopped(self) -> None:
        """Clear the context, if there is one: a stopped call leaves it in an unknown state."""
        if self._memory:
            self.clear()

    def use_threads(self, threads: int, decode_threads: int) -> None:
        """Set the threads of the calls that follow; results do not depend on them."""
        self.lib.llama_set_n_threads(self._context, decode_threads, threads)

    def close(self) -> None:
        """Free the model and its context."""
        context, model = self._context, self._model
        self._context = self._model = self._memory = None  # first, so that neither is freed twice
        if context:
            self.lib.llama_free(context)
        if model:
            self.lib.llama_model_free(model)

    def tokenize(self, text: str, *, first: bool) -> list[int]:
        """Return token ids, with BOS in front when `first`. Text that looks like a special token
        stays text."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        n = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, first, False)
        if n < 0:
            raise EngineError(f"{self.path}: llama.cpp cannot tokenize the question.")
        return list(ids[:n])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""
        for room in (64, 4096):
            buffer = ctypes.create_string_buffer(room)
            n = self.lib.llama_token_to_piece(self.vocab, token, buffer, room, 0, False)
            if n >= 0:
                return buffer.raw[:n]
        raise EngineError(f"{self.path}: token {token} has no text.")

    def ends(self, token: int) -> bool:
        """Whether a token ends the model's turn."""
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def clear(self) -> None:
        """Empty the context."""
        self._prefix = (
            None  # first: an interruption in between must not leave a prefix without cells
        )
        self.position = self.cells = 0
        self.lib.llama_memory_clear(self._memory, True)

    def has(self, key: Hashable) -> bool:
        """Whether the prefix in the context is the one that was prefilled for `key`."""
        return self._prefix is not None and self._prefix[0] == key

    def prefill(
        self,
        key: Hashable,
        before: str,
        embeddings: Float,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        positions: Positions | None = None,
    ) -> bool:
        """Prefill the text `before` and image `embeddings` (T, d), or return to them if they are
        the prefix for `key`.

        `positions` (T + 1,), ascending from 0, are those of the embeddings behind `before` and of
        the token that follows them; None: one after the other. `progress` gets embeddings done and
        in total. Returns whether anything was computed. Raises ContextError.
        """
        if self._prefix is not None and self.has(key):
            _, self.position, self.cells = self._prefix
            self.lib.llama_memory_seq_rm(self._memory, 0, self.position, -1)
            return False
        self.clear()
        ids = self.tokenize(before, first=True)
        if len(ids) + len(embeddings) >= self.context:
            raise ContextError(
                f"the page takes {len(embeddings)} image tokens and the prompt {len(ids)} tokens, "
                "more "
                f"than the kit's context of {self.context}. Crop the page to the ECG."
            )
        self.feed_tokens(ids)
        if positions is None:
            self.feed_embeddings(embeddings, progress)
        else:
            self._feed_pruned(embeddings, positions, progress)
        self._prefix = key, self.position, self.cells
        return True

    @property
    def state_bytes(self) -> int:
        """Bytes of the file that `save` writes."""
        return int(self.lib.llama_state_seq_get_size(self._context, 0))

    def save(self, path: Path) -> None:
        """Write the context into a file; call it right after `prefill`. Raises OSError."""
        counts = (ctypes.c_int32 * 2)(self.position, self.cells)
        if not self.lib.llama_state_seq_save_file(self._context, str(path).encode(), 0, counts, 2):
            raise OSError(f"{path}: llama.cpp cannot write it")

    def load(self, path: Path, key: Hashable) -> bool:
        """Restore the context from a file that `save` wrote, as `prefill` would leave it for `key`;
        return whether it fits.

        The caller must know that the file is whole and of the same kit, settings and build:
        llama.cpp checks little. A shape that is not this context's, which would abort the process,
        is refused before. Raises OSError.
        """
        self.clear()
        counts = kv_state.read_counts(path)
        if counts is None:
            return False
        position, cells = counts
        if not 0 < cells <= min(position, self.context) or position > self.trained_context:
            return False
        if not kv_state.fits(path, self._shape, position, cells):
            return False
        stored, count = (ctypes.c_int32 * 2)(), ctypes.c_size_t()
        with llama_cpp.log():
            read = self.lib.llama_state_seq_load_file(
                self._context, str(path).encode(), 0, stored, 2, ctypes.byref(count)
            )
        if not read or count.value != 2:
            self.clear()
            return False
        self.position, self.cells = stored
        self._prefix = key, self.position, self.cells
        return True

    def feed_tokens(self, ids: Sequence[int], *, every: bool = False) -> Float:
        """Decode tokens; return the logits (vocabulary,) behind the last one, or (n, vocabulary)
        behind `every` one."""
        logits = [
            self._decode(np.asarray(ids[at : at + self.batch], np.int32), every=every)
            for at in range(0, len(ids), self.batch)
        ]
        return np.concatenate(logits) if every else logits[-1][0]

    def feed_embeddings(
        self,
        embeddings: Float,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        every: bool = False,
    ) -> Float | None:
        """Decode embeddings (T, d) float32; return the logits (T, vocabulary) behind `every` one,
        else None.

        Batches end at multiples of their size: llama.cpp's attention runs over whole blocks of 256
        cells, and a batch that ends a little behind such a block pays for all of the next.
        """
        out, at = [], 0
        while at < len(embeddings):
            progress(at, len(embeddings))
            end = at + self.batch - self.cells % self.batch
            logits = self._decode(np.ascontiguousarray(embeddings[at:end], np.float32), every=every)
            at = end
            if every:
                out.append(logits)
        progress(len(embeddings), len(embeddings))
        return np.concatenate(out) if every else None

    def rewind(self, tokens: int) -> None:
        """Remove the last tokens from the context."""
        self.position, self.cells = self.position - tokens, self.cells - tokens
        self.lib.llama_memory_seq_rm(self._memory, 0, self.position, -1)

    def forced_logits(self, logits: Float, ids: Sequence[int]) -> Float:
        """Return the logits (n, vocabulary) ahead of each of n tokens that follow `logits`; the
        context stays as it was."""
        fed = [self.feed_tokens(ids[:-1], every=True)] if len(ids) > 1 else []
        self.rewind(max(len(ids) - 1, 0))
        return np.concatenate([logits[None], *fed])

    @property
    def room(self) -> int:
        """Tokens that the context still takes: by its cells, and by the positions that the model
        was trained with."""
        return min(self.context - self.cells, self.trained_context - self.position)

    def _feed_pruned(
        self, embeddings: Float, positions: Positions, progress: Callable[[int, int], None]
    ) -> None:
        """Decode embeddings (T, d) at `positions` (T + 1,) with gaps, one run without gaps after
        another."""
        gaps = np.diff(positions, prepend=-1) - 1
        starts = np.flatnonzero(gaps[:-1]).tolist()
        for start, end in itertools.pairwise(dict.fromkeys([0, *starts, len(embeddings)])):
            self._skip_positions(int(gaps[start]))

            def report(done: int, _total: int, start: int = start) -> None:
                progress(start + done, len(embeddings))

            self.feed_embeddings(embeddings[start:end], report)
        self._skip_positions(int(gaps[-1]))

    def _skip_positions(self, count: int) -> None:
        """Leave out positions: the next token gets a position that is `count` further on.

        llama.cpp refuses a gap: a batch must begin right behind the last position. Shifting the
        cells rotates every key of the context again, which takes seconds at PULSE-7B's shapes. So
        the last cell is written out, gets the gap's last position as its label, and is read in
        again. Its key stays rotated for the old position, which is what attention uses; labels only
        give the order of the cells.
        """
        if count <= 0:
            return
        lib, memory, at = self.lib, self._memory, self.position - 1
        lib.llama_memory_seq_cp(memory, 0, 1, at, at + 1)
        size = lib.llama_state_seq_get_size(self._context, 1)
        cell = (ctypes.c_uint8 * size)()
        written = lib.llama_state_seq_get_data(self._context, cell, size, 1)
        # llama_context::state_seq_get_data writes magic and sequence; llama_kv_cache::state_write
        # the number of streams
        # and cells, then position, number of sequences and sequence of each cell.
        head = np.frombuffer(cell, np.int32, 7)
        if written != size or head[1:].tolist() != [1, 1, 1, at, 1, 1]:
            raise EngineError(
                f"{self.path}: this llama.cpp writes its state in another way. Use --image-tokens "
                "all."
            )
        head[4] = at + count
        lib.llama_memory_seq_rm(memory, 0, at, at + 1)
        if lib.llama_state_seq_set_data(self._context, cell, size, 1) != size:
            self.clear()
            raise EngineError(
                f"{self.path}: llama.cpp does not take a cell that it wrote. Use --image-tokens "
                "all."
            )
        lib.llama_memory_seq_cp(memory, 1, 0, -1, -1)
        lib.llama_memory_seq_rm(memory, 1, -1, -1)
        self.position += count

    def _decode(self, batch: npt.NDArray[Any], *, every: bool) -> Float:
        """Run one llama_decode of ids (n,) int32 or embeddings (n, d) float32; return logits (1 or
        n, vocabulary)."""
        n = len(batch)
        if n > self.room:
            raise ContextError(
                f"page and question need more than the kit's context of {self.context} tokens."
            )
        width = 0 if batch.ndim == 1 else batch.shape[1]
        if width not in (0, self.embedding_length):
            raise EngineError(
                f"image embeddings are {width} wide, the language model {self.embedding_length}."
            )
        with llama_cpp.log() as log:
            code = self._call_decode(batch, width, every=every)
        if code != 0:
            self.clear()
            raise EngineError(f"{self.path}: llama.cpp failed ({code}): {log.reason()}.")
        self.position, self.cells = self.position + n, self.cells + n
        outputs = range(n) if every else (n - 1,)
        logits = np.stack([self._logits(i) for i in outputs])
        if not np.isfinite(logits[-1]).all():
            self.clear()
            raise EngineError(
                f"{self.path}: the model gave values that are not numbers. Verify the kit."
            )
        return logits

    def _call_decode(self, values: npt.NDArray[Any], width: int, *, every: bool) -> int:
        n = len(values)
        batch = self.lib.llama_batch_init(n, width, 1)
        try:
            batch.n_tokens = n
            target = batch.embd if width else batch.token
            ctypes.memmove(target, values.ctypes.data, values.nbytes)
            for i in range(n):
                batch.pos[i] = self.position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = every or i == n - 1
            with self._interrupts.deferred(gentle=n <= GENTLE_TOKENS and not width):
                return int(self.lib.llama_decode(self._context, batch))
        finally:
            self.lib.llama_batch_free(batch)

    def _logits(self, i: int) -> Float:
        pointer = self.lib.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)).copy()
