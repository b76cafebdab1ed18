"""Pixels (n, 3, S, S) float32 -> features (n, P, d) float32, by ONNX Runtime. The only door to it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DeviceError, EngineError

Float = npt.NDArray[np.float32]
INPUT, OUTPUT = "pixel_values", "image_features"
_MEND = (
    'Install exactly one: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "pulse-edge[cpu]" or [cuda]'
)


def installed_runtime() -> str:
    """Which distribution of ONNX Runtime is installed. Raises EngineError when neither or both are.

    Both own one folder: with both, CUDA vanishes in silence, and uninstalling either breaks the other.
    """
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            found.append(name)
    if len(found) != 1:
        state = "both onnxruntime and onnxruntime-gpu are" if found else "neither onnxruntime nor onnxruntime-gpu is"
        raise EngineError(f"{state} installed. {_MEND}.")
    return found[0]


def version() -> str:
    """ONNX Runtime's version."""
    return importlib.metadata.version(installed_runtime())


class VisionEncoder:
    """A session on one device. Raises DeviceError when CUDA was asked for and the session does not run on it."""

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        runtime = installed_runtime()
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Idle encoder threads would spin on cores that the language model needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
        if device == "cuda" and runtime == "onnxruntime":
            raise DeviceError(f"cuda: onnxruntime without CUDA is installed. {_MEND}; or use --device cpu.")
        try:
            self._session: Any = _interruptible(
                lambda: ort.InferenceSession(str(path), options, providers=providers), lambda: None
            )
        except Exception as e:  # ONNX Runtime raises its own C++ exceptions without a common base
            raise EngineError(f"{path}: ONNX Runtime cannot load it: {_line(e)} Copy the kit again.") from e
        # onnxruntime-gpu falls back without an exception: only the finished session tells.
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise DeviceError(
                "cuda: ONNX Runtime fell back to the CPU (no NVIDIA driver, GPU, CUDA 12/13 or cuDNN 9 libraries). "
                "Mend them, or use --device cpu."
            )
        self._ort = ort
        self._path = path
        self.providers: list[str] = self._session.get_providers()
        """What the finished session runs on, in ONNX Runtime's order."""

    def encode(self, pixels: Float, progress: Callable[[int, int], None] = lambda _done, _of: None) -> Float:
        """Features (n, P, d) of tiles (n, 3, S, S). One tile a call: a quantized encoder's result depends on its batch.

        `progress` gets tiles done and of how many. KeyboardInterrupt stops between two operators of the graph.
        """
        out = []
        progress(0, len(pixels))
        for i in range(len(pixels)):
            run = self._ort.RunOptions()
            tile = np.ascontiguousarray(pixels[i : i + 1])

            def call(tile: Float = tile, run: Any = run) -> Float:
                result: Float = self._session.run([OUTPUT], {INPUT: tile}, run)[0]
                return result

            def stop(run: Any = run) -> None:
                run.terminate = True

            try:
                out.append(_interruptible(call, stop))
            except Exception as e:
                raise EngineError(f"{self._path}: ONNX Runtime failed: {_line(e)}") from e
            progress(i + 1, len(pixels))
        features = np.concatenate(out)
        if not np.isfinite(features).all():
            raise EngineError(f"{self._path}: the encoder gave values that are not numbers. Verify the kit.")
        return features

    def close(self) -> None:
        """Free the session's memory."""
        self._session = None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _interruptible(call: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """Run `call` on a thread, so that Ctrl-C reaches this one at once; then `stop` is asked to end it."""
    box: dict[str, Any] = {}
    done = threading.Event()

    def work() -> None:
        try:
            box["value"] = call()
        except BaseException as e:
            box["error"] = e
        done.set()

    # Not Thread.join: before Python 3.13 an interrupted one takes the thread for ended, and on Windows it cannot be
    # interrupted, nor can an endless wait.
    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        while not done.wait(0.2):
            pass
    except BaseException:
        stop()
        done.wait(0.5)
        raise
    if "error" in box:
        raise box["error"]
    return box["value"]
