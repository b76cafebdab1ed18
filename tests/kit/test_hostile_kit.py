"""A kit from a stranger: claims that cannot be right, headers that make llama.cpp abort, state
files of another shape.

What could end the process runs in a child, so that a fault shows as a failed test.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pulse_edge import PulseModel
from pulse_edge.common import paths
from pulse_edge.errors import EngineError, KitError
from pulse_edge.inference import kv_state, language_model
from pulse_edge.inference.vision_encoder import VisionEncoder
from pulse_edge.kit import gguf_header
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.manifest_reader import parse_manifest
from pulse_edge.kit.verify import verify

MINIATURE = open_kit(paths.ASSETS / "kits" / "miniature")
MANIFEST = json.loads((MINIATURE.path / "manifest.json").read_text())
BIG = 10**30


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("vision.std", [0.0, 1.0, 1.0], "vision.std"),
        ("vision.std", [1e-45, 1.0, 1.0], "vision.std"),
        ("vision.mean", [1e39, 0.0, 0.0], "vision.mean"),
        ("vision.image_size", 0, "vision.image_size is 0"),
        ("vision.image_size", BIG, "a number beyond"),
        ("vision.patches_per_side", 0, "vision.patches_per_side is 0"),
        ("vision.patches_per_side", 5, "does not divide"),
        ("packing.grid_pinpoints", [[0, 0]], "grid_pinpoints has 0 x 0"),
        ("packing.grid_pinpoints", [[-336, -336]], "grid_pinpoints has -336"),
        ("packing.grid_pinpoints", [[336 * 300, 336 * 300]], "at most 36 tiles"),
        ("language.context_length", -1, "context_length is -1"),
        ("language.context_length", 2**40, "context_length is a number beyond"),
        ("language.layers", -5, "layers is -5"),
        ("language.embedding_length", 0, "embedding_length is 0"),
        ("prompt.max_tokens", -1, "max_tokens is -1"),
        ("prompt.max_tokens", BIG, "max_tokens"),
        ("prompt.before", "x" * 1_000_000, "prompt.before"),
        ("prompt.after", "\x1b[31m{question}", "prompt.after"),
        ("prompt.template", "\x1b]0;x\x07", "prompt.template"),
        ("id", "\x1b[2J good kit\nOK", "id holds characters"),
        ("id", "\ud800", "id holds characters"),
    ],
)
def test_an_impossible_manifest_field_is_refused_by_name(
    field: str, value: object, words: str
) -> None:
    raw = json.loads(json.dumps(MANIFEST))
    *way, last = field.split(".")
    part: Any = raw
    for step in way:
        part = part[step]
    part[last] = value
    with pytest.raises(KitError, match=r"^here: .*Copy the kit again") as error:
        parse_manifest(json.dumps(raw), "here")
    assert words in str(error.value)
    assert len(str(error.value)) < 400
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"image_size":', '"image_size": NaN, "x":', "NaN is no number"),
        ('"mean": [', '"mean": [Infinity, ', "Infinity is no number"),
        (
            '"manifest_version": 1,',
            '"manifest_version": 1, "demonstration": true,',
            "stands there twice",
        ),
        (
            '"parity": {',
            '"parity": {"deep": ' + "[" * 100_000 + "]" * 100_000 + ", ",
            "nested too deeply",
        ),
        ('"image_size": ', '"image_size": ' + "9" * 5000, "a number has 5,003 digits"),
        ('"files": {', '"files": {"a\\u0000b": {"bytes": 1, "sha256": "x"},', "is not allowed"),
        (
            '"files": {',
            '"files": {"' + "a" * 5000 + '": {"bytes": 1, "sha256": "x"},',
            "is not allowed",
        ),
        ('"files": {', '"files": {"../x": {"bytes": 1, "sha256": "x"},', "is not allowed"),
    ],
)
def test_broken_json_is_refused_in_one_sentence(old: str, new: str, words: str) -> None:
    text = (MINIATURE.path / "manifest.json").read_text()
    assert old in text
    with pytest.raises(KitError) as error:
        parse_manifest(text.replace(old, new, 1), "here")
    assert words in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["manifest.json", "MODEL_CARD.md"])
def test_a_pipe_in_a_kit_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    kit = Path(shutil.copytree(MINIATURE.path, tmp_path / "kit"))
    (kit / name).unlink()
    os.mkfifo(kit / name)
    with pytest.raises(KitError, match="no regular file"):
        open_kit(kit)


def test_a_link_to_a_file_outside_the_kit_is_refused_though_its_hash_is_right(
    tmp_path: Path,
) -> None:
    kit = Path(shutil.copytree(MINIATURE.path, tmp_path / "kit"))
    (kit / "MODEL_CARD.md").rename(tmp_path / "outside.md")
    (kit / "MODEL_CARD.md").symlink_to(tmp_path / "outside.md")
    with pytest.raises(KitError, match=r"MODEL_CARD\.md is a link to a file outside the kit"):
        open_kit(kit)
    (tmp_path / "linked").symlink_to(kit)  # a kit's folder may be a link
    (kit / "MODEL_CARD.md").unlink()
    (tmp_path / "outside.md").rename(kit / "MODEL_CARD.md")
    verify(open_kit(tmp_path / "linked"))


def test_a_device_and_a_manifest_without_end_are_refused(tmp_path: Path) -> None:
    for number, make in enumerate(
        (lambda p: p.symlink_to("/dev/zero"), lambda p: os.truncate(_touched(p), 40 << 30))
    ):
        kit = tmp_path / str(number)
        kit.mkdir()
        make(kit / "manifest.json")
        with pytest.raises(KitError, match=r"regular file|are the limit"):
            open_kit(kit)


def _touched(path: Path) -> Path:
    path.touch()
    return path


# --- GGUF headers ---------------------------------------------------------------------------------


def scalar(data: bytes, key: str) -> int:
    """Where the value of a metadata key stands."""
    return data.index(key.encode()) + len(key) + 4


def with_value(key: str, form: str, value: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, scalar(bytes(data), key), value)

    return change


def doubled_token(data: bytearray) -> None:
    """The first token of two bytes becomes the second one."""
    at = data.index(b"tokenizer.ggml.tokens") + 21 + 4 + 4 + 8
    by_size: dict[int, bytes] = {}
    while True:
        (size,) = struct.unpack_from("<Q", data, at)
        token = bytes(data[at + 8 : at + 8 + size])
        if size in by_size:
            data[at + 8 : at + 8 + size] = by_size[size]
            return
        by_size[size] = token
        at += 8 + size


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_value("llama.block_count", "<I", 3000), id="layers"),
        pytest.param(with_value("llama.block_count", "<I", 3), id="fewer layers"),
        pytest.param(with_value("llama.block_count", "<I", 2**32 - 1), id="most layers"),
        pytest.param(
            with_value("llama.attention.layer_norm_rms_epsilon", "<f", float("nan")), id="epsilon"
        ),
        pytest.param(
            with_value("llama.attention.layer_norm_rms_epsilon", "<f", -1.0), id="negative epsilon"
        ),
        pytest.param(with_value("llama.rope.freq_base", "<f", float("inf")), id="rope"),
        pytest.param(with_value("llama.attention.head_count", "<I", 0), id="no heads"),
        pytest.param(
            with_value("llama.attention.head_count", "<I", 7), id="heads that do not divide"
        ),
        pytest.param(with_value("llama.embedding_length", "<I", 0), id="no width"),
        pytest.param(doubled_token, id="doubled token"),
        pytest.param(lambda data: struct.pack_into("<Q", data, 8, 2**63), id="tensors"),
        pytest.param(lambda data: struct.pack_into("<Q", data, 16, 2**63), id="entries"),
    ],
)
def test_a_header_that_would_abort_the_process_is_refused_before(
    tmp_path: Path, change: Callable[[bytearray], None]
) -> None:
    data = bytearray(MINIATURE.file("llm.gguf").read_bytes())
    change(data)
    path = tmp_path / "llm.gguf"
    path.write_bytes(data)
    with pytest.raises(KitError, match=r"llm\.gguf: its header .*Copy the kit again"):
        gguf_header.read(path)


@pytest.mark.parametrize(
    "name", ["layers", "vocabulary", "embedding_length", "key_value_length", "context_length"]
)
def test_a_manifest_that_does_not_fit_its_model_is_refused_before_loading(
    tmp_path: Path, name: str
) -> None:
    kit = Path(shutil.copytree(MINIATURE.path, tmp_path / "kit"))
    raw = json.loads((kit / "manifest.json").read_text())
    raw["language"][name] *= 2
    (kit / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(KitError, match=r"llm\.gguf: .*the manifest says"):
        PulseModel.load(kit, device="cpu")


def test_an_encoder_of_another_shape_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    kit = Path(shutil.copytree(MINIATURE.path, tmp_path / "kit"))
    raw = json.loads((kit / "manifest.json").read_text())
    raw["vision"]["patches_per_side"] //= 2
    (kit / "manifest.json").write_text(json.dumps(raw))
    page = paths.EXAMPLE_PAGE
    with (
        PulseModel.load(kit, device="cpu") as model,
        pytest.raises(KitError, match="numbers a tile"),
    ):
        model.encode(page)


@pytest.mark.parametrize("where", ["../outside.data", "/outside.data"])
def test_weights_outside_the_kits_folder_are_refused(where: str, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(MINIATURE.path, tmp_path / "kit"))
    (kit / "vision.onnx.data").rename(tmp_path / "outside.data")
    model = onnx.load(kit / "vision.onnx", load_external_data=False)
    for entry in (
        e for tensor in model.graph.initializer for e in tensor.external_data if e.key == "location"
    ):
        entry.value = where if where.startswith("..") else str(tmp_path / "outside.data")
    (kit / "vision.onnx").write_bytes(model.SerializeToString())
    encoder = VisionEncoder(kit / "vision.onnx", device="cpu", threads=1)
    with (
        closing(encoder),
        pytest.raises(
            EngineError, match=r"vision\.onnx: takes its weights from outside the kit's folder"
        ),
    ):
        encoder.ready()


# --- state of the KV cache ------------------------------------------------------------------------

LOAD = """
import sys
from pathlib import Path
from pulse_edge.inference import language_model as llm
model = llm.LanguageModel(Path(sys.argv[1]), llm.Settings(context=512, threads=1))
print([model.load(Path(path), "k") for path in sys.argv[2:]])
"""


def saved(
    folder: Path, keys: str, cells: int = 40, flash: bool = False
) -> tuple[language_model.LanguageModel, Path]:
    """A model, and the state that it wrote behind `cells` image tokens."""
    path = MINIATURE.file("llm.gguf")
    model = language_model.LanguageModel(
        path,
        language_model.Settings(context=512, threads=1, key_cache_type=keys, flash_attention=flash),
    )
    model.prefill("k", "hello", np.zeros((cells, model.embedding_length), np.float32))
    model.save(folder / "good")
    return model, folder / "good"


@pytest.mark.parametrize(("keys", "flash"), [("f16", False), ("q8_0", False), ("f16", True)])
@pytest.mark.parametrize("cells", [1, 300])
def test_a_saved_kv_state_fits_and_loads(
    tmp_path: Path, keys: str, flash: bool, cells: int
) -> None:
    model, path = saved(tmp_path, keys, cells, flash)
    position = model.position
    model.clear()
    assert model.load(path, "k")
    assert model.position == position
    model.close()


def test_a_kv_state_of_another_shape_never_reaches_llama_cpp(tmp_path: Path) -> None:
    model, good = saved(tmp_path, "f16")
    model.close()
    data = good.read_bytes()
    files = []
    for n in (
        *range(0, 700, 12),
        5000,
        len(data) // 2,
        len(data) - 1,
    ):  # cut, or a number of the head is another
        (cut := tmp_path / f"cut-{n}").write_bytes(data[:n])
        files.append(cut)
    # 28 bytes of head, 44 cells of 12, 8 bytes, then the first layer's type and row size
    for at in (*range(0, 28, 4), 28, 36, 40, 28 + 12 * 43, 556, 560, 564, 568, 572):
        for value in (2**31 - 1, -1, 7):
            changed = bytearray(data)
            struct.pack_into("<i", changed, at, value)
            (file := tmp_path / f"changed-{at}-{value}").write_bytes(changed)
            files.append(file)
    (longer := tmp_path / "longer").write_bytes(data + b"x")
    arguments = [MINIATURE.file("llm.gguf"), *files, longer, good]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *bad, last = json.loads(done.stdout.lower())
    assert last is True
    assert not any(bad)


def test_a_kv_state_with_another_last_position_does_not_fit(tmp_path: Path) -> None:
    model, good = saved(tmp_path, "f16")
    shape = kv_state.Shape(4, 256, "f16", True)
    assert kv_state.fits(good, shape, model.position, model.cells)
    assert not kv_state.fits(good, shape, model.position + 1, model.cells)
    model.close()
