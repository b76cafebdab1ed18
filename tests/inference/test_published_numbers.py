"""The kit against golden numbers of PULSE's published code path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from export.convert import Options, convert
from pulse_edge import PulseModel
from pulse_edge.inference.decoding import generate
from pulse_edge.inference.model import EngineOptions
from pulse_edge.kit import prompt

CASES = ("landscape_flat", "landscape_unpad", "portrait_flat", "wide_unpad")


@pytest.fixture(scope="module")
def kits(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    folder = tmp_path_factory.mktemp("golden")
    kits = {}
    for merge in ("flat", "spatial_unpad"):
        for hub in (False, True):
            names = ["--hub-names"] if hub else ["--merge", merge]
            source = tiny.checkpoint(
                folder / f"source-{merge}-{hub}",
                *names,
                pieces=shared / "tokenizer" / "tokenizer.model",
            )
            kits[merge, hub] = folder / f"kit-{merge}-{hub}"
            # A LlavaNext config does not say flat; --merge does.
            convert(
                source,
                kits[merge, hub],
                Options(vision="fp32", merge="flat" if hub and merge == "flat" else None),
            )
    return kits


@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("flash", [False, True])
def test_image_tokens_prompt_logits_and_answer_are_the_published_ones(
    name: str, flash: bool, hub: bool, shared: Path, kits: dict[tuple[str, bool], Path]
) -> None:
    case = next(
        c for c in json.loads((shared / "parity" / "index.json").read_text()) if c["name"] == name
    )
    golden = np.load(shared / "parity" / f"{name}.npz")
    page = next((shared / "ecg" / "images").rglob(case["image"]))
    with PulseModel.load(
        kits[case["merge"], hub], device="cpu", engine=EngineOptions(flash_attention=flash)
    ) as model:
        rows = model.encode(page, admit=False).image_tokens
        assert rows.shape == golden["rows"].shape
        assert np.abs(rows - golden["rows"]).max() < 1e-3
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(golden["rows"], axis=1)
        assert ((rows * golden["rows"]).sum(1) / norms).min() > 0.99999
        m, language = model.kit.manifest, model.language
        after = language.tokenize(prompt.fill(m.prompt.after, case["question"]), first=False)
        assert language.tokenize(m.prompt.before, first=True) == golden["prompt_before"].tolist()
        assert after == golden["prompt_after"].tolist()
        language.prefill("golden", m.prompt.before, rows)
        logits = language.feed_tokens(after)
        assert np.abs(logits - golden["first_logits"]).max() < (2e-2 if flash else 5e-3)
        tokens = [piece.token for piece in generate(language, logits, 48)]
        for token, expected, margin in zip(
            tokens, golden["tokens"], golden["margins"], strict=True
        ):
            if token != expected:
                assert flash
                assert margin <= 0.02
                break
