"""The bill of materials."""

from __future__ import annotations

import dataclasses
import json
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import small_bundle

from pulse_edge.deploy.sbom import bill_of_materials
from pulse_edge.deploy.wheels import read_wheel
from pulse_edge.kit.kit import open_kit

CREATED = "2026-01-02T03:04:05+00:00"


def schema_fault(bill: dict[str, Any]) -> object:
    """What the JSON schema of CycloneDX 1.5 finds wrong; None if nothing."""
    pytest.importorskip("cyclonedx", reason="needs cyclonedx-python-lib[json-validation]")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(bill))


def test_the_bill_of_a_bundle_fits_the_schema(whole_bundle: Path) -> None:
    assert schema_fault(json.loads((whole_bundle / "sbom.cdx.json").read_text())) is None


def test_the_schema_refuses_a_broken_bill(whole_bundle: Path) -> None:
    bill = json.loads((whole_bundle / "sbom.cdx.json").read_text())
    bill["components"][0]["type"] = "wheel"
    assert schema_fault(bill) is not None


@pytest.mark.parametrize(
    ("licence", "entry"),
    [
        ("MIT", {"expression": "MIT"}),
        ("apache-2.0 or mit", {"expression": "Apache-2.0 OR MIT"}),
        ("Artistic, mostly", {"license": {"name": "Artistic, mostly"}}),
        (None, None),
    ],
)
def test_every_kind_of_licence_fits_the_schema(
    tmp_path: Path, licence: str | None, entry: dict[str, Any] | None
) -> None:
    wheel = read_wheel(small_bundle.wheel(tmp_path, "thing", "1.0", {"x.libs/libx.so": b""}))
    metadata = Message()
    if licence is not None:
        metadata["License"] = licence
    bill = bill_of_materials([], [dataclasses.replace(wheel, metadata=metadata)], CREATED)
    assert bill["components"][0]["licenses"] == ([] if entry is None else [entry])
    assert schema_fault(bill) is None


def test_the_libraries_inside_a_wheel_are_listed(tmp_path: Path) -> None:
    files = {"thing.libs/libgomp.so": b"", "thing/code.py": b""}
    wheel = read_wheel(small_bundle.wheel(tmp_path, "thing", "1.0", files))
    (component,) = bill_of_materials([], [wheel], CREATED)["components"]
    assert component["components"] == [{"type": "file", "name": "thing.libs/libgomp.so"}]


def test_the_same_contents_have_the_same_serial_number(bundle_parts: Path) -> None:
    a, b = (open_kit(bundle_parts / name).manifest for name in ("a", "b"))
    numbers = [bill_of_materials(kits, [], CREATED)["serialNumber"] for kits in ([a], [a], [b])]
    assert numbers[0] == numbers[1] != numbers[2]
