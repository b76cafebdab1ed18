"""Kill -9 at random moments of collect, quantize and evaluate: are the final files those of an
unbroken run?

    python benchmarks/kills.py KIT WORK [--kills 10] [--pages 24] [--seed 1]

KIT is an f16 kit of a small model. Each command runs once unbroken, then again under kills: a
moment is drawn evenly from the seconds of the unbroken run, and the same command is called again
until it ends by itself.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
PATH = click.Path(path_type=Path)
UNLIKE = {"machine", "seconds", "created", "first_token", "peak_bytes"}

MEASURED = "seconds.jsonl"


def start(*words: object) -> subprocess.Popen[bytes]:
    """One of our commands, in its own group."""
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(*words: object) -> float:
    """Run to the end; seconds."""
    began, process = time.perf_counter(), start(*words)
    _, told = process.communicate()
    if process.returncode:
        raise click.ClickException(told.decode())
    return time.perf_counter() - began


def killed(times: int, seconds: float, dice: random.Random, target: Path, *words: object) -> int:
    """Start and kill until that came `times` times while the command was at work; how often it had
    ended before.
    """
    hits, ended = 0, 0
    while hits < times:
        process = start(*words)
        time.sleep(dice.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            hits += 1
        else:
            ended += 1
            shutil.rmtree(target, ignore_errors=True)  # begin anew
            target.unlink(missing_ok=True)
        process.communicate()
    return ended


def contents(path: Path) -> dict[str, str]:
    """{file: sha256} of a file or folder; of results only what is an answer, for seconds differ."""
    files = (
        [path]
        if path.is_file()
        else sorted(p for p in path.rglob("*") if p.is_file() and p.name != MEASURED)
    )
    return {str(p.relative_to(path)) if p != path else "": digest(p) for p in files}


def digest(path: Path) -> str:
    """sha256 of a file; of JSON lines without their seconds."""
    import json

    if path.suffix not in (".json", ".jsonl"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    plain = [json.dumps(without_times(json.loads(line)), sort_keys=True) for line in lines]
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()


def without_times(value: object) -> object:
    """JSON without what names a time."""
    if isinstance(value, dict):
        return {
            k: without_times(v)
            for k, v in value.items()
            if k not in UNLIKE and not k.endswith("seconds")
        }
    return [without_times(v) for v in value] if isinstance(value, list) else value


@click.command()
@click.argument("kit", type=PATH)
@click.argument("work", type=PATH)
@click.option("--kills", "times", default=10, show_default=True)
@click.option("--pages", default=24, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(kit: Path, work: Path, times: int, pages: int, seed: int) -> None:
    """Measure."""
    kit, work, dice = kit.resolve(), work.resolve(), random.Random(seed)
    work.mkdir(parents=True)
    bench = work / "bench"
    test = work / "test"
    for folder, number in ((bench, 7), (test, 8)):
        finish(
            "calibration",
            "synthesize",
            "-o",
            folder,
            "--pages",
            pages,
            "--seed",
            number,
            "--processes",
            1,
        )
    stats = work / "whole-stats.gguf"

    def collect(out: Path) -> tuple[object, ...]:
        return (
            "calibration",
            "collect",
            kit,
            "-o",
            out,
            "--bench",
            bench,
            "--samples",
            pages,
            "--threads",
            1,
        )

    def quantize(out: Path) -> tuple[object, ...]:
        return "export", "quantize", kit, "-o", out, "--llm", "Q4_K_M", "--stats", stats

    def evaluate(out: Path) -> tuple[object, ...]:
        small = work / "whole-kit"
        return (
            "calibration",
            "evaluate",
            kit,
            small,
            "-o",
            out,
            "--bench",
            test,
            "--limit",
            6,
            "--threads",
            1,
        )

    click.echo("| command | unbroken, s | kills at work | final files |\n|---|---|---|---|")
    equal = True
    for name, command, suffix in (
        ("collect", collect, "stats.gguf"),
        ("quantize", quantize, "kit"),
        ("evaluate", evaluate, "results"),
    ):
        whole, broken = work / f"whole-{suffix}", work / f"killed-{suffix}"
        seconds = finish(*command(whole))
        ended = killed(times, seconds, dice, broken, *command(broken))
        if not (name != "evaluate" and broken.exists()):
            finish(*command(broken))
        a, b = contents(whole), contents(broken)
        different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
        equal &= not different
        said = "equal" if not different else f"DIFFERENT: {', '.join(different)}"
        click.echo(f"| {name} | {seconds:.0f} | {times}, and {ended} that had ended | {said} |")
    left = [p.name for p in work.iterdir() if p.name.startswith(".")]
    click.echo(f"\nleft behind: {', '.join(left) or 'nothing'}")
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()
