"""Observe what a kit's two models compute on a page: sums for llama.cpp, ranges for the encoder.

`Collector` loads a kit with both observers. The squares of what the language model's matrices read
are summed on llama.cpp's own graph, image tokens and text tokens apart. The encoder's ranges come
from ONNX Runtime, which runs the graph with ReduceMin and ReduceMax behind every tensor that a
product touches.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from calibration.ecgbench import Sample
from calibration.files import link
from calibration.statistics_file import Float, InputSums, Probe, Statistics, widen
from pulse_edge.errors import EngineError
from pulse_edge.inference import tiling
from pulse_edge.inference.model import EngineOptions, PulseModel
from pulse_edge.inference.vision_encoder import INPUT
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit, encoder_files
from pulse_edge.page import reader


class Collector:
    """A loaded kit with both observers."""

    def __init__(self, kit: Kit, statistics: Statistics, threads: int) -> None:
        widths = {name: len(one.image) for name, one in statistics.sums.items()}
        self._inputs = InputObserver(widths)
        self._model = PulseModel.load(
            kit, device="cpu", threads=threads, engine=EngineOptions(observer=self._inputs)
        )
        self._ranges = RangeObserver(kit, threads)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()
        self._ranges.close()

    def take(self, sample: Sample, statistics: Statistics, probe: bool) -> None:
        """Run a sample and add it to `statistics`; a sample that fails adds nothing."""
        assert sample.picture is not None
        self._inputs.discard()
        page = reader.read(Image.open(io.BytesIO(sample.picture)))
        image_tokens = self._model.encode(page, admit=False).image_tokens
        sums = {name: InputSums.zero(len(one.image)) for name, one in statistics.sums.items()}
        token_ids = []
        for question, answer in sample.turns:
            token_ids.append(self._answer(image_tokens, question, answer))
            for name, one in self._inputs.collect().items():
                sums[name].add(one)
        for name, one in sums.items():
            statistics.sums[name].add(one.rounded())
        for name, limits in self._ranges.of(self._pixels(page)).items():
            widen(statistics.ranges, name, limits)
        if probe:
            tokens = image_tokens.astype(np.float16)
            statistics.probes.append(
                Probe(sample.task, sample.id, tokens, *token_ids[0], sample.picture)
            )
        digest = hashlib.sha256(sample.picture).hexdigest()
        statistics.done.append((sample.task, sample.id, digest))

    def _answer(
        self, image_tokens: Float, question: str, answer: str
    ) -> tuple[list[int], list[int]]:
        """Run one question with its right answer; the token ids on either side of the image."""
        spec, language = self._model.kit.manifest.prompt, self._model.language
        language.clear()
        self._inputs.image = False
        # The first progress report, of no image token, comes when the prompt has been read.
        language.prefill(
            None, spec.before, image_tokens, lambda _done, _of: self._inputs.start_image()
        )
        self._inputs.image = False
        before = language.tokenize(spec.before, first=True)
        after = language.tokenize(prompt.fill(spec.after, question), first=False)
        after += language.tokenize(answer, first=False)
        after = after[: language.context - language.position]
        language.feed_tokens(after, every=True)
        return before, after

    def _pixels(self, page: reader.Page) -> Float:
        m = self._model.kit.manifest
        return tiling.cut(
            page.image,
            size=m.vision.image_size,
            aspect_ratio=m.packing.aspect_ratio,
            pinpoints=m.packing.grid_pinpoints,
            mean=m.vision.mean,
            std=m.vision.std,
        )


class InputObserver:
    """Sums what llama.cpp's matrices read (an Observer of `inference.language_model`)."""

    def __init__(self, widths: dict[str, int]) -> None:
        self._widths = widths
        self._sums: dict[str, InputSums] = {}
        self.image = False
        """Whether the tokens that are being read are image tokens."""

    def wants(self, name: str) -> bool:
        return name in self._widths

    def see(self, name: str, values: Float) -> None:
        rows = values.reshape(-1, self._widths[name]).astype(np.float64)
        one = self._sums.setdefault(name, InputSums.zero(rows.shape[1]))
        part = one.image if self.image else one.text
        part += np.square(rows).sum(0)
        one.tokens[not self.image] += len(rows)

    def start_image(self) -> None:
        self.image = True

    def discard(self) -> None:
        """Drop the sums of a sample that failed half-way."""
        self._sums = {}

    def collect(self) -> dict[str, InputSums]:
        """The sums since the last call. EngineError where one is missing or not a number."""
        sums, self._sums = self._sums, {}
        if absent := sorted(self._widths.keys() - sums.keys()):
            raise EngineError(
                f"llama.cpp's graph has no node {absent[0]}: this version is not the one expected."
            )
        if wrong := [n for n, one in sums.items() if not np.isfinite(one.image + one.text).all()]:
            raise EngineError(
                f"{wrong[0]}: the model gave values that are not numbers. Verify the kit."
            )
        return sums


class RangeObserver:
    """Finds the smallest and largest value of every tensor that a product of the encoder touches."""

    def __init__(self, kit: Kit, threads: int) -> None:
        import onnx
        import onnxruntime as ort

        source = kit.file(kit.manifest.vision.file)
        model = onnx.load(source, load_external_data=False)
        self._names = _watched(model)
        for name in self._names:
            for kind in ("Min", "Max"):
                node = onnx.helper.make_node(
                    f"Reduce{kind}", [name], [f"{name}/{kind}"], keepdims=0
                )
                model.graph.node.append(node)
                model.graph.output.append(
                    onnx.helper.make_tensor_value_info(f"{name}/{kind}", 1, [])
                )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory(prefix="pulse-edge-") as folder:
            for name in encoder_files(kit.manifest):
                if name != source.name:
                    link(kit.file(name), Path(folder) / name)
            onnx.save_model(model, Path(folder) / source.name)
            providers = ["CPUExecutionProvider"]
            self._session: Any = ort.InferenceSession(
                str(Path(folder) / source.name), options, providers=providers
            )

    def of(self, pixels: Float) -> dict[str, tuple[float, float]]:
        """The range (lowest, highest) of each tensor over tiles (n, 3, S, S), by name."""
        outputs = [f"{name}/{kind}" for name in self._names for kind in ("Min", "Max")]
        values = np.array(
            [self._session.run(outputs, {INPUT: pixels[i : i + 1]}) for i in range(len(pixels))]
        )
        lowest, highest = values[:, ::2].min(0), values[:, 1::2].max(0)
        return {
            n: (float(a), float(b)) for n, a, b in zip(self._names, lowest, highest, strict=True)
        }

    def close(self) -> None:
        self._session = None


def _watched(model: Any) -> list[str]:
    """Names of the tensors that products read and write, without weights, in the graph's order."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    fixed |= {
        n.output[0]
        for n in model.graph.node
        if n.op_type in ("Cast", "Constant") and set(n.input) <= fixed
    }
    touched = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    return list(
        dict.fromkeys(
            name for n in touched for name in (*n.input, *n.output) if name and name not in fixed
        )
    )
