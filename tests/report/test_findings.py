"""The list of findings: codes, probabilities, verdicts, and the JSON of reports."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from calibrations import calibration
from checkout import ROOT
from PIL import Image
from reports import uncalibrated

import pulse_edge
from calibration.ecgbench import ONLY_OPTIONS
from calibration.synthetic.sentences import NAMES
from export.schema import report_schema
from pulse_edge import PulseModel
from pulse_edge.inference.statements import yes_or_no
from pulse_edge.report.content import RANKED
from pulse_edge.report.contradictions import contradictions
from pulse_edge.report.findings import BY_KEY, STATEMENTS, judge, logistic
from pulse_edge.report.report import Finding, KitSummary, Report
from pulse_edge.report.text import findings_lines

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
SCHEMA = ROOT / "docs" / "report.schema.json"


def kinds(findings, texts=(), second=None):  # type: ignore[no-untyped-def]
    return [mark.kind for mark in contradictions(findings, texts, second)]


def report_of(found_: tuple[Finding, ...]) -> Report:
    kit = KitSummary("kit", "0" * 64, False)
    return Report("", "p.png", "1" * 64, (), kit, "cpu", {}, {}, 80, findings=found_)


def test_statements_are_asked_in_the_words_of_the_training_data() -> None:
    words = {s.name for s in STATEMENTS}
    assert set(NAMES.values()) <= words
    assert BY_KEY["NORM"].question == f"Is this a normal ECG? Options: yes, no {ONLY_OPTIONS}"


def test_keys_and_codes_are_unique_and_codes_are_well_formed() -> None:
    snomed = [s.snomed for s in STATEMENTS if s.snomed]
    assert len(BY_KEY) == len(STATEMENTS)
    assert len(set(snomed)) == len(snomed)
    assert all(re.fullmatch(r"\d{6,18}", code) for code in snomed)


@pytest.mark.parametrize("code", [s.snomed for s in STATEMENTS if s.snomed])
def test_snomed_code_has_a_right_check_digit(code: str) -> None:
    """Verhoeff's, as SNOMED CT identifiers carry it."""
    value, turns = 0, ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 5, 7, 6, 2, 8, 3, 0, 9, 4))
    permutations = [turns[0], turns[1]]
    while len(permutations) < 8:
        permutations.append(tuple(permutations[1][n] for n in permutations[-1]))
    for at, digit in enumerate(reversed(code)):
        a, b = value, permutations[at % 8][int(digit)]
        value = (a + b) % 5 if a < 5 and b < 5 else 5 + (a + (b - 5)) % 5 if a < 5 else 0
        if a >= 5:
            value = 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5
    assert value == 0


def test_log_odds_are_those_of_the_answer_words(tiny_kit: Path) -> None:
    question = BY_KEY["AFIB"].question
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        encoded = model.encode(PAGE)
        odds = yes_or_no(model, encoded, question).log_odds
        total = {"yes": 0.0, "no": 0.0}
        for word in ("yes", "Yes", "no", "No"):
            probability = 1.0
            ids = model.language.tokenize(word, first=False)
            for n, token in enumerate(ids):
                model.prefill(encoded, model.turns(question, ()))
                start = model.language.tokenize(model.turns(question, ())[0], first=False)
                model.language.rewind(len(start))
                logits = model.language.feed_tokens([*start, *ids[:n]]).astype(np.float64)
                probability *= np.exp(logits[token] - np.logaddexp.reduce(logits))
            total[word.lower()] += probability
    assert math.log(total["yes"] / total["no"]) == pytest.approx(odds, abs=1e-2)


def test_finding_without_calibration_has_only_a_rank() -> None:
    afib, aflt = uncalibrated(AFIB=-0.1, AFLT=4.0)
    assert [(f.rank, f.verdict, f.probability, f.calibrated) for f in (afib, aflt)] == [
        (2, None, None, False),
        (1, None, None, False),
    ]
    assert findings_lines(report_of((afib, aflt))) == [
        f"{RANKED}: 1. atrial flutter, 2. atrial fibrillation"
    ]


def test_calibrated_finding_has_the_calibrated_probability() -> None:
    (afib,) = judge({"AFIB": 2.0}, {"AFIB": calibration(0.5, -3)})
    assert afib.probability == round(logistic(-2.0), 4)
    assert (afib.verdict, afib.calibrated) == ("absent", True)


@pytest.mark.parametrize(
    ("log_odds", "verdict"),
    [(-2, "absent"), (-0.5, "uncertain"), (0.5, "uncertain"), (2, "present")],
)
def test_kit_abstains_in_its_uncertain_band(log_odds: float, verdict: str) -> None:
    (afib,) = judge({"AFIB": log_odds}, {"AFIB": calibration(band=(0.3, 0.7))})
    assert afib.verdict == verdict
    assert bool(afib.reason) == (verdict == "uncertain")


def test_report_schema_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text()) == report_schema()


def test_report_has_every_statement_and_valid_json(tiny_kit: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(PAGE),
        "--kit",
        str(tiny_kit),
        "--max-tokens",
        "4",
        "--threads",
        "1",
    ]
    done = subprocess.run(
        [*command, "--json", "--findings"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, report_schema())
    assert {(f["verdict"], f["probability"]) for f in report["findings"]} == {(None, None)}
    assert [f["statement"] for f in report["findings"]] == [s.key for s in STATEMENTS]


@pytest.mark.parametrize("page", ["blank.png", "empty.png", "nowhere.png"])
def test_json_of_a_page_without_an_answer_is_valid(
    tiny_kit: Path, tmp_path: Path, page: str
) -> None:
    Image.new("RGB", (800, 600), "white").save(tmp_path / "blank.png")
    (tmp_path / "empty.png").touch()
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(tmp_path / page),
        "--kit",
        str(tiny_kit),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 3)
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, report_schema())
    assert (answer["exit_code"], page in answer["error"]) == (done.returncode, True)


def test_uncalibrated_kit_gives_no_findings_unasked(tiny_kit: Path) -> None:
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        assert model.kit.manifest.findings is None
        assert model.interpret(PAGE, max_tokens=2).findings == ()


def test_statement_that_a_kit_never_judges_is_named_with_the_reason() -> None:
    never = replace(calibration(band=(0.0, 1.0)), reason="too few pages")
    found_ = judge(
        {"AFIB": 3.0, "PVC": 3.0, "LBBB": 3.0}, {"AFIB": never, "PVC": never, "LBBB": calibration()}
    )
    assert [(f.verdict, f.probability, f.calibrated) for f in found_] == [
        (None, None, False),
        ("present", 0.9526, True),
        (None, None, False),
    ]
    lines = findings_lines(report_of(found_))
    assert lines == [
        "present     95%  left bundle branch block",
        "not judged (too few pages): atrial fibrillation, premature ventricular contractions",
    ]
    assert kinds(found_, ["No atrial fibrillation."]) == []
