"""No process of ours sends anything, and a fresh home folder holds only what docs/security.md
lists."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
from pathlib import Path

import namespace
import pytest
from checkout import ROOT
from home_files import documented, files, undocumented

PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
KIT = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
COMMANDS = [
    "check page.png",
    "kit info kit",
    "kit verify kit",
    "doctor",
    "interpret page.png --findings --kv-cache-size 1GB --retain 30 --format html -o report.html",
    "batch page.png -o out",
    "bench",
    "ask page.png",
    "audit list",
    "audit verify",
    "cache info",
]
HELD = 14
"""Seconds that `ask` stays: ONNX Runtime 1.32 asks for its maker's address ten seconds after it is
imported."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := namespace.why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("network")
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    shutil.copy(PAGE, folder / "page.png")
    shutil.copytree(KIT, folder / "kit")
    return folder


def run(room: Path, commands: list[list[str]], **how: object) -> list[namespace.Done]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(room / "home"),
        "TMPDIR": str(room / "tmp"),
    }
    return namespace.recorded(
        commands,
        room / "recorder",
        environment,
        cwd=room,
        resolver=room / "resolv.conf",
        **how,  # type: ignore[arg-type]
    )


def test_the_recorder_sees_a_name_a_connection_and_a_datagram(room: Path) -> None:
    code = "import socket; socket.socket(2, 2).sendto(b'x', ('198.51.100.1', 9)); socket.create_connection(('a.test', 443))"
    (done,) = run(room, [[sys.executable, "-c", code]])
    assert {"udp 198.51.100.1 9", "name a.test", f"tcp {namespace.ADDRESS} 443"} <= set(done.sent)


def test_no_command_sends_anything_and_home_holds_what_is_documented(room: Path) -> None:
    program = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-m", "pulse_edge"]
    question = "Is the rhythm regular?\n"
    done = run(room, [[*program, *line.split()] for line in COMMANDS], typed=question, held=HELD)
    assert [(one.words[4:], one.stderr) for one in done if one.code] == []
    assert {" ".join(one.words[4:]): one.sent for one in done} == {line: [] for line in COMMANDS}
    assert undocumented(room / "home") == set()
    assert len(files(room / "home")) >= 6  # the caches, the machine's profile, the audit log
    assert files(room / "tmp") == set()
    listed = [pattern for pattern in documented() if "/web/" not in pattern]  # see tests/web
    for patterns in listed:  # and nothing is listed that is never written
        assert any(fnmatch.fnmatchcase(name, patterns) for name in files(room / "home"))


def test_importing_the_package_switches_telemetry_off() -> None:
    code = "import pulse_edge, os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    clean = {
        k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("package", ["export", "calibration"])
def test_the_workstations_packages_do_it_too(package: str) -> None:
    code = f"import {package}, os; print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "0"]


@pytest.mark.parametrize(
    ("variable", "code"), [({}, 1), ({"ORT_DISABLE_TELEMETRY": "1"}, 0)], ids=["on", "off"]
)
def test_an_onnxruntime_that_was_imported_before_with_telemetry_is_refused(
    variable: dict[str, str], code: int, tmp_path: Path
) -> None:
    program = "import onnxruntime, sys; from pulse_edge.inference.vision_encoder import VisionEncoder; from pathlib import Path\n"
    program += "VisionEncoder(Path(sys.argv[1]), device='cpu', threads=1).ready()"
    clean = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(KIT / "vision.onnx")],
        cwd=ROOT,
        env=clean | {"HOME": str(tmp_path)} | variable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("Import pulse_edge first, or set ORT_DISABLE_TELEMETRY=1" in done.stderr) == bool(code)
