"""Make the demo kit of the package from a trained miniature: f16, then Q8_0.

The kit gets its model card and golden cases.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.convert import Options, convert
from export.quantize import Options as Smaller
from export.quantize import quantize
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.write import listing, write_manifest, writing

HERE = Path(__file__).parent
CARD = HERE / "MODEL_CARD.md"
TARGET = HERE.parents[1] / "pulse_edge" / "assets" / "kits" / "miniature"


def carry(checkpoint: Path, target: Path, say: Callable[[str], None]) -> None:
    """Replace the kit `target`. Raises what convert and quantize raise; then the old kit stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".carry-", dir=target.parent) as folder:
        whole, small = Path(folder) / "f16", Path(folder) / "miniature"
        convert(checkpoint, whole, Options(demonstration=True), say)
        quantize(whole, small, Smaller(llm="Q8_0", vision="fp16"), say)
        kit = open_kit(small)
        with writing(target, force=True) as work:
            for name in kit.manifest.files:
                shutil.copyfile(small / name, work / name)
            shutil.copyfile(CARD, work / CARD.name)
            write_manifest(
                work, replace(kit.manifest, id="miniature (Q8_0, fp16)", files=listing(work))
            )
