"""Contradictions between texts, findings and wordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import calibration
from reports import uncalibrated

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.inference import statements
from pulse_edge.report.contradictions import contradictions, says
from pulse_edge.report.findings import BY_KEY, STATEMENTS, judge

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


def kinds(findings, texts=(), second=None):  # type: ignore[no-untyped-def]
    return [mark.kind for mark in contradictions(findings, texts, second)]


@pytest.mark.parametrize(
    ("text", "key", "stated"),
    [
        ("Normal ECG.", "NORM", True),
        ("Abnormal ECG.", "NORM", None),
        ("Otherwise normal ECG.", "NORM", None),
        ("This is not a normal ECG.", "NORM", False),
        ("Atrial fibrillation with rapid response.", "AFIB", True),
        ("No acute ischaemia, left bundle branch block.", "LBBB", True),
        ("Sinus rhythm without ST elevation.", "STE", False),
        ("Possible old infarction.", "OLDMI", None),
        ("ST elevation in V2. No ST elevation in V5.", "STE", None),
        ("Sinus rhythm.", "AFIB", None),
        ("LBBB.", "LBBB", True),
        ("Rule out myocardial infarction.", "MI", None),
        ("ST elevation cannot be excluded.", "STE", None),
        ("Likely atrial flutter.", "AFLT", None),
        ("ST elevation is not present.", "STE", False),
        ("Left bundle branch block and ST elevation.", "LBBB", True),
    ],
)
def test_text_states_or_denies_a_statement(text: str, key: str, stated: bool | None) -> None:
    assert says(text, BY_KEY[key]) is stated


def test_normal_text_contradicts_an_infarction() -> None:
    marks = contradictions(uncalibrated(STE=3.0), ["Normal ECG."])
    assert [(m.kind, m.statements) for m in marks] == [("text", ("STE",))]
    assert "normal ECG" in marks[0].text


def test_text_contradicts_a_finding_that_it_denies_or_states() -> None:
    assert kinds(uncalibrated(AFIB=-3.0), ["Atrial fibrillation."]) == ["text"]
    assert kinds(uncalibrated(AFIB=3.0), ["No atrial fibrillation."]) == ["text"]
    assert kinds(uncalibrated(AFIB=3.0), ["Atrial fibrillation."]) == []


def test_findings_that_exclude_one_another_are_contradictions() -> None:
    assert kinds(uncalibrated(NORM=1, STE=1)) == ["findings"]
    assert kinds(uncalibrated(SR=1, AFIB=1)) == ["findings"]
    assert kinds(uncalibrated(NORM=1, SR=1, SBRAD=1)) == []


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("Sinus rhythm. Atrial fibrillation.", [("SR", "AFIB")]),
        ("Normal ECG. Left bundle branch block.", [("NORM", "LBBB")]),
        ("Left anterior fascicular block, right axis deviation.", [("LAFB", "RAD")]),
        ("Left bundle branch block, right bundle branch block.", [("LBBB", "RBBB")]),
        ("Sinus rhythm. No atrial fibrillation. Left bundle branch block. Abnormal ECG.", []),
        ("Sinus rhythm, possible atrial flutter.", []),
        ("Normal ECG. Sinus rhythm.", []),
    ],
)
def test_text_contradicts_itself_without_any_findings(
    text: str, statements: list[tuple[str, ...]]
) -> None:
    assert [m.statements for m in contradictions((), [text])] == statements


def test_findings_of_every_kind_are_compared() -> None:
    assert kinds(uncalibrated(LAFB=1, RAD=1)) == ["findings"]
    assert kinds(uncalibrated(PAC=1, AFIB=1)) == ["findings"]
    assert kinds(uncalibrated(AFIB=1, AFLT=1)) == ["findings"]
    assert kinds(uncalibrated(STE=1, STD=1, MI=1, OLDMI=1)) == []


def test_the_most_urgent_contradiction_comes_first() -> None:
    marks = contradictions(
        uncalibrated(RBBB=-3.0, STE=-3.0, LAD=1, RAD=1),
        ["Right bundle branch block, ST elevation."],
    )
    assert [m.statements[0] for m in marks] == ["STE", "RBBB", "LAD"]
    assert kinds(uncalibrated(**{"3AVB": 1, "1AVB": 1})) == ["findings"]


def test_neither_normal_nor_abnormal_is_a_contradiction() -> None:
    assert kinds(uncalibrated(**{f"_{s.key}": -1 for s in STATEMENTS})) == ["findings"]
    assert (
        kinds(uncalibrated(**{f"_{s.key}": 1 if s.key == "NORM" else -1 for s in STATEMENTS})) == []
    )


def test_answer_that_changes_with_the_wording_is_a_contradiction() -> None:
    assert kinds(uncalibrated(AFIB=1), second={"AFIB": -1.0}) == ["wording"]
    assert kinds(uncalibrated(AFIB=1), second={"AFIB": 1.0}) == []


def test_second_wording_is_compared_after_calibration(
    tiny_kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "yes_or_no", lambda *_: statements.YesOrNo(-1.0, False))
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        manifest = model.kit.manifest
        for offset, marks in ((2.0, 0), (0.5, 1)):
            output = {"PVC": calibration(1, offset)}
            model.kit = replace(model.kit, manifest=replace(manifest, findings=output))
            found_ = judge({"PVC": 3.0}, output)
            assert len(model.contradictions(model.encode(PAGE, admit=False), found_, [])) == marks
