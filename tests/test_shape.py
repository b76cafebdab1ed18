"""The code stays in pieces that a person reads in one sitting, without circles of imports."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest
from checkout import ROOT

FOLDERS = ("pulse_edge", "export", "calibration", "benchmarks", "scripts", "tests")
MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 450, 60, 8
FILES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_and_functions_are_short(folder: str) -> None:
    long = []
    for path in (p for p in FILES if p.is_relative_to(ROOT / folder)):
        text = path.read_text("utf-8")
        if text.count("\n") > MAX_MODULE_LINES:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = node.args
            names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            parameters = [n for n in names if n.arg not in ("self", "cls")]
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                long.append(f"{path}:{node.lineno}: {lines} lines")
            if len(parameters) > MAX_PARAMETERS and folder != "tests":  # fixtures are parameters
                long.append(f"{path}:{node.lineno}: {len(parameters)} parameters")
    assert long == []


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """Names of our modules that a module imports anywhere, but for type checking only."""
    names = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            names.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{a.name}" for a in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return {name for name in names if name in modules}


def test_no_modules_import_one_another_in_a_circle() -> None:
    packages = [ROOT / folder for folder in ("pulse_edge", "export", "calibration")]
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): p
        for package in packages
        for p in package.rglob("*.py")
        if p.name not in ("__init__.py", "__main__.py")
    }
    graph = {name: imported(path, modules) - {name} for name, path in modules.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
