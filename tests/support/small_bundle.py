"""Small bundles for the tests: a kit of a few kilobytes, and a program that stands in for
pulse-edge's wheel.
"""

from __future__ import annotations

import ensurepip
import random
import sys
import zipfile
from pathlib import Path

from pulse_edge.deploy import bundle, signing, wheelhouse
from pulse_edge.deploy.wheelhouse import Target
from pulse_edge.installer.machine import this_platform
from pulse_edge.kit.manifest import Language, Manifest, Packing, Prompt, Vision
from pulse_edge.kit.write import listing, write_manifest

EXTRAS = "".join(f"Provides-Extra: {name}\n" for name in ("cpu", *wheelhouse.EXTRAS))
PROGRAM = """
import json, os, sys
if {broken!r} and "doctor" in sys.argv:
    sys.exit("broken on purpose")
if "variables" in sys.argv:
    sys.exit(print(json.dumps(dict(os.environ))))
print({version!r}, *sys.argv[1:])
"""


def kit(
    path: Path,
    name: str,
    *,
    seed: int = 0,
    size: int = 5000,
    created: str = "2026-01-02T03:04:05+00:00",
    files: tuple[str, str] = ("llm.gguf", "vision.onnx"),
) -> Path:
    """A kit that opens and verifies; its weights are noise."""
    path.mkdir(parents=True)
    noise = random.Random(seed)
    for file in files:
        (path / file).write_bytes(noise.randbytes(size))
    manifest = Manifest(
        manifest_version=1,
        id=name,
        demonstration=True,
        created=created,
        files=listing(path),
        language=Language(files[0], "f16", 64, 8, 1, 8, 400),
        vision=Vision(files[1], "fp32", 28, 2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        packing=Packing("square", "flat", (), None),
        prompt=Prompt("llava_v1", "", "{question}", 8),
        source={"name": "noise", "licence": "CC0-1.0"},
        parity={},
        versions={},
    )
    write_manifest(path, manifest)
    return path


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, bytes],
    about: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """A wheel of these files, the same bytes every time; `about` are more lines of its METADATA."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n{about}"
    )
    whole = files | {
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/licenses/LICENSE": b"MIT\n",
    }
    whole[f"{info}/RECORD"] = "".join(f"{n},,\n" for n in [*whole, f"{info}/RECORD"]).encode()
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in whole.items():
            archive.writestr(zipfile.ZipInfo(file), data)
    return path


def program(folder: Path, version: str = "1.0", *, broken: bool = False) -> Path:
    """Stands in for pulse-edge: says its version and arguments; a broken one cannot read pages."""
    files = {
        "pulse_edge/__init__.py": b"",
        "pulse_edge/__main__.py": PROGRAM.format(version=version, broken=broken).encode(),
        "pulse_edge/assets/example_page.png": b"page",
    }
    return wheel(folder, "pulse-edge", version, files, EXTRAS)


def pip_wheel() -> Path:
    """The one that Python itself carries."""
    return next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))


def here() -> Target:
    """This machine and Python."""
    return Target(this_platform(), f"{sys.version_info[0]}.{sys.version_info[1]}", "cpu")


def make(
    out: Path,
    *packed: Path,
    wheel: Path,
    key: signing.SecretKey | None = None,
    since: Path | None = None,
    piece_bytes: int = bundle.FAT32_BYTES,
) -> Path:
    """A bundle of these kits and this program."""
    out.parent.mkdir(parents=True, exist_ok=True)
    constraints = out.parent / "constraints.txt"
    constraints.write_text("")
    bundle.pack(
        bundle.Order(
            packed, out, (here(),), constraints, (wheel, pip_wheel()), key, since, piece_bytes
        )
    )
    return out
