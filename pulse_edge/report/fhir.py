"""A report and its page as a FHIR R4 Bundle.

It holds a DiagnosticReport, an Observation for each answer and finding, Media and Device. The
patient appears only as the caller names it; the picture may still show a name. LOINC 11524-6 is
the ECG study, SNOMED CT codes are those of `findings`. Everything is preliminary, because no
clinician has read it yet.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pulse_edge.common.text import one_line, printable
from pulse_edge.errors import UsageError
from pulse_edge.measurement.signal import TracedSignal
from pulse_edge.measurement.summary import summary_lines
from pulse_edge.report import fhir_trace
from pulse_edge.report.content import by_urgency, page_lines, without_verdict
from pulse_edge.report.report import Finding, Report

Resource = dict[str, Any]
MAX_ID = 200
"""Characters of a patient's id, far more than hospitals' numbers have."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,500}")
_HL7 = "http://terminology.hl7.org/CodeSystem"
SYSTEMS = {"snomed": "http://snomed.info/sct", "scp": "urn:iso:std:iso:11073:91064"}
"""SCP-ECG has no code system of its own in FHIR: it is named by the standard that it became, ISO
11073-91064."""


@dataclass(frozen=True)
class Patient:
    """Whom the report is about, as the hospital names it. Goes into FHIR and nowhere else.

    Raises UsageError for an id or a numbering that FHIR or a hospital system would refuse, or take
    for another one.
    """

    id: str
    system: str | None = None
    """URI of the hospital's numbering."""

    def __post_init__(self) -> None:
        if not self.id.strip():
            raise UsageError(
                "--patient-id: is empty. Give the patient's id, or leave the option out."
            )
        if len(self.id) > MAX_ID:
            raise UsageError(
                f"--patient-id: has {len(self.id):,} characters; {MAX_ID} is the limit. Give the "
                "id alone."
            )
        if self.id != self.id.strip() or one_line(self.id) != self.id:
            raise UsageError(
                f"--patient-id {one_line(self.id)}: has spaces at an end, or characters that "
                "cannot be printed or are not "
                "UTF-8. Type it again; letters of any alphabet are allowed."
            )
        if self.system is not None and not _URI.fullmatch(self.system):
            raise UsageError(
                f"--patient-system {one_line(self.system)}: is no URI. Give one such as "
                "urn:oid:1.2.3 or "
                "https://hospital.example/patients."
            )


def to_fhir(
    report: Report,
    page: Image.Image,
    patient: Patient | None = None,
    signal: TracedSignal | None = None,
) -> bytes:
    """Return a Bundle (collection) as one line of JSON, with the traced `signal` if there is one.

    The same report gives the same ids.
    """
    entries = list(_entries(report, page, patient, signal))
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": report.created,
        "entry": [
            {"fullUrl": _url(report, name), "resource": resource} for name, resource in entries
        ],
    }
    return json.dumps(_printable(bundle), ensure_ascii=False).encode("utf-8") + b"\n"


def _printable(value: Any) -> Any:
    """A value of JSON whose texts any reader takes; FHIR has no empty ones."""
    if isinstance(value, str):
        return printable(value).strip() or "-"
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _entries(
    report: Report, page: Image.Image, patient: Patient | None, signal: TracedSignal | None
) -> Iterator[tuple[str, Resource]]:
    subject = {} if patient is None else {"subject": _reference_to(patient)}
    observed = [(f"answer-{n}", _answer(report, n)) for n in range(len(report.answers))]
    observed += [(f"finding-{f.statement}", _finding(report, f)) for f in report.findings]
    observed += [
        (f"measurement-{m.key}", _observation(report) | fhir_trace.measurement_fields(m))
        for m in report.measurements
    ]
    if signal is not None and report.measurements:
        observed.append(("signal", _observation(report) | fhir_trace.signal_fields(signal)))
    yield "report", _report(report, [name for name, _ in observed]) | subject
    for name, resource in observed:
        yield name, resource | subject
    yield "media", _media(page) | subject
    yield "device", _device(report)


def _report(report: Report, results: list[str]) -> Resource:
    conclusion = [report.notice, report.intended_use, *page_lines(report.quality)]
    conclusion += [f"CONTRADICTION: {c.text}" for c in report.contradictions]
    conclusion += summary_lines(report.measurements) if report.measurements else []
    conclusion += [
        f"{f.verdict}: {f.name} ({f.probability:.0%})"
        for f in by_urgency(report)
        if f.verdict != "absent"
    ]
    conclusion += without_verdict(report)
    conclusion += [answer.text for answer in report.answers]
    text = printable("\n".join(line for line in conclusion if line))
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": _narrative(text)},
        "status": "preliminary",
        "category": [_coded(f"{_HL7}/v2-0074", "EC")],
        "code": _coded("http://loinc.org", "11524-6") | {"text": "ECG page, read by software"},
        "issued": report.created,
        "result": [{"reference": _url(report, name)} for name in results],
        "media": [{"link": {"reference": _url(report, "media")}}],
        "conclusion": text,
    }
    if present := [f for f in report.findings if _concludes(report, f) and f.verdict == "present"]:
        resource["conclusionCode"] = [_statement(f) for f in present]
    return resource


def _concludes(report: Report, finding: Finding) -> bool:
    """Whether a finding may be coded: programs act on codes without reading the notes."""
    return finding.verdict in ("present", "absent") and not report.kit.demonstration


def _observation(report: Report) -> Resource:
    page = " ".join(page_lines(report.quality))
    notes = [
        n
        for n in (report.notice, report.intended_use, page, f"page SHA-256 {report.page_sha256}")
        if n
    ]
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_coded(f"{_HL7}/observation-category", "procedure")],
        "issued": report.created,
        "device": {"reference": _url(report, "device")},
        "note": [{"text": text} for text in notes],
    }


def _answer(report: Report, n: int) -> Resource:
    answer = report.answers[n]
    text = printable(answer.text)
    value = f"{report.notice}\n{text}" if report.notice else text
    resource = _observation(report) | {
        "code": {"text": printable(answer.question).strip() or "question"}
    }
    if text.strip():
        resource["valueString"] = value
    else:
        resource["dataAbsentReason"] = _coded(f"{_HL7}/data-absent-reason", "unknown")
    if not answer.complete:
        resource["note"].append({"text": f"The answer was cut off after {answer.tokens} tokens."})
    return resource


def _finding(report: Report, finding: Finding) -> Resource:
    resource = _observation(report) | {"code": _statement(finding)}
    resource["method"] = {
        "text": "probability of the answer yes against no to one question about the page"
    }
    resource["component"] = [_number(finding)]
    if _concludes(report, finding):
        resource["valueBoolean"] = finding.verdict == "present"
        return resource
    why = (
        "a demonstration kit concludes nothing"
        if report.kit.demonstration
        else finding.reason or "uncertain"
    )
    resource["dataAbsentReason"] = _coded(f"{_HL7}/data-absent-reason", "unknown") | {"text": why}
    return resource


def _number(finding: Finding) -> Resource:
    """The calibrated probability, or the rank among the page's findings where there is none."""
    if finding.probability is None:
        return {
            "code": {"text": "rank among the findings, 1 the likeliest; not calibrated"},
            "valueInteger": finding.rank,
        }
    ucum = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}
    return {"code": {"text": "probability"}, "valueQuantity": {"value": finding.probability} | ucum}


def _media(page: Image.Image) -> Resource:
    file = io.BytesIO()
    page.save(file, "JPEG", quality=90)
    data = file.getvalue()
    return {
        "resourceType": "Media",
        "status": "completed",
        "type": _coded(f"{_HL7}/media-type", "image"),
        "width": page.width,
        "height": page.height,
        "content": {
            "contentType": "image/jpeg",
            "data": base64.b64encode(data).decode(),
            "size": len(data),
            "hash": base64.b64encode(
                hashlib.sha1(data, usedforsecurity=False).digest()
            ).decode(),  # FHIR wants SHA-1
            "title": "The ECG page as it was read",
        },
    }


def _device(report: Report) -> Resource:
    versions = [
        {"type": {"text": name}, "value": version} for name, version in report.versions.items()
    ]
    versions.append({"type": {"text": "kit SHA-256"}, "value": report.kit.sha256})
    resource = {
        "resourceType": "Device",
        "deviceName": [{"name": printable(report.kit.id), "type": "model-name"}],
        "type": {"text": "software that reads ECG pages"},
        "version": versions,
    }
    if report.notice:
        resource["note"] = [{"text": report.notice}]
    return resource


def _statement(finding: Finding) -> Resource:
    codings = [{"system": SYSTEMS[kind], "code": code} for kind, code in finding.codes.items()]
    return ({"coding": codings} if codings else {}) | {"text": finding.name}


def _coded(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _reference_to(patient: Patient) -> Resource:
    identifier = {"value": patient.id} | (
        {} if patient.system is None else {"system": patient.system}
    )
    return {"type": "Patient", "identifier": identifier}


def _narrative(text: str) -> str:
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in text.split("\n") if line.strip())
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{lines}</div>'


def _url(report: Report, name: str) -> str:
    whole = hashlib.sha256(report.to_json().encode("utf-8", "surrogatepass")).hexdigest()
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'pulse-edge:{whole}:{name}')}"
