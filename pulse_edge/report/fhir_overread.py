"""A reader's confirmation in FHIR R4: status, the reader, and the reader's verdicts.

Only what the reader decided becomes final, or amended where a confirmation was corrected; measured
values and findings that the reader passed over stay preliminary. The reader is a contained
Practitioner with a name and nothing else.
"""

from __future__ import annotations

from typing import Any

from pulse_edge.report.confirmation import Confirmation
from pulse_edge.report.overread import differences
from pulse_edge.report.report import Report

Resource = dict[str, Any]
PRELIMINARY = "preliminary"
_READER = "reader"


def report_fields(report: Report) -> Resource:
    """Return status, time and reader of the DiagnosticReport."""
    confirmation = report.confirmation
    if confirmation is None:
        return {"status": PRELIMINARY, "issued": report.created}
    return _signed(confirmation) | {"resultsInterpreter": [{"reference": f"#{_READER}"}]}


def decided_fields(report: Report) -> Resource:
    """Return status, time and performer of an Observation that the reader decided about."""
    confirmation = report.confirmation
    if confirmation is None:
        return {}
    return _signed(confirmation) | {"performer": [{"reference": f"#{_READER}"}]}


def _signed(confirmation: Confirmation) -> Resource:
    return {
        "status": "final" if confirmation.number == 1 else "amended",
        "issued": confirmation.time,
        "contained": [_practitioner(confirmation)],
    }


def _practitioner(confirmation: Confirmation) -> Resource:
    return {
        "resourceType": "Practitioner",
        "id": _READER,
        "name": [{"text": confirmation.reader}],
    }


def conclusion_lines(report: Report) -> list[str]:
    """Return the reader's conclusion, comment and changes, as lines of the report's conclusion."""
    confirmation = report.confirmation
    if confirmation is None:
        return []
    lines = [confirmation.conclusion, confirmation.comment]
    lines += [
        f"OVERREAD: {d.name}: {d.reader}; the software: {d.software}" for d in differences(report)
    ]
    return lines
