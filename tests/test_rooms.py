"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = {"scan", "tiles", "vision", "prompt", "llm", "memory", "report"}
DOORS = {"onnxruntime": {"vision.py"}, "llama_cpp": {"llm.py"}, "click": {"cli.py"}, "rich": {"cli.py"}}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            found |= {dots + (node.module or alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("file", sorted((ROOT / "pulse_edge").glob("*.py")), ids=lambda p: p.name)
def test_a_room_of_the_laptop_imports_only_what_it_may(file: Path) -> None:
    names = imports(file)
    tops = {name.split(".")[0] for name in names if not name.startswith(".")}
    assert not tops & {"torch", "transformers", "optimum", "onnx", "gguf", "export", "calibration"}
    for engine, rooms in DOORS.items():
        assert engine not in tops or file.name in rooms
    if file.stem in STAGES:
        assert {n for n in names if n.startswith(".")} <= {".errors"}
    if file.stem in ("kit", "errors"):
        assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize(("room", "other"), [("export", "calibration"), ("calibration", "export")])
def test_export_and_calibration_do_not_know_each_other(room: str, other: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert other not in {name.split(".")[0] for name in imports(file)}


@pytest.mark.parametrize(
    ("module", "arguments", "word"),
    [
        ("pulse_edge.cli", ["--help"], "interpret"),
        ("pulse_edge.cli", ["interpret", "--help"], "--question"),
        ("export.__main__", ["convert", "--help"], "--lora"),
        ("calibration.__main__", ["evaluate", "--help"], "--split"),
        ("calibration.__main__", ["report", "--help"], "--attach"),
    ],
)
def test_help_loads_no_engine(module: str, arguments: list[str], word: str) -> None:
    code = f"import sys; sys.argv = ['x', *{arguments}]; from {module} import main\ntry: main()\nfinally: "
    code += "assert not {'numpy', 'onnxruntime', 'llama_cpp', 'rich', 'cv2', 'PIL', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
