"""`pulse-edge bench`, and that a process that goes on answering neither changes nor grows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.inference.model import EngineOptions

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
QUESTIONS = (
    "Is the rhythm regular?",
    "What is the rate?",
    "Please write a clinical report based on this ECG image.",
)


def test_benchmark_prints_every_stage_as_json_and_as_a_table(tiny_kit: Path) -> None:
    def run(*more: str) -> str:
        command = [
            sys.executable,
            "-m",
            "pulse_edge",
            "bench",
            str(tiny_kit),
            "--runs",
            "1",
            "--max-tokens",
            "8",
        ]
        return subprocess.run(
            [*command, "--threads", "1", *more], capture_output=True, text=True, check=True
        ).stdout

    results = json.loads(run("--json"))
    stages = ("check", "encode", "prefill", "answer", "second_question", "step", "step_of_one")
    assert tuple(results["seconds"]) == stages
    assert all(
        0 < results["seconds"][s]["least"] <= results["seconds"][s]["median"] for s in stages
    )
    assert results["image_tokens"] == 80
    assert results["answer"]["tokens"]["median"] == 8
    assert results["peak_memory_bytes"] > 1 << 26
    shown = run()
    assert "second question" in shown
    assert "peak memory" in shown
    assert results["step_width"] == 1
    assert "single token" not in shown
    assert "step of one" not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_ten_pages_in_any_order_answer_as_alone_and_memory_stays(tiny_kit: Path) -> None:
    draw = random.Random(5)
    page = Image.open(PAGE).convert("RGB")
    pages = [page.crop((0, 0, page.width - 9 * n, page.height - 5 * n)) for n in range(10)]
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        resident, answers = [], {}
        for n in draw.sample(range(10), 10):
            scan = model.encode(pages[n], admit=False)
            for question in draw.sample(QUESTIONS, 3):
                answers[n, question] = model.ask(scan, question, 12).answer()
            resident.append(_resident())
        assert len({np.asarray(p).tobytes() for p in pages}) == 10
        assert len({a.text for a in answers.values()}) > 3
    with PulseModel.load(
        tiny_kit, device="cpu", threads=1, engine=EngineOptions(speculation=False)
    ) as alone:
        for n, page in enumerate(pages):
            scan = alone.encode(page, admit=False)
            for question in QUESTIONS:
                alone.language.clear()
                assert alone.ask(scan, question, 12).answer() == answers[n, question]
    assert resident[9] <= 1.02 * resident[1]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
