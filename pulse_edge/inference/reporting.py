"""What every report says about the kit, the page and the programs that made it."""

from __future__ import annotations

import platform
from importlib.metadata import version

from pulse_edge.inference import llama_cpp, token_pruning, vision_encoder
from pulse_edge.inference.page_encoder import EncodedPage
from pulse_edge.report.report import (
    DEMONSTRATION,
    FORCED,
    FORCED_KIT,
    NOT_ALL_READ,
    NOT_PROVEN,
    KitSummary,
)


def notices(kit: KitSummary, encoded: EncodedPage) -> list[str]:
    """Return what must be read before any answer about a page."""
    lines = [DEMONSTRATION] if kit.demonstration else []
    lines += [kit.warning] if kit.warning else []
    lines += [FORCED_KIT] if kit.refused else [] if kit.proven else [NOT_PROVEN]
    if encoded.image_tokens_read != token_pruning.ALL:
        lines.append(f"{NOT_ALL_READ} {encoded.image_tokens_read}")
    if encoded.checked is not None and encoded.checked.quality.forced:
        lines.append(FORCED)
    return lines


def versions() -> dict[str, str]:
    """Return the versions of everything that can change an answer."""
    names = ("pulse-edge", "numpy", "pillow", "opencv-python-headless")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "llama-cpp-python": llama_cpp.version(),
        vision_encoder.installed_runtime(): vision_encoder.version(),
    }
