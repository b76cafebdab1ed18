"""The examples of docs/python-api.md run, one after the other, on the demo kit."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

import pulse_edge
from pulse_edge.common.paths import ASSETS, EXAMPLE_PAGE

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "python-api.md").read_text("utf-8"), re.M | re.S
)


def test_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(EXAMPLE_PAGE, tmp_path / "scan.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULSE_EDGE_KIT", str(ASSETS / "kits" / "miniature"))
    names: dict[str, Any] = {}
    outputs = []
    for example in EXAMPLES:
        exec(example, names)
        outputs.append(capsys.readouterr().out)
    assert all(outputs)
    assert sorted(path.suffix for path in (tmp_path / "reports").iterdir()) == [".html", ".json"]
    assert outputs[3].split()[1] == "bpm"  # the measured rate
    assert outputs[5] == "1\n"  # entries of the audit log
    assert outputs[6].startswith("Confirmed without change by Dr Amina Diallo, ")
    assert outputs[7].startswith("1 nowhere.png")


def test_public_names_exist() -> None:
    assert all(getattr(pulse_edge, name) for name in pulse_edge.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Model'"):
        _ = pulse_edge.Model  # type: ignore[attr-defined]
