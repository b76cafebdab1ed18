"""A running `pulse-edge serve` with the demo kit, and clients that talk to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from checkout import ROOT

from pulse_edge.audit_log.entries import Entry
from pulse_edge.audit_log.log import AuditLog

KIT = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
DEADLINE = 120.0
"""Seconds: far more than anything takes on a loaded machine."""


class WebServer:
    """The server process and its folders below `home`. Start it again after `kill`."""

    def __init__(self, home: Path, *options: str, kit: Path = KIT) -> None:
        self.home, self.options, self.kit = home, options, kit
        self.folder = home / "web"
        self.audit_log = AuditLog(home / "audit-log")
        self.process: subprocess.Popen[str] | None = None
        self.address = ""

    @property
    def environment(self) -> Mapping[str, str]:
        names = {
            "XDG_CACHE_HOME": self.home / "cache",
            "PULSE_EDGE_CACHE": self.home / "pages",
            "XDG_STATE_HOME": self.home / "state",
            "PULSE_EDGE_AUDIT_LOG": self.audit_log.folder,
        }
        one_thread = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
        return {**os.environ, **one_thread, **{k: str(v) for k, v in names.items()}}

    def start(self) -> WebServer:
        """Start it, and wait until it listens."""
        (self.folder / "link").unlink(missing_ok=True)
        words = ["serve", "--kit", self.kit, "--folder", self.folder, "--port", "0", *self.options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pulse_edge", *map(str, words)],
            env=dict(self.environment),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: self._has_link() or self.process.poll() is not None)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.process.stderr.read()  # type: ignore[union-attr]
        self.address = self.link().partition("/?")[0]
        return self

    def _has_link(self) -> bool:
        path = self.folder / "link"
        return path.exists() and path.read_text().endswith("\n")

    def link(self) -> str:
        """The address that opens the page once."""
        return (self.folder / "link").read_text().strip()

    def token(self) -> str:
        """The token for programs."""
        return (self.folder / "token").read_text().strip()

    def program(self) -> httpx.Client:
        """A client with the token, as a program has it."""
        headers = {"Authorization": f"Bearer {self.token()}", "Accept": "application/json"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=DEADLINE)

    def browser(self) -> httpx.Client:
        """A client with a session, as a browser has it."""
        opened = httpx.get(self.link())
        assert opened.status_code == 200
        return httpx.Client(base_url=self.address, cookies=opened.cookies, timeout=DEADLINE)

    def upload(self, name: str = "page.png", content: bytes | None = None) -> str:
        """Upload a page with one sheet; return its id."""
        file = {"file": (name, PAGE.read_bytes() if content is None else content)}
        with self.program() as client:
            answer = client.post("/upload", files=file)
        assert answer.status_code == 201, answer.text
        (id,) = answer.json()["ids"]
        return str(id)

    def reading(self, id: str) -> dict[str, Any]:
        """The page as the first event shows it."""
        import json

        with (
            self.program() as client,
            client.stream("GET", f"/r/{id}/events") as stream,
        ):
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    return dict(json.loads(line.removeprefix("data: ")))
        raise AssertionError("no event")

    def wait(self, id: str, *states: str) -> dict[str, Any]:
        """Wait until a page is in one of the states."""
        wait_for(lambda: self.reading(id)["state"] in states)
        return self.reading(id)

    def entries(self) -> list[Entry]:
        """The entries of the audit log."""
        exists = (self.audit_log.folder / "entries.log").exists()
        return list(self.audit_log.entries()) if exists else []

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the server by a signal; return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def close(self) -> None:
        """End the server if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)

    def __enter__(self) -> WebServer:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.close()


def children(process: int) -> Iterator[tuple[int, str]]:
    """Process id and command line of every child of a process (Linux)."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if parent == process:
            yield int(folder.name), words


def wait_for(condition: Any, seconds: float = DEADLINE) -> None:
    """Wait until a condition holds; fails after a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no result after {seconds:.0f} s"
        time.sleep(0.05)
