"""LOINC and ISO/IEEE 11073 codes of each measurement, and the UCUM code of its unit.

LOINC: intervals and axes from HL7 US Core's value set `us-core-clinical-test-codes`; QTc by formula
76635-2 and 76634-5; RR 8637-1; S amplitudes by lead 10034-7 to 10045-3 (LOINC 2.26). The last digit
is a check digit (Luhn), which a test recomputes. IEEE 11073-10102 (MDC): the DICOM context groups
CID 3227, 3229, 3687, 3688 and 3689 reprint term codes; heart rate and RR from IEEE 11073-10101. CID
3227 gives Fridericia's and Hodges's QTc the same code, so that Fridericia's has LOINC alone. A code
by lead is that of the term plus the lead's discriminator. A measurement without a code has none: a
near one would say something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOINC = "http://loinc.org"
MDC = "urn:iso:std:iso:11073:10101"
UCUM = "http://unitsofmeasure.org"
UNITS: Mapping[str, str] = {
    "bpm": "/min",
    "ms": "ms",
    "degrees": "deg",
    "mV": "mV",
    "mV ms": "mV.ms",
    "": "1",
}
"""Unit of a measurement -> UCUM code."""


@dataclass(frozen=True)
class Code:
    """One code of one system."""

    system: str
    code: str
    display: str


_MDC_BLOCK = 2 << 16
"""Codes of ECG terms stand in partition 2 (SCADA) of the nomenclature; a whole code is partition *
65536 + term."""
LEAD_DISCRIMINATORS: Mapping[str, int] = {
    "I": 1,
    "II": 2,
    "V1": 3,
    "V2": 4,
    "V3": 5,
    "V4": 6,
    "V5": 7,
    "V6": 8,
    "III": 61,
    "aVR": 62,
    "aVL": 63,
    "aVF": 64,
}
"""Discriminators of the leads, IEEE 11073-10102."""

_LOINC: Mapping[str, tuple[str, str]] = {
    "rate": ("8867-4", "Heart rate"),
    "rr_mean": ("8637-1", "R-R interval by EKG"),
    "pr": ("8625-6", "P-R interval"),
    "qrs": ("8633-0", "QRS duration"),
    "qt": ("8634-8", "Q-T interval"),
    "qtc_bazett": ("76635-2", "Q-T interval corrected based on Bazett formula"),
    "qtc_fridericia": ("76634-5", "Q-T interval corrected based on Fridericia formula"),
    "p_axis": ("8626-4", "P wave axis"),
    "qrs_axis": ("8632-2", "QRS axis"),
    "t_axis": ("8638-9", "T wave axis"),
    "s.aVF": ("10034-7", "S wave amplitude in lead AVF"),
    "s.aVL": ("10035-4", "S wave amplitude in lead AVL"),
    "s.aVR": ("10036-2", "S wave amplitude in lead AVR"),
    "s.I": ("10037-0", "S wave amplitude in lead I"),
    "s.II": ("10038-8", "S wave amplitude in lead II"),
    "s.III": ("10039-6", "S wave amplitude in lead III"),
    "s.V1": ("10040-4", "S wave amplitude in lead V1"),
    "s.V2": ("10041-2", "S wave amplitude in lead V2"),
    "s.V3": ("10042-0", "S wave amplitude in lead V3"),
    "s.V4": ("10043-8", "S wave amplitude in lead V4"),
    "s.V5": ("10044-6", "S wave amplitude in lead V5"),
    "s.V6": ("10045-3", "S wave amplitude in lead V6"),
}
_MDC: Mapping[str, tuple[int, str]] = {
    "rate": (16770, "MDC_ECG_HEART_RATE"),
    "rr_mean": (16168, "MDC_ECG_TIME_PD_RR_GL"),
    "p_duration": (16184, "MDC_ECG_TIME_PD_P_GL"),
    "pr": (15872, "MDC_ECG_TIME_PD_PR_GL"),
    "qrs": (16156, "MDC_ECG_TIME_PD_QRS_GL"),
    "qt": (16160, "MDC_ECG_TIME_PD_QT_GL"),
    "qtc_bazett": (15880, "MDC_ECG_TIME_PD_QTC_BAZETT"),
    "p_axis": (16128, "MDC_ECG_ANGLE_P_FRONT"),
    "qrs_axis": (16132, "MDC_ECG_ANGLE_QRS_FRONT"),
    "t_axis": (16136, "MDC_ECG_ANGLE_T_FRONT"),
}
_MDC_BY_LEAD: Mapping[str, tuple[int, str]] = {
    "st_j": (1024, "MDC_ECG_AMPL_J"),
    "st_j60": (14336, "MDC_ECG_ELEC_POTL_ST_60"),
    "q": (1792, "MDC_ECG_AMPL_Q"),
    "r": (2048, "MDC_ECG_AMPL_R"),
    "s": (2304, "MDC_ECG_AMPL_S"),
}


def codes(key: str) -> tuple[Code, ...]:
    """The codes of a measurement, LOINC first; empty where neither system has the very same one."""
    name, _, lead = key.partition(".")
    matches = [Code(LOINC, *_LOINC[key])] if key in _LOINC else []
    if key in _MDC:
        term, display = _MDC[key]
        matches.append(Code(MDC, str(_MDC_BLOCK + term), display))
    elif lead in LEAD_DISCRIMINATORS and name in _MDC_BY_LEAD:
        term, display = _MDC_BY_LEAD[name]
        matches.append(
            Code(
                MDC, str(_MDC_BLOCK + term + LEAD_DISCRIMINATORS[lead]), f"{display}_{lead.upper()}"
            )
        )
    return tuple(matches)
