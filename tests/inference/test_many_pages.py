"""A process that reads page after page."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checkout import ROOT
from PIL import Image

from calibration.synthetic.pages import page_at

KIT = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
QUESTIONS = (
    "Is the rhythm regular?",
    "What is the heart rate?",
    "Does this ECG show left bundle branch block?",
)
PROCESS = """
import json, sys
from pulse_edge import PulseModel
from pulse_edge.machine import memory
with PulseModel.load(sys.argv[1], device="cpu", threads=1) as model:
    for page, question in json.loads(sys.argv[2]):
        text = model.ask(model.encode(page, force=True), question, 16).answer().text
        print(json.dumps([text, memory.resident()]))
"""


def answers(todo: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Text, and bytes in memory behind it, of each page and question, in one new process."""
    command = [sys.executable, "-c", PROCESS, str(KIT), json.dumps(todo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_answers_and_memory_do_not_depend_on_the_pages_before(tmp_path: Path) -> None:
    pages = []
    for number in range(10):
        image = Image.fromarray(page_at(11, number).image)
        image.save(tmp_path / f"{number}.png")
        pages.append((-image.width * image.height, str(tmp_path / f"{number}.png")))
    pages.sort()
    todo = [(page, question) for _, page in pages for question in QUESTIONS]
    # The two largest pages come first, so that what is more behind the tenth is no larger page, but
    # something left behind.
    first, rest = (
        [todo[0], todo[len(QUESTIONS)]],
        [*todo[1 : len(QUESTIONS)], *todo[len(QUESTIONS) + 1 :]],
    )
    random.Random(5).shuffle(rest)
    todo = first + rest
    together = answers(todo)
    with ThreadPoolExecutor(2) as two:
        alone = list(two.map(lambda one: answers([one])[0], todo))
    assert [text for text, _ in together] == [text for text, _ in alone]
    assert len({text for text, _ in together}) > len(QUESTIONS)  # the pages do make a difference
    if sys.platform == "linux":
        assert together[-1][1] <= 1.02 * together[1][1]
