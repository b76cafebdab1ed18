"""The bill of materials of a bundle, in CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/)."""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from collections.abc import Sequence
from typing import Any

from pulse_edge.deploy.wheels import Wheel
from pulse_edge.kit.manifest import Manifest


def bill_of_materials(
    kits: Sequence[Manifest], wheels: Sequence[Wheel], created: str
) -> dict[str, Any]:
    """List every wheel, with the libraries inside it, and every kit, with its files.

    Licences are SPDX expressions where the packages give them. The serial number is made from the
    contents, so that the same bundle has the same bill.
    """
    components = [*map(_library, wheels), *map(_model, kits)]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": created},
        "components": components,
    }


def _library(wheel: Wheel) -> dict[str, Any]:
    """Describe a wheel."""
    return {
        "type": "library",
        "name": wheel.name,
        "version": wheel.version,
        "purl": f"pkg:pypi/{wheel.name}@{wheel.version}",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": _licences(wheel.licence),
        "properties": [{"name": "file", "value": f"wheels/{wheel.path.name}"}],
        "components": [{"type": "file", "name": name} for name in _inner_libraries(wheel)],
    }


def _licences(licence: str) -> list[dict[str, Any]]:
    """Describe the licence of a package: an SPDX expression, or the name that the package gives."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if licence == "NOASSERTION":
        return []
    try:
        return [{"expression": str(canonicalize_license_expression(licence))}]
    except InvalidLicenseExpression:
        return [{"license": {"name": licence}}]


def _model(manifest: Manifest) -> dict[str, Any]:
    """Describe a kit."""
    licence = str(manifest.source.get("licence") or "")
    files = [
        {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": file.sha256}]}
        for name, file in manifest.files.items()
    ]
    return {
        "type": "machine-learning-model",
        "name": manifest.id,
        "version": manifest.created,
        "licenses": [{"license": {"name": licence}}] if licence else [],
        "components": files,
    }


def _inner_libraries(wheel: Wheel) -> list[str]:
    """List the shared libraries in a wheel that auditwheel or delvewheel have added."""
    with zipfile.ZipFile(wheel.path) as archive:
        return sorted(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.libs/[^/]+", n))
