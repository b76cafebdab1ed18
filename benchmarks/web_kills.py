"""Upload pages to the local page, watch, and kill its processes at random moments: each page must be
answered once.

    python benchmarks/web_kills.py WORK [--pages 50] [--kills 10] [--watchers 5] [--seed 1]

Linux only. WORK is a folder to make. Uploads all pages at once, has some clients watch all events,
kills server, page worker and model worker in turn by SIGKILL, and starts the server again. Prints
what was killed, what became of the pages, and the resident memory of the server and both workers,
a tenth of the pages after the last kill and at the end. Exit code 1 where a page is lost, repeated,
or logged more or less than once, or where a process grows by more than a quarter.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import httpx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from killed_server import (
    TARGETS,
    assert_each_answered_once,
    kill,
    resident_bytes,
    rows,
    unsettled,
)
from web_server import WebServer, children

GROWTH = 1.25
UNDER_KILLS = 0.6
"""Share of the pages during which processes are killed; memory is compared over the others."""
SECONDS_PER_PAGE = 60.0
"""Of the deadline."""


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--pages", default=50, show_default=True)
@click.option("--kills", default=10, show_default=True)
@click.option("--watchers", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--measure/--no-measure", default=True, show_default=True)
def main(work: Path, pages: int, kills: int, watchers: int, seed: int, measure: bool) -> None:
    """Upload, watch and kill in WORK."""
    work.mkdir(parents=True)
    dice = random.Random(seed)
    server = WebServer(work, *([] if measure else ["--no-measure"]))
    ended = threading.Event()
    with server:
        begun = time.monotonic()
        with ThreadPoolExecutor(pages) as uploads:
            ids = [*uploads.map(lambda n: server.upload(f"{n}.png"), range(pages))]
        print(f"{pages} uploads at once: {time.monotonic() - begun:.1f} s", flush=True)
        readers = [
            threading.Thread(target=_watch, args=(server, ended), daemon=True)
            for _ in range(watchers)
        ]
        for reader in readers:
            reader.start()
        for number in range(kills):
            goal = pages - (number + dice.random()) * UNDER_KILLS * pages / kills
            while unsettled(server) > goal:
                time.sleep(0.05)
            time.sleep(dice.uniform(0, 0.5))
            target = kill(server, TARGETS[number % len(TARGETS)], dice)
            print(f"killed {target}, {unsettled(server)} pages wait", flush=True)
        _wait_until(server, unsettled(server) - pages // 10)
        before = _resident(server)
        assert_each_answered_once(server, ids, pages * SECONDS_PER_PAGE)
        after = _resident(server)
        ended.set()
        seconds = time.monotonic() - begun
        print(f"{pages} pages answered once each, in {seconds:.0f} s, with {kills} kills")
        grown = _compare(before, after)
        print(f"entries in the audit log: {len(server.entries())}")
        print(f"rows of the queue: {len(rows(server, 'SELECT * FROM jobs'))}")
    raise SystemExit(1 if grown else 0)


def _watch(server: WebServer, ended: threading.Event) -> None:
    """Read all events, and connect again after each kill."""
    while not ended.is_set():
        with (
            contextlib.suppress(httpx.HTTPError, OSError),
            server.program() as client,
            client.stream("GET", "/events") as stream,
        ):
            for _line in stream.iter_lines():
                if ended.is_set():
                    return
        time.sleep(0.2)


def _wait_until(server: WebServer, goal: int) -> None:
    while unsettled(server) > goal:
        time.sleep(0.1)


def _resident(server: WebServer) -> dict[str, int]:
    """Resident bytes of the server and of each worker."""
    assert server.process is not None
    sizes = {"server": resident_bytes(server.process.pid)}
    for pid, words in children(server.process.pid):
        for target in TARGETS[1:]:
            if f"pulse_edge.web.{target}" in words:
                with contextlib.suppress(OSError):
                    sizes[target] = resident_bytes(pid)
    return sizes


def _compare(before: dict[str, int], after: dict[str, int]) -> bool:
    """Print memory before and after; return whether a process has grown."""
    grown = False
    for name, size in after.items():
        first = before.get(name, size)
        print(f"{name}: {first / 1e6:.0f} MB, then {size / 1e6:.0f} MB")
        grown |= size > GROWTH * first
    return grown


if __name__ == "__main__":
    main()
