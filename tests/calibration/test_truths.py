"""What is certain of a page, by statement, from synthetic pages' facts and from published labels."""

from __future__ import annotations

from typing import Any

import pytest

from calibration.ecgbench import Sample
from calibration.synthetic.findings import labels_of
from calibration.truths import excluded_by, truths
from pulse_edge.report.findings import BY_KEY


def drawn(*findings: str, axis: float | None = 40.0) -> dict[str, bool]:
    labels = labels_of(frozenset(findings))
    facts = {"findings": list(findings), "labels": vars(labels), "measurements": {"axis": axis}}
    return truths(facts, [])


def answered(task: str, answer: str) -> dict[str, bool]:
    return truths(None, [Sample(task, "1", "a/1.png", (("Which?", answer),))])


def recorded(**labels: Any) -> dict[str, bool]:
    truths_ = {"cpsc": None, "code15": None, "ptbxl": None} | labels
    return truths({"findings": None, "labels": truths_, "measurements": {}}, [])


def test_a_normal_drawn_page_has_a_sinus_rhythm_and_nothing_else() -> None:
    truths_ = drawn()
    assert [key for key, there in truths_.items() if there] == ["NORM", "SR"]
    assert not truths_["LAD"]
    assert not truths_["LBBB"]
    assert "ISC" in truths_  # no normal ECG shows it


def test_a_drawn_page_s_findings_are_true_and_what_they_hide_is_open() -> None:
    truths_ = drawn("LBBB", "PVC", axis=-60.0)
    assert {key for key, there in truths_.items() if there} == {"LBBB", "PVC", "SR", "LAD"}
    assert not truths_["NORM"]
    assert not truths_["RBBB"]
    assert truths_.keys().isdisjoint({"STE", "STD", "INVT", "OLDMI", "LVH"})


def test_an_axis_near_a_border_is_not_told() -> None:
    assert drawn(axis=-25.0).keys().isdisjoint({"LAD", "RAD"})
    assert drawn(axis=100.0)["RAD"]


def test_a_slow_sinus_rhythm_leaves_open_whether_it_is_called_sinus_rhythm() -> None:
    truths_ = drawn("SB")
    assert truths_["SBRAD"]
    assert truths_["NORM"]
    assert "SR" not in truths_


@pytest.mark.parametrize(
    ("task", "answer", "true", "false"),
    [
        ("cpsc-test", "AF, PVC", {"AFIB", "PVC"}, {"NORM", "SR", "LBBB", "STD", "1AVB"}),
        ("cpsc-test", "none", set(), {"AFIB", "PVC"}),
        ("code15-test", "SB", {"SBRAD"}, {"AFIB", "STACH", "1AVB"}),
        ("code15-test", "ABNORMAL", set(), {"NORM", "AFIB"}),
        ("code15-test", "NORM", {"NORM"}, {"AFIB", "MI", "PACE"}),
        ("ptb-test", "NORM", {"NORM"}, {"MI", "OLDMI", "LBBB", "LVH", "RVH"}),
        ("ptb-test", "MI, STTC", {"MI"}, {"NORM", "LBBB", "LVH"}),
        ("csn-test-no-cot", "C. Atrial Flutter", {"AFLT"}, {"SR", "1AVB", "NORM"}),
        ("g12-test-no-cot", "A. long QT", {"LNGQT"}, set()),
        ("csn-test-no-cot", "B. something else", set(), set()),
    ],
)
def test_published_labels_tell_what_is_certain(
    task: str, answer: str, true: set[str], false: set[str]
) -> None:
    truths_ = answered(task, answer)
    assert {key for key, there in truths_.items() if there} == true
    assert {key for key, there in truths_.items() if not there} >= false


@pytest.mark.parametrize(
    ("task", "answer", "open_"),
    [
        ("cpsc-test", "LBBB", {"STD", "STE"}),
        ("cpsc-test", "none", {"NORM"}),
        ("code15-test", "SB", {"NORM"}),
        ("ptb-test", "MI", {"OLDMI", "STE"}),
        ("ptb-test", "HYP", {"LVH", "RVH"}),
        ("ptb-test", "none", {"NORM"}),
        ("mmmu-ecg", "A", set(BY_KEY)),
    ],
)
def test_what_no_label_decides_is_left_open(task: str, answer: str, open_: set[str]) -> None:
    assert answered(task, answer).keys().isdisjoint(open_)


def test_a_recorded_page_is_known_as_far_as_its_labels_go() -> None:
    truths_ = recorded(cpsc=["STD"], code15=[], ptbxl=["STTC"])
    assert truths_["STD"]
    assert not truths_["AFIB"]
    assert "INVT" not in truths_
    assert recorded() == {}


def test_labels_that_contradict_one_another_tell_nothing() -> None:
    assert "AFIB" not in recorded(cpsc=["AF"], code15=[])


def test_exclusion_goes_both_ways() -> None:
    for key in BY_KEY:
        for other in excluded_by(key):
            assert key in excluded_by(other), (key, other)
