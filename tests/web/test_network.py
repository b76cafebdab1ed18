"""The local page sends nothing: in a network namespace, only this machine talks to its port."""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path

import namespace
import pytest
from checkout import ROOT
from home_files import documented, files, undocumented

PORT = 8412
STAY = 12
"""Seconds after the answer: ONNX Runtime 1.32 asks for its maker's address ten seconds after it is
imported."""
VISIT = f"""
import pathlib, signal, subprocess, sys, time, httpx
words = [sys.executable, "-m", "pulse_edge", "serve", "--kit", sys.argv[1], "--port", "{PORT}"]
server = subprocess.Popen(words, cwd=sys.argv[3])
folder = pathlib.Path.home() / ".local/state/pulse-edge/web"
while not (folder / "link").exists():
    assert server.poll() is None
    time.sleep(0.1)
headers = {{"authorization": "Bearer " + (folder / "token").read_text().strip(),
    "accept": "application/json"}}
with httpx.Client(base_url="http://127.0.0.1:{PORT}", headers=headers, timeout=120) as client:
    page = pathlib.Path(sys.argv[2]).read_bytes()
    (id,) = client.post("/upload", files={{"file": ("page.png", page)}}).json()["ids"]
    while client.get(f"/r/{{id}}/report.json").status_code != 200:
        time.sleep(0.2)
    assert client.post(f"/r/{{id}}/ask", data={{"question": "Is it regular?"}}).status_code == 303
    assert client.get(f"/r/{{id}}/report.html").status_code == 200
    time.sleep({STAY})
server.send_signal(signal.SIGINT)
assert server.wait(60) == 130
"""


def test_the_local_page_sends_nothing_and_home_holds_what_is_documented(tmp_path: Path) -> None:
    if why := namespace.why_not():
        pytest.skip(why)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    assets = ROOT / "pulse_edge" / "assets"
    visit = [sys.executable, "-c", VISIT, assets / "kits/miniature", assets / "example_page.png"]
    (done,) = namespace.recorded(
        [[*visit, ROOT]],
        tmp_path / "recorder",
        {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "tmp"),
        },
        cwd=tmp_path,
        resolver=tmp_path / "resolv.conf",
    )
    assert done.code == 0, done.stderr
    # The answers go to ports that the system gave the client.
    others = [line for line in done.sent if not line.startswith("tcp 127.0.0.1 ")]
    assert others == []
    assert f"tcp 127.0.0.1 {PORT}" in done.sent
    assert undocumented(tmp_path / "home") == set()
    for pattern in (pattern for pattern in documented() if "/web/" in pattern):
        assert any(fnmatch.fnmatchcase(name, pattern) for name in files(tmp_path / "home"))
    assert files(tmp_path / "tmp") == set()
