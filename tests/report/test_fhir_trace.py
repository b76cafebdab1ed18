"""Measurements and the traced leads in FHIR bundles that the validator passes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import measured_pages
import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from reports import report

from pulse_edge.measurement.fhir_codes import LEAD_DISCRIMINATORS
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.measurement.signal import LEADS, TracedSignal
from pulse_edge.measurement.summary import selected
from pulse_edge.report import fhir_trace, writers
from pulse_edge.report.report import Report


def resources(
    content: Report, page: Image.Image, signal: TracedSignal | None
) -> list[dict[str, Any]]:
    """The resources of a bundle that the validator has passed."""
    text = writers.render("fhir", content, page, None, signal).decode()
    Bundle.model_validate_json(text)
    return [entry["resource"] for entry in json.loads(text)["entry"]]


@pytest.fixture(scope="module")
def observations(page: Image.Image) -> list[dict[str, Any]]:
    """The Observations about the measured synthetic page, without that of the answer."""
    measured = measured_pages.measured()
    content = report(measurements=selected(measured.measurements))
    every = resources(content, page, measured.signal)
    return [r for r in every if r["resourceType"] == "Observation"][1:]


def of(observations: list[dict[str, Any]], code: str) -> dict[str, Any]:
    """The one Observation with this code."""
    (observation,) = (
        o for o in observations if code in [c["code"] for c in o["code"].get("coding", ())]
    )
    return observation


@pytest.mark.parametrize(
    ("key", "loinc", "ucum"),
    [("rate", "8867-4", "/min"), ("pr", "8625-6", "ms"), ("qrs", "8633-0", "ms")],
)
def test_measurement_is_an_observation_with_code_value_and_uncertainty(
    key: str, loinc: str, ucum: str, observations: list[dict[str, Any]]
) -> None:
    measurement, observation = measured_pages.measured()[key], of(observations, loinc)
    value = observation["valueQuantity"]
    assert value["value"] == pytest.approx(measurement.value, abs=0.001)
    assert (value["system"], value["code"]) == ("http://unitsofmeasure.org", ucum)
    (component,) = observation["component"]
    assert component["valueQuantity"]["value"] == measurement.uncertainty
    assert observation["status"] == "preliminary"


def test_every_measurement_of_the_report_is_there_once(
    observations: list[dict[str, Any]],
) -> None:
    measurements = selected(measured_pages.measured().measurements)
    assert [o["code"]["text"] for o in observations[:-1]] == [m.name for m in measurements]


def test_what_is_not_measurable_has_the_reason_and_no_value(page: Image.Image) -> None:
    absent = Measurement("pr", "PR interval", None, "ms", None, (), "there are no P waves")
    observation = resources(report(measurements=(absent,)), page, None)[2]
    assert observation["dataAbsentReason"]["text"] == "there are no P waves"
    assert not any(name.startswith("value") for name in observation)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_yes_or_no_is_a_boolean(value: float, page: Image.Image) -> None:
    paced = Measurement("paced", "pacemaker spikes", value, "", None, ("II",))
    observation = resources(report(measurements=(paced,)), page, None)[2]
    assert observation["valueBoolean"] is bool(value)


def test_sampled_data_gives_back_the_traced_leads(observations: list[dict[str, Any]]) -> None:
    signal = measured_pages.measured().signal
    components = observations[-1]["component"]
    assert [c["code"]["text"] for c in components] == list(LEADS)
    for lead, component, millivolts in zip(LEADS, components, signal.millivolts, strict=True):
        assert component["code"]["coding"][0]["code"] == str(131328 + LEAD_DISCRIMINATORS[lead])
        data = component["valueSampledData"]
        assert (data["period"], data["dimensions"], data["origin"]["unit"]) == (2.0, 1, "mV")
        values = np.array(
            [np.nan if s == "E" else int(s) * data["factor"] for s in data["data"].split(" ")]
        )
        assert np.array_equal(np.isnan(values), np.isnan(millivolts))
        assert np.nanmax(np.abs(values - millivolts)) <= 0.001


def test_lead_without_a_trace_is_left_out_of_the_sampled_data() -> None:
    millivolts = measured_pages.measured().signal.millivolts.copy()
    millivolts[3] = np.nan
    signal = replace(measured_pages.measured().signal, millivolts=millivolts)
    components = fhir_trace.signal_fields(signal)["component"]
    assert [c["code"]["text"] for c in components] == [lead for lead in LEADS if lead != "aVR"]


def test_report_without_measurements_holds_no_signal(page: Image.Image) -> None:
    kinds = [r["resourceType"] for r in resources(report(), page, measured_pages.measured().signal)]
    assert kinds == ["DiagnosticReport", "Observation", "Media", "Device"]
