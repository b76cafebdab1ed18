"""Pixels (n, 3, S, S) float32 -> features (n, P, d) float32, by ONNX Runtime. The only module that
imports it."""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.metadata
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.common import child_process
from pulse_edge.common.arrays import Float
from pulse_edge.errors import DeviceError, EngineError, KitError

INPUT, OUTPUT, ATTENTION = "pixel_values", "image_features", "cls_attention"
EXACT = "session.x64quantprecision"
"""Setting with which ONNX Runtime turns int8 weights into uint8, whose products with uint8 have
exact sums on every x86 processor. It is set only where `saturates`: with VNNI it takes 1.6 times as
long, and half of the weights' memory again."""
_OUTSIDE = "External data path validation failed"
"""Error text of ONNX Runtime for weights whose path leads out of the graph's folder."""
_LARGEST = base64.b64decode(
    "CAo6WAoYCgFhCgFiEgFjIg1NYXRNdWxJbnRlZ2VyEgFzKg8IBAgBEANCAWJKBH9/f39aEwoBYRIOCgwIAhIICgIIAQoCCARiEwoBYxIOCgwIBhIICgIIAQoC"
    "CAFCBAoAEBQ="
)
"""An ONNX model, as tests/inference/test_vision_encoder.py makes it: a (1, 4) uint8 times 127 four
times -> c (1, 1) int32."""
_INSTALL = (
    "Install exactly one: pip uninstall -y onnxruntime onnxruntime-gpu, then "
    'pip install "pulse-edge[cpu]" or [cuda]'
)


def installed_runtime() -> str:
    """Return the name of the installed distribution of ONNX Runtime. Raises EngineError when
    neither or both are.

    Both own one folder: with both, CUDA vanishes in silence, and uninstalling either breaks the
    other.
    """
    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            installed.append(name)
    if len(installed) != 1:
        state = (
            "both onnxruntime and onnxruntime-gpu are"
            if installed
            else "neither onnxruntime nor onnxruntime-gpu is"
        )
        raise EngineError(f"{state} installed. {_INSTALL}.")
    return installed[0]


def version() -> str:
    """ONNX Runtime's version."""
    return importlib.metadata.version(installed_runtime())


@functools.cache
def saturates() -> bool:
    """Whether sums of products of uint8 and int8 lose their largest values here, as ONNX Runtime
    computes them.

    They do on x86 processors with AVX2 or AVX-512 and without VNNI: pairs of products are added in
    16 bits. The miniature's int8 image tokens then have a mean cosine to float32 of 0.995 instead
    of 0.998 (docs/benchmarks.md). A tiny model is run to find out, because the processor's flags do
    not say which kernels ONNX Runtime takes, and not every system has flags.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_LARGEST, options, providers=["CPUExecutionProvider"])
    (total,) = session.run(["c"], {"a": np.full((1, 4), 255, np.uint8)})
    return int(total[0, 0]) != 4 * 255 * 127


def needs_exact_sums(kind: str) -> bool:
    """Whether an encoder of this weight type needs the setting EXACT on this processor."""
    return kind.startswith("int8") and saturates()


class VisionEncoder:
    """A session on one device. Raises DeviceError when CUDA was asked for and the session does not
    run on it.

    The session is made on a thread of its own: `ready` waits for it, and raises EngineError where
    it cannot be made.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        runtime = installed_runtime()
        if child_process.IMPORTED_BEFORE:
            raise EngineError(
                "onnxruntime: was imported before pulse_edge with its telemetry on, and may have "
                "reported to its maker. "
                "Import pulse_edge first, or set ORT_DISABLE_TELEMETRY=1 before Python starts."
            )
        import onnxruntime as ort

        ort.disable_telemetry_events()  # for Windows; elsewhere child_process sets a variable
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Threads that wait for the next operator spin; idle ones do not, on cores that the language
        # model needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if saturates():
            options.add_session_config_entry(EXACT, "1")
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
        if device == "cuda" and runtime == "onnxruntime":
            raise DeviceError(
                f"cuda: onnxruntime without CUDA is installed. {_INSTALL}; or use --device cpu."
            )
        self._ort = ort
        self._path = path
        session = _Call(lambda: ort.InferenceSession(str(path), options, providers=providers))
        self._loading: _Call | None = session.start()
        # onnxruntime-gpu falls back without an exception: only the finished session tells.
        if device == "cuda" and "CUDAExecutionProvider" not in self.providers:
            raise DeviceError(
                "cuda: ONNX Runtime fell back to the CPU (no NVIDIA driver, GPU, CUDA 12/13 or "
                "cuDNN 9 libraries). "
                "Repair them, or use --device cpu."
            )

    def ready(self) -> Any:
        """Wait for the session and return it. Raises EngineError, also where the encoder was
        closed."""
        if self._loading is None:
            raise EngineError(f"{self._path}: the encoder was closed. Load the kit again.")
        try:
            return self._loading.result()
        except Exception as e:  # ONNX Runtime raises its own C++ exceptions without a common base
            if _OUTSIDE in str(e):
                raise EngineError(
                    f"{self._path}: takes its weights from outside the kit's folder. Do not use "
                    "it; copy the kit again."
                ) from e
            text = _line(e).removesuffix(".")
            raise EngineError(
                f"{self._path}: ONNX Runtime cannot load it: {text}. Copy the kit again."
            ) from e

    @property
    def providers(self) -> list[str]:
        """Execution providers of the session, in ONNX Runtime's order."""
        return list(self.ready().get_providers())

    def encode(
        self, pixels: Float, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Float:
        """Return features (n, P, d) of tiles (n, 3, S, S). One tile a call: a quantized encoder's
        result depends on its batch.

        `progress` gets tiles done and in total. KeyboardInterrupt stops between two operators of
        the graph.
        """
        return self._run([OUTPUT], pixels, progress)[0]

    def attend(
        self, pixels: Float, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[Float, Float]:
        """Return what `encode` does, and the attention (n, P) of each tile's CLS to its patches,
        the mean over the last layer's heads.

        Raises KitError where the encoder does not give it.
        """
        if ATTENTION not in {output.name for output in self.ready().get_outputs()}:
            raise KitError(
                f"{self._path}: this encoder has no attention output. Convert the checkpoint "
                "again, or rank image "
                "tokens by similarity."
            )
        features, attention = self._run([OUTPUT, ATTENTION], pixels, progress)
        return features, attention

    def _run(
        self, names: list[str], pixels: Float, progress: Callable[[int, int], None]
    ) -> list[Float]:
        """The named outputs of all tiles."""
        out: list[list[Float]] = []
        session = self.ready()
        progress(0, len(pixels))
        for i in range(len(pixels)):
            run = self._ort.RunOptions()
            tile = np.ascontiguousarray(pixels[i : i + 1])

            def call(tile: Float = tile, run: Any = run) -> list[Float]:
                return list(session.run(names, {INPUT: tile}, run))

            def stop(run: Any = run) -> None:
                run.terminate = True

            try:
                out.append(_interruptible(call, stop))
            except Exception as e:
                raise EngineError(f"{self._path}: ONNX Runtime failed: {_line(e)}") from e
            progress(i + 1, len(pixels))
        results = [np.concatenate(parts) for parts in zip(*out, strict=True)]
        if not all(np.isfinite(values).all() for values in results):
            raise EngineError(
                f"{self._path}: the encoder gave values that are not numbers. Verify the kit."
            )
        return results

    def close(self) -> None:
        """Free the session's memory, after waiting until it is made: the process must not end in
        the middle of that."""
        loading, self._loading = self._loading, None
        if loading is not None:
            with contextlib.suppress(Exception):
                loading.result()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


class _Call:
    """A call on a thread of its own, so that Ctrl-C reaches the waiting thread at once."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._box: dict[str, Any] = {}
        self._done = threading.Event()
        # Not Thread.join: before Python 3.13 an interrupted join marks the thread as ended, and on
        # Windows neither a join
        # nor an endless wait can be interrupted.
        self._thread = threading.Thread(target=self._work, args=(call,), daemon=True)

    def start(self) -> _Call:
        """Start the thread, which `result` does too."""
        self._thread.start()
        return self

    def _work(self, call: Callable[[], Any]) -> None:
        try:
            self._box["value"] = call()
        except BaseException as e:
            self._box["error"] = e
        self._done.set()

    def result(self, stop: Callable[[], None] = lambda: None) -> Any:
        """Return or raise what the call did; when the wait is interrupted, `stop` asks the call to
        end."""
        try:
            if self._thread.ident is None:
                self._thread.start()
            while not self._done.wait(0.2):
                pass
        except BaseException:
            stop()
            self._done.wait(0.5)
            raise
        if "error" in self._box:
            raise self._box["error"]
        return self._box["value"]


def _interruptible(call: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """Run `call` on a thread, so that Ctrl-C reaches this one at once; then `stop` asks the call to
    end."""
    return _Call(call).result(stop)
