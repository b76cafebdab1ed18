"""The documents of a bundle: a page for the person who holds it, model cards, licences, and the
bill of materials.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.deploy.sbom import bill_of_materials
from pulse_edge.deploy.targets import EXTRAS, Target
from pulse_edge.deploy.wheels import Wheel
from pulse_edge.installer.bundle import PUBLIC_KEY
from pulse_edge.installer.fields import name_fits
from pulse_edge.installer.minisign import PublicKey
from pulse_edge.kit.manifest import Manifest
from pulse_edge.report.report import DEMONSTRATION, INTENDED_USE

INSTALL_SH = """#!/bin/sh
# Find a Python and run install.pyz, which prints the rest.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
if [ ! -f "$here/install.pyz" ]; then
    echo "error: install.pyz was not found next to install.sh." \
        "Copy the bundle again, to a folder without line breaks in its name." >&2
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
INSTALL_PS1 = """# Find a Python and run install.pyz, which prints the rest.
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
$advice = 'Install Python 3, and run install.ps1 again.'
[Console]::Error.WriteLine("error: no Python 3.10 or newer was found. $advice")
exit 1
"""
LIMITS = (
    "It reads 12-lead ECG pages, printed or photographed. It was not made for other pictures.",
    "It can miss a finding, name one that is absent, and sound certain either way.",
    "No authority has approved it as a medical device.",
    "It sends nothing and needs no network.",
    "It writes an audit log without texts and patients' names, and a cache of encoded pages, for "
    "the person who uses it.",
)


@dataclass(frozen=True)
class Contents:
    """What the documents describe."""

    kits: Sequence[Manifest]
    wheels: Sequence[Wheel]
    targets: Sequence[Target]
    key: PublicKey | None
    """The key that signs the bundle."""
    created: str
    """Date of the newest kit."""
    extras: Sequence[str] = tuple(EXTRAS)
    """Names in EXTRAS that are packed."""


def write(work: Path, contents: Contents) -> None:
    """Write all bundle documents into the bundle's folder."""
    bill = bill_of_materials(contents.kits, contents.wheels, contents.created)
    texts = {
        "install.sh": INSTALL_SH,
        "install.ps1": INSTALL_PS1.replace("\n", "\r\n"),
        "README.html": readme(contents),
        "MODEL_CARD.md": "\n".join(map(model_card, contents.kits)),
        "sbom.cdx.json": json.dumps(bill, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        (work / name).write_bytes(text.encode())
    for wheel in contents.wheels:
        for name, data in licences(wheel):
            path = work / "licences" / f"{wheel.name}-{wheel.version}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def licences(wheel: Wheel) -> list[tuple[str, bytes]]:
    """List the licence texts in a wheel as (plain name, text)."""
    texts: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel.path) as archive:
        for entry in archive.infolist():
            match = re.fullmatch(
                r"[^/]+\.dist-info/(?:licenses/)?(.+)|[^/]+/([^/]+)", entry.filename
            )
            name = (match[1] or match[2]) if match else ""
            is_licence = re.search(r"licen[cs]e|copying|notice|authors", name, re.IGNORECASE)
            if not is_licence or name.endswith((".py", "/")):
                continue
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-80:].strip("-.")
            if name_fits(name) and name.casefold() not in {n.casefold() for n in texts}:
                texts[name] = archive.read(entry)
    return sorted(texts.items())


def model_card(m: Manifest) -> str:
    """Return a kit's model card in Markdown: intended use, limits, source and accuracy."""
    accuracy = "Not measured yet."
    if m.accuracy is not None:
        accuracy = f"```\n{json.dumps(m.accuracy, indent=1)}\n```"
    source = [f"- {k}: {v}" for k, v in m.source.items() if isinstance(v, str) and v]
    sections = {
        "Intended use": INTENDED_USE,
        "Limits": "\n".join(f"- {line}" for line in LIMITS),
        "Source": "\n".join([*source, f"- made: {m.created}"]),
        "Accuracy": accuracy,
        "Proof against the original": f"```\n{json.dumps(m.parity, indent=1)}\n```",
    }
    first = f"**{DEMONSTRATION}**\n\n" if m.demonstration else ""
    texts = [f"## {title}\n\n{text}\n" for title, text in sections.items()]
    return f"# {m.id}\n\n{first}" + "\n".join(texts)


_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:44em;margin:2em auto;padding:0 1em}"
    "pre{background:#eee;padding:.6em}td{padding-right:1.5em}"
)


def readme(contents: Contents) -> str:
    """Return README.html, for the person who holds the bundle. It has no script and fetches
    nothing.
    """
    escape = html.escape
    demonstration = " - <b>demonstration, not for patients</b>"
    kits = _items(escape(m.id) + (demonstration if m.demonstration else "") for m in contents.kits)
    extras = _items(
        text if name in contents.extras else f"<b>not packed</b>: {text}"
        for name, text in EXTRAS.items()
    )
    unique = {(wheel.name, wheel.version): wheel for wheel in contents.wheels}.values()
    packages = "".join(
        f"<tr><td>{escape(w.name)}</td><td>{escape(w.version)}</td><td>{escape(w.licence)}</td></tr>"
        for w in unique
    )
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>pulse-edge</title>
<style>{_STYLE}</style>
<h1>pulse-edge</h1>
<p><b>Intended use.</b> {escape(INTENDED_USE)}</p>
<h2>Install</h2>
<p>You need Python {escape(_pythons(contents))}, no network and no administrator. On Linux, open a
terminal in this folder:</p><pre>sh install.sh</pre>
<p>On Windows, open PowerShell in this folder:</p>
<pre>powershell -ExecutionPolicy Bypass -File install.ps1</pre>
<p>Both find a Python and run <code>python3 install.pyz</code>, which takes the same options:
<code>python3 install.pyz --help</code>.</p>
<p>The installer checks the files first, and names those that are broken. The first time it asks
whether you trust the key: see below. If it was interrupted, run it again. At its end it says how to
read a page:</p><pre>pulse-edge interpret scan.jpg</pre>
<p>To go back to the version before: <code>pulse-edge bundle rollback</code>. To remove everything:
<code>sh install.sh --uninstall</code>, which says what stays (caches, the audit log) and how to
remove it.</p>
<h2>Made for</h2>{_items(escape(str(target)) for target in contents.targets)}
<h2>Kits</h2>{kits}
<p>What each kit is for and how well it reads: <code>MODEL_CARD.md</code>.</p>
<p>The first kit answers when none is named. <code>pulse-edge kit list</code> lists all of them;
<code>pulse-edge kit use NAME</code> chooses another one for good.</p>
<h2>In addition to plain pictures, it</h2>{extras}
<h2>Who made it</h2><p>{_signature(contents.key)}</p>
<h2>What is inside</h2><table>{packages}</table>
<p>Licence texts: <code>licences</code>. Bill of materials: <code>sbom.cdx.json</code>.</p>
</html>
"""


def _items(texts: Iterable[str]) -> str:
    """Return an HTML list."""
    return f"<ul>{''.join(f'<li>{text}</li>' for text in texts)}</ul>"


def _pythons(contents: Contents) -> str:
    """Return the Python versions that the bundle was packed for."""
    return " or ".join(sorted({target.python for target in contents.targets}))


def _signature(key: PublicKey | None) -> str:
    """Say in HTML who signed the bundle."""
    if key is None:
        return "<b>It is not signed</b>: no one vouches for it, and every answer will say so."
    return (
        f"It is signed by key <code>{key.id}</code> (<code>{PUBLIC_KEY}</code>). Compare the "
        "number with the one that its maker gave you by another way than this bundle."
    )
