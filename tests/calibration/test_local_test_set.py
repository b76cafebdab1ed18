"""A kit is evaluated on the pages that a clinic's readers confirmed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from overreads import AT, READER, log_with, read_page

from calibration.evaluate import Plan, evaluate
from calibration.results import Results
from pulse_edge.audit_log import local_test_set
from pulse_edge.audit_log.confirmations import ConfirmationLogger
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.report.overread import agreement, confirmed


def test_kit_answers_the_questions_that_readers_decided(tiny_kit: Path, tmp_path: Path) -> None:
    page = read_page()
    log = log_with(tmp_path / "log", page, retain_days=1, picture=EXAMPLE_PAGE.read_bytes)
    result = confirmed(page, agreement(page, READER), AT)
    ConfirmationLogger(log)(dataclasses.asdict(result))
    local_test_set.write(log, tmp_path / "set")
    plan = Plan((tiny_kit,), tmp_path / "set", max_tokens=2, device="cpu", threads=1)
    evaluate(tmp_path / "results", plan)
    read = Results(tmp_path / "results")
    lines = read.answers(tiny_kit.name, local_test_set.TASK)
    assert [(line.question_id.split("-")[1], line.gold) for line in lines] == [
        ("AFIB", ("yes",)), ("LVH", ("no",))
    ]  # fmt: skip
