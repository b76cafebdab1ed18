"""pulse-edge: read 12-lead ECG pages with PULSE kits, offline.

with PulseModel.load("kit") as model:
    print(model.interpret("scan.jpg").answers[0].text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .interpret import EncodedScan, PulseModel
    from .report import Answer, Report

__all__ = ["Answer", "EncodedScan", "PulseModel", "Report"]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `pulse-edge --help` must not wait for the engines."""
    if name in ("PulseModel", "EncodedScan"):
        from . import interpret

        return getattr(interpret, name)
    if name in ("Answer", "Report"):
        from . import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
