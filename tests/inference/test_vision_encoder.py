"""An int8 encoder on processors without VNNI, whose products of uint8 and int8 saturate unless they
are told not to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkout import ROOT

from pulse_edge.diagnostics import checks
from pulse_edge.inference import vision_encoder
from pulse_edge.inference.vision_encoder import EXACT, INPUT, OUTPUT, VisionEncoder
from pulse_edge.kit.kit import open_kit
from pulse_edge.machine import memory_plan

EMULATOR = shutil.which("qemu-x86_64")
ENCODE = """
import sys
import numpy as np
from pathlib import Path
from pulse_edge.inference import vision_encoder as vision
if sys.argv[2] == "plain":
    vision.EXACT = "session.unknown"
encoder = vision.VisionEncoder(Path(sys.argv[1]), device="cpu", threads=1)
print(float(vision.saturates()), *encoder.encode(np.ones((1, 3, 4, 4), np.float32)).ravel())
"""
LARGEST = 48 * 255 * 127
"""The sum of 48 products of the largest uint8 and int8."""


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of one integer product, all of whose values are the largest ones."""
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Flatten", [INPUT], ["flat"]),
        make("DynamicQuantizeLinear", ["flat"], ["whole", "scale", "zero"]),
        make("MatMulInteger", ["whole", "weight", "zero"], ["sums"]),
        make("Cast", ["sums"], [OUTPUT], to=onnx.TensorProto.FLOAT),
    ]
    weight = onnx.numpy_helper.from_array(np.full((48, 8), 127, np.int8), "weight")
    inputs, outputs = [tensor(INPUT, 1, ["n", 3, 4, 4])], [tensor(OUTPUT, 1, ["n", 8])]
    graph = onnx.helper.make_graph(nodes, "sums", inputs, outputs, [weight])
    path = tmp_path_factory.mktemp("sums") / "sums.onnx"
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        ),
        path,
    )
    return path


def emulated(processor: str, model: Path, how: str) -> tuple[bool, set[float]]:
    """Whether sums saturate on another processor, and what `model` gives there."""
    if EMULATOR is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user) on an x86-64 machine")
    command = [EMULATOR, "-cpu", processor, sys.executable, "-c", ENCODE, str(model), how]
    environment = os.environ | {"OPENBLAS_CORETYPE": "Nehalem", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    saturates, *sums = map(float, done.stdout.split())
    return bool(saturates), set(sums)


def test_integer_sums_are_exact_on_this_processor(sums: Path) -> None:
    encoder = VisionEncoder(sums, device="cpu", threads=1)
    assert set(encoder.encode(np.ones((1, 3, 4, 4), np.float32)).ravel()) == {LARGEST}


@pytest.mark.parametrize("saturates", [True, False])
def test_the_exact_setting_is_made_where_sums_saturate(
    saturates: bool, sums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision_encoder, "saturates", lambda: saturates)
    options = VisionEncoder(sums, device="cpu", threads=1).ready().get_session_options()
    if saturates:
        assert options.get_session_config_entry(EXACT) == "1"
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            options.get_session_config_entry(EXACT)


def test_the_plan_counts_the_memory_that_exact_sums_take(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_kit(ROOT / "pulse_edge" / "assets" / "kits" / "miniature").manifest
    planned = {}
    for saturates in (False, True):
        monkeypatch.setattr(vision_encoder, "saturates", lambda saturates=saturates: saturates)
        for kind in ("fp16", "int8"):
            planned[kind, saturates] = memory_plan.encoder_bytes(
                replace(manifest, vision=replace(manifest.vision, type=kind)),
                exact_int8=vision_encoder.needs_exact_sums(kind),
            )
    assert planned["fp16", True] == planned["fp16", False]
    weights = sum(
        file.bytes for name, file in manifest.files.items() if name.startswith("vision.onnx")
    )
    assert planned["int8", True] - planned["int8", False] == int(0.6 * weights)


@pytest.mark.parametrize(
    ("processor", "saturates"), [("Nehalem", False), ("Haswell", True), ("Skylake-Client", True)]
)
def test_integer_sums_are_exact_without_vnni(processor: str, saturates: bool, sums: Path) -> None:
    assert emulated(processor, sums, "exact") == (saturates, {LARGEST})


def test_integer_sums_saturate_without_the_exact_setting(sums: Path) -> None:
    assert emulated("Haswell", sums, "plain") == (True, {48 / 2 * 32767})


@pytest.mark.parametrize(
    ("kind", "have", "saturates", "state", "word"),
    [
        ("fp16", {"sse4_1"}, False, "ok", "the same image tokens on every processor"),
        ("w8", {"sse4_1", "avx2", "fma"}, True, "ok", "the same image tokens on every processor"),
        (
            "int8",
            {"sse4_1", "avx"},
            False,
            "warning",
            "without AVX2 and FMA its image tokens differ",
        ),
        ("int8", {"sse4_1", "avx2", "fma"}, True, "ok", "exact sums without VNNI"),
        (
            "int8-static",
            {"sse4_1", "avx2", "fma", "avx_vnni"},
            False,
            "ok",
            "int8-static: exact sums",
        ),
        ("int8", set(), True, "ok", "exact sums without VNNI"),
        ("int8", {"asimd"}, False, "ok", "int8: exact sums"),
    ],
)
def test_doctor_says_how_the_encoder_computes_here(
    kind: str, have: set[str], saturates: bool, state: str, word: str
) -> None:
    check = checks.encoder(kind, frozenset(have), saturates=saturates)
    assert (check.state, check.name) == (state, "encoder")
    assert word in check.text


def test_the_embedded_probe_is_the_documented_model() -> None:
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.full((4, 1), 127, np.int8), "b")
    nodes, inputs, outputs = (
        [make("MatMulInteger", ["a", "b"], ["c"])],
        tensor("a", 2, [1, 4]),
        tensor("c", 6, [1, 1]),
    )
    graph = onnx.helper.make_graph(nodes, "s", [inputs], [outputs], [weight])
    probe = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    assert probe == onnx.load_model_from_string(vision_encoder._LARGEST)
