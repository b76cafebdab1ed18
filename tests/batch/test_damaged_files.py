"""Damaged files through a batch: an answer or a reason for each.

benchmarks/fuzz.py does it with a thousand files and a kit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batches import report

from pulse_edge.batch import source_files
from pulse_edge.batch import work as batch_work
from pulse_edge.batch.store import Store
from pulse_edge.batch.work import Work
from pulse_edge.measurement import admission
from pulse_edge.report.report import Report

for _module in ("pydicom", "pypdfium2", "pillow_heif"):
    pytest.importorskip(_module)


def test_damaged_files_of_every_kind_have_an_answer_or_a_reason(tmp_path: Path) -> None:
    from benchmarks import fuzz

    (tmp_path / "pages").mkdir()
    for name, data in fuzz.files(57, seed=1):
        (tmp_path / "pages" / name).write_bytes(data)

    def answer(page: Any) -> Report:
        admission.admit(page, straighten=True, force=False)
        return report(page.name)

    with Store(tmp_path / "out", {}) as store:
        store.add(source_files.files([str(tmp_path / "pages")], tmp_path / "out"))
        batch_work.run(store, Work(answer, *[lambda *_a: None] * 3))
        store.export()
        assert store.counts().waiting == 0
    results = [
        json.loads(line)
        for line in (tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()
    ]
    assert len({Path(r["file"].split("#")[0]).name for r in results}) == 57
    assert not [r for r in results if "the program failed" in (r.get("error") or "")]
    whole = [r for r in results if Path(r["file"].split("#")[0]).name[3] == "9"]
    assert sum("error" not in r for r in whole) >= 4  # good pages among them are answered
