"""Reports as FHIR bundles that the validator passes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from reports import EVIL, finding, report

from pulse_edge.report import writers
from pulse_edge.report.fhir import Patient
from pulse_edge.report.report import (
    UNCALIBRATED,
    Contradiction,
    Report,
)


def checked(report: Report, page: Image.Image, patient: Patient | None = None) -> list[dict]:
    """The resources of a bundle that the validator has passed."""
    text = writers.render("fhir", report, page, patient).decode()
    Bundle.model_validate_json(text)
    return [entry["resource"] for entry in json.loads(text)["entry"]]


def test_full_fhir_bundle_is_valid(page: Image.Image) -> None:
    findings = (
        finding("A", 0.9, "present"),
        finding("B", 0.5, "uncertain", "often wrong"),
        replace(finding("C", 0.1, "absent"), codes={}),
        finding("D", None, None, UNCALIBRATED),
    )
    result = report(
        demonstration=False,
        findings=findings,
        contradictions=(Contradiction("findings", ("A",), "They clash."),),
    )
    resources = checked(result, page, Patient("42", "urn:oid:1.2.3"))
    kinds = [r["resourceType"] for r in resources]
    assert kinds == ["DiagnosticReport", *["Observation"] * 5, "Media", "Device"]
    assert [r.get("valueBoolean") for r in resources[2:6]] == [True, None, False, None]
    assert [code["text"] for code in resources[0]["conclusionCode"]] == ["statement A"]
    assert "1. statement D" in resources[0]["conclusion"]
    assert len({r["subject"]["identifier"]["value"] for r in resources[:7]}) == 1


def test_fhir_of_a_demonstration_kit_has_no_coded_conclusion(
    page: Image.Image,
) -> None:
    resources = checked(
        report(findings=(finding("A", 0.9, "present"), finding("B", 0.1, "absent"))), page
    )
    assert "conclusionCode" not in resources[0]
    assert not any("valueBoolean" in r for r in resources)
    reasons = [r["dataAbsentReason"]["text"] for r in resources[2:4]]
    assert reasons == ["a demonstration kit concludes nothing"] * 2


@pytest.mark.parametrize(
    "text", [EVIL, "", "\x1b", " ", "x" * 100_000], ids=["evil", "empty", "escape", "blank", "long"]
)
def test_fhir_is_valid_whatever_the_model_says(text: str, page: Image.Image) -> None:
    resources = checked(report(text, question=text or "?", file=text), page)
    assert "<script>" not in resources[0]["text"]["div"]


def test_fhir_references_resolve_within_the_bundle(page: Image.Image) -> None:
    bundle = json.loads(
        writers.render("fhir", report(findings=(finding("A", 0.9, "present"),)), page)
    )
    expected = {entry["fullUrl"] for entry in bundle["entry"]}
    assert len(expected) == len(bundle["entry"])

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["reference"]} if "reference" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert references(bundle) <= expected


def test_fhir_names_no_patient_unasked(page: Image.Image) -> None:
    text = writers.render("fhir", report(file="Erika Mustermann.png"), page).decode()
    assert "Erika" not in text
    assert "subject" not in text


@pytest.mark.parametrize("name", ["Пациент-7", "患者７", "مريض", "ÄÖ 42/7", "e\u0301", "a\u200cb"])
def test_patient_id_may_have_letters_of_any_alphabet(name: str, page: Image.Image) -> None:
    resources = checked(report(), page, Patient(name, "urn:oid:1.2"))
    assert resources[0]["subject"]["identifier"] == {"value": name, "system": "urn:oid:1.2"}
