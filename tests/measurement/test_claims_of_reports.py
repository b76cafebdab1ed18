"""What synthetic reports say is found again, all of it."""

from __future__ import annotations

from calibration.synthetic import sentences as say
from calibration.synthetic.recording import Recording
from calibration.synthetic.signals import recording_at
from pulse_edge.measurement.claims import claims_in

TOPICS = {
    "AF": "atrial fibrillation",
    "I-AVB": "first-degree AV block",
    "LBBB": "left bundle branch block",
    "RBBB": "right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "PAC": "atrial ectopic beats",
    "PVC": "ventricular ectopic beats",
    "STD": "ST depression",
    "STE": "ST elevation",
    "HYP": "left ventricular hypertrophy",
    "TINV": "T-wave inversion",
    "SB": "sinus bradycardia",
    "ST": "sinus tachycardia",
}
"""Finding of a synthetic record -> topic. An old infarction is not measured."""


def expected_topics(record: Recording) -> set[str]:
    present = say.known(record).present
    topics = {TOPICS[name] for name in present if name in TOPICS}
    axis = record.measurements.axis
    topics |= set() if axis is None else {say.axis_name(axis)}
    topics |= set() if set(present) & {"AF", "SB", "ST"} else {"sinus rhythm"}
    return topics | ({"normal ECG"} if say.verdict(record) == "Normal ECG." else set())


def test_every_finding_and_number_of_synthetic_reports_is_found() -> None:
    for index in range(150):
        record = recording_at(7, index)
        claims = claims_in(say.report(record))
        assert {c.topic for c in claims if c.present and c.unit == ""} == expected_topics(record)
        numbers = {c.topic: c.low for c in claims if c.unit}
        m = record.measurements
        values = (
            ("rate", m.rate, round),
            ("PR interval", m.pr, say.ten),
            ("QRS duration", m.qrs, say.ten),
        )
        assert numbers == {
            **{topic: rounded(value) for topic, value, rounded in values if value is not None},
            **({} if m.qt is None else {"QT interval": say.ten(m.qt)}),
        }


def test_a_denied_st_deviation_is_found() -> None:
    reports = [say.report(recording_at(7, index)) for index in range(50)]
    denied = [
        r for r in reports if any(c.topic == "ST deviation" and not c.present for c in claims_in(r))
    ]
    assert denied == [r for r in reports if "Normal ST segments and T waves" in r]
