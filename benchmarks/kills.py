"""Kill collect, quantize and evaluate at random moments: the final files must be those of an
unbroken run.

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
    """Start one of our commands in its own process group."""
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(*words: object) -> float:
    """Run a command to its end; the seconds it took."""
    began, process = time.perf_counter(), start(*words)
    _, output = process.communicate()
    if process.returncode:
        raise click.ClickException(output.decode())
    return time.perf_counter() - began


def killed(times: int, seconds: float, dice: random.Random, target: Path, *words: object) -> int:
    """Start and kill until the command was killed `times` times at work; how often it had ended
    before.
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
            shutil.rmtree(target, ignore_errors=True)  # start again
            target.unlink(missing_ok=True)
        process.communicate()
    return ended


def contents(path: Path) -> dict[str, str]:
    """sha256 by file of a file or folder; of results only the answers, because seconds differ."""
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
    """JSON without its times."""
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
    """Measure and print the table; exit code 1 where files differ."""
    kit, work, dice = kit.resolve(), work.resolve(), random.Random(seed)
    work.mkdir(parents=True)
    for folder, number in ((work / "bench", 7), (work / "test", 8)):
        options = f"--pages {pages} --seed {number} --processes 1".split()
        finish("calibration", "synthesize", "-o", folder, *options)
    click.echo("| command | unbroken, s | kills at work | final files |\n|---|---|---|---|")
    equal = True
    for name, suffix in (("collect", "stats.gguf"), ("quantize", "kit"), ("evaluate", "results")):
        whole, broken = work / f"whole-{suffix}", work / f"killed-{suffix}"
        seconds = finish(*command(name, kit, work, whole, pages))
        again = command(name, kit, work, broken, pages)
        ended = killed(times, seconds, dice, broken, *again)
        if not (name != "evaluate" and broken.exists()):
            finish(*again)
        a, b = contents(whole), contents(broken)
        different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
        equal &= not different
        outcome = "equal" if not different else f"DIFFERENT: {', '.join(different)}"
        click.echo(f"| {name} | {seconds:.0f} | {times}, and {ended} that had ended | {outcome} |")
    hidden = [p.name for p in work.iterdir() if p.name.startswith(".")]
    click.echo(f"\ntemporary files left behind: {', '.join(hidden) or 'none'}")
    raise SystemExit(0 if equal else 1)


def command(name: str, kit: Path, work: Path, out: Path, pages: int) -> tuple[object, ...]:
    """The command line of collect, quantize or evaluate that writes `out`."""
    one_thread = ("--threads", 1)
    if name == "collect":
        data = ("--bench", work / "bench", "--samples", pages)
        return "calibration", "collect", kit, "-o", out, *data, *one_thread
    if name == "quantize":
        stats = ("--stats", work / "whole-stats.gguf")
        return "export", "quantize", kit, "-o", out, "--llm", "Q4_K_M", *stats
    kits = (kit, work / "whole-kit")
    data = ("--bench", work / "test", "--limit", 6)
    return "calibration", "evaluate", *kits, "-o", out, *data, *one_thread


if __name__ == "__main__":
    main()
