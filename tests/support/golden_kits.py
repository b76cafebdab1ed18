"""Copies of the demo kit whose golden cases do or do not come back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from checkout import ROOT

from pulse_edge.diagnostics import checks, golden
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST
from pulse_edge.kit.write import listing, write_manifest, writing

MINIATURE = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"


def altered(target: Path, *, offset: float | None) -> Kit:
    """The miniature with its first golden case's logits off by `offset`; None: without golden
    cases."""
    with writing(target) as work:
        shutil.copytree(MINIATURE, work, dirs_exist_ok=True)
        (work / MANIFEST).unlink()
        cases = json.loads((work / golden.FILE).read_text("utf-8"))["cases"]
        cases[0]["first_logits"][7] += offset or 0.0
        (work / golden.FILE).write_text(json.dumps({"tolerance": 0.03, "cases": cases[:1]}))
        if offset is None:
            (work / golden.FILE).unlink()
        write_manifest(work, replace(open_kit(MINIATURE).manifest, files=listing(work)))
    return open_kit(target)


def by_name(results: list[checks.Check]) -> dict[str, checks.Check]:
    """Checks by their names."""
    return {check.name: check for check in results}
