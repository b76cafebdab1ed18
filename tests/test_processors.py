"""An int8 encoder on processors without VNNI, whose products of uint8 and int8 saturate unless they are told not to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT

from pulse_edge import cpu, doctor
from pulse_edge.vision import EXACT, INPUT, OUTPUT, VisionEncoder

EMULATOR = shutil.which("qemu-x86_64")
ENCODE = """
import sys
import numpy as np
from pathlib import Path
from pulse_edge import vision
if sys.argv[2] == "plain":
    vision.EXACT = "session.unknown"
encoder = vision.VisionEncoder(Path(sys.argv[1]), device="cpu", threads=1)
print(*encoder.encode(np.ones((1, 3, 4, 4), np.float32)).ravel())
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
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def emulated(processor: str, model: Path, how: str) -> set[float]:
    """What `model` gives on another processor."""
    if EMULATOR is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user) on an x86-64 machine")
    command = [EMULATOR, "-cpu", processor, sys.executable, "-c", ENCODE, str(model), how]
    environment = os.environ | {"OPENBLAS_CORETYPE": "Nehalem", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return set(map(float, done.stdout.split()))


def test_integer_sums_are_whole_on_this_processor(sums: Path) -> None:
    encoder = VisionEncoder(sums, device="cpu", threads=1)
    assert set(encoder.encode(np.ones((1, 3, 4, 4), np.float32)).ravel()) == {LARGEST}
    assert encoder.ready().get_session_options().get_session_config_entry(EXACT) == "1"


@pytest.mark.parametrize("processor", ["Nehalem", "Haswell", "Skylake-Client"])
def test_integer_sums_are_whole_without_vnni(processor: str, sums: Path) -> None:
    assert emulated(processor, sums, "exact") == {LARGEST}


def test_without_the_setting_they_saturate_there(sums: Path) -> None:
    assert emulated("Haswell", sums, "plain") == {48 / 2 * 32767}


@pytest.mark.parametrize(
    ("kind", "have", "state", "word"),
    [
        ("fp16", {"sse4_2"}, "ok", "the same image tokens on every processor"),
        ("w8", {"avx2", "fma"}, "ok", "the same image tokens on every processor"),
        ("int8", {"sse4_2", "avx"}, "warning", "without AVX2 and FMA its image tokens differ"),
        ("int8", {"avx2", "fma"}, "ok", "exact sums without VNNI"),
        ("int8", {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}, "ok", "exact sums without VNNI"),
        ("int8-static", {"avx2", "fma", "avx_vnni"}, "ok", "exact sums with VNNI"),
        ("int8", set(), "ok", "is not known"),
    ],
)
def test_doctor_says_how_the_encoder_computes_here(kind: str, have: set[str], state: str, word: str) -> None:
    check = doctor.encoder(kind, frozenset(have), "x86_64")
    assert (check.state, check.name) == (state, "encoder")
    assert word in check.text


def test_vnni_is_seen_in_linux_s_words() -> None:
    assert cpu.vnni(frozenset({"avx_vnni"}))
    assert cpu.vnni(frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}))
    assert not cpu.vnni(frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}))
