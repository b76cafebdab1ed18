"""Compare the runtime with llama.cpp's own programs, on the same files in the same run.

    python benchmarks/laptop.py WORK --kit KIT --checkpoint CHECKPOINT
        [--rounds N] [--long N] [--threads N] [--source DIR]

Compared are the encoder, the prefill of image tokens, and the way from page to first token. KIT
comes from CHECKPOINT. llama-bench and llama-mtmd-cli are built in WORK/tools, and an mmproj file is
written of the checkpoint. The programs run in turns, each run in a process of its own, and its
figures are appended to WORK/results.jsonl at once: the same command resumes an interrupted
measurement without measuring twice. Then it prints a Markdown table of medians. `--rounds` is the
number of short parts, `--long` that of parts that read a whole page (minutes each at PULSE-7B's
shapes).
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from laptop_parts import PAGE
from laptop_table import Figures, agreement, measured, table
from llama_cpp_programs import programs

from pulse_edge.kit.kit import open_kit
from pulse_edge.machine import cpu

PARTS = str(ROOT / "benchmarks" / "laptop_parts.py")
QUESTIONS = ("Please write a clinical report based on this ECG image.", "Is the rhythm regular?")


class Run(NamedTuple):
    """A process that ended with exit code 0; times are seconds since its start."""

    seconds: float
    out: str
    """Standard output."""
    notes: list[tuple[float, str]]
    """Lines of standard error with their times."""
    first_output: float
    """Time of the first output; that of the end where there was none."""
    peak: int
    """Bytes, largest resident set."""


def run(*words: object, environment: dict[str, str] | None = None) -> Run:
    """Run a program; SystemExit where it fails."""
    command, began, first = [str(w) for w in words], time.time(), None
    out, rest, notes = b"", b"", []
    pipe, env = subprocess.PIPE, os.environ | (environment or {})
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, env=env) as process:
        watched = selectors.DefaultSelector()
        for stream in (process.stdout, process.stderr):
            watched.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]
        while watched.get_map():
            for key, _ in watched.select():
                data, now = os.read(key.fd, 1 << 16), time.time() - began
                if not data:
                    watched.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    out += data
                    first = now if first is None and data.strip() else first
                else:
                    *whole, rest = (rest + data).split(b"\n")
                    notes += [(now, line.decode("utf-8", "replace")) for line in whole]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.time() - began
    if process.returncode:
        last = "\n".join(line for _, line in notes[-5:])
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{last}")
    text = out.decode("utf-8", "replace")
    first = seconds if first is None else first
    return Run(seconds, text, notes, first, usage.ru_maxrss * 1024)


class Laptop:
    """The parts that are measured, on one kit."""

    def __init__(
        self, work: Path, kit: Path, checkpoint: Path, threads: int, source: Path | None
    ) -> None:
        self.work, self.kit, self.checkpoint, self.threads = work, kit, checkpoint, threads
        self.model = open_kit(kit).file(open_kit(kit).manifest.language.file)
        self.mmproj = work / "mmproj.gguf"
        self.bench, self.mtmd = programs(work, source, "llama-bench", "llama-mtmd-cli")
        if not self.mmproj.is_file():
            run(sys.executable, PARTS, "mmproj", checkpoint, work / "mmproj.part")
            (work / "mmproj.part").rename(self.mmproj)

    def encoder(self, who: str, number: int) -> Figures:
        """Seconds of a page's tiles; `who` is ours, clip or torch."""
        out = self.work / f"encoder-{who}.json"
        other = {"ours": (), "clip": (self.mmproj,), "torch": (self.checkpoint,)}[who]
        run(sys.executable, PARTS, "encoder", out, self.kit, self.threads, who, *other)
        return dict(json.loads(out.read_text()))

    def command(self, who: str, number: int) -> Figures:
        """`pulse-edge interpret`: to the first tile (start), both first tokens (page), or the
        loading of weights (seen).
        """
        out, cache = self.work / f"command-{who}.json", self.work / f"cache-{number}"
        until = {"remember": "encode", "start": "encode", "page": "end", "seen": "load_model"}[who]
        own = {"PULSE_EDGE_AUDIT_LOG": str(self.work / "log"), "PULSE_EDGE_CACHE": str(cache)}
        if who == "seen":
            own["PULSE_EDGE_CACHE"] = str(self.work / "cache-0")
        elif who != "page":
            own["PULSE_EDGE_CACHE"] = str(self.work / "cache-none")
        words = f"interpret {PAGE} --kit {self.kit} --device cpu --max-tokens 1".split()
        words += ["--threads", str(self.threads)]
        words += [part for question in QUESTIONS for part in ("-q", question)]
        begun = time.time()
        done = run(sys.executable, PARTS, "command", out, begun, until, *words, environment=own)
        watches = json.loads(out.read_text())
        if who == "seen" and "encode" in watches["entered"]:
            raise SystemExit("a page that was read before was encoded again")
        return {**watches, "peak": done.peak}

    def llama_bench(self, _who: str, number: int) -> Figures:
        """Prefill of as many tokens as our page had, with the settings that our run chose."""
        ours = figures(self.work, "command", "page", number)
        load = "mmap" if ours["mapped"] else "none"
        batch, threads, keys = ours["batch"], self.threads, ours["key_cache_type"]
        words = f"-p {ours['rows']} -n 0 -t {threads} -ngl 0 -fa 0 -lm {load} -b {batch}".split()
        words += f"-ub {batch} -ctk {keys} --repack {int(ours['repack'])} -r 1".split()
        done = run(self.bench, "-m", self.model, *words, "--no-warmup", "-o", "jsonl")
        result = json.loads(done.out)
        return {"rate": result["avg_ts"], "seconds": result["avg_ns"] / 1e9, "peak": done.peak}

    def mtmd_cli(self, _who: str, number: int) -> Figures:
        """The page and the question in llama.cpp's way, otherwise with its own defaults."""
        files = ("-m", self.model, "--mmproj", self.mmproj, "--image", PAGE)
        words = f"-n 1 --temp 0 -c 4096 -t {self.threads} -ngl 0 --no-warmup --no-jinja".split()
        done = run(self.mtmd, *files, "-p", QUESTIONS[0], *words, "--chat-template", "vicuna")
        log = self.work / "mtmd.log"
        log.write_text("".join(f"{at:.3f} {line}\n" for at, line in done.notes))
        loaded = next((at for at, line in done.notes if "loading model: " in line), None)
        mark = "encoding done in "
        encoded = [after(line, mark) for _, line in done.notes if mark in line]
        if loaded is None or not encoded:
            raise SystemExit(f"{log}: llama-mtmd-cli printed other lines than expected")
        each = np.load(self.work / "encoder-clip.npy", mmap_mode="r").shape[1]
        return {
            "first_token": done.first_output,
            "loaded": loaded,
            "encode": sum(encoded) / 1e3,
            "rows": each * len(encoded),
            "peak": done.peak,
        }


def after(line: str, words: str) -> float:
    """The number that follows these words."""
    return float(line.split(words)[1].split()[0].rstrip(","))


def schedule(rounds: int, long: int) -> Iterator[tuple[str, str, int]]:
    """Part, program and number of each run, so that compared ones take turns."""
    yield "command", "remember", 0
    for n in range(rounds):
        yield "command", "start", n
    for n in range(rounds):
        yield from (("encoder", who, n) for who in ("ours", "clip", "torch"))
    for n in range(long):
        yield "command", "page", n
        yield "llama_bench", "theirs", n
        yield "mtmd_cli", "theirs", n
    for n in range(rounds):
        yield "command", "seen", n


def figures(work: Path, part: str, who: str, number: int) -> Figures:
    """The figures of one run."""
    return next(
        r for r in measured(work) if (r["part"], r["who"], r["number"]) == (part, who, number)
    )


def measure(
    work: Path, rounds: int, long: int, parts: Callable[[str], Callable[[str, int], Figures]]
) -> None:
    """Measure the runs that `work`/results.jsonl does not have yet.

    `parts` gives a part's function by its name.
    """
    finished = {(r["part"], r["who"], r["number"]) for r in measured(work)}
    for part, who, number in schedule(rounds, long):
        if (part, who, number) in finished:
            continue
        start = time.perf_counter()
        result = {"part": part, "who": who, "number": number, **parts(part)(who, number)}
        with (work / "results.jsonl").open("a") as lines:
            lines.write("\n" * cut_short(work) + json.dumps(result) + "\n")
        click.echo(f"{part} {who} {number}: {time.perf_counter() - start:.0f} s", err=True)


def cut_short(work: Path) -> bool:
    """Whether the last line of the results has no end."""
    path = work / "results.jsonl"
    return path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Rounds of the short parts.",
)
@click.option(
    "--long", type=click.IntRange(1), default=1, show_default=True, help="Rounds of whole pages."
)
@click.option("--threads", type=click.IntRange(1), default=cpu.threads().prefill, show_default=True)
@click.option(
    "--source", type=click.Path(path_type=Path), help="llama.cpp's source.  [default: fetched]"
)
def main(
    work: Path,
    kit: Path,
    checkpoint: Path,
    rounds: int,
    long: int,
    threads: int,
    source: Path | None,
) -> None:
    """Measure and print the table."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    laptop = Laptop(work, kit.resolve(), checkpoint.resolve(), threads, source)
    measure(work, rounds, long, lambda part: getattr(laptop, part))
    m = open_kit(kit).manifest
    click.echo(
        f"{m.id}: {m.language.type} language model, {m.vision.type} encoder; {cpu.name()}, "
        f"{threads} threads\n"
    )
    click.echo(table(work, agreement(work)))


if __name__ == "__main__":
    main()
