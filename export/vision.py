"""Tower and projector -> vision.onnx. What pulse_edge/vision.py reads.

The graph ends at the selected hidden state: later layers are not there, CLS is dropped, the projector is included.
`pixel_values (n, 3, S, S) float32 -> image_features (n, P, d) float32`, n dynamic.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from pulse_edge.errors import CheckpointError
from pulse_edge.vision import INPUT, OUTPUT

from .checkpoint import PROJECTOR, TOWER, Checkpoint, _shown, finite

_OPSET = 20
_SMALL = 1 << 10
"""Constants below this many values stay float32: they are biases and shapes, not weights worth halving."""


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
            self.projector = torch.nn.Sequential(torch.nn.Linear(v, d), torch.nn.GELU(), torch.nn.Linear(d, d))
        self._fill(checkpoint)
        self.eval().requires_grad_(False)

    def _fill(self, checkpoint: Checkpoint) -> None:
        state, wrong = {}, []
        for name in self.state_dict():
            inside = name.replace("tower.vision_model.", TOWER).replace("projector.", PROJECTOR)
            if inside not in checkpoint:
                continue  # post_layernorm, which the selected hidden state does not pass; filled below
            state[name] = checkpoint.tensor(inside).float()
            if not finite(state[name]):
                wrong.append(f"{inside} has NaN or infinite weights")
        if wrong:
            raise CheckpointError(f"{checkpoint.path}: {_shown(wrong)}.")
        width = checkpoint.config.vision.hidden_size
        for x in ("weight", "bias"):
            state.setdefault(f"tower.vision_model.post_layernorm.{x}", torch.zeros(width))
        self.load_state_dict(state, strict=True, assign=True)
        # A buffer, not a weight, so that the meta device left it without values.
        embeddings = self.tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) -> (n, P, d)."""
        model = self.tower.vision_model
        hidden = model.pre_layrnorm(model.embeddings(pixel_values))
        hidden = model.encoder(inputs_embeds=hidden).last_hidden_state
        return self.projector(hidden[:, 1:])  # type: ignore[no-any-return]


def write(encoder: Encoder, path: Path, kind: str, size: int) -> None:
    """Export to `path` (and its weights beside it, in `path`.data) as `kind`: fp32 or fp16.

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
    _strip(model)
    if kind == "fp16":
        _halve(model, path)
    data = path.name + ".data"
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data)
    onnx.checker.check_model(path, full_check=True)


def _strip(model: onnx.ModelProto) -> None:
    """Without the exporter's notes: they hold paths of this machine, and change from run to run."""
    model.doc_string = ""
    del model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.metadata_props[:]


def _halve(model: onnx.ModelProto, path: Path) -> None:
    """Store weights as float16 with a Cast to float32 behind each.

    ONNX Runtime folds the casts when it loads, and computes in float32 on every device: half the file, and for a
    checkpoint that was saved in float16, no loss at all.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        with np.errstate(over="ignore"):
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(f"{path.name}: {tensor.name} has weights too large for fp16. Use --vision fp32.")
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, name + "_half"))
        casts.append(onnx.helper.make_node("Cast", [name + "_half"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter prints its progress and warns of its own deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
