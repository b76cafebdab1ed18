"""llama.cpp's C functions: loading its libraries, its log, devices, grammars and graph callbacks.

The only module that imports llama_cpp (llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pulse_edge.common import child_process
from pulse_edge.common.arrays import Float
from pulse_edge.errors import EngineError, UsageError

_SWITCHES = (
    "GGML_CPU_DISABLE_FUSION",
    "GGML_CPU_TILED_MM",
    "GGML_CPU_TILED_MM_FORCE",
    "LLAMA_ATTN_ROT_DISABLE",
)
"""Environment variables that make llama.cpp take other kernels; an answer must not depend on a
shell."""
_WARNING = 3
"""GGML_LOG_LEVEL_WARN"""
_GPU = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU"""


class Observer(Protocol):
    """Sees results of the compute graph's nodes as they are computed (llama.cpp's `cb_eval`)."""

    def wants(self, name: str) -> bool:
        """Whether the node of this name, e.g. `l_out-31`, is to be copied."""

    def see(self, name: str, values: Float) -> None:
        """Take the node's values, float32, in ggml's order: the last dimension is contiguous."""


# --- the library ----------------------------------------------------------------------------------


def version() -> str:
    """llama-cpp-python's version."""
    return importlib.metadata.version("llama-cpp-python")


def library() -> Any:
    """Return llama.cpp's C functions, initialised once. Raises EngineError if there is no library
    for this processor."""
    prepare()
    from llama_cpp import llama_cpp as lib

    lib.llama_log_set(_LOG.callback(lib), None)
    _load_backends()
    lib.llama_backend_init()
    return lib


def prepare() -> None:
    """Make sure that llama.cpp comes from its own folder, whatever the shell has set. Call it
    before any import of llama_cpp.

    Its libraries are loaded by their full paths, in the order in which they need one another. They
    would find one another by name, and on Linux the loader looks into LD_LIBRARY_PATH before their
    own folder: an empty entry there, which is easily made, is the current directory.
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
    """Load the best CPU library for this processor: a portable build has one for each generation of
    CPUs.

    From llama.cpp's own folder only: without a path ggml would look in the current directory too.
    """
    from llama_cpp._ggml import libggml, libggml_base_path

    libggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if libggml.ggml_backend_reg_count() == 0:
        libggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        libggml.ggml_backend_load_all_from_path(str(libggml_base_path).encode())
        if libggml.ggml_backend_reg_count() == 0:
            raise EngineError(
                f"{libggml_base_path}: no library for this processor. Install llama-cpp-python "
                "again."
            )


def system() -> str:
    """What llama.cpp's libraries were built for and what they use, such as `CPU : SSE3 = 1 | AVX2 =
    1`."""
    return str(library().llama_print_system_info().decode())


# --- devices --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU as llama.cpp sees it."""

    name: str
    free: int
    """Bytes."""
    total: int


def gpus() -> list[Gpu]:
    """Return the GPUs that llama.cpp can use; none in a build without CUDA or where the driver does
    not work."""
    library()
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
    devices = []
    for i in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(i)
        if lib.ggml_backend_dev_type(device) == _GPU:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = lib.ggml_backend_dev_description(device).decode("utf-8", "replace")
            devices.append(Gpu(name, free.value, total.value))
    return devices


def has_cuda() -> bool:
    """Whether llama.cpp was built with CUDA; whether a GPU and its driver work is for `gpus` to
    say."""
    return "CUDA" in system()


def cuda_missing() -> str | None:
    """Return why llama.cpp cannot use CUDA, or None when it can."""
    if not has_cuda():
        return "llama-cpp-python was built without CUDA (build it with CMAKE_ARGS=-DGGML_CUDA=on)"
    if not gpus():
        return "llama.cpp has CUDA but sees no GPU (look at nvidia-smi, repair the driver)"
    return None


# --- grammars -------------------------------------------------------------------------------------


def grammar_sampler(lib: Any, vocabulary: Any, grammar: str) -> Any:
    """Return llama.cpp's sampler of a grammar (GBNF). Raises UsageError where llama.cpp refuses the
    grammar."""
    with log() as lines:
        sampler = lib.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
    if not sampler:
        raise UsageError(
            f"llama.cpp does not take the schema's grammar: {lines.reason()}. Make the schema "
            "smaller."
        )
    return sampler


def count_tokens(path: Path, grammar: str, text: str) -> int:
    """Try a grammar (GBNF) with a GGUF's vocabulary, and return the number of tokens of `text`.

    Only the vocabulary of the file is read. Raises UsageError where llama.cpp refuses the grammar,
    EngineError for a file that it cannot load.
    """
    lib = library()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    with log() as lines:
        model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise EngineError(
            f"{path}: llama.cpp cannot load it: {lines.reason()}. Copy the kit again."
        )
    try:
        vocabulary, raw = lib.llama_model_get_vocab(model), text.encode()
        lib.llama_sampler_free(grammar_sampler(lib, vocabulary, grammar))
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        return abs(int(lib.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), False, False)))
    finally:
        lib.llama_model_free(model)


# --- log and callbacks ----------------------------------------------------------------------------


class Log:
    """llama.cpp's warnings and errors, collected to explain a failure and never printed."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._callback: Any = None

    def callback(self, lib: Any) -> Any:
        """The C callback that fills this log; it lives as long as the log."""
        if self._callback is None:
            self._callback = lib.llama_log_callback(self._append)
        return self._callback

    def _append(self, level: int, text: bytes, _data: Any) -> None:
        if level >= _WARNING:
            self._lines.append(text.decode("utf-8", "replace").strip())

    def clear(self) -> None:
        self._lines.clear()

    def reason(self) -> str:
        """The last lines, for an error message."""
        return "; ".join(line for line in self._lines[-3:] if line) or "no reason given"


_LOG = Log()


@contextlib.contextmanager
def log() -> Iterator[Log]:
    """Yield the log, emptied, for the calls inside the block."""
    _LOG.clear()
    yield _LOG


def eval_callback(
    lib: Any, observer: Observer, guard: Callable[[], AbstractContextManager[None]]
) -> Any:
    """Return a `cb_eval` for an observer; `guard` goes around the observer's methods.

    llama.cpp asks first (ask=True), and calls again when the node is computed.
    """
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
        copied = False
        with guard():
            copied = observer.wants(name)
            if copied and not ask:
                size = libggml.ggml_nbytes(tensor)
                values = np.empty(size // 4, np.float32)
                libggml.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, size)
                observer.see(name, values)
        return copied or not ask

    return lib.ggml_backend_sched_eval_callback(evaluated)
