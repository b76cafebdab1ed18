from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import parity
from export.convert import Options, convert
from pulse_edge.errors import ParityError


def test_windows_of_layers_give_the_logits_of_the_whole_model(
    tiny_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 256), np.float32) / 4
    before, after = [1, 5, 6], [7, 8, 9, 10]
    whole = parity._whole(tiny_kit / "llm.gguf", rows, before, after, 2, "f16")
    monkeypatch.setattr(parity, "WINDOW_BYTES", 1)
    windows, how = parity._in_windows(tiny_kit / "llm.gguf", 3, rows, before, after, 2, tmp_path, "f16")
    assert how.startswith("in 3 windows")
    assert np.abs(windows - whole).max() < 5e-3
    assert (windows.argmax(-1) == whole.argmax(-1)).all()


@pytest.mark.parametrize("bound", ["COSINE", "DIVERGENCE"])
def test_a_failed_parity_leaves_no_kit(
    bound: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"fp16": 1.1} if bound == "COSINE" else {"f16": -1.0}
    monkeypatch.setattr(parity, bound, limit)
    with pytest.raises(ParityError, match="No kit was written"):
        convert(tiny_checkpoint, tmp_path / "out" / "kit", Options())
    assert list((tmp_path / "out").iterdir()) == []
