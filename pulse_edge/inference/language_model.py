"""Tokens and image embeddings -> a stream of text, by llama.cpp. The only door to it.

Embedding embeddings enter through `llama_batch.embd`; llama-cpp-python's own LLaVA handlers use another prompt and another
resampler, and clear the cache at every call. A prefix (system prompt and page) stays in the cache between questions.

The same bytes always come on processors with the same instruction sets (another one takes other kernels, whose sums differ
in the last bits): batches are cut the same way whether or not the prefix was there before, and flash attention is off, because
llama.cpp's CPU kernel sums partial results in an order that depends on the number of threads.

With a kit that carries a table of guesses an answer is made in steps of WIDTH tokens: the next one, and guesses or fillers
behind it, of which those stay that the model would have said. llama.cpp takes other kernels for one token than for two, four
or eight, and their sums differ in the last bits (measured: up to 0.003 in a logit at f16, 0.14 at Q4_K_M), enough to turn a
token now and then. With steps of one width every token comes out of the same kernels, whether it was guessed or not: the
same bits, so the same answer.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pulse_edge.common import child_process
from pulse_edge.errors import ContextError, DeviceError, EngineError, UsageError
from pulse_edge.inference import kv_state
from pulse_edge.machine.memory_plan import BATCHES

Float = npt.NDArray[np.float32]
GENTLE = 32
"""Tokens that are decoded to their end when a signal comes: a second or two."""
WIDTH = 4
"""Tokens a step of an answer decodes on a CPU. Reading the weights is what a step waits for; four share it."""
_SWITCHES = (
    "GGML_CPU_DISABLE_FUSION",
    "GGML_CPU_TILED_MM",
    "GGML_CPU_TILED_MM_FORCE",
    "LLAMA_ATTN_ROT_DISABLE",
)
"""Environment variables that make llama.cpp take other kernels; an answer must not depend on a shell."""
_KEYS = {"f16": 1, "q8_0": 8}
"""ggml_type by name."""
_KEY_BYTES = {"f16": lambda width: 2 * width, "q8_0": lambda width: width // 32 * 34}
"""Of so many numbers: q8_0 holds 32 of them and a scale of two bytes."""
_ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Observer(Protocol):
    """Sees results of the compute graph's nodes as they are made (llama.cpp's `cb_eval`)."""

    def wants(self, name: str) -> bool:
        """Whether the node of this name, e.g. `l_out-31`, is to be copied."""

    def see(self, name: str, values: Float) -> None:
        """The node's values, float32, in ggml's order: last dimension of `values` is contiguous."""


class Guesses(Protocol):
    """Knows what an answer may say next."""

    def hear(self, token: int) -> None:
        """A token that was said."""

    def guess(self, most: int) -> list[int]:
        """At most so many tokens that may come next."""


@dataclass(frozen=True)
class Piece:
    """One generated token: its id, and the text that it completed (may be empty inside a multi-byte character)."""

    token: int
    text: str


def version() -> str:
    """llama-cpp-python's version."""
    return importlib.metadata.version("llama-cpp-python")


@dataclass(frozen=True)
class Gpu:
    """A GPU as llama.cpp sees it."""

    name: str
    free: int
    """Bytes."""
    total: int


def has_cuda() -> bool:
    """Whether llama.cpp was built with CUDA; a GPU and its driver are another matter."""
    return "CUDA" in system()


def gpus() -> list[Gpu]:
    """The GPUs that llama.cpp can use; none where it was built without, or the driver does not work."""
    _library()
    from llama_cpp._ggml import libggml as lib

    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    lib.ggml_backend_dev_get.restype = ctypes.c_void_p
    lib.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    lib.ggml_backend_dev_type.argtypes = lib.ggml_backend_dev_description.argtypes = [
        ctypes.c_void_p
    ]
    lib.ggml_backend_dev_description.restype = ctypes.c_char_p
    lib.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *2 * [ctypes.POINTER(ctypes.c_size_t)]]
    lib.ggml_backend_dev_memory.restype = None
    found = []
    for i in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(i)
        if lib.ggml_backend_dev_type(device) == 1:  # GGML_BACKEND_DEVICE_TYPE_GPU
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = lib.ggml_backend_dev_description(device).decode("utf-8", "replace")
            found.append(Gpu(name, free.value, total.value))
    return found


def cuda_missing() -> str | None:
    """Why llama.cpp cannot use CUDA, or None when it can."""
    if not has_cuda():
        return "llama-cpp-python was built without CUDA (build it with CMAKE_ARGS=-DGGML_CUDA=on)"
    return (
        None
        if gpus()
        else "llama.cpp has CUDA but sees no GPU (look at nvidia-smi, mend the driver)"
    )


def system() -> str:
    """What llama.cpp's libraries were built for and have found, such as `CPU : SSE3 = 1 | AVX2 = 1`."""
    return str(_library().llama_print_system_info().decode())


def rehearse(path: Path, grammar: str, text: str) -> int:
    """The number of tokens of `text` with a GGUF's vocabulary, the only part of the file that is read.

    Raises UsageError where llama.cpp does not take the grammar (GBNF), EngineError for a file that it cannot load.
    """
    lib = _library()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    with _log() as log:
        model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise EngineError(f"{path}: llama.cpp cannot load it: {log.reason()}. Copy the kit again.")
    try:
        vocabulary, raw = lib.llama_model_get_vocab(model), text.encode()
        lib.llama_sampler_free(_grammar_sampler(lib, vocabulary, grammar))
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        return abs(int(lib.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), False, False)))
    finally:
        lib.llama_model_free(model)


def _grammar_sampler(lib: Any, vocabulary: Any, grammar: str) -> Any:
    """llama.cpp's sampler of a grammar. Raises UsageError where it does not take it."""
    with _log() as log:
        sampler = lib.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
    if not sampler:
        raise UsageError(
            f"llama.cpp does not take the schema's grammar: {log.reason()}. Make the schema smaller."
        )
    return sampler


class LanguageModel:
    """A GGUF model with one context of `context` tokens.

    `threads` read embeddings and tokens in batches of `batch`, `decode_threads` (None: as many) make single tokens.
    An answer is made in steps of `width` tokens on the CPU. `key_cache_type` is the type of the keys in the KV cache, f16 or q8_0.
    `gpu_layers` of the layers and the output go to the GPU on `cuda`; negative: all. Weights that are `repack`ed and
    `mapped` too take their memory twice. `progress` gets the loaded fraction. `observer` sees the graph's nodes.
    Raises EngineError for a file that llama.cpp cannot load, DeviceError when CUDA is asked for and absent.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        decode_threads: int | None = None,
        device: str = "cpu",
        gpu_layers: int = -1,
        batch: int = BATCHES[0],
        mapped: bool = True,
        repack: bool = False,
        key_cache_type: str = "f16",
        flash_attention: bool = False,
        width: int = 1,
        observer: Observer | None = None,
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> None:
        self._model: Any = None
        self._context: Any = None
        self._memory: Any = None
        self._path = path
        self._lib = lib = _library()
        if device == "cuda" and (reason := cuda_missing()):
            raise DeviceError(f"cuda: {reason}; or use --device cpu.")
        self._stop = threading.Event()
        self._raised: BaseException | None = None
        self.context = context
        self.batch = batch
        self.width = width if device == "cpu" else 1
        """Tokens a step of an answer; another width can make another answer where two tokens are as good."""
        self.steps = 0
        """Steps of all answers so far."""
        self.position = 0
        """Where the next token stands."""
        self.cells = 0
        """Tokens and embeddings in the context; fewer than positions where embeddings were left out."""
        self._prefix: tuple[Hashable, int, int] | None = None
        try:
            self._load(gpu_layers if device == "cuda" else 0, mapped, repack, progress)
            self._vocab = lib.llama_model_get_vocab(self._model)
            self.embedding_length: int = lib.llama_model_n_embd(self._model)
            self.vocabulary: int = lib.llama_vocab_n_tokens(self._vocab)
            self.end: int = lib.llama_vocab_eos(self._vocab)
            self._trained: int = lib.llama_model_n_ctx_train(self._model)
            self._start_context(
                threads,
                decode_threads or threads,
                device,
                key_cache_type,
                flash_attention,
                observer,
            )
        except BaseException:
            self.close()
            raise

    def _load(
        self, gpu_layers: int, mapped: bool, repack: bool, progress: Callable[[float], None]
    ) -> None:
        lib = self._lib
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mapped else lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = repack
        params.n_gpu_layers = gpu_layers
        none = (ctypes.c_void_p * 1)(None)
        if not gpu_layers:
            params.devices = ctypes.cast(
                none, ctypes.c_void_p
            )  # an empty list: a GPU must not take part in silence

        def loading(fraction: float, _data: Any) -> bool:
            with self._caught():
                progress(fraction)
            return not self._stop.is_set()

        params.progress_callback = callback = lib.llama_progress_callback(
            loading
        )  # a name keeps it alive
        with _log() as log, self._interrupts():
            self._model = lib.llama_model_load_from_file(str(self._path).encode(), params)
        del callback
        if not self._model:
            raise EngineError(
                f"{self._path}: llama.cpp cannot load it: {log.reason()}. Copy the kit again."
            )

    def _start_context(
        self,
        threads: int,
        decode_threads: int,
        device: str,
        key_cache_type: str,
        flash: bool,
        observer: Observer | None,
    ) -> None:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = self.batch
        params.n_seq_max, params.kv_unified = (
            2,
            True,
        )  # the second one for `_leave_out`; both share the cells
        params.n_threads, params.n_threads_batch = decode_threads, threads
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = _KEYS[key_cache_type]
        params.offload_kqv = params.op_offload = device == "cuda"
        params.no_perf = True
        # Kept on self: ctypes callbacks must outlive the context.
        self._abort = lib.ggml_abort_callback(lambda _data: self._stop.is_set())
        params.abort_callback = self._abort
        if observer is not None:
            self._eval = _eval_callback(lib, observer, self._caught)
            params.cb_eval = self._eval
        with _log() as log, self._interrupts():
            self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise EngineError(f"{self._path}: llama.cpp cannot make a context: {log.reason()}.")
        self._memory = lib.llama_get_memory(self._context)
        heads, all_heads = (
            lib.llama_model_n_head_kv(self._model),
            lib.llama_model_n_head(self._model),
        )
        width = self.embedding_length // all_heads * heads
        layers = lib.llama_model_n_layer(self._model)
        self._shape = kv_state.Shape(
            layers, width, _KEYS[key_cache_type], _KEY_BYTES[key_cache_type](width), not flash
        )

    def use_threads(self, threads: int, decode_threads: int) -> None:
        """From the next call on; results do not depend on it."""
        self._lib.llama_set_n_threads(self._context, decode_threads, threads)

    # --- text and tokens ---------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, first: bool) -> list[int]:
        """Token ids; BOS in front when `first`. Text that looks like a special token stays text."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        n = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, room, first, False)
        if n < 0:
            raise EngineError(f"{self._path}: llama.cpp cannot tokenize the question.")
        return list(ids[:n])

    def piece(self, token: int) -> bytes:
        """Bytes of a token; control tokens have none."""
        for room in (64, 4096):
            buffer = ctypes.create_string_buffer(room)
            n = self._lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
            if n >= 0:
                return buffer.raw[:n]
        raise EngineError(f"{self._path}: token {token} has no text.")

    # --- filling the context -----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything."""
        self._prefix = None  # first: an interruption in between must not leave a prefix of nothing
        self.position = self.cells = 0
        self._lib.llama_memory_clear(self._memory, True)

    def prefill(
        self,
        key: Hashable,
        before: str,
        embeddings: Float,
        progress: Callable[[int, int], None] = lambda _d, _o: None,
        *,
        positions: npt.NDArray[np.int64] | None = None,
    ) -> bool:
        """Put `before` and the image `embeddings` (T, d) into the context, or go back to them if `key` is there already.

        `positions` (T + 1,), ascending from 0 on, are the positions of the embeddings behind `before`, and of what follows them; None:
        one after the other. Returns whether anything had to be computed. `progress` gets embeddings done and of how many.
        """
        if self._prefix is not None and self.has(key):
            _, self.position, self.cells = self._prefix
            self._lib.llama_memory_seq_rm(self._memory, 0, self.position, -1)
            return False
        self.clear()
        ids = self.tokenize(before, first=True)
        if len(ids) + len(embeddings) >= self.context:
            raise ContextError(
                f"the page takes {len(embeddings)} image embeddings and the prompt {len(ids)} tokens, more than the kit's context "
                f"of {self.context}. Crop the page to the ECG."
            )
        self.feed_tokens(ids)
        if positions is None:
            self.feed_embeddings(embeddings, progress)
        else:
            self._feed_apart(embeddings, positions, progress)
        self._prefix = key, self.position, self.cells
        return True

    @property
    def size(self) -> int:
        """Bytes of what `save` writes."""
        return int(self._lib.llama_state_seq_get_size(self._context, 0))

    def save(self, path: Path) -> None:
        """Write everything in the context into a file, right behind `prefill`. Raises OSError."""
        told = (ctypes.c_int32 * 2)(self.position, self.cells)
        if not self._lib.llama_state_seq_save_file(self._context, str(path).encode(), 0, told, 2):
            raise OSError(f"{path}: llama.cpp cannot write it")

    def load(self, path: Path, key: Hashable) -> bool:
        """Take the context from a file that `save` wrote, as what `prefill` would make for `key`; whether that went well.

        Only a file that is known to be whole, and of the same kit, settings and build: llama.cpp checks little, and
        aborts the process on a shape that is not this context's, which is looked at before. Raises OSError.
        """
        self.clear()
        told, count = (ctypes.c_int32 * 2)(), ctypes.c_size_t()
        with open(path, "rb") as file:
            ends = np.frombuffer(file.read(20), np.int32)
        if (
            len(ends) < 5
            or not 0 < ends[4] <= min(ends[3], self.context)
            or ends[3] > self._trained
        ):
            return False
        if not kv_state.fits(path, self._shape, *ends[3:5].tolist()):
            return False
        with _log():
            read = self._lib.llama_state_seq_load_file(
                self._context, str(path).encode(), 0, told, 2, ctypes.byref(count)
            )
        if not read or count.value != 2:
            self.clear()
            return False
        self.position, self.cells = told
        self._prefix = key, self.position, self.cells
        return True

    def has(self, key: Hashable) -> bool:
        """Whether `prefill` has nothing to do for `key`."""
        return self._prefix is not None and self._prefix[0] == key

    def back(self, tokens: int) -> None:
        """Forget the last so many tokens."""
        self.position, self.cells = self.position - tokens, self.cells - tokens
        self._lib.llama_memory_seq_rm(self._memory, 0, self.position, -1)

    def feed_tokens(self, ids: list[int], *, every: bool = False) -> Float:
        """Decode tokens; logits (vocabulary,) behind the last one, or (n, vocabulary) behind `every` one."""
        out = []
        for at in range(0, len(ids), self.batch):
            out.append(self._decode(np.asarray(ids[at : at + self.batch], np.int32), every=every))
        return np.concatenate(out) if every else out[-1][0]

    def feed_embeddings(
        self,
        embeddings: Float,
        progress: Callable[[int, int], None] = lambda _done, _of: None,
        *,
        every: bool = False,
    ) -> Float | None:
        """Decode embedding embeddings (T, d) float32; logits (T, vocabulary) behind `every` one, else None.

        Batches end at multiples of their size: llama.cpp's attention runs over whole blocks of 256 cells, and one that ends a
        little behind such a block pays for all of the next.
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

    def _feed_apart(
        self,
        embeddings: Float,
        positions: npt.NDArray[np.int64],
        progress: Callable[[int, int], None],
    ) -> None:
        """Decode embeddings (T, d) at `positions` (T + 1,) with gaps: run after run of embeddings without."""
        gaps = np.diff(positions, prepend=-1) - 1
        starts = np.flatnonzero(gaps[:-1]).tolist()
        for start, end in itertools.pairwise(dict.fromkeys([0, *starts, len(embeddings)])):
            self._leave_out(int(gaps[start]))

            def done(n: int, _of: int, start: int = start) -> None:
                progress(start + n, len(embeddings))

            self.feed_embeddings(embeddings[start:end], done)
        self._leave_out(int(gaps[-1]))

    def _leave_out(self, positions: int) -> None:
        """Let what comes next stand so many positions further on.

        llama.cpp refuses such a gap: what is decoded must begin behind the last place. Shifting what is there turns every key of
        the context anew, seconds at PULSE-7B's shapes. So the last cell is written out, gets the gap's last place as its
        label, and is read in again: its key stays turned for the place where it is, which is what attention goes by; labels
        only say what comes behind what.
        """
        if positions <= 0:
            return
        lib, memory, at = self._lib, self._memory, self.position - 1
        lib.llama_memory_seq_cp(memory, 0, 1, at, at + 1)
        size = lib.llama_state_seq_get_size(self._context, 1)
        cell = (ctypes.c_uint8 * size)()
        written = lib.llama_state_seq_get_data(self._context, cell, size, 1)
        # llama_context::state_seq_get_data: magic, sequence; llama_kv_cache::state_write: streams, cells; place, sequences, which.
        head = np.frombuffer(cell, np.int32, 7)
        if written != size or head[1:].tolist() != [1, 1, 1, at, 1, 1]:
            raise EngineError(
                f"{self._path}: this llama.cpp writes its state in another way. Read all embeddings."
            )
        head[4] = at + positions
        lib.llama_memory_seq_rm(memory, 0, at, at + 1)
        if lib.llama_state_seq_set_data(self._context, cell, size, 1) != size:
            self.clear()
            raise EngineError(
                f"{self._path}: llama.cpp does not take a cell that it wrote. Read all embeddings."
            )
        lib.llama_memory_seq_cp(memory, 1, 0, -1, -1)
        lib.llama_memory_seq_rm(memory, 1, -1, -1)
        self.position += positions

    def _decode(self, what: npt.NDArray[Any], *, every: bool) -> Float:
        """One llama_decode of ids (n,) int32 or embeddings (n, d) float32; logits (1 or n, vocabulary)."""
        n = len(what)
        if n > self._room:
            raise ContextError(
                f"page and question need more than the kit's context of {self.context} tokens."
            )
        embedding = 0 if what.ndim == 1 else what.shape[1]
        if embedding not in (0, self.embedding_length):
            raise EngineError(
                f"image embeddings are {embedding} wide, the language model {self.embedding_length}."
            )
        batch = self._lib.llama_batch_init(n, embedding, 1)
        try:
            batch.n_tokens = n
            ctypes.memmove(batch.embd if embedding else batch.token, what.ctypes.data, what.nbytes)
            for i in range(n):
                batch.pos[i] = self.position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = every or i == n - 1
            with _log() as log, self._interrupts(gentle=n <= GENTLE and not embedding):
                code = self._lib.llama_decode(self._context, batch)
        finally:
            self._lib.llama_batch_free(batch)
        if code != 0:
            self.clear()
            raise EngineError(f"{self._path}: llama.cpp failed ({code}): {log.reason()}.")
        self.position, self.cells = self.position + n, self.cells + n
        outputs = range(n) if every else (n - 1,)
        logits = np.stack([self._logits(i) for i in outputs])
        if not np.isfinite(logits[-1]).all():
            self.clear()
            raise EngineError(
                f"{self._path}: the model gave values that are not numbers. Verify the kit."
            )
        return logits

    @property
    def _room(self) -> int:
        """Tokens that the context still takes; where embeddings were left out, positions that the model knows may end before its cells."""
        return min(self.context - self.cells, self._trained - self.position)

    def _logits(self, i: int) -> Float:
        pointer = self._lib.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary,)).copy()

    # --- answering ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        logits: Float,
        max_tokens: int,
        guesses: Guesses | None = None,
        grammar: str | None = None,
    ) -> Generator[Piece, None, bool]:
        """Greedy tokens after `logits`, until the model ends its turn, `max_tokens`, or the context has no room for a step.

        `guesses` make it faster, and change nothing. With a `grammar` (GBNF) each token is the most likely one that it
        allows. The generator's value is True when the model itself ended.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._choice(grammar) as best:
            ahead = [best(logits)]
            for _ in range(max_tokens):
                token = ahead.pop(0)
                if self._ends(token):
                    return True
                yield Piece(token, decoder.decode(self.piece(token)))
                if guesses is not None:
                    guesses.hear(token)
                if not ahead:
                    if self.width > self._room:
                        return False
                    ahead = self._step(
                        token, guesses.guess(self.width - 1) if guesses is not None else [], best
                    )
            return self._ends(ahead[0])

    def _ends(self, token: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def _step(self, token: int, guessed: list[int], best: Callable[[Float], int]) -> list[int]:
        """The tokens that follow `token`: guessed ones as far as they are right, and the one behind them."""
        group = [token, *guessed]
        logits = self.feed_tokens(group + [token] * (self.width - len(group)), every=True)
        following: list[int] = []
        for right in (*guessed, None):
            following.append(best(logits[len(following)]))
            if following[-1] != right or self._ends(following[-1]):
                break
        self.back(self.width - len(following))
        self.steps += 1
        return following

    @contextlib.contextmanager
    def _choice(self, grammar: str | None) -> Iterator[Callable[[Float], int]]:
        """What takes the next token by its logits (vocabulary,), within the grammar along all that it took before."""
        if grammar is None:
            yield lambda logits: int(np.argmax(logits))
            return
        lib = self._lib
        sampler = _grammar_sampler(lib, self._vocab, grammar)

        def allowed(logits: Float, ids: npt.NDArray[Any]) -> Float:
            found = np.zeros(len(ids), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
            found["id"], found["logit"] = ids, logits[ids]
            array = lib.llama_token_data_array()
            array.data = ctypes.cast(found.ctypes.data, type(array.data))
            array.size, array.selected, array.sorted = len(ids), -1, False
            lib.llama_sampler_apply(sampler, ctypes.byref(array))
            return np.asarray(found["logit"])

        def best(logits: Float) -> int:
            token = int(np.argmax(logits))
            if not np.isfinite(
                allowed(logits, np.array([token]))[0]
            ):  # most are allowed; all take long to look at
                within = allowed(logits, np.arange(self.vocabulary))
                token = int(np.argmax(within))
                if not np.isfinite(within[token]):
                    raise EngineError(
                        f"{self._path}: none of its tokens goes on with the grammar. Change the schema."
                    )
            if not lib.llama_vocab_is_eog(self._vocab, token):
                lib.llama_sampler_accept(sampler, token)
            return token

        try:
            yield best
        finally:
            lib.llama_sampler_free(sampler)

    def force(self, logits: Float, ids: Sequence[int]) -> Float:
        """Logits (n, vocabulary) ahead of each of n tokens that follow `logits`; the context is then as it was."""
        fed = [self.feed_tokens(list(ids[:-1]), every=True)] if len(ids) > 1 else []
        self.back(max(len(ids) - 1, 0))
        return np.concatenate([logits[None], *fed])

    # --- ending ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interrupts(self, *, gentle: bool = False) -> Iterator[None]:
        """What would be raised inside llama.cpp's callbacks, where it is lost, is raised when llama.cpp has returned.

        A signal sets the flag that makes it return, and then reaches the handler that it was for. A `gentle` call is
        short, and ends by itself: the page then stays in the context, and is not read anew for the next question.
        """
        numbers: list[int] = []

        def later(number: int, _frame: Any) -> None:
            numbers.append(number)
            if not gentle:
                self._stop.set()

        main = threading.current_thread() is threading.main_thread()
        handlers = {n: h for n in _ENDING if callable(h := signal.getsignal(n))} if main else {}
        try:
            for number in handlers:
                signal.signal(number, later)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._stop.is_set():
            self._stop.clear()
            if self._memory:
                self.clear()
            raised, self._raised = self._raised, None
            for number in numbers:
                handlers[number](number, None)
            raise raised or KeyboardInterrupt
        for number in numbers:
            handlers[number](number, None)

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        """Around what a callback calls: ctypes would print an exception and go on as if nothing had happened."""
        try:
            yield
        except BaseException as e:
            self._raised = e
            self._stop.set()

    def close(self) -> None:
        """Free the model and its context."""
        context, model = self._context, self._model
        self._context = self._model = self._memory = None  # first: nothing is freed twice
        if context:
            self._lib.llama_free(context)
        if model:
            self._lib.llama_model_free(model)


def _library() -> Any:
    """llama.cpp's C functions, initialised once."""
    prepare()
    from llama_cpp import llama_cpp as lib

    lib.llama_log_set(_LOG.callback(lib), None)
    _load_backends()
    lib.llama_backend_init()
    return lib


def prepare() -> None:
    """Make sure that llama.cpp comes from its own folder, whatever the shell has set; before any import of llama_cpp.

    Its libraries are loaded by their full paths, in the order in which they need one another. They would find one
    another by name, and on Linux the loader looks into LD_LIBRARY_PATH before it looks beside them: an empty entry
    there, which is easily made, is the current directory.
    """
    for name in [n for n in os.environ if n in _SWITCHES or n.startswith(child_process.LIBRARIES)]:
        del os.environ[name]
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations or not sys.platform.startswith("linux"):
        return
    folder = Path(spec.submodule_search_locations[0], "lib").resolve()
    for name in ("ggml-base", "ggml-cpu", "ggml-cuda", "ggml", "llama"):
        path = folder / f"lib{name}.so"
        if path.is_file():
            with contextlib.suppress(OSError):  # llama_cpp loads it again, and says why it cannot
                ctypes.CDLL(str(path))


def _load_backends() -> None:
    """A portable build has a library for each generation of CPUs, and takes the best one that runs here.

    From its own folder only: without a path ggml would look in the current directory too.
    """
    from llama_cpp._ggml import libggml, libggml_base_path

    libggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if libggml.ggml_backend_reg_count() == 0:
        libggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        libggml.ggml_backend_load_all_from_path(str(libggml_base_path).encode())
        if libggml.ggml_backend_reg_count() == 0:
            raise EngineError(
                f"{libggml_base_path}: no library for this processor. Install llama-cpp-python again."
            )


class _Log:
    """llama.cpp's warnings and errors, kept to explain a failure; never printed."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._callback: Any = None

    def callback(self, lib: Any) -> Any:
        if self._callback is None:
            self._callback = lib.llama_log_callback(self._keep)
        return self._callback

    def _keep(self, level: int, text: bytes, _data: Any) -> None:
        if level >= 3:  # GGML_LOG_LEVEL_WARN
            self._lines.append(text.decode("utf-8", "replace").strip())

    def clear(self) -> None:
        self._lines.clear()

    def reason(self) -> str:
        return "; ".join(line for line in self._lines[-3:] if line) or "no reason given"


_LOG = _Log()


@contextlib.contextmanager
def _log() -> Iterator[_Log]:
    _LOG.clear()
    yield _LOG


def _eval_callback(
    lib: Any, observer: Observer, caught: Callable[[], AbstractContextManager[None]]
) -> Any:
    """`cb_eval` for an observer. llama.cpp asks first (ask=True) and calls again with the node computed."""
    from llama_cpp._ggml import libggml

    libggml.ggml_get_name.restype = ctypes.c_char_p
    libggml.ggml_get_name.argtypes = [ctypes.c_void_p]
    libggml.ggml_nbytes.restype = ctypes.c_size_t
    libggml.ggml_nbytes.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_tensor_get.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
    ]

    def evaluated(tensor: int, ask: bool, _data: Any) -> bool:
        name = libggml.ggml_get_name(tensor).decode()
        wanted = False
        with caught():
            wanted = observer.wants(name)
            if wanted and not ask:
                size = libggml.ggml_nbytes(tensor)
                values = np.empty(size // 4, np.float32)
                libggml.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, size)
                observer.see(name, values)
        return wanted or not ask

    return lib.ggml_backend_sched_eval_callback(evaluated)
