"""Folders that are given by mistake, and files that lie about their sizes: one sentence, before
anything is written."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export import convert as module
from export.convert import Options, convert
from pulse_edge.errors import CheckpointError

SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
TOWER = "model.vision_tower.vision_tower."


@pytest.fixture
def source(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))


def refused(source: Path, words: str, **options: Any) -> None:
    target = source.parent / "out" / "kit"
    with pytest.raises(CheckpointError, match=words) as caught:
        convert(source, target, Options(**options))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not target.parent.exists()


def configured(source: Path, **fields: Any) -> Path:
    raw = json.loads((source / "config.json").read_text()) | fields
    (source / "config.json").write_text(json.dumps(raw))
    return source


def with_tensors(source: Path, change: Any) -> Path:
    save_file(change(load_file(source / SHARD)), source / SHARD)
    (source / INDEX).unlink()
    return source


def without_weights(source: Path) -> Path:
    for name in (SHARD, INDEX):
        (source / name).unlink()
    return source


# --- quantized ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "AWQ"),
        ({"quant_method": "fp8"}, "float8"),
        ({"quant_method": "new"}, "quantization_config of config.json, method 'new'"),
    ],
)
def test_a_quantized_checkpoint_is_named_by_its_config(
    source: Path, settings: dict[str, Any], method: str
) -> None:
    words = (
        rf"is quantized \({method}\)\. Give the float16, bfloat16 or float32 checkpoint that it "
        "was made of"
    )
    refused(configured(source, quantization_config=settings), words)


@pytest.mark.parametrize(
    ("name", "method"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")]
)
def test_a_quantized_checkpoint_is_named_by_its_files(source: Path, name: str, method: str) -> None:
    (source / name).write_text("{}")
    refused(source, rf"is quantized \({method}\)")


@pytest.mark.parametrize(
    ("ending", "method"),
    [
        ("qweight", "GPTQ or AWQ"),
        ("weight.absmax", r"bitsandbytes \(4 bits\)"),
        ("weight.quant_state.bitsandbytes__nf4", r"bitsandbytes \(4 bits\)"),
        ("SCB", r"bitsandbytes \(8 bits\)"),
        ("weight_scale_inv", "float8 or int8"),
    ],
)
def test_a_quantized_checkpoint_is_named_by_its_tensors(
    source: Path, ending: str, method: str
) -> None:
    name = f"model.layers.0.mlp.up_proj.{ending}"
    with_tensors(source, lambda tensors: tensors | {name: torch.zeros(4, dtype=torch.uint8)})
    refused(source, rf"is quantized \({method}: it has {name}\)\. Give the float16")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_data_type_that_is_no_weight_s_is_named(
    source: Path, dtype: torch.dtype, pickled: bool
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n: t.to(dtype) if n.endswith("o_proj.weight") else t for n, t in tensors.items()}

    with_tensors(source, change)
    if pickled:
        torch.save(load_file(source / SHARD), source / "pytorch_model.bin")
        (source / SHARD).unlink()
    kind = str(dtype).removeprefix("torch.")
    refused(
        source,
        rf"o_proj.weight and \d+ others have the data type {kind}, so the checkpoint is quantized "
        "or damaged",
    )


# --- unfinished -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "is an adapter and no model.*with --lora",
        ),
        (["mm_projector.bin"], "is a projector and no model.*with --lora"),
        (
            ["global_step9/mp_rank_00_model_states.pt", "latest"],
            "shards of a training under DeepSpeed.*zero_to_fp32",
        ),
        (
            ["zero_pp_rank_0_mp_rank_00_optim_states.pt"],
            "shards of a training under DeepSpeed.*zero_to_fp32",
        ),
        (["pytorch_model_fsdp_0/__0_0.distcp"], "shards of a training under FSDP.*merge-weights"),
        (["model-q4.gguf"], "GGUF file, which llama.cpp has converted already"),
        (["consolidated.00.pth"], "in their trainer's own format"),
        (["flax_model.msgpack"], "for TensorFlow or Flax"),
        (
            ["optimizer.pt", "scheduler.pt", "training_args.bin"],
            "state of a training and no weights",
        ),
        ([], r"no \*\.safetensors and no pytorch_model\*\.bin"),
    ],
)
def test_a_folder_without_a_model_is_named_with_what_to_give(
    source: Path, files: list[str], words: str
) -> None:
    without_weights(source)
    for name in files:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    refused(source, words)


def test_a_model_with_an_adapter_in_its_folder_is_refused(source: Path) -> None:
    (source / "adapter_config.json").write_text("{}")
    refused(source, "holds a model and an adapter.*with --lora")


def test_a_model_beside_a_training_s_state_is_no_mistake(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "optimizer.pt").write_bytes(b"x")
    (source / "global_step9").mkdir()

    def stop(*_arguments: object) -> None:
        raise LookupError("accepted")

    monkeypatch.setattr(module, "_check_room", stop)
    with pytest.raises(LookupError, match="accepted"):
        convert(source, source.parent / "kit", Options())


def test_weights_that_deepspeed_left_empty_are_named(source: Path) -> None:
    with_tensors(source, lambda tensors: tensors | {"model.norm.weight": torch.zeros(0)})
    refused(source, "model.norm.weight is empty, as a training under DeepSpeed ZeRO-3 saves it")


def test_a_git_lfs_pointer_is_named(source: Path) -> None:
    (source / SHARD).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    refused(source, rf"{SHARD} is a Git LFS pointer, not the file. Run `git lfs pull`")


def test_pytorch_s_old_format_is_named(source: Path) -> None:
    tensors = load_file(source / SHARD)
    torch.save(
        tensors, without_weights(source) / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )
    refused(
        source,
        "pytorch_model.bin is in PyTorch's format from before version 1.6. Save it again as "
        "safetensors",
    )


@pytest.mark.parametrize(
    ("name", "words"), [("config.json", "is a file"), ("none", "there is no such folder")]
)
def test_anything_but_a_folder_is_refused(source: Path, name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        convert(source / name, source.parent / "kit", Options())


# --- the vision tower -----------------------------------------------------------------------------


@pytest.fixture
def tower(source: Path, tmp_path: Path) -> Path:
    """The tower's own folder, with description and weights."""
    out = Path(shutil.copytree(source / "vision_tower", tmp_path / "clip"))
    tensors = load_file(source / SHARD)
    save_file(
        {n.removeprefix(TOWER): t for n, t in tensors.items() if n.startswith(TOWER)},
        out / "model.safetensors",
    )
    return out


def accepted(source: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    checkpoints = []

    def stop(checkpoint: object, *_arguments: object) -> None:
        checkpoints.append(checkpoint)
        raise LookupError("accepted")

    monkeypatch.setattr(module, "_check_room", stop)
    with pytest.raises(LookupError, match="accepted"):
        convert(source, source.parent / "kit", Options(**options))
    return checkpoints[0]


def test_a_tower_that_is_inside_and_described_needs_no_folder(source: Path, tower: Path) -> None:
    refused(
        source,
        "carries its own vision tower and its description.*leave --vision-tower out",
        vision_tower=tower,
    )


@pytest.mark.parametrize("weights", [True, False])
def test_a_tower_that_is_inside_and_not_described_takes_the_description_alone(
    source: Path, tower: Path, monkeypatch: pytest.MonkeyPatch, weights: bool
) -> None:
    """A trainer's own path stands in the config. What the message asks for is then what helps."""
    configured(source, mm_vision_tower="/mnt/trainer/clip")
    refused(
        source,
        "'/mnt/trainer/clip' is neither built in nor a folder.*Give its folder with --vision-tower",
    )
    other = load_file(tower / "model.safetensors")
    save_file({n: t * 0 for n, t in other.items()}, tower / "model.safetensors")
    if not weights:
        (tower / "model.safetensors").unlink()
    checkpoint = accepted(source, monkeypatch, vision_tower=tower)
    assert "of clip only the description" in checkpoint.notes[0]
    name = TOWER + "vision_model.embeddings.class_embedding"
    assert torch.equal(checkpoint.tensor(name), load_file(source / SHARD)[name])


def test_a_tower_that_is_elsewhere_is_given(
    source: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tensors(
        source, lambda tensors: {n: t for n, t in tensors.items() if not n.startswith(TOWER)}
    )
    refused(source, "has no vision tower.*with its config.json and weights, with --vision-tower")
    refused(source, "holds no weights either", vision_tower=source / "vision_tower")
    refused(
        source, "has no config.json. Give the folder of the CLIP model", vision_tower=source.parent
    )
    refused(source, "is no folder. Give the folder of the CLIP model", vision_tower=source / "none")
    assert accepted(source, monkeypatch, vision_tower=tower).notes == ()


# --- files that lie -------------------------------------------------------------------------------


class Runs:
    """A pickle that would make a file when it is read as pickles are."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, ("ran", "w"))


def archive(pickled: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, content in entries.items():
            file.writestr(name, content)
    return out.getvalue()


SPARSE = torch.zeros(2, 2).to_sparse()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: archive(pickle.dumps({"a": Runs()}, 2)), "not a plain PyTorch file of tensors"),
        (lambda: pickle.dumps({"a": Runs()}, 2), "from before version 1.6"),
        (
            lambda: archive(pickle.dumps({}, 2), **{"../../slip": b"x"}),
            "not a plain PyTorch file of tensors",
        ),
        (lambda: archive(bytes(100 << 20), zipfile.ZIP_DEFLATED), "states other sizes"),
        (
            lambda: archive(b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b"."),
            "not a plain PyTorch file of tensors",
        ),
        (lambda: archive(b"\x80\x02]."), "not a plain PyTorch file|other things than tensors"),
        (lambda: bytes(range(256)) * 20, "truncated or no PyTorch file"),
        (lambda: b"", "truncated or no PyTorch file"),
        (lambda: b"PK" + bytes(50), "truncated or no PyTorch file"),
    ],
)
def test_a_pickle_that_lies_runs_nothing_and_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (without_weights(source) / "pytorch_model.bin").write_bytes(content())
    refused(source, words)
    assert not list(tmp_path.rglob("ran"))
    assert not list(tmp_path.rglob("slip"))


def test_a_pytorch_file_of_sparse_tensors_is_refused(source: Path) -> None:
    torch.save({"model.norm.weight": SPARSE}, without_weights(source) / "pytorch_model.bin")
    refused(source, "holds other things than tensors")


def header(source: Path, change: Any) -> Path:
    raw = (source / SHARD).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    head = change(json.loads(raw[8 : 8 + size]))
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    (source / SHARD).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
    return source


def first_as(**fields: Any) -> Any:
    def change(head: dict[str, Any]) -> dict[str, Any]:
        name = next(n for n in head if n != "__metadata__")
        return head | {name: head[name] | fields}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first_as(shape=[1 << 40, 1 << 40]), "truncated or no safetensors file"),
        (first_as(shape=[1 << 40, 1]), "truncated or no safetensors file"),
        (first_as(data_offsets=[0, 2]), "truncated or no safetensors file"),
        (first_as(dtype="F7"), "truncated or no safetensors file"),
        (
            lambda head: b"{" + b" " * (9 << 20) + json.dumps(head).encode()[1:],
            "has a header of .* most allowed",
        ),
        (lambda _head: b"[" * 100_000, "truncated or no safetensors file"),
        (lambda _head: b"\xff\xfe", "truncated or no safetensors file"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(source: Path, change: Any, words: str) -> None:
    refused(header(source, change), words)


def test_a_safetensors_header_longer_than_its_file_is_refused(source: Path) -> None:
    raw = (source / SHARD).read_bytes()
    (source / SHARD).write_bytes(struct.pack("<Q", 1 << 63) + raw[8:])
    refused(source, r"truncated or no safetensors file \(a header of 9223372036854775808 bytes\)")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000, and there are .* tensors"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"num_attention_heads": 0}, "num_attention_heads|not valid"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"rope_theta": 1e308}, r"rope_theta is 1e\+308"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        (
            {"image_grid_pinpoints": [[28_000_000, 28_000_000]]},
            "image_grid_pinpoints has 28000000 x 28000000",
        ),
        ({"image_grid_pinpoints": "[" * 100_000}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": "-" * 100_000 + "1"}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": "1" + "+1" * 50_000}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": "__import__('os').getpid()"}, "image_grid_pinpoints is"),
        ({"image_grid_pinpoints": "9**9**9**9"}, "image_grid_pinpoints is"),
        ({"architectures": ["\x1b[2Jevil"]}, r"architecture '\\x1b\[2Jevil'"),
    ],
)
def test_a_config_that_lies_is_refused(source: Path, fields: dict[str, Any], words: str) -> None:
    refused(configured(source, **fields), words)


def test_a_config_nested_without_end_is_refused(source: Path) -> None:
    (source / "config.json").write_text('{"a":' * 100_000)
    refused(source, "config.json: nested too deeply")


def test_pinpoints_in_llava_s_string_form_are_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = json.loads((source / "config.json").read_text())["image_grid_pinpoints"]
    text = str([tuple(point) for point in listed])
    checkpoint = accepted(configured(source, image_grid_pinpoints=text), monkeypatch)
    assert checkpoint.config.pinpoints == tuple(tuple(point) for point in listed)
