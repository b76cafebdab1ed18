"""`calibration findings`: the same file however often it is interrupted, and a kit that knows when
to abstain.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from checkout import ROOT
from click.testing import CliRunner
from given_results import results
from PIL import Image

from calibration import bootstrap
from calibration.__main__ import cli
from calibration.findings import platt
from calibration.findings import run as calibrating
from calibration.findings.file import Counts, FittedOn, PageCounts, load
from calibration.findings.pages import Plan
from calibration.findings.run import INSIDE, findings
from calibration.records import as_json
from calibration.report import findings as section
from calibration.report.write import Options, report
from calibration.results import identity
from pulse_edge import PulseModel
from pulse_edge.errors import BenchError, ContextError, UsageError
from pulse_edge.inference.statements import YesOrNo, yes_or_no
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.verify import verify
from pulse_edge.kit.write import write_manifest
from pulse_edge.report.findings import BY_KEY, STATEMENTS, judge

PAGES = 240
LABELS = ("AF", "LBBB", "PVC", "NORM")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of one colour each, labelled as CPSC's; the colour is all that the model of these tests
    sees.
    """
    return pages(tmp_path_factory.mktemp("bench") / "bench", range(PAGES))


def pages(folder: Path, numbers: range) -> Path:
    """A page and question for each number."""
    (folder / "images" / "cpsc").mkdir(parents=True)
    samples = []
    for n in numbers:
        Image.new("RGB", (8, 8), (n, n % 4, 0)).save(folder / "images" / "cpsc" / f"{n}.png")
        turns = [
            {"from": "human", "value": "<image>\nWhich?"},
            {"from": "gpt", "value": LABELS[n % 4]},
        ]
        samples.append({"id": f"cpsc-{n}", "image": f"cpsc/{n}.png", "conversations": turns})
    (folder / "cpsc-test.json").write_text(json.dumps(samples))
    return folder


class Model:
    """Knows atrial fibrillation well and LBBB somewhat, chooses at random for the rest, and always
    says no."""

    def __init__(self) -> None:
        self.device = "made up"
        self.pages = 0
        self.dies_at: int | None = None

    def encode(self, picture: bytes, *, admit: bool) -> tuple[int, int]:
        assert not admit
        if self.pages == self.dies_at:
            raise KeyboardInterrupt
        self.pages += 1
        pixel = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[0, 0]
        n, label = int(pixel[0]), int(pixel[1])
        if n == 7:
            raise ContextError("too long")
        return n, label

    def ask(self, encoded: tuple[int, int], question: str) -> YesOrNo:
        n, label = encoded
        noise = np.random.default_rng((n, len(question))).normal(0, 1)
        weight = {"AFIB": 12.0, "LBBB": 2.0}
        key = next(s.key for s in STATEMENTS if s.question == question)
        there = key == {"AF": "AFIB"}.get(LABELS[label], LABELS[label])
        return YesOrNo(float(noise - 14 + weight.get(key, 0.0) * there), False)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()
    monkeypatch.setattr(bootstrap, "DRAWS", 100)
    loaded = SimpleNamespace(load=lambda *_, **__: contextlib.nullcontext(model))
    monkeypatch.setattr(calibrating, "PulseModel", loaded)
    monkeypatch.setattr(
        calibrating, "yes_or_no", lambda model, encoded, question: model.ask(encoded, question)
    )
    return model


@pytest.fixture
def kit(tiny_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_kit, tmp_path / "tiny"))


def test_only_statements_that_the_model_recognises_get_verdicts(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    file = findings(kit, tmp_path / "f.json", Plan(bench))
    assert file == load(tmp_path / "f.json")
    sides = (file.pages.calibration, file.pages.test)
    assert sum(sides) == PAGES - 1
    assert min(sides) >= PAGES // 2 - 1
    calibrations = {key: s.calibration for key, s in file.statements.items()}
    assert calibrations["AFIB"].reason == ""
    assert calibrations["PVC"].reason == platt.CHANCE
    assert calibrations["PACE"].reason == platt.NOT_SHOWN
    afib = as_json(file.statements["AFIB"])
    assert afib["auc"]["value"] == calibrations["AFIB"].auc
    assert afib["auc"]["value"] > 0.99
    assert afib["auc_of_labels"]["value"] == 0.5
    assert afib["ece_after"]["value"] < 0.1 < afib["ece_before"]["value"]
    assert afib["coverage"]["value"] > 0.9
    assert afib["risk"]["value"] <= 0.1


def test_a_page_that_the_kit_refuses_is_left_out_and_reported(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    file = findings(kit, tmp_path / "f.json", Plan(bench), say=notes.append)
    assert file.left_out == {"cpsc/7.png": "too long"}
    assert "left out: cpsc/7.png: too long" in notes


def test_calibration_and_test_pages_are_different_and_recorded(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    file = findings(kit, tmp_path / "f.json", Plan(bench))
    test = {line.samples[0][1] for line in file.lines if line.side == "test"}
    assert test.isdisjoint(file.calibrated_on["cpsc-test"])
    assert len(file.content) == 64
    statement = {key for line in file.lines for key in line.gold}
    assert statement == {"NORM", "AFIB", "LBBB", "PVC"}  # the others are true of no page


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    whole = findings(kit, tmp_path / "whole.json", Plan(bench))
    answer = model.pages
    target, partial = tmp_path / "f.json", tmp_path / "f.json.partial"
    for dies_at in (3, 90):
        model.pages, model.dies_at = 0, dies_at
        with pytest.raises(KeyboardInterrupt):
            findings(kit, target, Plan(bench))
        assert not target.exists()
        with open(partial, "a") as fragment:
            fragment.write('{"image": "cpsc/')  # a line that a killed process was writing
    model.pages, model.dies_at = 0, None
    assert findings(kit, target, Plan(bench)) == whole
    assert model.pages == answer - 93
    assert target.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert not partial.exists()


def test_a_finished_run_asks_nothing_and_may_be_fitted_again(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    target = tmp_path / "f.json"
    few = findings(kit, target, Plan(bench, limit=30))
    model.pages = 0
    assert findings(kit, target, Plan(bench, limit=30)) == few
    careful = findings(kit, target, Plan(bench, limit=30, risk=0.001))
    assert model.pages == 0
    assert careful.risk == 0.001
    findings(kit, target, Plan(bench, limit=40))
    assert model.pages == 20


def test_answers_of_another_run_are_not_mixed_with_this_one(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    target = tmp_path / "f.json"
    model.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        findings(kit, target, Plan(bench))
    manifest = open_kit(kit).manifest
    write_manifest(kit, replace(manifest, prompt=replace(manifest.prompt, before="USER: ")))
    with pytest.raises(BenchError, match="is what another run left"):
        findings(kit, target, Plan(bench))
    model.dies_at = None
    findings(kit, target, Plan(bench, limit=5), force=True)
    write_manifest(kit, manifest)
    with pytest.raises(BenchError, match="exists already"):
        findings(kit, target, Plan(bench, limit=5))
    target.write_text("mine")
    with pytest.raises(BenchError, match="is no file of `calibration findings`"):
        findings(kit, target, Plan(bench, limit=5))


@pytest.mark.parametrize("risk", [0.0, 0.5, float("nan")])
def test_a_risk_that_is_none_is_wrong_usage(
    kit: Path, bench: Path, tmp_path: Path, risk: float
) -> None:
    with pytest.raises(UsageError, match="expected a share"):
        findings(kit, tmp_path / "f.json", Plan(bench, risk=risk))


def test_a_kit_carries_its_calibration(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    before = open_kit(kit)
    file = findings(kit, tmp_path / "f.json", Plan(bench), attach=True)
    after = open_kit(kit)
    verify(after)
    assert identity(after.manifest) == identity(before.manifest)
    calibrations = after.manifest.findings
    assert calibrations is not None
    assert list(calibrations) == [s.key for s in STATEMENTS]
    inside = json.loads((kit / INSIDE).read_text())
    assert inside == as_json(file.summary)
    assert "cpsc/" not in json.dumps({k: v for k, v in inside.items() if k != "left_out"})
    verdicts = {
        f.statement: f for f in judge({"AFIB": 8.0, "PVC": 8.0, "LBBB": -8.0}, calibrations)
    }
    assert (verdicts["AFIB"].verdict, verdicts["AFIB"].calibrated) == ("present", True)
    assert (verdicts["PVC"].verdict, verdicts["PVC"].calibrated, verdicts["PVC"].reason) == (
        None,
        False,
        platt.CHANCE,
    )
    findings(
        kit, tmp_path / "f.json", Plan(bench), attach=True
    )  # the kit is the same one, calibrated or not
    assert open_kit(kit).sha256 == after.sha256


def test_a_kit_says_what_it_judges(model: Model, kit: Path, bench: Path, tmp_path: Path) -> None:
    from pulse_edge.cli.main import cli as commands

    lines = [CliRunner().invoke(commands, ["kit", "info", str(kit)]).output]
    findings(kit, tmp_path / "f.json", Plan(bench), attach=True)
    lines.append(CliRunner().invoke(commands, ["kit", "info", str(kit)]).output)
    assert "findings      not calibrated" in lines[0]
    assert "judges AFIB (AUC 1.00)" in lines[1]


def test_the_accuracy_report_has_a_section_and_a_picture(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    findings(kit, tmp_path / "f.json", Plan(bench))
    answers = {"tiny": {"csn-test-no-cot": [{"gold": "A. one", "text": "A"}] * 3}}
    folder = results(tmp_path / "results", answers, identity=identity(open_kit(kit).manifest))
    options = Options(findings=(tmp_path / "f.json",))
    figures = report(folder, tmp_path / "report", options)
    assert figures.findings["tiny on bench"].lines == ()
    (table,) = section.tables(figures.findings)
    rows = {row[0]: row for row in table.rows}
    assert next(iter(rows)) == "all"
    assert rows["atrial fibrillation"][3].startswith("50.0")
    assert rows["premature ventricular contractions"][7] == platt.CHANCE
    assert all(len(row) == len(table.head) for row in table.rows)
    page = (tmp_path / "report" / "report.html").read_text()
    HTMLParser().feed(page)
    assert "Reliability of findings of tiny on bench" in page
    assert page.count("<svg") >= 2
    assert "Findings of tiny" in (tmp_path / "report" / "report.md").read_text()
    assert any("gives no verdict on" in text and platt.CHANCE in text for text in figures.limits)


def test_a_calibration_is_measured_on_pages_of_another_kind(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    drawn = findings(kit, tmp_path / "drawn.json", Plan(bench))
    other = Plan(pages(tmp_path / "real", range(PAGES, 256)), fitted=tmp_path / "drawn.json")
    file = findings(kit, tmp_path / "real.json", other)
    assert file.pages == PageCounts(calibration=0, test=16)
    assert file.fitted_on == FittedOn(
        data="bench",
        content=drawn.content,
        risk=0.1,
        confidence=0.9,
        pages=drawn.pages.calibration,
    )
    for key, s in file.statements.items():
        before = drawn.statements[key]
        assert s.calibration_pages == before.calibration_pages
        assert replace(s.calibration, auc=None) == replace(before.calibration, auc=None)
    assert file.statements["AFIB"].test_pages == Counts(present=4, absent=12)
    assert file.statements["AFIB"].auc is not None
    assert file.statements["AFIB"].auc.value == 1
    both = {f"tiny on {m.data}": m for m in (drawn, file)}
    assert [t.title for t in section.tables(both)] == [
        "Findings of tiny on bench: probabilities and verdicts",
        "Findings of tiny on real: probabilities and verdicts",
    ]
    with pytest.raises(BenchError, match="measures what was fitted on bench"):
        findings(kit, tmp_path / "f.json", replace(other, fitted=tmp_path / "real.json"))


def test_a_calibration_is_not_measured_on_its_own_pages(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    findings(kit, tmp_path / "f.json", Plan(bench))
    with pytest.raises(BenchError, match="was fitted on 120 of these pages"):
        findings(kit, tmp_path / "g.json", Plan(bench, fitted=tmp_path / "f.json"))
    with pytest.raises(UsageError, match="contradict one another"):
        findings(kit, tmp_path / "g.json", Plan(bench, fitted=tmp_path / "f.json"), attach=True)
    manifest = open_kit(kit).manifest
    write_manifest(kit, replace(manifest, prompt=replace(manifest.prompt, before="USER: ")))
    with pytest.raises(BenchError, match="is of another kit"):
        findings(kit, tmp_path / "g.json", Plan(bench, fitted=tmp_path / "f.json"))


def test_findings_of_a_kit_that_has_no_answers_are_refused(
    model: Model, kit: Path, bench: Path, tmp_path: Path
) -> None:
    findings(kit, tmp_path / "f.json", Plan(bench, limit=5))
    folder = results(
        tmp_path / "results", {"a": {"csn-test-no-cot": [{"gold": "A. one", "text": "A"}]}}
    )
    with pytest.raises(BenchError, match="has no answers of; evaluate it too"):
        report(folder, tmp_path / "report", Options(findings=(tmp_path / "f.json",)))


# --- with real models -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def miniature() -> Iterator[PulseModel]:
    with PulseModel.load(
        ROOT / "pulse_edge" / "assets" / "kits" / "miniature", device="cpu", threads=1
    ) as loaded:
        yield loaded


@pytest.mark.parametrize("key", ["NORM", "LBBB", "WPW"])
def test_the_greedy_label_is_how_the_greedy_answer_begins(key: str, miniature: PulseModel) -> None:
    encoded = miniature.encode(ROOT / "pulse_edge" / "assets" / "example_page.png", admit=False)
    answer = yes_or_no(miniature, encoded, BY_KEY[key].question)
    text = miniature.ask(encoded, BY_KEY[key].question, 8).answer().text.lower()
    assert answer.greedy is (
        True if text.startswith("yes") else False if text.startswith("no") else None
    )


def test_the_command_asks_a_kit_about_drawn_pages(kit: Path, tmp_path: Path) -> None:
    from calibration.synthesize import Plan as Pages
    from calibration.synthesize import synthesize

    synthesize(tmp_path / "bench", Pages(4, 5, tasks=("ecgqa-test",), layouts=("3x4+1",)))
    command = [
        "findings",
        str(kit),
        "-o",
        str(tmp_path / "f.json"),
        "--bench",
        str(tmp_path / "bench"),
        "--threads",
        "1",
    ]
    done = CliRunner().invoke(
        cli, [*command, "--device", "cpu", "--attach"], catch_exceptions=False
    )
    assert done.exit_code == 0
    file = load(tmp_path / "f.json")
    assert file.pages == PageCounts(calibration=2, test=2)
    assert {s.calibration.reason for s in file.statements.values()} <= {
        platt.NOT_SHOWN,
        platt.TOO_FEW,
    }
    assert open_kit(kit).manifest.findings is not None
