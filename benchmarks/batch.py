"""Kill a batch with SIGKILL and fill its disk: the result must be that of an unbroken run, and
every answer must be in the audit log.

    python benchmarks/batch.py WORK --kit KIT [--pages 300] [--kills 30] [--seed 1] [--small DIR]

WORK is made and removed. DIR is a folder of a file system of a few MiB (`mount -t tmpfs -o size=6m
none DIR`), which is filled until the batch fails and emptied again. Use the demo kit: the pages are
many, and their answers do not matter.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import click
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]


class Run:
    """One batch, by command line."""

    def __init__(self, pages: Path, out: Path, kit: Path, log: Path) -> None:
        self.out, self.log = out, log
        question = ("-q", "What is the rate?", "-q", "Is the rhythm regular?")
        how = ("--threads", "1", "--max-tokens", "4", "--device", "cpu", "--no-findings")
        self._command = [
            sys.executable,
            "-m",
            "pulse_edge",
            "batch",
            str(pages),
            "-o",
            str(out),
            "--kit",
            str(kit),
        ]
        self._command += [*question, *how]
        self._environment = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[int, str]:
        """Exit code and the last line on stderr."""
        process = self.start()
        _, errors = process.communicate()
        return process.returncode, (errors.splitlines() or [""])[-1]

    def pages(self) -> int:
        """Pages finished so far."""
        if not (self.out / "batch.sqlite").exists():
            return 0
        with sqlite3.connect(f"file:{self.out / 'batch.sqlite'}?mode=ro", uri=True) as db:
            try:
                return int(db.execute("SELECT count(*) FROM pages").fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    def result(self) -> list[tuple[str, str]]:
        """The results that must not depend on interruptions."""
        lines = map(json.loads, (self.out / "results.jsonl").read_text("utf-8").splitlines())
        return [
            (line["file"], json.dumps([line.get("answers"), line.get("error")])) for line in lines
        ]

    def recorded(self) -> int:
        """Number of entries in the verified audit log; raises if an answer is missing there."""
        from pulse_edge.audit_log.entries import sha256
        from pulse_edge.audit_log.log import AuditLog

        log = AuditLog(self.log)
        log.verify()
        entries = [(e.fields["page_sha256"], e.fields["answer_sha256"]) for e in log.entries()]
        lines = map(json.loads, (self.out / "results.jsonl").read_text("utf-8").splitlines())
        expected = {
            (line["page_sha256"], sha256(a["text"]))
            for line in lines
            for a in line.get("answers", ())
        }
        if missing := expected - set(entries):
            raise SystemExit(f"{len(missing)} answers are not in the audit log")
        return len(entries)


def make(folder: Path, pages: int) -> None:
    """Make pages that differ; one in fifty cannot be read."""
    folder.mkdir(parents=True)
    whole = (
        Image.open(ROOT / "pulse_edge" / "assets" / "example_page.png")
        .convert("RGB")
        .resize((330, 255))
    )
    for n in range(pages):
        path = folder / f"{n:04}.png"
        if n % 50 == 7:
            path.write_bytes(b"no picture")
        else:
            whole.rotate(n / 10, fillcolor="white").save(path)


def kill(run: Run, kills: int, dice: random.Random, pages: int) -> int:
    """Start and kill at random moments, `kills` times; the number of finished pages by then."""
    for n in range(kills):
        process = run.start()
        goal = run.pages() + dice.randint(0, max(1, 2 * (pages - run.pages()) // (kills - n + 1)))
        while process.poll() is None and run.pages() < goal:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"kill {n + 1}: {run.pages()} pages", file=sys.stderr)
    return run.pages()


def fill(folder: Path, leave: int) -> Path:
    """Write a file that leaves only so many bytes free."""
    path = folder / "filler"
    free = shutil.disk_usage(folder).free
    with open(path, "wb") as file:
        file.write(b"\0" * max(0, free - leave))
    return path


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pages", default=300, show_default=True)
@click.option("--kills", default=30, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--small", type=click.Path(path_type=Path, exists=True))
def main(work: Path, kit: Path, pages: int, kills: int, seed: int, small: Path | None) -> None:
    """Measure and print the result."""
    make(work / "pages", pages)
    kit = kit.resolve()
    whole = Run(work / "pages", work / "whole", kit, work / "log-whole")
    start = time.monotonic()
    code, last = whole.finish()
    seconds = time.monotonic() - start
    print(
        f"unbroken: {whole.pages()} pages of {pages}, exit code {code}, {seconds:.0f} s, {whole.recorded()} entries"
    )
    killed = Run(work / "pages", work / "killed", kit, work / "log-killed")
    done = kill(killed, kills, random.Random(seed), pages)
    code, last = killed.finish()
    same = killed.result() == whole.result()
    print(
        f"killed {kills} times, the last time after {done} pages: exit code {code}, {killed.recorded()} entries"
    )
    print(f"result {'equals' if same else 'DIFFERS FROM'} the unbroken run's")
    if small is not None:
        full = Run(work / "pages", small / "out", kit, work / "log-full")
        for leave in (60_000, 200_000, 400_000):
            filler = fill(small, leave)
            code, last = full.finish()
            print(
                f"disk with {leave // 1000} kB free: exit code {code} after {full.pages()} pages: {last}"
            )
            filler.unlink()
        code, last = full.finish()
        same &= full.result() == whole.result()
        print(
            f"disk free again: exit code {code}, {full.recorded()} entries, equal: {full.result() == whole.result()}"
        )
    shutil.rmtree(work)
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
