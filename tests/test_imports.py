"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from checkout import ROOT

PACKAGE = ROOT / "pulse_edge"
ENGINES = {
    "onnxruntime": {"inference/vision_encoder.py"},
    "llama_cpp": {"inference/llama_cpp.py"},
    "click": {"cli"},
    "rich": {"cli/console.py"},
    "cv2": {"page", "measurement"},
    "pypdfium2": {"page/pdf.py"},
    "pillow_heif": {"page/pictures.py"},
    "pydicom": {"page/dicom.py", "page/dicom_waveform.py"},
    "typst": {"report/pdf.py"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "python_multipart": {"web"},
    "jinja2": {"web"},
    "segno": {"web"},
    "cryptography": {"web", "deploy"},
}
"""Library -> the packages or modules that may import it."""
WORKSTATION = {"torch", "transformers", "optimum", "onnx", "gguf", "export", "calibration"}
STANDARD_LIBRARY = (
    "common",
    "kit",
    "installer",
    "audit_log",
    "errors.py",
    "page/decoder_client.py",
    "page/truncation.py",
)
"""Packages and modules that import nothing but the standard library and this program."""


def imports(file: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            names |= {dots + (node.module or alias.name) for alias in node.names}
    return names


def imported_names(file: Path) -> set[str]:
    """As `imports`, with `from package import name` as `package.name`."""
    names = imports(file) - {"calibration"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "calibration":
            names |= {f"calibration.{alias.name}" for alias in node.names}
    return names


def inside(name: str, places: Iterable[str]) -> bool:
    """Whether a module's path below the package lies in one of some packages or modules."""
    return any(name == place or name.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize(
    "name", sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))
)
def test_a_module_imports_only_the_libraries_of_its_package(name: str) -> None:
    libraries = {n.split(".")[0] for n in imports(PACKAGE / name) if not n.startswith(".")}
    assert not libraries & WORKSTATION
    assert not {
        engine
        for engine, places in ENGINES.items()
        if engine in libraries and not inside(name, places)
    }
    if inside(name, STANDARD_LIBRARY) and name != "common/arrays.py":  # names of NumPy's types
        assert libraries <= sys.stdlib_module_names | {"pulse_edge"}
    if inside(name, ["installer"]):
        assert not any(
            n.startswith("pulse_edge.") and "installer" not in n for n in imports(PACKAGE / name)
        )


SHARED = ("calibration.synthetic", "calibration.statistics_file")
"""Modules of `calibration` that `export` may import; they need neither torch nor an engine."""


def test_calibration_does_not_import_export() -> None:
    for file in (ROOT / "calibration").rglob("*.py"):
        assert "export" not in {name.split(".")[0] for name in imports(file)}


def test_export_imports_of_calibration_only_the_shared_modules() -> None:
    for file in (ROOT / "export").rglob("*.py"):
        names = {name for name in imported_names(file) if name.startswith("calibration.")}
        assert {n for n in names if not n.startswith(SHARED)} == set(), file


def test_the_originals_side_of_the_proof_shares_no_code_with_the_converter_or_the_runtime() -> None:
    siblings = {f".{p.stem}" for p in (ROOT / "export" / "reference").glob("*.py")} | {"."}
    libraries = {
        "torch",
        "transformers",
        "safetensors",
        "numpy",
        "PIL",
        "jinja2",
        "sentencepiece",
        "tokenizers",
    }
    for file in (ROOT / "export" / "reference").glob("*.py"):
        names = imports(file)
        assert {n for n in names if n.startswith(".")} <= siblings | {
            f".{n}" for n in ("page", "tower", "Reference")
        }
        others = {
            n
            for n in names
            if not n.startswith(".") and n.split(".")[0] not in sys.stdlib_module_names
        }
        assert {n.split(".")[0] for n in others} <= libraries | {"pulse_edge"}
        assert {n for n in others if n.startswith("pulse_edge")} <= {"pulse_edge.errors"}


HEAVY = {"numpy", "onnxruntime", "llama_cpp", "rich", "cv2", "PIL", "torch", "typst", "sqlite3"}
HEAVY |= {"starlette", "uvicorn"}
"""Libraries that `--help` does not wait for."""


@pytest.mark.parametrize(
    ("module", "arguments", "word"),
    [
        ("pulse_edge.cli.main", ["--help"], "interpret"),
        ("pulse_edge.cli.main", ["interpret", "--help"], "--question"),
        ("pulse_edge.cli.main", ["batch", "--help"], "--watch"),
        ("pulse_edge.cli.main", ["doctor", "--help"], "--json"),
        ("pulse_edge.cli.main", ["serve", "--help"], "--port"),
        ("pulse_edge.cli.main", ["audit", "verify", "--help"], "--expect"),
        ("export.__main__", ["convert", "--help"], "--lora"),
        ("calibration.__main__", ["evaluate", "--help"], "--split"),
        ("calibration.__main__", ["report", "--help"], "--attach"),
    ],
)
def test_help_loads_no_engine(module: str, arguments: list[str], word: str) -> None:
    code = f"import sys; sys.argv = ['x', *{arguments}]; from {module} import main\ntry: main()\nfinally: "
    code += f"assert not {HEAVY} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
