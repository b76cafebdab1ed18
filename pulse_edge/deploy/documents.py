"""The documents of a bundle: a page for the person who holds it, model cards, licences, and the bill of materials."""

from __future__ import annotations

import html
import json
import re
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulse_edge.deploy.wheelhouse import EXTRAS, Target, Wheel
from pulse_edge.installer.bundle import PUBLIC_KEY
from pulse_edge.installer.fields import name_fits
from pulse_edge.installer.minisign import PublicKey
from pulse_edge.kit.manifest import Manifest
from pulse_edge.report.report import DEMONSTRATION, INTENDED_USE

INSTALL_SH = """#!/bin/sh
# Finds a Python and runs install.pyz, which says the rest.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
if [ ! -f "$here/install.pyz" ]; then
    echo "error: install.pyz was not found beside install.sh. Copy the bundle again, to a folder without line breaks in its name." >&2
    exit 1
fi
for python in python3.13 python3.12 python3.11 python3.10 python3; do
    if "$python" -I -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        exec "$python" -I "$here/install.pyz" "$@"
    fi
done
echo "error: no Python 3.10 or newer was found. Install Python 3, and run install.sh again." >&2
exit 1
"""
INSTALL_PS1 = """# Finds a Python and runs install.pyz, which says the rest.
$here = Split-Path -Parent $MyInvocation.MyCommand.Path
foreach ($python in @('py -3.13', 'py -3.12', 'py -3.11', 'py -3.10', 'python', 'python3')) {
    $command, $version = $python -split ' '
    if (-not (Get-Command $command -ErrorAction SilentlyContinue)) { continue }
    $before = @($version | Where-Object { $_ })
    & $command @before -I -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>$null
    if ($LASTEXITCODE -eq 0) {
        & $command @before -I (Join-Path $here 'install.pyz') @args
        exit $LASTEXITCODE
    }
}
[Console]::Error.WriteLine('error: no Python 3.10 or newer was found. Install Python 3, and run install.ps1 again.')
exit 1
"""
LIMITS = (
    "It reads 12-lead ECG pages, printed or photographed. Other pictures are not what it was made for.",
    "It can miss what is there, name what is not, and sound certain either way.",
    "It has not been approved as a medical device by anybody.",
    "It sends nothing and needs no network.",
    "It keeps an audit log without names and texts, and encoded pages in a cache, for the person who uses it.",
)


def write(
    work: Path,
    kits: list[Manifest],
    wheels: list[Wheel],
    targets: list[Target],
    key: PublicKey | None,
    created: str,
    extras: Sequence[str] = tuple(EXTRAS),
) -> None:
    """Write all bundle documents into the bundle's folder."""
    _text(work / "install.sh", INSTALL_SH)
    _text(work / "install.ps1", INSTALL_PS1.replace("\n", "\r\n"))
    _text(work / "README.html", page(kits, targets, key, wheels, extras))
    _text(work / "MODEL_CARD.md", "\n".join(card(m) for m in kits))
    _text(
        work / "sbom.cdx.json",
        json.dumps(bill(kits, wheels, created), indent=1, ensure_ascii=False) + "\n",
    )
    for wheel in wheels:
        for name, data in licences(wheel):
            path = work / "licences" / f"{wheel.name}-{wheel.version}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _text(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def licences(wheel: Wheel) -> list[tuple[str, bytes]]:
    """The licence texts that a wheel carries, by a plain name."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel.path) as archive:
        for entry in archive.infolist():
            where = re.fullmatch(
                r"[^/]+\.dist-info/(?:licenses/)?(.+)|[^/]+/([^/]+)", entry.filename
            )
            name = (where[1] or where[2]) if where else ""
            if re.search(
                r"licen[cs]e|copying|notice|authors", name, re.IGNORECASE
            ) and not name.endswith((".py", "/")):
                name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-80:].strip("-.")
                if name_fits(name) and name.casefold() not in {n.casefold() for n in found}:
                    found[name] = archive.read(entry)
    return sorted(found.items())


def bundled(wheel: Wheel) -> list[str]:
    """Libraries of others that a wheel carries along, where auditwheel and delvewheel place them."""
    with zipfile.ZipFile(wheel.path) as archive:
        return sorted(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.libs/[^/]+", n))


def bill(kits: list[Manifest], wheels: list[Wheel], created: str) -> dict[str, Any]:
    """What is inside, as CycloneDX 1.5; licences by their SPDX names."""
    components: list[dict[str, Any]] = [
        {
            "type": "library",
            "name": w.name,
            "version": w.version,
            "purl": f"pkg:pypi/{w.name}@{w.version}",
            "hashes": [{"alg": "SHA-256", "content": w.sha256}],
            "licenses": [{"expression": w.licence}] if w.licence != "NOASSERTION" else [],
            "properties": [{"name": "file", "value": f"wheels/{w.path.name}"}],
            "components": [{"type": "file", "name": name} for name in bundled(w)],
        }
        for w in wheels
    ]
    for m in kits:
        licence = str(m.source.get("licence") or "")
        components.append(
            {
                "type": "machine-learning-model",
                "name": m.id,
                "version": m.created,
                "licenses": [{"license": {"name": licence}}] if licence else [],
                "components": [
                    {"type": "file", "name": n, "hashes": [{"alg": "SHA-256", "content": f.sha256}]}
                    for n, f in m.files.items()
                ],
            }
        )
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {"timestamp": created},
        "components": components,
    }


def card(m: Manifest) -> str:
    """A kit's model card, in Markdown: what it is for, its limits, where it comes from, how well it reads."""
    source = "\n".join(f"- {k}: {v}" for k, v in m.source.items() if isinstance(v, str) and v)
    accuracy = (
        "Not measured yet."
        if m.accuracy is None
        else f"```\n{json.dumps(m.accuracy, indent=1)}\n```"
    )
    first = f"**{DEMONSTRATION}**\n\n" if m.demonstration else ""
    limits = "\n".join(f"- {line}" for line in LIMITS)
    proof = json.dumps(m.parity, indent=1)
    return (
        f"# {m.id}\n\n{first}## Intended use\n\n{INTENDED_USE}\n\n## Limits\n\n{limits}\n\n## Source\n\n{source}\n"
        f"- made: {m.created}\n\n## Accuracy\n\n{accuracy}\n\n## Proof against the original\n\n```\n{proof}\n```\n"
    )


def page(
    kits: list[Manifest],
    targets: list[Target],
    key: PublicKey | None,
    wheels: list[Wheel],
    extras: Sequence[str] = tuple(EXTRAS),
) -> str:
    """README.html: for the person with the bundle; no script, nothing fetched."""
    rows = "".join(
        f"<li>{html.escape(m.id)}{' - <b>demonstration, not for patients</b>' if m.demonstration else ''}</li>"
        for m in kits
    )
    parts = "".join(
        f"<li>{text if name in extras else f'<b>not packed</b>: {text}'}</li>"
        for name, text in EXTRAS.items()
    )
    machines = "".join(f"<li>{html.escape(str(t))}</li>" for t in targets)
    signed = (
        f"It is signed by key <code>{key.id}</code> (<code>{PUBLIC_KEY}</code>). Compare the number with what its maker "
        "told you, by another way than this bundle."
        if key
        else "<b>It is not signed</b>: nobody vouches for it, and every answer will say so."
    )
    packages = "".join(
        f"<tr><td>{html.escape(w.name)}</td><td>{html.escape(w.version)}</td><td>{html.escape(w.licence)}</td></tr>"
        for w in {(w.name, w.version): w for w in wheels}.values()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>pulse-edge</title>
<style>body{{font:16px/1.5 sans-serif;max-width:44em;margin:2em auto;padding:0 1em}}pre{{background:#eee;padding:.6em}}
td{{padding-right:1.5em}}</style>
<h1>pulse-edge</h1>
<p><b>Intended use.</b> {html.escape(INTENDED_USE)}</p>
<h2>Install</h2>
<p>No network and no administrator is needed. On Linux, in a terminal, in this folder:</p><pre>sh install.sh</pre>
<p>On Windows, in PowerShell, in this folder:</p><pre>powershell -ExecutionPolicy Bypass -File install.ps1</pre>
<p>It checks every file first, and says which one is broken. The first time it asks whether the key is to be trusted: see
below. If it was interrupted, run it again. At its end it says how to read a page:</p><pre>pulse-edge interpret scan.jpg</pre>
<p>Back to the version before: <code>pulse-edge bundle rollback</code>. Away again: <code>sh install.sh --uninstall</code>, which
says what stays (caches, the audit log) and how to remove it.</p>
<h2>Made for</h2><ul>{machines}</ul>
<h2>Kits</h2><ul>{rows}</ul><p>What each is for and how well it reads: <code>MODEL_CARD.md</code>.</p>
<p>The first one answers when none is named. All of them: <code>pulse-edge kit list</code>; another one for good:
<code>pulse-edge kit use NAME</code>.</p>
<h2>Beside plain pictures, it</h2><ul>{parts}</ul>
<h2>Who made it</h2><p>{signed}</p>
<h2>What is inside</h2><table>{packages}</table>
<p>Licence texts: <code>licences</code>. Bill of materials: <code>sbom.cdx.json</code>.</p>
</html>
"""
