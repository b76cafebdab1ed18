"""Kill the server of the local page or one of its workers, again and again, while pages wait."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from web_server import WebServer, children, wait_for

TARGETS = ("server", "page_worker", "model_worker")
_CRASHED = """
SELECT (SELECT count(*) FROM jobs WHERE crashes)
    + (SELECT count(*) FROM readings WHERE crashes AND state = 'checking')
    + (SELECT count(*) FROM uploads WHERE crashes AND pages IS NULL)
"""


def rows(server: WebServer, query: str) -> list[Any]:
    """Rows of the server's database, read while it may run."""
    address = f"{(server.folder / 'web.sqlite').resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=60)) as db:
        return db.execute(query).fetchall()


def unsettled(server: WebServer) -> int:
    """How many pages have neither an answer nor a reason."""
    query = "SELECT count(*) FROM readings WHERE state IN ('checking', 'waiting')"
    return int(rows(server, query)[0][0])


def kill(server: WebServer, target: str, dice: random.Random) -> str:
    """Kill one process by SIGKILL; return what was killed.

    A page at which a worker has crashed once is spared a second crash, which would end it.
    """
    assert server.process is not None
    if target != "server" and not rows(server, _CRASHED)[0][0]:
        for _ in range(40):  # it may be starting again
            for pid, words in children(server.process.pid):
                if f"pulse_edge.web.{target}" in words:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return target
            time.sleep(0.05)
    server.kill(signal.SIGKILL)
    server.start()
    return "server"


def under_kills(
    server: WebServer, targets: Sequence[str], pause: float, dice: random.Random
) -> list[str]:
    """Kill the targets in turn, each after a random pause of at most `pause` seconds."""
    killed = []
    for target in targets:
        time.sleep(dice.uniform(0, pause))
        killed.append(kill(server, target, dice))
    return killed


def assert_each_answered_once(server: WebServer, ids: Sequence[str], seconds: float) -> None:
    """Wait for the end; then every page is done, with one entry in the audit log."""
    wait_for(lambda: unsettled(server) == 0, seconds)
    states = dict(rows(server, "SELECT id, state FROM readings"))
    assert {id: states.get(id) for id in ids} == dict.fromkeys(ids, "done")
    logged = [entry.fields["id"] for entry in server.entries()]
    assert sorted(logged) == sorted(f"{id}/0/0" for id in ids)
    server.audit_log.verify()
    assert rows(server, "SELECT * FROM entries") == rows(server, "SELECT * FROM jobs") == []


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
