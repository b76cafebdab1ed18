"""A mistyped command of the workstation is refused at once, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from export import early, vision
from export.miniature.plan import PLAN
from pulse_edge.errors import CheckpointError, KitError, UsageError

MINIATURE = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
CONVERT = {"lora": None, "vision_tower": None, "golden": (), "force": False}
QUANTIZE = {
    "llm": None,
    "size": None,
    "bpw": None,
    "vision": None,
    "key_cache_type": None,
    "stats": None,
    "golden": (),
    "force": False,
}
TRAIN = {"steps": (), "resume": False, "start": None, "signals": None}


def test_the_names_are_those_of_the_modules_that_need_torch() -> None:
    assert tuple(vision.KINDS) == early.VISION
    assert tuple(stage.name for stage in PLAN) == early.STAGES


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        ("pulse-8b", {}, UsageError, "no model 'pulse-8b'"),
        ("no/such", {}, CheckpointError, "no/such: no such directory"),
        ("FOLDER", {"lora": Path("nowhere")}, UsageError, "--lora nowhere: no such folder"),
        (
            "FOLDER",
            {"vision_tower": Path("nowhere")},
            UsageError,
            "--vision-tower nowhere: no such folder",
        ),
        ("FOLDER", {"golden": (Path("none.png"),)}, UsageError, "--golden none.png: no such file"),
        ("FOLDER", {"golden": (PAGE,) * 5}, UsageError, "at most 4"),
    ],
)
def test_arguments_that_convert_refuses_are_refused_early(
    tmp_path: Path, source: str, options: dict[str, object], error: type[Exception], words: str
) -> None:
    given = str(tmp_path) if source == "FOLDER" else source
    with pytest.raises(error, match=words):
        early.check_convert(given, tmp_path / "kit", CONVERT | options)


def test_a_target_that_exists(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="exists"):
        early.check_convert(str(tmp_path), tmp_path, CONVERT)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"llm": "Q4_K"}, UsageError, "--llm Q4_K: llama.cpp has no such type"),
        ({"llm": "Q4_K_M", "bpw": 4.0}, UsageError, "--llm and --bpw contradict"),
        ({"vision": "int4"}, UsageError, "--vision int4: expected one of fp32"),
        (
            {"key_cache_type": "q4_0"},
            UsageError,
            "--key-cache-type q4_0: expected one of f16, q8_0",
        ),
        ({}, KitError, "quantized already"),
    ],
)
def test_arguments_that_quantize_refuses_are_refused_early(
    tmp_path: Path, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        early.check_quantize(MINIATURE, tmp_path / "kit", QUANTIZE | options)


def test_a_stats_file_that_is_not_there(tiny_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--stats .*: no such file"):
        early.check_quantize(tiny_kit, tmp_path / "kit", QUANTIZE | {"stats": tmp_path / "stats"})
    early.check_quantize(
        tiny_kit, tmp_path / "kit", QUANTIZE | {"llm": "Q8_0", "vision": "int8", "golden": (PAGE,)}
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": ("towre=1",)}, "stage of tower"),
        ({"steps": ("tower=x",)}, "STAGE=N"),
        ({"resume": True}, "no training to resume"),
        ({"resume": True, "start": Path("x")}, "Give one of them"),
        ({"start": Path("nowhere")}, "--start nowhere"),
        ({"signals": Path("none.npz")}, "--signals none.npz"),
    ],
)
def test_arguments_that_train_miniature_refuses_are_refused_early(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        early.check_train(tmp_path / "out", TRAIN | options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "pulse-8b", "-o", "kit"],
        ["quantize", str(MINIATURE), "-o", "kit"],
        ["train-miniature", "-o", "out", "--steps", "towre=1"],
    ],
    ids=lambda words: words[0],
)
def test_a_mistyped_command_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.argv = ['x', *{arguments}]\n"
    code += "from export.__main__ import main\ntry: main()\n"
    code += "finally: assert not {'torch', 'transformers', 'optimum'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
