"""The measurement against llama.cpp's own programs compares the same things, and measures once."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT

sys.path[:0] = [str(ROOT / "benchmarks")]
import laptop  # noqa: E402
import laptop_table  # noqa: E402

SPEC = importlib.util.find_spec("llama_cpp")
LLAMA_CPP = Path(SPEC.origin or "").parent if SPEC else Path()
PARTS = [sys.executable, str(ROOT / "benchmarks" / "laptop_parts.py")]


@pytest.mark.skipif(
    not list((LLAMA_CPP / "lib").glob("*mtmd*")),
    reason="llama-cpp-python was built without libmtmd, which only this comparison needs",
)
def test_llama_cpp_encodes_a_tile_as_the_kit_does(
    tiny_kit: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    mmproj = tmp_path / "mmproj.gguf"
    subprocess.run([*PARTS, "mmproj", tiny_checkpoint, mmproj], check=True)
    for who, other in (("ours", ()), ("clip", (mmproj,))):
        command = [*PARTS, "encoder", tmp_path / f"encoder-{who}.json", tiny_kit, "1", who, *other]
        subprocess.run(command, check=True, capture_output=True)
    assert (
        np.load(tmp_path / "encoder-ours.npy").shape
        == np.load(tmp_path / "encoder-clip.npy").shape
        == (5, 16, 256)
    )
    assert (laptop_table.agreement(tmp_path) or 0) > 0.9999


def test_a_killed_measurement_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    done: list[tuple[str, str, int]] = []

    def parts(part: str) -> Any:
        def measured(who: str, number: int) -> dict[str, Any]:
            done.append((part, who, number))
            if len(done) == 4:
                raise KeyboardInterrupt
            return {}

        return measured

    with pytest.raises(KeyboardInterrupt):
        laptop.measure(tmp_path, 1, 1, parts)
    with (tmp_path / "results.jsonl").open("a") as lines:
        lines.write('{"part": "encoder", "wh')
    laptop.measure(tmp_path, 1, 1, parts)
    assert done == [*list(laptop.schedule(1, 1))[:4], *list(laptop.schedule(1, 1))[3:]]
    assert len(laptop_table.measured(tmp_path)) == len(list(laptop.schedule(1, 1)))


def test_the_table_compares_medians_and_marks_missed_goals(tmp_path: Path) -> None:
    entered = {"read": [1.0], "encode": [2.0], "load_model": [3.0], "reach": [4.0, 12.0]}
    seconds = {
        "read": 0.1,
        "verify": 0.0,
        "load_encoder": 0.25,
        "wait_encoder": 0.25,
        "encode": 1.0,
        "load_model": 1.0,
        "feed_embeddings": 5.0,
    }
    seconds |= {"decode": 6.0, "decode_call": 6.1}
    page = {
        "rows": 100,
        "said": [10.0, 12.5],
        "entered": entered,
        "seconds": seconds,
        "peak": 2**30,
    }
    encoders = [
        ("ours", 0, 1.0),
        ("ours", 1, 3.0),
        ("clip", 0, 4.0),
        ("clip", 1, 4.0),
        ("torch", 0, 2.0),
    ]
    runs: list[tuple[str, str, int, dict[str, Any]]] = [
        ("encoder", who, n, {"seconds": s, "tiles": 5, "peak": 2**30}) for who, n, s in encoders
    ]
    runs += [("command", who, 0, page) for who in ("start", "page", "seen")]
    runs += [("llama_bench", "theirs", 0, {"rate": 25.0, "peak": 2**30})]
    runs += [
        ("mtmd_cli", "theirs", 0, {"first_token": 20.0, "loaded": 4.0, "rows": 90, "peak": 2**31})
    ]
    lines = [
        json.dumps({"part": part, "who": who, "number": n, **more}) for part, who, n, more in runs
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    rows = {
        cells[1].strip(): cells[2:]
        for line in laptop_table.table(tmp_path, 0.99).splitlines()
        if (cells := line.split("|"))
    }
    assert [c.strip() for c in rows["5 tiles, against libmtmd's clip: s"][:4]] == [
        "2.00",
        "4.00",
        "0.50",
        "at most 0.5: reached",
    ]
    assert rows["5 tiles, against torch float32: s"][3].strip() == "at most 0.8: missed"
    assert [c.strip() for c in rows["100 image tokens, against llama-bench: tokens/s"][:3]] == [
        "20.00",
        "25.00",
        "0.80",
    ]
    assert rows["page to first token (100 image tokens; theirs 90): s"][2].strip() == "0.50"
    assert rows["the same without loading: s"][0].strip() == "7.50"
    assert rows["second question to its first token, of the first one's time"][0].strip() == "0.050"
