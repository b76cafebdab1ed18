"""Write the lock files of the program that bundles carry: locks/PLATFORM-pyXY-DEVICE.txt.

    python scripts/make_locks.py        needs uv and a registry

Versions are those of constraints.txt. A lock holds the hashes of all files of a version, so that
`bundle pack` refuses what was replaced in the registry. Review the difference before you commit it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pulse_edge.deploy.locks import lock_file  # noqa: E402
from pulse_edge.deploy.targets import EXTRAS, PYTHONS, Target  # noqa: E402

UV_PLATFORMS = {
    "linux-x86_64": "x86_64-manylinux_2_35",
    "linux-aarch64": "aarch64-manylinux_2_35",
    "macos-arm64": "aarch64-apple-darwin",
    "windows-x86_64": "x86_64-pc-windows-msvc",
}
"""Name of a platform -> uv's name."""
MACOS = "14.0"
"""Oldest macOS that onnxruntime is built for."""
CUDA_PLATFORMS = ("linux-x86_64", "windows-x86_64")
HEADER = """\
# {target}, {device}: written by `make locks`. Do not edit.
# pulse-edge with its extras {extras}, and pip, which installs the wheels of a bundle.
"""


def main() -> None:
    """Write every lock file, or stop at the first that cannot be resolved."""
    (ROOT / "locks").mkdir(exist_ok=True)
    for platform, uv_platform in UV_PLATFORMS.items():
        devices = ("cpu", "cuda") if platform in CUDA_PLATFORMS else ("cpu",)
        for device in devices:
            for python in PYTHONS:
                target = Target(platform, python, device)
                path = lock_file(ROOT / "locks", target)
                path.write_text(resolve(target, uv_platform), "utf-8", newline="\n")
                print(path.relative_to(ROOT))


def resolve(target: Target, uv_platform: str) -> str:
    """Return the text of a target's lock file."""
    extras = (target.device, *EXTRAS)
    with tempfile.TemporaryDirectory() as folder:
        pip = Path(folder) / "pip.in"
        pip.write_text("pip\n")
        command = ["uv", "pip", "compile", "pyproject.toml", str(pip)]
        command += [word for extra in extras for word in ("--extra", extra)]
        command += ["--constraints", "constraints.txt", "--generate-hashes", "--quiet"]
        command += ["--python-platform", uv_platform, "--python-version", target.python]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{target}, {target.device}: {done.stderr}")
    header = HEADER.format(target=target, device=target.device, extras=", ".join(extras))
    return header + done.stdout


if __name__ == "__main__":
    main()
