"""Reports in every format: readable, and harmless whatever model and file names say."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pypdfium2
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from reports import EVIL, finding, report

import pulse_edge
from pulse_edge.report import content, pdf, writers
from pulse_edge.report.report import (
    DEMONSTRATION,
    INTENDED_USE,
    Contradiction,
    KitSummary,
    Report,
)

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
POOR = {
    "verdict": "usable", "forced": False, "leads": 9, "layout": "partial", "changed": False,
    "grid": {"pixels_per_mm": None}, "sheet": {"rotation": 0},
    "reasons": [{"check": "leads", "advice": "Only 9 of 12 leads were found. Take the picture again."}],
}  # fmt: skip


def pdf_of(source: Report, page: Image.Image) -> pypdfium2.PdfDocument:
    return pypdfium2.PdfDocument(pdf.to_pdf(source, page))


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
def test_every_format_begins_with_the_notice(form: str, page: Image.Image) -> None:
    result = writers.render(form, report(), page)
    text = pdf_text(pypdfium2.PdfDocument(result)).strip() if form == "pdf" else result.decode()
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
def test_kit_for_patients_has_no_notice(form: str, page: Image.Image) -> None:
    assert b"DEMONSTRATION KIT" not in writers.render(form, report(demonstration=False), page)


def test_usual_report_fits_one_page_with_all_its_words(page: Image.Image) -> None:
    findings = tuple(finding(f"S{n}", n / 30, "present" if n > 20 else "absent") for n in range(30))
    result = report(
        "Sinus rhythm at 72 bpm. " * 40,
        findings=findings,
        contradictions=(Contradiction("findings", ("S1",), "They clash."),),
    )
    pdf = pdf_of(result, page)
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


def test_very_long_report_continues_on_a_second_page(page: Image.Image) -> None:
    pdf = pdf_of(report("Sinus rhythm at 72 bpm. " * 1000), page)
    assert len(pdf) > 1
    assert " ".join(pdf_text(pdf).split()).count("Sinus rhythm at 72 bpm.") == 1000


def test_pdf_is_tagged_and_has_language_and_title(page: Image.Image) -> None:
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
def test_report_says_where_every_finding_is_absent(form: str, page: Image.Image) -> None:
    result = writers.render(form, report(findings=(finding("A", 0.1, "absent"),)), page)
    text = pdf_text(pypdfium2.PdfDocument(result)) if form == "pdf" else result.decode()
    assert content.NONE_PRESENT in text
    assert "statement A" in text


def test_pdf_shows_the_page(page: Image.Image) -> None:
    sheet = pdf_of(report(), page)[0].render(scale=1).to_pil().convert("RGB")
    colours = sheet.getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 100


def test_hostile_text_is_no_markup_in_html(page: Image.Image) -> None:
    plain = Tags(writers.render("html", report(), page).decode())
    result = report(
        EVIL, question=EVIL, file=EVIL, contradictions=(Contradiction("text", (), EVIL),)
    )
    evil = Tags(writers.render("html", result, page).decode())
    assert evil.names - {"section"} <= plain.names | {"ul", "li"}
    assert "script" not in evil.names
    assert "onerror" not in evil.attributes


def test_html_fetches_no_other_file(page: Image.Image) -> None:
    text = writers.render("html", report(), page).decode()
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_every_format_names_faults_of_the_page_and_intended_use(
    form: str, page: Image.Image
) -> None:
    raw = writers.render(form, report(quality=POOR), page)
    text = pdf_text(pypdfium2.PdfDocument(raw)) if form == "pdf" else raw.decode()
    text = " ".join(text.split())
    for words in ("usable", "Only 9 of 12 leads were found.", INTENDED_USE):
        assert words in text, words


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
def test_names_of_outputs_can_be_written_anywhere(file: str, stem: str) -> None:
    assert writers.stem(report(file=file)) == stem


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    from pulse_edge.common.files import write_whole

    def pieces():  # type: ignore[no-untyped-def]
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "report.html", pieces())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", writers.ENDINGS)
@pytest.mark.parametrize(
    "text", ["\udcff", "\x1b[2J", "\u202e", "\x00", "\ue000", "\U000e0041", ""], ids=ascii
)
def test_hostile_texts_anywhere_give_readable_files(
    form: str, text: str, page: Image.Image
) -> None:
    result = report(
        text,
        question=text or "?",
        file=text or "x",
        notice=text,
        device=text,
        versions={"pulse-edge": text, "k": text},
    )
    result = replace(
        result,
        kit=KitSummary(text, "0" * 64, True),
        contradictions=(Contradiction("text", (), text),),
    )
    raw = writers.render(form, result, page)
    if form == "fhir":
        Bundle.model_validate_json(raw)
    if form == "json":
        assert json.loads(raw)["kit"]["id"] == text
    if form != "pdf":
        assert not text or text not in raw.decode()


@pytest.mark.parametrize("form", ["text", "html", "pdf"])
def test_report_shows_utc_and_local_time(form: str, page: Image.Image) -> None:
    raw = writers.render(form, report(created_local="2026-01-02T08:34:05+05:30"), page)
    text = pdf_text(pypdfium2.PdfDocument(raw)) if form == "pdf" else raw.decode()
    assert "2026-01-02T03:04:05Z (2026-01-02 08:34:05 +0530)" in " ".join(text.split())


def test_section_is_added_by_one_function(
    page: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measurements(_report: Report) -> Iterator[content.Section]:
        rows = (("Rate", "72", "bpm"),)
        block = content.Block("table", head=("Measurement", "Value", "Unit"), rows=rows)
        yield content.Section("Measurements", (block,))

    monkeypatch.setattr(content, "SECTIONS", (*content.SECTIONS, measurements))
    for form in ("html", "pdf"):
        raw = writers.render(form, report(), page)
        text = pdf_text(pypdfium2.PdfDocument(raw)) if form == "pdf" else raw.decode()
        assert {"Measurements", "Rate", "72", "bpm"} <= set(re.findall(r"\w+", text))
