"""`pulse-edge audit confirm` and `audit agreement`."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pypdfium2
import pytest
from confirmed_logs import KIT, OTHER_KIT, confirmation, verdict
from overreads import READER, log_with, read_page

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.report import stored

QUALITY = {
    "verdict": "good", "forced": False, "changed": False, "facts": {}, "leads": 12,
    "layout": "3x4+1", "reasons": [], "grid": {"pixels_per_mm": 8.0}, "sheet": {"rotation": 0},
}  # fmt: skip


def audit(log: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", "audit", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """A folder with a report and the log that has its answers."""
    page = read_page()
    log_with(tmp_path / "log", page)
    (tmp_path / "page.json").write_text(page.to_json() + "\n")
    return tmp_path


def confirm(folder: Path, *words: object, file: str = "page.json") -> list[str]:
    """Confirm a report; the lines that were printed."""
    done = audit(folder / "log", "confirm", folder / file, "--reader", READER, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_reader_agrees_and_finds_the_confirmed_report_next_to_the_old_one(answered: Path) -> None:
    before = (answered / "page.json").read_bytes()
    line, file = confirm(answered, "--agree")
    assert line.startswith(f"Confirmed without change by {READER}, ")
    assert file == str(answered / "page-confirmed.json")
    result = stored.read(Path(file))
    assert result.overread == line
    assert (answered / "page.json").read_bytes() == before
    listed = audit(answered / "log", "list").stdout.splitlines()
    assert listed[-1].endswith(f"kit, confirmed by {READER}, agreed")
    assert AuditLog(answered / "log").verify().entries == 3


def test_reader_changes_adds_and_concludes(answered: Path) -> None:
    words = ["--agree", "--change", "afib=absent", "--change", "WPW=present"]
    words += ["--change", "STE=not-assessable", "--change", "Brugada pattern=present"]
    words += ["--reject-texts", "--conclusion", "Show to a cardiologist.", "--comment", "V2 high."]
    _line, file = confirm(answered, *words)
    result = stored.read(Path(file)).confirmation
    assert result is not None
    assert [(r.statement, r.decision, r.verdict) for r in result.findings] == [
        ("AFIB", "changed", "absent"),
        ("LVH", "agreed", "absent"),
        ("PVC", "agreed", "not assessable"),
        ("STE", "judged", "not assessable"),
    ]
    assert [a.name for a in result.added] == ["Wolff-Parkinson-White pattern", "Brugada pattern"]
    assert [t.decision for t in result.texts] == ["rejected"]
    assert (result.conclusion, result.comment) == ("Show to a cardiologist.", "V2 high.")


def test_confirmed_report_is_corrected_by_confirming_it_again(answered: Path) -> None:
    confirm(answered, "--agree")
    line, file = confirm(answered, "--reject", file="page-confirmed.json")
    assert line.startswith("Rejected as a whole, do not use: ")
    assert file == str(answered / "page-confirmed-2.json")
    listed = audit(answered / "log", "list").stdout.splitlines()
    assert listed[-1].endswith(f"kit, corrected by {READER}, rejected")
    shown = audit(answered / "log", "show", 3).stdout
    assert shown.splitlines()[-1] == f"entry 4: corrected by {READER}, rejected"


def test_show_names_who_confirmed_an_answer(answered: Path) -> None:
    confirm(answered, "--agree")
    assert audit(answered / "log", "show", 1).stdout.splitlines()[-1] == (
        f"entry 3: confirmed by {READER}, agreed"
    )


def test_readers_texts_are_retained_and_shown(answered: Path) -> None:
    confirm(answered, "--agree", "--conclusion", "Show to a cardiologist.", "--retain", 3)
    assert "Show to a cardiologist." in audit(answered / "log", "show", 3).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no decision about AFIB, LVH, PVC, the text of answer 1"),
        (("--change", "AFIB=absent"), "no decision about LVH, PVC, the text of answer 1"),
        (("--agree", "--change", "AFIB"), "--change AFIB: is not FINDING=VERDICT"),
        (("--agree", "--change", "AFIB=maybe"), "is not FINDING=VERDICT"),
        (("--agree", "--change", "AFIB=present"), "is what the software says"),
        (("--agree", "--reject"), "leave --agree and --change out"),
        (("--agree", "--reader", " "), "the reader's name is empty"),
    ],
)
def test_what_is_no_decision_is_refused_without_an_entry(
    answered: Path, words: tuple[str, ...], message: str
) -> None:
    done = audit(answered / "log", "confirm", answered / "page.json", "--reader", READER, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert AuditLog(answered / "log").verify().entries == 2
    assert sorted(p.name for p in answered.iterdir()) == ["log", "page.json"]


def test_altered_report_leaves_no_file(answered: Path) -> None:
    text = (answered / "page.json").read_text().replace("Sinus rhythm.", "All is well.")
    (answered / "page.json").write_text(text)
    done = audit(answered / "log", "confirm", answered / "page.json", "--reader", "A", "--agree")
    assert done.returncode == 2
    assert "are not in this audit log, or were altered since" in done.stderr
    assert sorted(p.name for p in answered.iterdir()) == ["log", "page.json"]


@pytest.mark.parametrize("quality", [None, QUALITY], ids=["not checked", "checked"])
def test_pdf_of_the_confirmed_report_shows_the_page_and_the_reader(
    tmp_path: Path, quality: dict[str, object] | None
) -> None:
    digest = hashlib.sha256(EXAMPLE_PAGE.read_bytes()).hexdigest()
    page = read_page(page_sha256=digest, quality=quality)
    log_with(tmp_path / "log", page)
    (tmp_path / "page.json").write_text(page.to_json())
    (tmp_path / "other.png").write_bytes(EXAMPLE_PAGE.read_bytes() + b" ")
    words = ["confirm", tmp_path / "page.json", "--reader", READER, "--agree", "--pdf"]
    done = audit(tmp_path / "log", *words, tmp_path / "other.png")
    assert done.returncode == 2
    assert "is not the page of this report" in done.stderr
    *_, file = confirm(tmp_path, "--agree", "--pdf", EXAMPLE_PAGE)
    assert file == str(tmp_path / "page-confirmed.pdf")
    document = pypdfium2.PdfDocument(file)
    assert f"ECG read by {READER}" in document[0].get_textpage().get_text_bounded()


def test_what_is_no_report_is_named(answered: Path) -> None:
    for name, text in (("x.json", "{}"), ("y.json", "\x00")):
        (answered / name).write_text(text)
        done = audit(answered / "log", "confirm", answered / name, "--reader", "A", "--agree")
        assert done.returncode == 2
        assert f"{name}: is no report of this version" in done.stderr
    done = audit(answered / "log", "confirm", answered / "gone.json", "--reader", "A")
    assert "gone.json: cannot be read" in done.stderr


def test_export_has_confirmations_in_both_forms(answered: Path) -> None:
    confirm(answered, "--agree")
    last = json.loads(audit(answered / "log", "export").stdout.splitlines()[-1])
    assert (last["kind"], last["reader"]) == ("confirmation", READER)
    table = audit(answered / "log", "export", "--format", "csv").stdout.splitlines()
    rows = list(csv.DictReader(table))
    assert [(row["kind"], row["reader"], row["overall"]) for row in rows][1:] == [
        ("", "", ""), ("confirmation", READER, "agreed")
    ]  # fmt: skip


def test_local_test_set_is_exported_where_pictures_were_retained(tmp_path: Path) -> None:
    page = read_page()
    log_with(tmp_path / "log", page, retain_days=3)
    (tmp_path / "page.json").write_text(page.to_json())
    confirm(tmp_path, "--agree")
    done = audit(tmp_path / "log", "export", "--local-test-set", tmp_path / "set")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'set'}: 1 page, 2 questions\n")
    assert "The folder holds patients' pages" in done.stderr
    assert len(json.loads((tmp_path / "set" / "ecgqa-test.json").read_text())) == 2


# --- agreement ------------------------------------------------------------------------------------


@pytest.fixture
def confirmed_log(tmp_path: Path) -> Path:
    """A log of 130 confirmed reports: the readers change a half of the last 30."""
    log = AuditLog(tmp_path / "log")
    for n in range(130):
        changed = n % 20 == 0 if n < 100 else n % 2 == 0
        both = verdict("present", "absent" if changed else "present")
        day = f"2026-{1 + n // 65:02}-20" if n < 100 else "2026-03-20"
        overall = "changed" if changed else "agreed"
        log.append(confirmation(n, {"AFIB": both}, day=day, overall=overall))
    log.append(
        confirmation(1, {"LVH": verdict("absent", "absent", calibrated=False)}, kit=OTHER_KIT)
    )
    return log.folder


def test_agreement_says_counts_shares_months_and_the_alarm(confirmed_log: Path) -> None:
    done = audit(confirmed_log, "agreement")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("agreement tends to overstate accuracy.")
    assert "# Kit kit-7b, aaaaaaaaaaaa: 130 reports, 1 reader" in lines
    assert "Agreed without change: 85% (77% to 90%, of 130); rejected as a whole: 0" in lines
    assert "Without change by month: 2026-01 61 of 65, 2026-02 34 of 35, 2026-03 15 of 30" in lines
    start = lines.index("Verdicts (calibrated)")
    assert lines[start + 1] == (
        "  atrial fibrillation: 130 pages: both 110, software alone 20, reader alone 0, neither 0"
    )
    alarms = [line for line in lines if line.startswith("DRIFT ALARM 2026-03: readers changed ")]
    assert [" ".join(line.split()[5:12]) for line in alarms] == [
        "15 of 30 reports; at first 5",
        "15 of 30 verdicts on atrial fibrillation;",
    ]
    other = lines.index("# Kit kit-4b (demonstration), bbbbbbbbbbbb: 1 report, 1 reader")
    assert any(line.startswith("Sides of the log odds (not calibrated") for line in lines[other:])
    assert lines[-1].startswith("Drift: not tested, too few reports: 1 of 100")


def test_agreement_in_json_and_csv_has_the_same_figures(confirmed_log: Path) -> None:
    fields = json.loads(audit(confirmed_log, "agreement", "--json").stdout)
    kit = fields["kits"][0]
    assert (kit["sha256"], kit["reports"], kit["unchanged"]["cases"]) == (KIT["sha256"], 130, 130)
    rows = list(csv.DictReader(audit(confirmed_log, "agreement", "--csv").stdout.splitlines()))
    (row,) = (r for r in rows if r["statement"] == "AFIB" and not r["month"])
    afib = kit["findings"][0]
    assert int(row["software_alone"]) == afib["software_alone"] == 20
    assert float(row["positive_predictive_value_low"]) == pytest.approx(
        afib["positive_predictive_value"]["low"], abs=1e-4
    )
    months = [(r["month"], r["cases"], r["same"]) for r in rows if not r["statement"]][1:4]
    assert months == [("2026-01", "65", "61"), ("2026-02", "35", "34"), ("2026-03", "30", "15")]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--since", "March"), 2, "--since March: is no day"),
        (("--json", "--csv"), 2, "choose one of them"),
        (("--since", "2030-01-01"), 1, "has no confirmed report to compare"),
        (("--kit", "another"), 1, "has no confirmed report to compare"),
    ],
)
def test_agreement_without_cases_says_why(
    confirmed_log: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = audit(confirmed_log, "agreement", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
