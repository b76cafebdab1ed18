"""A trained miniature -> the kit that the package carries: f16, then Q8_0, with its model card and golden cases."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export import golden
from export.convert import Options, convert
from export.quantize import Options as Smaller
from export.quantize import quantize
from pulse_edge import PulseModel
from pulse_edge import kit as kits
from pulse_edge.golden import FILE

HERE = Path(__file__).parent
CARD = HERE / "MODEL_CARD.md"
TARGET = HERE.parents[1] / "pulse_edge" / "kits" / "miniature"
PAGE = HERE.parents[1] / "pulse_edge" / "example_page.png"


def carry(checkpoint: Path, target: Path, say: Callable[[str], None]) -> None:
    """Make `target` anew. Raises what convert and quantize raise; then the old kit stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".carry-", dir=target.parent) as folder:
        whole, small = Path(folder) / "f16", Path(folder) / "miniature"
        convert(checkpoint, whole, Options(demonstration=True), say)
        quantize(whole, small, Smaller(llm="Q8_0", vision="fp16"), say)
        made = kits.open_kit(small)
        with PulseModel.load(small, device="cpu") as model:
            cases = golden.cases(model, PAGE, PAGE.name)
        with kits.writing(target, force=True) as work:
            for name in made.manifest.files:
                shutil.copyfile(small / name, work / name)
            shutil.copyfile(CARD, work / CARD.name)
            (work / FILE).write_text(json.dumps(cases, indent=1) + "\n", "utf-8")
            kits.write_manifest(work, replace(made.manifest, id="miniature (Q8_0, fp16)", files=kits.listing(work)))
