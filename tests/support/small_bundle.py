"""Small bundles for the tests: kits of a few kilobytes, and a stand-in for pulse-edge's wheel."""

from __future__ import annotations

import ensurepip
import random
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pulse_edge.deploy import bundle, signing, targets
from pulse_edge.deploy.locks import UNLOCKED, Pin, lock_file
from pulse_edge.deploy.targets import Target
from pulse_edge.deploy.wheelhouse import Supply
from pulse_edge.deploy.wheels import read_wheel
from pulse_edge.installer.machine import this_platform
from pulse_edge.kit.manifest import Language, Manifest, Packing, Prompt, Vision
from pulse_edge.kit.write import listing, write_manifest

EXTRAS = "".join(f"Provides-Extra: {name}\n" for name in ("cpu", *targets.EXTRAS))
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
    header = gguf_header()
    (path / files[0]).write_bytes(header + noise.randbytes(size - len(header)))
    (path / files[1]).write_bytes(noise.randbytes(size))
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


def gguf_header() -> bytes:
    """The header of a language model of one layer with two heads; its tensors may have any size."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {
        "block_count": 1,
        "attention.head_count": 2,
        "embedding_length": 8,
        "context_length": 64,
    }
    entries = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    entries += [text(f"llama.{key}") + struct.pack("<II", 4, n) for key, n in numbers.items()]
    epsilon = text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    tensors = [
        text("token_embd.weight") + struct.pack("<IQQIQ", 2, 8, 400, 1, 0),
        text("blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 8, 8, 1, 2048),
    ]
    counts = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries) + 1)
    return counts + b"".join([*entries, epsilon, *tensors])


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


def write_lock(folder: Path, target: Target, wheels: Sequence[Path], *more: str) -> Path:
    """Write the lock file of a target into a new folder of lock files, and return the folder.

    It holds these wheels, where they must be locked, and `more` lines such as `numpy==1.0`, with a
    hash of zeros.
    """
    pins = [Pin(w.name, w.version, frozenset([w.sha256])) for w in map(read_wheel, wheels)]
    lines = [pin.requirement for pin in pins if pin.name not in UNLOCKED]
    lines += [f"{line} --hash=sha256:{'0' * 64}" for line in more]
    folder.mkdir(parents=True, exist_ok=True)
    lock_file(folder, target).write_text("\n".join(lines) + "\n")
    return folder


def make(
    out: Path,
    *packed: Path,
    wheel: Path,
    key: signing.SecretKey | None = None,
    since: Path | None = None,
    piece_bytes: int = bundle.FAT32_BYTES,
) -> Path:
    """A bundle of these kits and this program."""
    wheels = (wheel, pip_wheel())
    locks = write_lock(out.parent / "locks", here(), wheels)
    supply = Supply(wheels, locks)
    bundle.pack(bundle.Order(packed, out, (here(),), supply, key, since, piece_bytes))
    return out
