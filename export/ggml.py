"""Call llama.cpp's own quantization, and measure the error that a type causes in a matrix."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from pulse_edge.errors import EngineError, UsageError
from pulse_edge.inference import llama_cpp
from pulse_edge.inference.vision_encoder import _interruptible

Float = npt.NDArray[np.float32]
BUFFER = 1 << 28
"""Bytes of a matrix that llama.cpp holds at once; by its default of 8 GiB it would hold the
whole of the largest one."""


@cache
def file_types() -> dict[str, int]:
    """Return llama.cpp's number of every type of a whole file that it can write: F16, Q4_K_M,
    ..."""
    llama_cpp.prepare()
    from llama_cpp import llama_cpp as lib

    pattern = re.compile(r"LLAMA_FTYPE_(?:MOSTLY|ALL)_(\w+)")
    # NVFP4 has a number, but llama_ftype_get_default_type (src/llama-quant.cpp) has no type for it.
    return {
        m[1]: getattr(lib, name)
        for name in dir(lib)
        if (m := pattern.fullmatch(name)) and m[1] != "NVFP4"
    }


def file_type(name: str) -> int:
    """Return llama.cpp's number of a type.

    Raises UsageError, with all names, for an unknown one.
    """
    if name not in file_types():
        raise UsageError(
            f"--llm {name}: llama.cpp has no such type. It has {', '.join(sorted(file_types()))}."
        )
    return file_types()[name]


def quantize(
    source: Path,
    target: Path,
    kind: str,
    *,
    importance: Mapping[str, Float] | None = None,
    types: Mapping[str, Type] | None = None,
    threads: int,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> None:
    """Write `source`, a GGUF of f32, f16 or bf16, as `kind`, and single tensors as `types` says.

    `importance` holds a float32 (columns,) per matrix. `progress` gets the tensors done and their
    total. The bytes depend on nothing else, in particular not on the number of threads. Raises
    EngineError with llama.cpp's reason.
    """
    llama_cpp.prepare()
    from llama_cpp import llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.max_buf_size = threads, file_type(kind), BUFFER
    if importance:
        entries = [
            (n.encode(), np.ascontiguousarray(v, np.float32)) for n, v in sorted(importance.items())
        ]
        rows = [
            lib.llama_model_imatrix_data(n, v.ctypes.data_as(_FLOATS), v.size) for n, v in entries
        ]
        params.imatrix = (lib.llama_model_imatrix_data * (len(rows) + 1))(*rows)
    if types:
        patterns = [(f"^{re.escape(n)}$".encode(), int(t)) for n, t in sorted(types.items())]
        overrides = [lib.llama_model_tensor_override(*p) for p in patterns]
        params.tt_overrides = (lib.llama_model_tensor_override * (len(overrides) + 1))(*overrides)
    wrong: list[str] = []

    def log(level: int, text: bytes, _data: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            wrong.append(line)
        elif at := re.match(r"\[\s*(\d+)/\s*(\d+)\]", line):
            progress(int(at[1]), int(at[2]))

    _LOGS.append(lib.llama_log_callback(log))
    lib.llama_log_set(_LOGS[-1], None)
    code = _interruptible(
        lambda: lib.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(params)
        ),
        lambda: None,
    )
    if code:
        reason = "; ".join(line for line in wrong if line.strip("= ")) or "no reason given"
        raise EngineError(f"{target.name}: llama.cpp cannot make {kind}: {reason}.")


_FLOATS = ctypes.POINTER(ctypes.c_float)
_LOGS: list[Any] = []
"""Callbacks that llama.cpp may still call."""


def tensor_types(path: Path) -> dict[str, str]:
    """Return the type of every tensor of a GGUF that is not float32."""
    tensors = gguf.GGUFReader(path).tensors
    return {
        t.name: t.tensor_type.name
        for t in sorted(tensors, key=lambda t: t.name)
        if t.tensor_type != Type.F32
    }


# --- one matrix -----------------------------------------------------------------------------------


def row_bytes(kind: Type, columns: int) -> int | None:
    """Return the bytes of a row, or None where the type's blocks do not fit it."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return None if columns % block else columns // block * size


def packed(matrix: Float, kind: Type, importance: Float | None) -> npt.NDArray[np.uint8]:
    """Return the bytes (rows, bytes of a row) of a matrix (rows, columns) float32 in a type.

    They are the bytes that llama.cpp writes into a file.
    """
    matrix = np.ascontiguousarray(matrix, np.float32)
    if kind in (Type.F32, Type.F16, Type.BF16):
        result: npt.NDArray[np.uint8] = np.ascontiguousarray(
            gguf.quants.quantize(matrix, kind)
        ).view(np.uint8)
        return result.reshape(len(matrix), -1)
    lib, (rows, columns) = _library(), matrix.shape
    out = np.empty((rows, row_bytes(kind, columns) or 0), np.uint8)
    weights = (
        None
        if importance is None
        else np.ascontiguousarray(importance, np.float32).ctypes.data_as(_FLOATS)
    )
    source = matrix.ctypes.data_as(_FLOATS)
    size = lib.ggml_quantize_chunk(int(kind), source, out.ctypes.data, 0, rows, columns, weights)
    if size != out.nbytes:
        raise EngineError(
            f"llama.cpp made {size} bytes of a {kind.name} matrix instead of {out.nbytes}."
        )
    return out


def rounded(matrix: Float, kind: Type, importance: Float | None) -> Float:
    """Return a matrix (rows, columns) float32 after a round trip through a type."""
    data = packed(matrix, kind, importance)
    if kind in (Type.F16, Type.BF16):
        result: Float = gguf.quants.dequantize(
            data.view(np.float16) if kind == Type.F16 else data, kind
        )
        return result
    back = np.empty(matrix.shape, np.float32)
    traits = _library().ggml_get_type_traits(int(kind)).contents
    traits.to_float(data.ctypes.data, back.ctypes.data_as(_FLOATS), back.size)
    return back


class _Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, _FLOATS, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _library() -> Any:
    llama_cpp.prepare()
    from llama_cpp._ggml import libggml

    quantize_chunk, traits = libggml.ggml_quantize_chunk, libggml.ggml_get_type_traits
    number = ctypes.c_int64
    quantize_chunk.argtypes = [
        ctypes.c_int,
        _FLOATS,
        ctypes.c_void_p,
        number,
        number,
        number,
        _FLOATS,
    ]
    quantize_chunk.restype = ctypes.c_size_t
    traits.argtypes, traits.restype = [ctypes.c_int], ctypes.POINTER(_Traits)
    return libggml
