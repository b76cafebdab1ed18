"""A report and its page as a FHIR R4 Bundle.

It holds a DiagnosticReport, an Observation for each answer and finding, Media and Device. The
patient appears only as the caller names it; the picture may still show a name. LOINC 11524-6 is
the ECG study, SNOMED CT codes are those of `findings`. Everything is preliminary until a reader
decides about it (see fhir_overread.py).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pulse_edge.common.text import one_line, printable
from pulse_edge.errors import UsageError
from pulse_edge.measurement.signal import TracedSignal
from pulse_edge.measurement.summary import summary_lines
from pulse_edge.report import fhir_overread, fhir_trace
from pulse_edge.report.confirmation import UNCONFIRMED, AddedFinding, FindingReview
from pulse_edge.report.content import by_urgency, page_lines, without_verdict
from pulse_edge.report.findings import BY_KEY
from pulse_edge.report.overread import reviews, text_review
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

    The same report gives the same ids, also after its confirmation: a receiver updates what it has.
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
    confirmation = report.confirmation
    for added in () if confirmation is None else confirmation.added:
        observed.append((f"added-{added.statement or added.name}", _added(report, added)))
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
    text = printable("\n".join(line for line in _conclusion(report) if line))
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": _narrative(text)},
        "category": [_coded(f"{_HL7}/v2-0074", "EC")],
        "code": _coded("http://loinc.org", "11524-6") | {"text": "ECG page, read by software"},
        "result": [{"reference": _url(report, name)} for name in results],
        "media": [{"link": {"reference": _url(report, "media")}}],
        "conclusion": text,
    } | fhir_overread.report_fields(report)
    if present := list(_present(report)):
        resource["conclusionCode"] = present
    return resource


def _conclusion(report: Report) -> Iterator[str]:
    """Yield the lines of the conclusion: what must be read first, then the reader, the software."""
    yield from (report.notice, report.overread, report.intended_use)
    yield from fhir_overread.conclusion_lines(report)
    yield from page_lines(report.quality)
    yield from (f"CONTRADICTION: {c.text}" for c in report.contradictions)
    yield from summary_lines(report.measurements) if report.measurements else ()
    decided = reviews(report)
    for f in by_urgency(report):
        if review := decided.get(f.statement):
            yield f"{review.verdict}: {f.name} (reader)" if review.verdict != "absent" else ""
        elif f.verdict != "absent":
            yield f"{f.verdict}: {f.name} ({f.probability:.0%})"
    yield from without_verdict(report)
    for n, answer in enumerate(report.answers):
        text = text_review(report, n)
        if text is None or text.decision == "agreed":
            yield answer.text
        elif text.decision == "changed":
            yield text.text


def _present(report: Report) -> Iterator[Resource]:
    """Yield the codes of the findings that are present: for the reader, else for the software."""
    if report.kit.demonstration:
        return
    confirmation, decided = report.confirmation, reviews(report)
    rejected = confirmation is not None and confirmation.overall == "rejected"
    for f in report.findings:
        review = decided.get(f.statement)
        verdict = review.verdict if review else None if rejected else f.verdict
        if verdict == "present":
            yield _statement(f)
    for added in () if confirmation is None else confirmation.added:
        if added.verdict == "present":
            yield _added_code(added)


def _observation(report: Report, *, decided: bool = False) -> Resource:
    """Return the fields of every Observation; `decided`: the reader decided about this one."""
    page = " ".join(page_lines(report.quality))
    overread = report.overread if decided else UNCONFIRMED
    first = (report.notice, overread, report.intended_use, page)
    notes = [n for n in (*first, f"page SHA-256 {report.page_sha256}") if n]
    resource: Resource = {
        "resourceType": "Observation",
        "status": fhir_overread.PRELIMINARY,
        "category": [_coded(f"{_HL7}/observation-category", "procedure")],
        "issued": report.created,
        "device": {"reference": _url(report, "device")},
        "note": [{"text": text} for text in notes],
    }
    return resource | (fhir_overread.decided_fields(report) if decided else {})


def _answer(report: Report, n: int) -> Resource:
    answer, review = report.answers[n], text_review(report, n)
    resource = _observation(report, decided=review is not None) | {
        "code": {"text": printable(answer.question).strip() or "question"}
    }
    text = printable(answer.text)
    if review is not None and review.decision != "agreed":
        resource["note"].append({"text": f"The software wrote: {text}"})
        text = printable(review.text)
    if text.strip():
        resource["valueString"] = f"{report.notice}\n{text}" if report.notice else text
    else:
        rejected = {"text": "rejected by the reader"} if review else {}
        resource["dataAbsentReason"] = _coded(f"{_HL7}/data-absent-reason", "unknown") | rejected
    if not answer.complete:
        resource["note"].append({"text": f"The answer was cut off after {answer.tokens} tokens."})
    return resource


def _finding(report: Report, finding: Finding) -> Resource:
    review = reviews(report).get(finding.statement)
    resource = _observation(report, decided=review is not None) | {"code": _statement(finding)}
    resource["method"] = {
        "text": "probability of the answer yes against no to one question about the page"
    }
    resource["component"] = [_number(finding)]
    if review is None:
        return resource | _value(report, finding.verdict, finding.reason or "uncertain")
    resource["note"] += [{"text": text} for text in _decision(finding, review)]
    return resource | _value(report, review.verdict, "not assessable for the reader")


def _value(report: Report, verdict: str | None, why: str) -> Resource:
    """Return a finding's value, or why it has none: programs act on values without the notes."""
    if report.kit.demonstration:
        why = "a demonstration kit concludes nothing"
    elif verdict in ("present", "absent"):
        return {"valueBoolean": verdict == "present"}
    unknown = _coded(f"{_HL7}/data-absent-reason", "unknown")
    return {"dataAbsentReason": unknown | {"text": why}}


def _decision(finding: Finding, review: FindingReview) -> Iterator[str]:
    software = finding.verdict or "no verdict"
    yield f"The software: {software}. The reader: {review.verdict} ({review.decision})."
    if review.comment.strip():
        yield f"The reader's comment: {review.comment}"


def _added(report: Report, added: AddedFinding) -> Resource:
    """Return a finding that the reader added: no device has a part in it."""
    resource = _observation(report, decided=True) | {"code": _added_code(added)}
    del resource["device"]
    if added.comment.strip():
        resource["note"].append({"text": f"The reader's comment: {added.comment}"})
    return resource | _value(report, added.verdict, "not assessable for the reader")


def _added_code(added: AddedFinding) -> Resource:
    statement = BY_KEY.get(added.statement or "")
    return _concept({} if statement is None else statement.codes, added.name)


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
    return _concept(finding.codes, finding.name)


def _concept(codes: Mapping[str, str], name: str) -> Resource:
    codings = [{"system": SYSTEMS[kind], "code": code} for kind, code in codes.items()]
    return ({"coding": codings} if codings else {}) | {"text": name}


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
    unconfirmed = dataclasses.replace(report, confirmation=None).to_json()
    whole = hashlib.sha256(unconfirmed.encode("utf-8", "surrogatepass")).hexdigest()
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'pulse-edge:{whole}:{name}')}"
