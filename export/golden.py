"""Golden cases of a kit: questions about pages with what it answers here, for `pulse-edge doctor` on other machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pulse_edge import PulseModel, intake, prompt, scan
from pulse_edge import kit as kits
from pulse_edge.errors import UsageError
from pulse_edge.golden import FILE

Progress = Callable[[int, int], None]
QUESTIONS = (prompt.REPORT_QUESTION, "Does this ECG show atrial fibrillation?", "What is the heart rate?")
LONGEST = 256
"""Tokens of an answer."""
MOST = 4
"""Pages: each takes as long as an interpretation with three questions, here and in every `doctor`."""


def require(pages: Sequence[Path]) -> None:
    """Raise UsageError, ScanError or PageRefused for pages that cannot be asked about, before anything long begins."""
    if len(pages) > MOST:
        raise UsageError(f"--golden: {len(pages)} pages, at most {MOST}. Each is answered by every doctor.")
    for page in pages:
        if not page.is_file():
            raise UsageError(f"--golden {page}: no such file. Name a picture of an ECG page.")
        intake.admitted(scan.read(page), straighten=True, force=False)


def cases(
    model: PulseModel, page: Path, name: str, progress: Progress = lambda _done, _of: None
) -> list[dict[str, Any]]:
    """Questions about a page, called `name` in the kit: text, token ids, and logits of the first token.

    `progress` gets questions answered and of how many.
    """
    encoded, found = model.encode(page), []
    for number, question in enumerate(QUESTIONS):
        progress(number, len(QUESTIONS))
        answering = model.ask(encoded, question, LONGEST)
        text = "".join(answering)
        if not answering.ids:
            continue  # nothing to compare
        (logits,) = model.score(encoded, question, [answering.ids[:1]])
        first = [round(float(x), 4) for x in logits[0]]
        told = {"page": name, "question": question, "text": text, "tokens": answering.ids, "first_logits": first}
        found.append(told)
    return found


def add(
    kit: Path,
    pages: Sequence[Path],
    say: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Copy the pages into a finished kit, answer about them, and write its manifest again.

    `say` gets a line for each page, `progress` its questions answered and of how many. Raises ScanError, PageRefused.
    """
    if not pages:
        return
    opened = kits.open_kit(kit)
    names = [f"golden-{n}{page.suffix.lower()}" for n, page in enumerate(pages, 1)]
    found: list[dict[str, Any]] = []
    say("golden cases: loading the new kit")
    with PulseModel.load(opened, device="cpu") as model:
        for number, (page, name) in enumerate(zip(pages, names, strict=True), 1):
            say(f"golden cases: {len(QUESTIONS)} questions about {page.name}, page {number} of {len(pages)}")
            found += cases(model, page, name, progress)
    for page, name in zip(pages, names, strict=True):
        shutil.copyfile(page, kit / name)
    (kit / FILE).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    kits.write_manifest(kit, replace(opened.manifest, files=kits.listing(kit)))
