"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = {
    "scan",
    "sandbox",
    "decoder",
    "pictures",
    "whole",
    "fill",
    "pdf",
    "recording",
    "drawn",
    "waveform",
    "dicom",
    "dicom_waveform",
    "rectify",
    "upright",
    "quality",
    "tiles",
    "vision",
    "prompt",
    "llm",
    "grammar",
    "memory",
    "cgroup",
    "cpu",
    "weights",
    "report",
    "log",
    "rowcache",
    "thin",
    "speculation",
}
GROUND = {".errors", ".text", ".owned"}
HELPERS = {
    "scan": {".drawn", ".pictures", ".sandbox"},
    "sandbox": {".child"},
    "decoder": {".pictures", ".pdf", ".dicom"},
    "pictures": {".fill", ".whole"},
    "pdf": {".pictures", ".whole"},
    "dicom": {".dicom_waveform", ".pictures", ".pdf", ".waveform", ".whole"},
    "dicom_waveform": {".recording"},
    "waveform": {".drawn", ".recording"},
    "rectify": {".upright", ".waves", ".channels"},
    "quality": {".channels"},
    "upright": {".channels"},
    "memory": {".cgroup"},
    "cpu": {".cgroup"},
    "weights": {".kit"},
    "llm": {".kv_state"},
    "speculation": {".foreign_json"},
}
OF_REPORTS = {"document", "fhir", "findings"}
PICTURES = {"scan.py", "rectify.py", "upright.py", "quality.py", "waves.py", "channels.py"}
DOORS = {
    "onnxruntime": {"vision.py"},
    "llama_cpp": {"llm.py"},
    "click": {"cli.py"}
    | {
        f"cli_{name}.py"
        for name in ("ask", "batch", "bench", "cache", "check", "doctor", "interpret", "kit", "log", "options")
    },
    "rich": {"screen.py"},
    "cv2": PICTURES - {"scan.py"},
    "pypdfium2": {"pdf.py"},
    "pillow_heif": {"pictures.py"},
    "pydicom": {"dicom.py", "dicom_waveform.py"},
    "typst": {"document.py"},
}


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
        assert {n for n in names if n.startswith(".")} <= GROUND | {".child"} | HELPERS.get(file.stem, set())
    if file.stem in OF_REPORTS:
        assert {n for n in names if n.startswith(".")} <= GROUND | {".report"}
    if file.stem in ("text", "owned"):
        assert {n for n in names if n.startswith(".")} <= {".errors"}
    if file.stem in ("kit", "errors", "log", "install", "text", "owned", "sandbox", "supervisor", "whole", "drawn"):
        assert tops <= sys.stdlib_module_names
    if file.stem == "install":
        assert not any(n.startswith(".") for n in names)  # it runs alone, from the stick


@pytest.mark.parametrize(("room", "other"), [("export", "calibration"), ("calibration", "export")])
def test_export_and_calibration_do_not_know_each_other(room: str, other: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert other not in {name.split(".")[0] for name in imports(file)}


def test_the_originals_side_of_the_proof_shares_no_code_with_the_converter_or_the_runtime() -> None:
    siblings = {f".{p.stem}" for p in (ROOT / "export" / "reference").glob("*.py")} | {"."}
    libraries = {"torch", "transformers", "safetensors", "numpy", "PIL", "jinja2", "sentencepiece", "tokenizers"}
    for file in (ROOT / "export" / "reference").glob("*.py"):
        names = imports(file)
        assert {n for n in names if n.startswith(".")} <= siblings | {f".{n}" for n in ("page", "tower", "Reference")}
        others = {n for n in names if not n.startswith(".") and n.split(".")[0] not in sys.stdlib_module_names}
        assert {n.split(".")[0] for n in others} <= libraries | {"pulse_edge"}
        assert {n for n in others if n.startswith("pulse_edge")} <= {"pulse_edge.errors"}


@pytest.mark.parametrize(
    ("module", "arguments", "word"),
    [
        ("pulse_edge.cli", ["--help"], "interpret"),
        ("pulse_edge.cli", ["interpret", "--help"], "--question"),
        ("pulse_edge.cli", ["batch", "--help"], "--watch"),
        ("pulse_edge.cli", ["doctor", "--help"], "--json"),
        ("pulse_edge.cli", ["log", "verify", "--help"], "--expect"),
        ("export.__main__", ["convert", "--help"], "--lora"),
        ("calibration.__main__", ["evaluate", "--help"], "--split"),
        ("calibration.__main__", ["report", "--help"], "--attach"),
    ],
)
def test_help_loads_no_engine(module: str, arguments: list[str], word: str) -> None:
    code = f"import sys; sys.argv = ['x', *{arguments}]; from {module} import main\ntry: main()\nfinally: "
    code += "assert not {'numpy', 'onnxruntime', 'llama_cpp', 'rich', 'cv2', 'PIL', 'torch', 'typst', 'sqlite3'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
