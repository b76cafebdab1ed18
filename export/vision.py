"""Write tower and projector to vision.onnx, which inference/vision_encoder.py reads.

The graph ends at the selected hidden state: later layers are not in it, CLS is dropped, and the
projector is included. `requantize` makes other types of a finished encoder, with optimum's and ONNX
Runtime's own tools.

pixel_values (n, 3, S, S) float32 -> image_features (n, P, d) float32 and cls_attention (n, P)
float32, with n dynamic.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from export.checkpoint import PROJECTOR, TOWER, Checkpoint, finite
from export.shards import shown
from pulse_edge.errors import CheckpointError
from pulse_edge.inference.vision_encoder import ATTENTION, INPUT, OUTPUT

_OPSET = 20
_SMALL = 1 << 10
"""Constants with fewer values than this stay float32: they are biases and shapes, too small to
be worth halving."""


class Encoder(torch.nn.Module):
    """The tower up to the selected layer, and the projector (LLaVA's mlp2x_gelu), in float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        config = checkpoint.config
        settings = config.vision.to_dict() | {"num_hidden_layers": config.vision_layers}
        vision = CLIPVisionConfig(**settings, attn_implementation="eager")
        d, v = config.text.hidden_size, config.vision.hidden_size
        with torch.device("meta"):
            self.tower = CLIPVisionModel(vision)
            self.projector = torch.nn.Sequential(
                torch.nn.Linear(v, d), torch.nn.GELU(), torch.nn.Linear(d, d)
            )
        self._fill(checkpoint)
        self.eval().requires_grad_(False)

    def _fill(self, checkpoint: Checkpoint) -> None:
        state, wrong = {}, []
        for name in self.state_dict():
            inside = name.replace("tower.vision_model.", TOWER).replace("projector.", PROJECTOR)
            if inside not in checkpoint:
                # post_layernorm, which the selected hidden state does not pass; filled below
                continue
            state[name] = checkpoint.tensor(inside).float()
            if not finite(state[name]):
                wrong.append(f"{inside} has NaN or infinite weights")
        if wrong:
            raise CheckpointError(f"{checkpoint.path}: {shown(wrong)}.")
        width = checkpoint.config.vision.hidden_size
        for x in ("weight", "bias"):
            state.setdefault(f"tower.vision_model.post_layernorm.{x}", torch.zeros(width))
        self.load_state_dict(state, strict=True, assign=True)
        # A buffer is no weight, so that the meta device left it without values.
        embeddings = self.tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features (n, P, d) of tiles (n, 3, S, S)."""
        model = self.tower.vision_model
        hidden = model.pre_layrnorm(model.embeddings(pixel_values))
        hidden = model.encoder(inputs_embeds=hidden).last_hidden_state
        return self.projector(hidden[:, 1:])  # type: ignore[no-any-return]


def write(encoder: Encoder, path: Path, kind: str, size: int) -> None:
    """Export to `path`, with its weights in `path`.data next to it, as `kind`: fp32 or fp16.

    Raises CheckpointError for weights too large for fp16.
    """
    example = torch.zeros(2, 3, size, size)
    with _quiet():
        program = torch.onnx.export(
            encoder,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _output_attention(model)
    _strip(model)
    if kind == "fp16":
        _halve(model, path)
    data = path.name + ".data"
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data
    )
    onnx.checker.check_model(path, full_check=True)


def _output_attention(model: onnx.ModelProto) -> None:
    """Add an output: the attention of the CLS row to each patch in the last layer.

    It is a mean over heads, and taken from the finished graph, because the layers' modules do not
    return their probabilities without making all of them outputs.
    """
    *_, last = (node for node in model.graph.node if node.op_type == "Softmax")
    indices = {
        "first": [0],
        "second": [1],
        "end": [1 << 30],
        "query": [2],
        "key": [3],
        "heads": [1, 2],
    }
    for name, values in indices.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(values, np.int64), f"cls_{name}")
        )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make(
                "Slice",
                [last.output[0], "cls_first", "cls_second", "cls_query"],
                ["cls_row"],
                "cls_slice",
            ),
            make(
                "Slice", ["cls_row", "cls_second", "cls_end", "cls_key"], ["cls_patches"], "cls_cut"
            ),
            make("ReduceMean", ["cls_patches", "cls_heads"], [ATTENTION], "cls_mean", keepdims=0),
        ]
    )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(ATTENTION, onnx.TensorProto.FLOAT, ["n", None])
    )


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold paths of this machine, and change from run to run."""
    model.doc_string = ""
    del model.metadata_props[:]
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.initializer,
        *model.graph.input,
    ):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.metadata_props[:]


def _halve(model: onnx.ModelProto, path: Path) -> None:
    """Store weights as float16 with a Cast to float32 behind each.

    ONNX Runtime folds the casts when it loads, and computes in float32 on every device. The file
    has half the size, and a checkpoint that was saved in float16 loses nothing.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        with np.errstate(over="ignore"):
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(
                f"{path.name}: {tensor.name} has weights too large for fp16. Use --vision fp32."
            )
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, name + "_half"))
        casts.append(
            onnx.helper.make_node(
                "Cast", [name + "_half"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# --- other types of a finished encoder ------------------------------------------------------------

KINDS = {
    "fp32": "float32",
    "fp16": "float16 weights, float32 arithmetic",
    "w8": "8-bit weights in blocks of 128 (MatMulNBits)",
    "int8": "int8 weights by column, uint8 activations by tile (dynamic); the projector as w8",
    "int8-static": "int8 weights by column, uint8 activations with collected ranges (QDQ); "
    "the projector as w8",
}
"""Types of an encoder, in words."""


def requantize(
    source: Path, path: Path, kind: str, ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Write the encoder `source` (fp32 or fp16) as `kind` to `path`, in the form of `write`.

    `int8-static` needs `ranges`: lowest and highest value by tensor. The projector never gets
    integer activations: its first layer reads the raw residual stream, whose few large values leave
    no steps for the others.
    """
    model = _loaded(source)
    _widen(model)
    if kind == "fp16":
        _halve(model, path)
    elif kind == "w8":
        model = _weights_only(model, _constant_products(model))
    elif kind in ("int8", "int8-static"):
        # The last two products are the projector.
        *tower, first, second = _constant_products(model)
        model = _weights_only(
            _integers(model, tower, ranges if kind == "int8-static" else None), [first, second]
        )
    data = path.name + ".data"
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data
    )
    onnx.checker.check_model(path)


def _loaded(path: Path) -> onnx.ModelProto:
    """Return the graph at `path` with its weights.

    onnx refuses weights that have several hard links, as copies may have: they are copied first.
    """
    files = [file for file in path.parent.glob(f"{path.name}*") if file.is_file()]
    if all(file.stat().st_nlink == 1 for file in files):
        return onnx.load(path)
    with tempfile.TemporaryDirectory(prefix="pulse-edge-") as folder:
        for file in files:
            shutil.copyfile(file, Path(folder) / file.name)
        return onnx.load(Path(folder) / path.name)


def _widen(model: onnx.ModelProto) -> None:
    """Put float32 weights in place of float16 ones with their casts.

    This undoes `_halve`, apart from its rounding.
    """
    halves = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in halves]
    for node in casts:
        half = halves[node.input[0]]
        half.CopyFrom(
            onnx.numpy_helper.from_array(
                onnx.numpy_helper.to_array(half).astype(np.float32), node.output[0]
            )
        )
        model.graph.node.remove(node)


def _constant_products(model: onnx.ModelProto) -> list[str]:
    """Return the names of the products with a weight, in the graph's order."""
    weights = {t.name for t in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]


def _weights_only(model: onnx.ModelProto, nodes: list[str]) -> onnx.ModelProto:
    """Give these products 8-bit weights; arithmetic stays in float32 (accuracy level 0)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quiet():
        others = [n.name for n in model.graph.node if n.name not in nodes]
        quantizer = MatMulNBitsQuantizer(
            model, bits=8, block_size=128, is_symmetric=True, nodes_to_exclude=others
        )
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _integers(
    model: onnx.ModelProto, nodes: list[str], ranges: Mapping[str, tuple[float, float]] | None
) -> onnx.ModelProto:
    """Compute these products in 8-bit integers, by optimum's quantizer.

    They are dynamic, or static where ranges are given.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantizationMode, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import QuantizationConfig

    settings = QuantizationConfig(
        is_static=ranges is not None,
        format=QuantFormat.QOperator if ranges is None else QuantFormat.QDQ,
        mode=QuantizationMode.IntegerOps if ranges is None else QuantizationMode.QLinearOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=nodes,
        operators_to_quantize=["MatMul"],
    )
    limits = None
    if ranges is not None:
        pairs = {n: tuple(np.float32(v) for v in pair) for n, pair in ranges.items()}
        limits = TensorsData(CalibrationMethod.MinMax, pairs)
    with _quiet(), tempfile.TemporaryDirectory(prefix="pulse-edge-") as folder:
        work = Path(folder)
        onnx.save_model(
            model, work / "in.onnx", save_as_external_data=True, location="in.onnx.data"
        )
        quantizer = ORTQuantizer(work / "in.onnx")
        quantizer.quantize(
            settings,
            work / "out",
            calibration_tensors_range=limits,
            use_external_data_format=True,
            file_suffix=None,
        )
        return onnx.load(work / "out" / "in.onnx")


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter, which prints its progress and warns of its own deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
