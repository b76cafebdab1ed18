"""A report whose words contradict the trace says so above its words, in every output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import measured_pages
import pypdfium2
import pytest

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli.main import main
from pulse_edge.errors import EngineError
from pulse_edge.inference import decoding
from pulse_edge.inference.decoding import Piece

WORDS = "Sinus bradycardia with a heart rate of 42 bpm."
SENTENCE = 'The text says "heart rate of 42 bpm"'


def given_answer(*_of_the_model: object) -> Iterator[Piece]:
    """Give the same words about every page, token by token, in the model's place."""
    for word in WORDS.split(" "):
        yield Piece(3, f"{word} ")
    return True


@pytest.fixture
def command(
    tiny_kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # type: ignore[no-untyped-def]
    """Run pulse-edge in this process with the given answer; give its standard output."""
    monkeypatch.setattr(decoding, "generate", given_answer)
    monkeypatch.setenv("PULSE_EDGE_AUDIT_LOG", str(tmp_path / "log"))
    page = measured_pages.write(tmp_path)

    def run(name: str, *more: str, code: int = 0) -> str:
        arguments = [str(page), "--kit", str(tiny_kit), "--device", "cpu", "--threads", "1", *more]
        monkeypatch.setattr(sys, "argv", ["pulse-edge", name, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        assert ended.value.code == code, out.err
        return out.out

    return run


def checks_in_the_log(folder: Path) -> list[list[str]]:
    entries = list(AuditLog(folder / "log").entries())
    checks: list[list[str]] = entries[-1].fields["checks"]
    return checks


def test_redirected_text_has_the_contradiction_above_the_words(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = command("interpret")
    assert text.index(f"CONTRADICTION: {SENTENCE}") < text.index(WORDS)
    assert text.index("DEMONSTRATION") < text.index("CONTRADICTION")
    assert "Ventricular rate: mean 66 bpm" in text
    assert "Statements against the trace: 2 contradicted, 0 supported, 0 not measurable." in text
    assert ["rate", "contradicted"] in checks_in_the_log(tmp_path)


def test_terminal_shows_the_words_as_they_come(  # type: ignore[no-untyped-def]
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    text = command("interpret")
    assert text.index(WORDS) < text.index(f"CONTRADICTION: {SENTENCE}")


def test_words_before_a_fault_are_printed(command, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def broken_answer(*_of_the_model: object) -> Iterator[Piece]:
        yield Piece(3, "Sinus bradycardia")
        raise EngineError("The engine failed. Run again.")

    monkeypatch.setattr(decoding, "generate", broken_answer)
    assert "Sinus bradycardia" in command("interpret", code=1)


def test_files_of_every_form_have_the_contradiction_above_the_words(  # type: ignore[no-untyped-def]
    command, tmp_path: Path
) -> None:
    forms = ("text", "json", "html", "pdf", "fhir")
    command("interpret", "-o", str(tmp_path / "out"), *(f"--format={form}" for form in forms))
    files = {path.name.partition(".")[2]: path for path in (tmp_path / "out").iterdir()}
    texts = {ending: path.read_bytes().decode("utf-8", "replace") for ending, path in files.items()}
    report = json.loads(texts["json"])
    assert {c["kind"] for c in report["contradictions"]} == {"measurement"}
    assert any(c["text"].startswith(SENTENCE) for c in report["contradictions"])
    assert {c["verdict"] for c in report["checks"]} == {"contradicted"}
    assert texts["txt"].index(SENTENCE) < texts["txt"].index(WORDS)
    escaped = SENTENCE.replace('"', "&quot;")
    html = texts["html"]
    assert html.index(escaped) < html.index(f'class="answer">{WORDS}')
    bundle = [entry["resource"] for entry in json.loads(texts["fhir.json"])["entry"]]
    assert bundle[0]["conclusion"].index(SENTENCE) < bundle[0]["conclusion"].index(WORDS)
    assert any("valueSampledData" in c for r in bundle for c in r.get("component", ()))
    with pypdfium2.PdfDocument(files["pdf"]) as pdf:
        text = " ".join("".join(s.get_textpage().get_text_bounded() for s in pdf).split())
    assert text.index("heart rate of 42 bpm") < text.index(WORDS)


def test_without_measurement_there_is_no_measurement_check_or_contradiction(  # type: ignore[no-untyped-def]
    command, tmp_path: Path
) -> None:
    report = json.loads(command("interpret", "--json", "--no-measure"))
    assert (report["measurements"], report["checks"], report["contradictions"]) == ([], [], [])
    assert "measure" not in report["seconds"]
    assert report["answers"][0]["text"] == WORDS
    text = command("interpret", "--no-measure")
    assert "CONTRADICTION" not in text
    assert "Measured on the trace" not in text
    assert checks_in_the_log(tmp_path) == []


def test_age_selects_the_limits_of_children(command) -> None:  # type: ignore[no-untyped-def]
    adult = json.loads(command("interpret", "--json"))["checks"]
    child = json.loads(command("interpret", "--json", "--age", "3"))["checks"]
    assert [c["sentence"] for c in adult] != [c["sentence"] for c in child]
    assert any("Adult limits." in c["sentence"] for c in adult)
    assert not any("Adult limits." in c["sentence"] for c in child)
