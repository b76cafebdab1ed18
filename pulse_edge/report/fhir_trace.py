"""What was measured on the trace, as FHIR R4 resources.

An Observation for each value, one for the traced leads as SampledData.

Codes are LOINC and ISO/IEEE 11073 (`measurement/fhir_codes`). The leads' codes are those of
MDC_ECG_ELEC_POTL, 2:256 in ISO/IEEE 11073-10102, plus the lead's discriminator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pulse_edge.measurement.fhir_codes import LEAD_DISCRIMINATORS, MDC, UCUM, UNITS, codes
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import LEADS, SAMPLES_PER_SECOND, TracedSignal
from pulse_edge.measurement.summary import YES_OR_NO

Resource = dict[str, Any]
POTENTIAL = (2 << 16) + 256
"""MDC_ECG_ELEC_POTL."""
MICROVOLT = 0.001
"""mV that a step of the sampled data stands for."""
NOT_TRACED = "E"
"""FHIR's word for a sample without a value."""


def measurement_fields(measurement: Measurement) -> Resource:
    """Return code, value and notes of a measurement's Observation."""
    coding = [
        {"system": c.system, "code": c.code, "display": c.display} for c in codes(measurement.key)
    ]
    fields: Resource = {
        "code": {"text": measurement.name} | ({"coding": coding} if coding else {}),
        "method": {"text": "measured by software on the trace of the page"},
    }
    if measurement.value is None:
        fields["dataAbsentReason"] = {"text": measurement.reason or "not measurable"}
    elif measurement.key in YES_OR_NO:
        fields["valueBoolean"] = bool(measurement.value)
    else:
        fields["valueQuantity"] = _quantity(measurement.value, measurement.unit)
    if measurement.value is not None and measurement.uncertainty is not None:
        fields["component"] = [
            {
                "code": {"text": "half the width of the interval that holds 95 of 100 true values"},
                "valueQuantity": _quantity(measurement.uncertainty, measurement.unit),
            }
        ]
    return fields


def _quantity(value: float, unit: str) -> Resource:
    code = UNITS.get(unit, "1")
    return {"value": round(value, 3), "unit": unit or "1", "system": UCUM, "code": code}


def signal_fields(signal: TracedSignal) -> Resource:
    """Return code and components of the traced leads' Observation; samples without ink are `E`."""
    return {
        "code": {
            "coding": [{"system": MDC, "code": str(POTENTIAL), "display": "MDC_ECG_ELEC_POTL"}],
            "text": "ECG leads as traced from the page",
        },
        "method": {"text": "traced by software from the picture of the page"},
        "component": list(_leads(signal)),
    }


def _leads(signal: TracedSignal) -> Iterator[Resource]:
    for lead, values in zip(LEADS, signal.millivolts, strict=True):
        if not np.isfinite(values).any():
            continue
        steps = np.round(np.nan_to_num(values) / MICROVOLT).astype(int)
        data = [
            str(step) if traced else NOT_TRACED
            for step, traced in zip(steps, np.isfinite(values), strict=True)
        ]
        code = str(POTENTIAL + LEAD_DISCRIMINATORS[lead])
        yield {
            "code": {
                "coding": [
                    {"system": MDC, "code": code, "display": f"MDC_ECG_ELEC_POTL_{lead.upper()}"}
                ],
                "text": lead,
            },
            "valueSampledData": {
                "origin": {"value": 0, "unit": "mV", "system": UCUM, "code": "mV"},
                "period": 1000 / SAMPLES_PER_SECOND,
                "factor": MICROVOLT,
                "dimensions": 1,
                "data": " ".join(data),
            },
        }
