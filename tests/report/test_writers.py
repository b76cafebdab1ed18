"""What a report becomes: readable by people and by hospital systems, and harmless whatever model and file names say."""

from __future__ import annotations

import html.parser
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pypdfium2
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image

import pulse_edge
from pulse_edge.errors import OutputError
from pulse_edge.report import content, pdf, writers
from pulse_edge.report.fhir import Patient
from pulse_edge.report.report import (
    DEMONSTRATION,
    INTENDED_USE,
    UNCALIBRATED,
    Answer,
    Contradiction,
    Finding,
    KitSummary,
    Report,
)

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;]]> \x1b[2J\x1b]0;gone\x07 \u202egnp\u202c "
    '#panic("no") $x$ *bold* `raw` @ref <label> \\ "quotes" \'one\' =1+1 \x00 \x85 \udfff \U0001f4a9 \uffff'
)


def finding(key: str, probability: float | None, verdict: str | None, reason: str = "") -> Finding:
    about = (key, f"statement {key}", "rhythm", 2, {"scp": key}, 1, 0.5)
    return Finding(*about, probability, probability is not None, verdict, reason)  # type: ignore[arg-type]


def report(
    text: str = "Sinus rhythm.",
    *,
    question: str = "What?",
    demonstration: bool = True,
    **more: object,
) -> Report:
    made = Report(
        DEMONSTRATION if demonstration else "",
        "page.png",
        "1" * 64,
        (Answer(question, text, 3, True),),
        KitSummary("kit", "0" * 64, demonstration),
        "cpu",
        {"pulse-edge": "0.1.0"},
        {},
        80,
        created="2026-01-02T03:04:05Z",
    )
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page() -> Image.Image:
    return Image.open(PAGE).convert("RGB")


def pdf_of(made: Report, page: Image.Image) -> pypdfium2.PdfDocument:
    return pypdfium2.PdfDocument(pdf.to_pdf(made, page))


def pdf_text(pdf: pypdfium2.PdfDocument) -> str:
    return "".join(sheet.get_textpage().get_text_bounded() for sheet in pdf)


class Tags(html.parser.HTMLParser):
    """Which elements and attributes a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_every_format_starts_with_what_the_kit_is(form: str, page: Image.Image) -> None:
    made = writers.render(form, report(), page)
    text = pdf_text(pypdfium2.PdfDocument(made)).strip() if form == "pdf" else made.decode()
    if form == "html":
        text = text.split("<main>")[1].split(">", 1)[1]
    if form == "json":
        text = next(iter(json.loads(text).items()))[1]
    if form == "fhir":
        resources = [entry["resource"] for entry in json.loads(text)["entry"]]
        text = resources[0]["conclusion"]
        assert resources[1]["valueString"].startswith(DEMONSTRATION)
    assert text.startswith(DEMONSTRATION)


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_a_kit_for_patients_has_no_such_notice(form: str, page: Image.Image) -> None:
    assert b"DEMONSTRATION KIT" not in writers.render(form, report(demonstration=False), page)


def test_a_usual_report_fits_one_page_with_all_its_words(page: Image.Image) -> None:
    findings = tuple(finding(f"S{n}", n / 30, "present" if n > 20 else "absent") for n in range(30))
    made = report(
        "Sinus rhythm at 72 bpm. " * 40,
        findings=findings,
        contradictions=(Contradiction("findings", ("S1",), "They clash."),),
    )
    pdf = pdf_of(made, page)
    assert len(pdf) == 1
    text = " ".join(pdf_text(pdf).split())
    assert text.count("Sinus rhythm at 72 bpm.") == 40
    for words in (
        "They clash.",
        "statement S29",
        "0" * 64,
        "1" * 64,
        "Signature",
        "Read the ECG yourself.",
    ):
        assert words in text


def test_a_very_long_report_goes_on_rather_than_lose_a_word(page: Image.Image) -> None:
    pdf = pdf_of(report("Sinus rhythm at 72 bpm. " * 1000), page)
    assert len(pdf) > 1
    assert " ".join(pdf_text(pdf).split()).count("Sinus rhythm at 72 bpm.") == 1000


def test_a_pdf_is_tagged_and_says_its_language_and_title(page: Image.Image) -> None:
    raw = pdf.to_pdf(report(), page)
    opened = pypdfium2.PdfDocument(raw)
    assert opened.is_tagged()
    assert opened.get_metadata_dict()["Title"] == content.TITLE
    assert b"pdfuaid:part" in raw
    assert b"/Lang" in raw


def test_hostile_text_reaches_a_pdf_as_text(page: Image.Image) -> None:
    text = " ".join(pdf_text(pdf_of(report(EVIL, question=EVIL), page)).split())
    assert "<script>alert(1)</script>" in text
    assert '#panic("no") $x$ *bold* `raw` @ref <label>' in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.parametrize("form", ["html", "pdf"])
def test_where_all_is_absent_it_says_so(form: str, page: Image.Image) -> None:
    made = writers.render(form, report(findings=(finding("A", 0.1, "absent"),)), page)
    text = pdf_text(pypdfium2.PdfDocument(made)) if form == "pdf" else made.decode()
    assert content.NONE_PRESENT in text
    assert "statement A" in text


def test_a_picture_in_a_pdf_is_the_page(page: Image.Image) -> None:
    sheet = pdf_of(report(), page)[0].render(scale=1).to_pil().convert("RGB")
    colours = sheet.getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 100


def test_hostile_text_is_no_markup_in_html(page: Image.Image) -> None:
    plain = Tags(writers.render("html", report(), page).decode())
    made = report(EVIL, question=EVIL, file=EVIL, contradictions=(Contradiction("text", (), EVIL),))
    evil = Tags(writers.render("html", made, page).decode())
    assert evil.names - {"section"} <= plain.names | {"ul", "li"}
    assert "script" not in evil.names
    assert "onerror" not in evil.attributes


def test_html_fetches_nothing(page: Image.Image) -> None:
    text = writers.render("html", report(), page).decode()
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def checked(made: Report, page: Image.Image, patient: Patient | None = None) -> list[dict]:
    """The resources of a bundle that the validator has passed."""
    text = writers.render("fhir", made, page, patient).decode()
    Bundle.model_validate_json(text)
    return [entry["resource"] for entry in json.loads(text)["entry"]]


def test_fhir_is_valid_with_everything_in_it(page: Image.Image) -> None:
    findings = (
        finding("A", 0.9, "present"),
        finding("B", 0.5, "uncertain", "often wrong"),
        replace(finding("C", 0.1, "absent"), codes={}),
        finding("D", None, None, UNCALIBRATED),
    )
    made = report(
        demonstration=False,
        findings=findings,
        contradictions=(Contradiction("findings", ("A",), "They clash."),),
    )
    resources = checked(made, page, Patient("42", "urn:oid:1.2.3"))
    kinds = [r["resourceType"] for r in resources]
    assert kinds == ["DiagnosticReport", *["Observation"] * 5, "Media", "Device"]
    assert [r.get("valueBoolean") for r in resources[2:6]] == [True, None, False, None]
    assert [code["text"] for code in resources[0]["conclusionCode"]] == ["statement A"]
    assert "1. statement D" in resources[0]["conclusion"]
    assert len({r["subject"]["identifier"]["value"] for r in resources[:7]}) == 1


def test_fhir_of_a_demonstration_kit_concludes_nothing_that_a_program_could_act_on(
    page: Image.Image,
) -> None:
    resources = checked(
        report(findings=(finding("A", 0.9, "present"), finding("B", 0.1, "absent"))), page
    )
    assert "conclusionCode" not in resources[0]
    assert not any("valueBoolean" in r for r in resources)
    reasons = [r["dataAbsentReason"]["text"] for r in resources[2:4]]
    assert reasons == ["a demonstration kit concludes nothing"] * 2


POOR = {
    "verdict": "usable", "forced": False, "leads": 9, "layout": "partial", "changed": False,
    "grid": {"pixels_per_mm": None}, "sheet": {"rotation": 0},
    "reasons": [{"check": "leads", "advice": "Only 9 of 12 leads were found. Take the picture again."}],
}  # fmt: skip


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_what_is_wrong_with_the_page_and_what_the_text_is_for_stand_in_every_format(
    form: str, page: Image.Image
) -> None:
    raw = writers.render(form, report(quality=POOR), page)
    text = pdf_text(pypdfium2.PdfDocument(raw)) if form == "pdf" else raw.decode()
    text = " ".join(text.split())
    for words in ("usable", "Only 9 of 12 leads were found.", INTENDED_USE):
        assert words in text, words


@pytest.mark.parametrize(
    "text", [EVIL, "", "\x1b", " ", "x" * 100_000], ids=["evil", "empty", "escape", "blank", "long"]
)
def test_fhir_is_valid_whatever_the_model_says(text: str, page: Image.Image) -> None:
    resources = checked(report(text, question=text or "?", file=text), page)
    assert "<script>" not in resources[0]["text"]["div"]


def test_fhir_references_lead_to_the_bundle_s_own_entries(page: Image.Image) -> None:
    bundle = json.loads(
        writers.render("fhir", report(findings=(finding("A", 0.9, "present"),)), page)
    )
    known = {entry["fullUrl"] for entry in bundle["entry"]}
    assert len(known) == len(bundle["entry"])

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["reference"]} if "reference" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert references(bundle) <= known


def test_fhir_says_nothing_about_the_patient_unasked(page: Image.Image) -> None:
    text = writers.render("fhir", report(file="Erika Mustermann.png"), page).decode()
    assert "Erika" not in text
    assert "subject" not in text


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("/scans/page 7.png", "page_7-11111111"),
        ("fax.tiff#3", "fax-3-11111111"),
        ("..\\..\\x", "x-11111111"),
        ("../../etc/passwd", "passwd-11111111"),
        ("-", "page-11111111"),
        ("-rf.png", "page-rf-11111111"),
        ("CON", "CON-11111111"),
        ("\U0001f4a9" * 62, "page-11111111"),
        ("a" * 300, "a" * 80 + "-11111111"),
        ("Ärzte\n<b>.png", "Ärzte_b-11111111"),
    ],
)
def test_file_names_of_outputs_can_be_written_anywhere(file: str, stem: str) -> None:
    assert writers.stem(report(file=file)) == stem


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        "--threads",
        "1",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_several_formats_at_once_go_into_a_folder(tiny_kit: Path, tmp_path: Path) -> None:
    forms = [word for form in writers.ENDINGS for word in ("--format", form)]
    patient = ("--patient-id", "Erika-42", "--patient-system", "urn:oid:1.2")
    out = ("--findings", "-o", tmp_path / "out", "--retain", 1)
    done = run(PAGE, "--kit", tiny_kit, "--max-tokens", 8, *forms, *out, *patient)
    assert done.returncode == 0, done.stderr
    files = {Path(line) for line in done.stdout.splitlines()}
    assert files == set((tmp_path / "out").iterdir())
    assert {file.name.split(".", 1)[1] for file in files} == set(writers.ENDINGS.values())
    named = [file.name.split(".", 1)[1] for file in files if b"Erika-42" in file.read_bytes()]
    assert named == ["fhir.json"]
    log = Path(os.environ["PULSE_EDGE_AUDIT_LOG"])
    assert not any(b"Erika-42" in file.read_bytes() for file in log.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--format", "pdf"), "-o"),
        (("--format", "text", "--format", "json"), "-o"),
        (("--patient-id", "42"), "--format fhir"),
        (("--patient-id", ""), "--format fhir"),
        (("--format", "fhir", "--patient-id", ""), "--patient-id: is empty"),
        (("--format", "fhir", "--patient-id", " \u00a0"), "--patient-id: is empty"),
        (("--format", "fhir", "--patient-id", "\udce4"), r"--patient-id \udce4: has spaces"),
        (("--format", "fhir", "--patient-id", "4\u202e2"), r"--patient-id 4\u202e2: has spaces"),
        (("--format", "fhir", "--patient-id", "42\n"), r"--patient-id 42\n: has spaces"),
        (("--format", "fhir", "--patient-id", "4" * 201), "201 characters"),
        (("--format", "fhir", "--patient-system", "urn:oid:1.2"), "and the id"),
        (("--format", "fhir", "--patient-id", "4", "--patient-system", ""), "--patient-system"),
        (("--format", "fhir", "--patient-id", "4", "--patient-system", "our numbers"), "is no URI"),
    ],
)
def test_what_cannot_be_written_is_said_before_a_model_is_loaded(
    arguments: tuple[str, ...], word: str
) -> None:
    done = run(PAGE, "--kit", "nowhere", *arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_report_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    from pulse_edge.common.files import write_whole

    def pieces():  # type: ignore[no-untyped-def]
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "report.html", pieces())
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_was_refused_and_answered_says_so_in_every_format(
    tiny_kit: Path, tmp_path: Path
) -> None:
    from pulse_edge.report.report import FORCED

    Image.new("RGB", (800, 600), "white").save(tmp_path / "blank.png")
    forms = [word for form in writers.ENDINGS for word in ("--format", form)]
    done = run(
        tmp_path / "blank.png",
        "--kit",
        tiny_kit,
        "--max-tokens",
        2,
        "--force",
        *forms,
        "-o",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "out").iterdir():
        raw = file.read_bytes()
        text = pdf_text(pypdfium2.PdfDocument(raw)) if file.suffix == ".pdf" else raw.decode()
        assert FORCED in text, file


@pytest.mark.parametrize("name", ["Пациент-7", "患者７", "مريض", "ÄÖ 42/7", "e\u0301", "a\u200cb"])
def test_a_patient_s_id_may_have_letters_of_any_alphabet(name: str, page: Image.Image) -> None:
    resources = checked(report(), page, Patient(name, "urn:oid:1.2"))
    assert resources[0]["subject"]["identifier"] == {"value": name, "system": "urn:oid:1.2"}


@pytest.mark.parametrize("form", writers.ENDINGS)
@pytest.mark.parametrize(
    "text", ["\udcff", "\x1b[2J", "\u202e", "\x00", "\ue000", "\U000e0041", ""], ids=ascii
)
def test_hostile_texts_anywhere_in_a_report_give_files_that_can_be_read(
    form: str, text: str, page: Image.Image
) -> None:
    made = report(
        text,
        question=text or "?",
        file=text or "x",
        notice=text,
        device=text,
        versions={"pulse-edge": text, "k": text},
    )
    made = replace(
        made,
        kit=KitSummary(text, "0" * 64, True),
        contradictions=(Contradiction("text", (), text),),
    )
    raw = writers.render(form, made, page)
    if form == "fhir":
        Bundle.model_validate_json(raw)
    if form == "json":
        assert json.loads(raw)["kit"]["id"] == text
    if form != "pdf":
        assert not text or text not in raw.decode()


def test_another_question_about_the_same_page_has_files_of_its_own(
    tiny_kit: Path, tmp_path: Path
) -> None:
    how = (
        PAGE,
        "--kit",
        tiny_kit,
        "--max-tokens",
        2,
        "--no-findings",
        "-o",
        tmp_path / "out",
        "--format",
        "json",
    )
    written = []
    for question, more in (("One?", ()), ("Two?", ()), ("Three?", ("--overwrite",))):
        done = run(*how, "-q", question, *more)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        written.append(
            (Path(line).name, json.loads(Path(line).read_text())["answers"][0]["question"])
        )
    (first, _), (second, _), (third, _) = written
    assert [question for _, question in written] == ["One?", "Two?", "Three?"]
    assert second == first.replace(".json", "-2.json")
    assert third == first
    assert {path.name for path in (tmp_path / "out").iterdir()} == {first, second}


def test_saved_pages_of_one_name_stay_apart_and_inputs_and_links_are_left_alone(
    tmp_path: Path,
) -> None:
    page = Image.open(PAGE).convert("RGB")
    for folder, picture in (("a", page), ("b", page.point(lambda value: int(0.9 * value)))):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "scan.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.txt").write_text("precious")
    (out / "scan-2.png.png").symlink_to(tmp_path / "precious.txt")
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "check",
        "a/scan.png",
        "b/scan.png",
        "--save-page",
        "out",
    ]
    for _ in range(2):
        subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    names = {path.name for path in out.iterdir()}
    assert {f"scan{n}.png.png" for n in ("", "-2", "-3", "-4", "-5")} <= names
    pictures = {(out / f"scan{n}.png.png").read_bytes() for n in ("", "-3")}
    assert len(pictures) == 2
    assert (tmp_path / "precious.txt").read_text() == "precious"
    subprocess.run([*command, "--overwrite"], capture_output=True, check=True, cwd=tmp_path)
    assert {path.name for path in out.iterdir()} == names


def test_a_page_with_the_longest_name_can_be_saved(tmp_path: Path) -> None:
    page = tmp_path / f"{'ü' * 120}.png"
    shutil.copyfile(PAGE, page)
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "check",
        str(page),
        "--save-page",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, capture_output=True, check=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{'ü' * 100}.png.overlay.png",
        f"{'ü' * 100}.png.png",
    ]


def test_a_question_that_is_no_unicode_text_is_wrong_usage() -> None:
    done = run(PAGE, "--kit", "nowhere", "-q", os.fsdecode(b"Rhythm\xff?"))
    assert (done.returncode, done.stderr) == (
        2,
        "error: the question holds characters that are not valid UTF-8. Type it again.\n",
    )


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_a_folder_that_is_none_is_an_error_and_no_endless_search_for_a_name(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    if kind == "file":
        place.write_text("precious")
    else:
        place.symlink_to(tmp_path / "gone")
    target = writers.Target(place, "page")
    with pytest.raises(OutputError, match=r"out: cannot be written \(Not a directory"):
        writers.write(target, ["json"], report(), Image.new("RGB", (9, 9)))
    done = run(PAGE, "--kit", "nowhere", "--format", "json", "-o", place)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: -o {place}: exists and is no folder. Name a folder, or one that does not exist yet.\n",
    )
