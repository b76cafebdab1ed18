"""The checks before any engine is imported."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

from pulse_edge.common import child_process
from pulse_edge.diagnostics import checks


def test_an_illegal_instruction_ends_a_child_and_not_the_doctor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dying = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"]
    monkeypatch.setattr(child_process, "command", lambda *_: dying)
    check = checks.engine()
    assert check.state == "failed"
    assert "dies of an illegal instruction" in check.text
    assert "GGML_CPU_ALL_VARIANTS" in check.text


@pytest.mark.parametrize(
    ("flags", "state", "words"),
    [
        ({"avx", "avx2", "fma", "f16c"}, "ok", "built for AVX, AVX2"),
        ({"avx", "f16c"}, "failed", "lacks AVX2, FMA"),
        ({"avx", "avx2", "fma", "f16c", "avx512f"}, "ok", "AVX512 of this processor not used"),
        (set(), "ok", "built for AVX, AVX2"),
    ],
    ids=["the same", "older", "newer", "not told"],
)
def test_llama_cpps_instruction_sets_are_compared_with_the_processors(
    flags: set[str], state: str, words: str
) -> None:
    probed: dict[str, Any] = {
        "system": "CPU : AVX = 1 | AVX2 = 1 | FMA = 1 | F16C = 1 | REPACK = 1 | ",
        "cuda": None,
    }
    check = checks.judge_engine(probed, frozenset(flags), "i5", "one library")
    assert check.state == state
    assert words in check.text
