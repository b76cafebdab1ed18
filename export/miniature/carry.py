"""A trained miniature -> the kit that the package carries: f16, then Q8_0, with its model card and golden cases."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.convert import Options, convert
from export.quantize import Options as Smaller
from export.quantize import quantize
from pulse_edge import PulseModel, prompt
from pulse_edge import kit as kits

HERE = Path(__file__).parent
CARD = HERE / "MODEL_CARD.md"
TARGET = HERE.parents[1] / "pulse_edge" / "kits" / "miniature"
PAGE = HERE.parents[1] / "pulse_edge" / "example_page.png"
QUESTIONS = (prompt.REPORT_QUESTION, "Does this ECG show atrial fibrillation?", "What is the heart rate?")
GOLDEN = "golden.json"


def carry(checkpoint: Path, target: Path, say: Callable[[str], None]) -> None:
    """Make `target` anew. Raises what convert and quantize raise; then the old kit stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".carry-", dir=target.parent) as folder:
        whole, small = Path(folder) / "f16", Path(folder) / "miniature"
        convert(checkpoint, whole, Options(demonstration=True), say)
        quantize(whole, small, Smaller(llm="Q8_0", vision="fp16"), say)
        made = kits.open_kit(small)
        cases = golden(small)
        with kits.writing(target, force=True) as work:
            for name in made.manifest.files:
                shutil.copyfile(small / name, work / name)
            shutil.copyfile(CARD, work / CARD.name)
            (work / GOLDEN).write_text(json.dumps(cases, indent=1) + "\n", "utf-8")
            kits.write_manifest(work, replace(made.manifest, id="miniature (Q8_0, fp16)", files=kits.listing(work)))


def golden(kit: Path) -> list[dict[str, Any]]:
    """Questions about the example page with what this kit answers: text, token ids, and logits of the first token."""
    cases = []
    with PulseModel.load(kit, device="cpu") as model:
        scan = model.encode(PAGE)
        for question in QUESTIONS:
            answering = model.ask(scan, question)
            text = "".join(answering)
            (logits,) = model.score(scan, question, [answering.ids[:1]])
            cases.append(
                {
                    "page": PAGE.name,
                    "question": question,
                    "text": text,
                    "tokens": answering.ids,
                    "first_logits": [round(float(x), 4) for x in logits[0]],
                }
            )
    return cases
