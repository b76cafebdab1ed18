"""Documents of confirmed and unconfirmed reports."""

from __future__ import annotations

import json

import pypdfium2
import pytest
from fhir.resources.R4B.bundle import Bundle
from overreads import AT, LATER, READER, read_page
from PIL import Image
from reports import EVIL, report

from pulse_edge.report import writers
from pulse_edge.report.confirmation import (
    UNCONFIRMED,
    AddedFinding,
    Confirmation,
    FindingReview,
    TextReview,
)
from pulse_edge.report.overread import agreement, confirmed
from pulse_edge.report.report import Report

CHANGED = Confirmation(
    READER,
    findings=(
        FindingReview("AFIB", "rejected", comment="P waves in V1"),
        FindingReview("LVH", "changed", "present", "Sokolow 42 mm"),
        FindingReview("PVC", "agreed"),
        FindingReview("STE", "judged", "absent"),
    ),
    added=(AddedFinding("Brugada pattern"), AddedFinding(statement="WPW")),
    texts=(TextReview(0, "changed", "Sinus rhythm, left ventricular hypertrophy."),),
    conclusion="Please show to a cardiologist.",
    comment="Compared with 2024.",
)


def words(form: str, source: Report, page: Image.Image) -> str:
    """The words of a document for people, without line breaks."""
    raw = writers.render(form, source, page)
    sheets = pypdfium2.PdfDocument(raw) if form == "pdf" else ()
    text = "".join(s.get_textpage().get_text_bounded() for s in sheets) or raw.decode()
    return " ".join(text.split())


def resources(source: Report, page: Image.Image) -> dict[str, dict]:
    """The resources of a bundle that the validator has passed, by code or type."""
    text = writers.render("fhir", source, page).decode()
    Bundle.model_validate_json(text)
    items = [entry["resource"] for entry in json.loads(text)["entry"]]
    return {r.get("code", {}).get("text", r["resourceType"]): r for r in items}


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_every_format_says_that_no_reader_has_confirmed_it(form: str, page: Image.Image) -> None:
    text = words(form, report(), page)
    assert UNCONFIRMED in text
    if form in ("text", "pdf"):
        assert text.split("NOT FOR PATIENTS")[1].strip().startswith(UNCONFIRMED)


@pytest.mark.parametrize("form", writers.ENDINGS)
def test_every_format_names_the_reader_and_the_time(form: str, page: Image.Image) -> None:
    source = read_page()
    text = words(form, confirmed(source, agreement(source, READER), AT), page)
    line = "Confirmed without change by Dr Amina Diallo, 2026-03-04T05:06:07Z (2026-03-04 06:06:07 +0100)"
    assert line in text
    if form != "fhir":  # measured values and findings without a decision stay unconfirmed there
        assert UNCONFIRMED not in text


@pytest.mark.parametrize("form", ["text", "html", "pdf"])
def test_both_versions_stand_where_they_differ(form: str, page: Image.Image) -> None:
    text = words(form, confirmed(read_page(), CHANGED, AT), page)
    for part in (
        "Please show to a cardiologist.",
        "Compared with 2024.",
        "Sokolow 42 mm",
        "P waves in V1",
        "Brugada pattern",
        "Wolff-Parkinson-White pattern",
        "As the reader edited it:",
        "Sinus rhythm, left ventricular hypertrophy.",
        "As the software wrote it, not confirmed:",
    ):
        assert part in text, part
    assert text.index("left ventricular hypertrophy.") < text.index("As the software wrote it")


@pytest.mark.parametrize("form", ["html", "pdf"])
def test_table_of_findings_has_both_verdicts(form: str, page: Image.Image) -> None:
    text = words(form, confirmed(read_page(), CHANGED, AT), page)
    if form == "html":
        cells = "<td>atrial fibrillation</td><td>present</td><td>absent</td>"
        assert cells in text
    else:
        assert "atrial fibrillation present absent" in text
    assert "Absent for the software alone:" in text


@pytest.mark.parametrize("form", ["html", "pdf"])
def test_signature_line_has_the_readers_name(form: str, page: Image.Image) -> None:
    source = read_page()
    assert "ECG read by (name)" in words(form, source, page)
    text = words(form, confirmed(source, agreement(source, READER), AT), page)
    assert f"ECG read by {READER}" in text


@pytest.mark.parametrize("form", ["text", "html", "pdf"])
def test_rejected_text_says_so(form: str, page: Image.Image) -> None:
    result = confirmed(report(), Confirmation(READER, texts=(TextReview(0, "rejected"),)), AT)
    text = words(form, result, page)
    assert "Rejected by the reader. The software wrote:" in text


def test_only_what_was_decided_is_final_in_fhir(page: Image.Image) -> None:
    result = resources(confirmed(read_page(), CHANGED, AT), page)
    assert {name: r.get("status") for name, r in result.items()} == {
        "ECG page, read by software": "final",
        "What?": "final",
        "atrial fibrillation": "final",
        "left ventricular hypertrophy": "final",
        "premature ventricular contractions": "final",
        "ST elevation": "final",
        "pacemaker rhythm": "preliminary",
        "Brugada pattern": "final",
        "Wolff-Parkinson-White pattern": "final",
        "Media": "completed",
        "Device": None,
    }


def test_fhir_has_the_readers_verdicts_and_codes(page: Image.Image) -> None:
    result = resources(confirmed(read_page(), CHANGED, AT), page)
    values = {name: r.get("valueBoolean") for name, r in result.items()}
    assert values["atrial fibrillation"] is False
    assert values["left ventricular hypertrophy"] is True
    assert values["premature ventricular contractions"] is None
    assert values["ST elevation"] is False
    assert values["Brugada pattern"] is True
    assert values["pacemaker rhythm"] is None
    codes = result["ECG page, read by software"]["conclusionCode"]
    assert [c["text"] for c in codes] == [
        "left ventricular hypertrophy", "Brugada pattern", "Wolff-Parkinson-White pattern"
    ]  # fmt: skip
    assert result["What?"]["valueString"] == "Sinus rhythm, left ventricular hypertrophy."
    assert {"text": "The software wrote: Sinus rhythm."} in result["What?"]["note"]
    notes = [note["text"] for note in result["atrial fibrillation"]["note"]]
    assert "The software: present. The reader: absent (rejected)." in notes
    assert "device" not in result["Brugada pattern"]


def test_fhir_names_the_reader_as_a_contained_practitioner(page: Image.Image) -> None:
    result = resources(confirmed(read_page(), CHANGED, AT), page)
    top, finding = result["ECG page, read by software"], result["atrial fibrillation"]
    person = {"resourceType": "Practitioner", "id": "reader", "name": [{"text": READER}]}
    assert top["contained"] == finding["contained"] == [person]
    assert top["resultsInterpreter"] == finding["performer"] == [{"reference": "#reader"}]
    assert top["issued"] == finding["issued"] == AT.utc
    assert "performer" not in result["pacemaker rhythm"]


def test_unconfirmed_fhir_names_no_reader(page: Image.Image) -> None:
    result = resources(read_page(), page)
    assert result["ECG page, read by software"]["status"] == "preliminary"
    assert not any("contained" in r or "performer" in r for r in result.values())


def test_corrected_confirmation_is_amended_in_fhir(page: Image.Image) -> None:
    first = confirmed(read_page(), CHANGED, AT)
    result = resources(confirmed(first, agreement(first, "Dr Ben Okri"), LATER), page)
    top = result["ECG page, read by software"]
    assert (top["status"], top["issued"]) == ("amended", LATER.utc)
    assert result["atrial fibrillation"]["status"] == "amended"
    assert "replaces what Dr Amina Diallo confirmed" in top["conclusion"]


def test_confirmation_keeps_the_ids_of_the_resources(page: Image.Image) -> None:
    source = read_page()

    def ids(one: Report) -> set[str]:
        bundle = json.loads(writers.render("fhir", one, page))
        return {entry["fullUrl"] for entry in bundle["entry"]}

    assert ids(source) == ids(confirmed(source, agreement(source, READER), AT))


def test_added_finding_keeps_its_id_in_a_correction(page: Image.Image) -> None:
    def ids(*names: str) -> dict[str, str]:
        given = Confirmation(
            READER,
            added=tuple(AddedFinding(name) for name in names),
            texts=(TextReview(0, "agreed"),),
        )
        bundle = json.loads(writers.render("fhir", confirmed(report(), given, AT), page))
        return {
            e["resource"].get("code", {}).get("text", ""): e["fullUrl"] for e in bundle["entry"]
        }

    first, second = ids("Brugada pattern", "U waves"), ids("U waves")
    assert first["U waves"] == second["U waves"] != first["Brugada pattern"]


def test_rejected_report_has_no_code_of_the_software_in_fhir(page: Image.Image) -> None:
    source = read_page()
    assert "conclusionCode" in resources(source, page)["ECG page, read by software"]
    result = confirmed(source, Confirmation(READER, overall="rejected"), AT)
    assert "conclusionCode" not in resources(result, page)["ECG page, read by software"]


def test_demonstration_kit_gives_no_value_even_where_a_reader_agrees(page: Image.Image) -> None:
    source = report(findings=read_page().findings)
    result = resources(confirmed(source, agreement(source, READER), AT), page)
    assert not any("valueBoolean" in r for r in result.values())
    assert "conclusionCode" not in result["ECG page, read by software"]


@pytest.mark.parametrize("form", ["text", "html", "pdf", "fhir"])
def test_hostile_words_of_a_reader_are_text(form: str, page: Image.Image) -> None:
    given = Confirmation(
        READER,
        added=(AddedFinding("<b>x</b>", comment=EVIL),),
        texts=(TextReview(0, "changed", EVIL),),
        conclusion=EVIL,
        comment=EVIL,
    )
    result = confirmed(report(), given, AT)
    if form == "fhir":
        for resource in resources(result, page).values():
            assert "<script>" not in resource.get("text", {}).get("div", "")
        return
    text = words(form, result, page)
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    if form == "html":
        assert not any(tag in text for tag in ("<script>", "<b>", "<img src=x"))
