"""The runtime beside llama.cpp's own programs, on the same files in the same run: encoder, image
tokens, page to first token.

    python benchmarks/laptop.py WORK --kit KIT --checkpoint CHECKPOINT [--rounds N] [--long N] [--threads N] [--source DIR]

KIT comes from CHECKPOINT. llama-bench and llama-mtmd-cli are built in WORK/tools, an mmproj file is
written of the checkpoint. What is compared runs in turns, each run a process of its own, and its
figures are appended to WORK/results.jsonl at once: the same command goes on where it was, and does
not measure twice. Then a table in Markdown, of medians. `--rounds` counts the short parts, `--long`
those that read a whole page (minutes each at PULSE-7B's shapes).
"""

from __future__ import annotations

import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from laptop_parts import PAGE

from pulse_edge.kit.kit import open_kit
from pulse_edge.machine import cpu
from tools import tools

PARTS = str(ROOT / "benchmarks" / "laptop_parts.py")
QUESTIONS = ("Please write a clinical report based on this ECG image.", "Is the rhythm regular?")
OVERHEAD = ("read", "check", "cut", "pack", "key", "get_rows", "put_rows", "tokenize", "copy")
Figures = dict[str, Any]


class Run(NamedTuple):
    """A process that ended well. Seconds since it was started."""

    seconds: float
    out: str
    """Standard output."""
    notes: list[tuple[float, str]]
    """Lines of standard error, and when they came."""
    said: float
    """When standard output had its first word; the end where there was none."""
    peak: int
    """Bytes, largest resident set."""


def run(*words: object, environment: dict[str, str] | None = None) -> Run:
    """Run a program. Ends everything where it fails."""
    command, began, said = [str(w) for w in words], time.time(), None
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
                    said = now if said is None and data.strip() else said
                else:
                    *whole, rest = (rest + data).split(b"\n")
                    notes += [(now, line.decode("utf-8", "replace")) for line in whole]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.time() - began
    if process.returncode:
        told = "\n".join(line for _, line in notes[-5:])
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{told}")
    shown = out.decode("utf-8", "replace")
    return Run(seconds, shown, notes, seconds if said is None else said, usage.ru_maxrss * 1024)


class Laptop:
    """What is measured, on one kit."""

    def __init__(
        self, work: Path, kit: Path, checkpoint: Path, threads: int, source: Path | None
    ) -> None:
        self.work, self.kit, self.checkpoint, self.threads = work, kit, checkpoint, threads
        self.model = open_kit(kit).file(open_kit(kit).manifest.language.file)
        self.mmproj = work / "mmproj.gguf"
        self.bench, self.mtmd = tools(work, source, "llama-bench", "llama-mtmd-cli")
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
        words = [
            "interpret",
            PAGE,
            "--kit",
            self.kit,
            "--device",
            "cpu",
            "--threads",
            self.threads,
            "--max-tokens",
            1,
        ]
        words += [part for question in QUESTIONS for part in ("-q", question)]
        done = run(
            sys.executable, PARTS, "command", out, time.time(), until, *words, environment=own
        )
        told = json.loads(out.read_text())
        if who == "seen" and "encode" in told["entered"]:
            raise SystemExit("a page that was seen before was encoded again")
        return {**told, "peak": done.peak}

    def llama_bench(self, _who: str, number: int) -> Figures:
        """As many tokens as our page had rows, with the settings that our run chose."""
        ours = figures(self.work, "command", "page", number)
        load = "none" if not ours["mapped"] else "mmap"
        words = [
            "-m",
            self.model,
            "-p",
            ours["rows"],
            "-n",
            0,
            "-t",
            self.threads,
            "-ngl",
            0,
            "-fa",
            0,
            "-lm",
            load,
        ]
        words += ["-b", ours["batch"], "-ub", ours["batch"], "-ctk", ours["key_cache_type"]]
        words += ["--repack", int(ours["repack"]), "-r", 1, "--no-warmup", "-o", "jsonl"]
        done = run(self.bench, *words)
        told = json.loads(done.out)
        return {"rate": told["avg_ts"], "seconds": told["avg_ns"] / 1e9, "peak": done.peak}

    def mtmd_cli(self, _who: str, number: int) -> Figures:
        """The page and the question in llama.cpp's way, with its own defaults otherwise."""
        words = [
            "-m",
            self.model,
            "--mmproj",
            self.mmproj,
            "--image",
            PAGE,
            "-p",
            QUESTIONS[0],
            "-n",
            1,
            "--temp",
            0,
        ]
        words += [
            "-c",
            4096,
            "-t",
            self.threads,
            "-ngl",
            0,
            "--no-warmup",
            "--no-jinja",
            "--chat-template",
            "vicuna",
        ]
        done = run(self.mtmd, *words)
        (self.work / "mtmd.log").write_text(
            "".join(f"{at:.3f} {line}\n" for at, line in done.notes)
        )
        loaded = next((at for at, line in done.notes if "loading model: " in line), None)
        encoded = [
            after(line, "encoding done in ")
            for _, line in done.notes
            if "encoding done in " in line
        ]
        if loaded is None or not encoded:
            raise SystemExit(
                f"{self.work}/mtmd.log: llama-mtmd-cli said something else than expected"
            )
        seen = {"first_token": done.said, "loaded": loaded, "encode": sum(encoded) / 1e3}
        each = np.load(self.work / "encoder-clip.npy", mmap_mode="r").shape[1]
        return {**seen, "rows": each * len(encoded), "peak": done.peak}


def after(line: str, words: str) -> float:
    """The number that follows these words."""
    return float(line.split(words)[1].split()[0].rstrip(","))


def schedule(rounds: int, long: int) -> Iterator[tuple[str, str, int]]:
    """Part, who, and number of the run, what is compared in turns."""
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


def measured(work: Path) -> list[Figures]:
    """What was measured so far; a line that a kill cut short is none."""
    path, found = work / "results.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def figures(work: Path, part: str, who: str, number: int) -> Figures:
    """Of one run."""
    return next(
        r for r in measured(work) if (r["part"], r["who"], r["number"]) == (part, who, number)
    )


def measure(
    work: Path, rounds: int, long: int, parts: Callable[[str], Callable[[str, int], Figures]]
) -> None:
    """Measure what is not in `work`/results.jsonl yet.

    `parts` gives a part's function by its name.
    """
    known = {(r["part"], r["who"], r["number"]) for r in measured(work)}
    for part, who, number in schedule(rounds, long):
        if (part, who, number) in known:
            continue
        start = time.perf_counter()
        found = {"part": part, "who": who, "number": number, **parts(part)(who, number)}
        with (work / "results.jsonl").open("a") as lines:
            lines.write("\n" * cut_short(work) + json.dumps(found) + "\n")
        click.echo(f"{part} {who} {number}: {time.perf_counter() - start:.0f} s", err=True)


def cut_short(work: Path) -> bool:
    """Whether the last line of the results has no end."""
    path = work / "results.jsonl"
    return path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"


def spent(page: Figures) -> Figures:
    """What our page's seconds to the first token went into."""
    seconds = {"copy": page["seconds"]["decode_call"] - page["seconds"]["decode"]} | page["seconds"]
    first = page["said"][0]
    loading = page["entered"]["read"][0] + sum(
        seconds[k] for k in ("verify", "load_encoder", "wait_encoder", "load_model")
    )
    engines = sum(seconds[k] for k in ("load_encoder", "wait_encoder", "encode", "load_model"))
    reach = page["entered"]["reach"]
    return {
        "first_token": first,
        "without_load": first - loading,
        "rate": page["rows"] / seconds["feed_embeddings"],
        "overhead": sum(seconds.get(k, 0.0) for k in OVERHEAD) / first,
        "others": (reach[0] - engines) / first,
        "second": (page["said"][1] - reach[1]) / first,
        "second_seconds": page["said"][1] - reach[1],
    }


def table(work: Path, encoders: float | None) -> str:
    """Markdown: each figure, ours and theirs, ratio, goal and how many runs.

    `encoders` is the lowest row cosine.
    """
    by: dict[tuple[str, str], list[Figures]] = {}
    for r in measured(work):
        by.setdefault((r["part"], r["who"]), []).append(r)

    def middle(part: str, who: str, of: Callable[[Figures], float]) -> float:
        return statistics.median(of(r) for r in by[part, who])

    def page(key: str) -> float:
        return middle("command", "page", lambda r: spent(r)[key])

    def encode(who: str) -> float:
        return middle("encoder", who, lambda r: r["seconds"])

    def rows(part: str, who: str) -> int:
        return int(by[part, who][0]["rows"])

    def theirs(key: str) -> float:
        return middle("mtmd_cli", "theirs", lambda r: r[key])

    first, bench = theirs("first_token"), middle("llama_bench", "theirs", lambda r: r["rate"])
    bare = middle("mtmd_cli", "theirs", lambda r: r["first_token"] - r["loaded"])
    began = middle("command", "start", lambda r: r["entered"]["encode"][0])
    seen = middle("command", "seen", lambda r: r["entered"]["load_model"][0])
    short, long = len(by["encoder", "ours"]), len(by["command", "page"])
    count, our_rows, their_rows = (
        by["encoder", "ours"][0]["tiles"],
        rows("command", "page"),
        rows("mtmd_cli", "theirs"),
    )
    lines = [
        pair(
            f"{count} tiles, against libmtmd's clip",
            "s",
            encode("ours"),
            encode("clip"),
            0.5,
            short,
        ),
        pair(
            f"{count} tiles, against torch float32",
            "s",
            encode("ours"),
            encode("torch"),
            0.8,
            short,
        ),
        pair(
            f"{our_rows} image tokens, against llama-bench",
            "rows/s",
            page("rate"),
            bench,
            0.97,
            long,
            least=True,
        ),
        pair(
            f"page to first token ({our_rows} rows; theirs {their_rows})",
            "s",
            page("first_token"),
            first,
            0.75,
            long,
        ),
        pair("the same without loading", "s", page("without_load"), bare, None, long),
        alone(
            "reading, checking, tiling, tokenizing, copying, keeping rows: share",
            page("overhead"),
            0.02,
            long,
        ),
        alone(
            "all but loading, encoding and decoding, start of Python included: share",
            page("others"),
            None,
            long,
        ),
        alone(
            "start of the process to the first tile, hashes remembered, encoder loaded: seconds",
            began,
            1.0,
            short,
        ),
        alone(
            "second question to its first token, of the first one's time",
            page("second"),
            0.03,
            long,
        ),
        alone(
            "page seen before: start of the process to the loading of the weights, no tile encoded: seconds",
            seen,
            None,
            short,
        ),
    ]
    if encoders is not None:
        lines.append(
            f"| lowest cosine of a row, ours and clip's | {encoders:.6f} | | | | {count} tiles |"
        )
    for what, mine, other in (
        ("encoder", ("encoder", "ours"), ("encoder", "clip")),
        ("page", ("command", "page"), ("mtmd_cli", "theirs")),
    ):
        ours_peak, their_peak = (middle(*who, lambda r: r["peak"]) / 2**30 for who in (mine, other))
        lines.append(
            pair(f"peak memory, {what}", "GiB", ours_peak, their_peak, None, len(by[mine]))
        )
    torch_peak = middle("encoder", "torch", lambda r: r["peak"]) / 2**30
    bench_peak = middle("llama_bench", "theirs", lambda r: r["peak"]) / 2**30
    lines.append(
        f"| peak memory of torch's encoder, of llama-bench: GiB | | {torch_peak:.2f}, {bench_peak:.2f} | | | |"
    )
    return "\n".join(
        ["| | ours | theirs | ratio | goal | runs |", "|---|---|---|---|---|---|", *lines]
    )


def pair(
    what: str,
    unit: str,
    ours: float,
    theirs: float,
    goal: float | None,
    runs: int,
    *,
    least: bool = False,
) -> str:
    """A line that compares."""
    ratio = ours / theirs
    return f"| {what}: {unit} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {verdict(ratio, goal, least)} | {runs} |"


def alone(what: str, value: float, goal: float | None, runs: int) -> str:
    """A line of ours."""
    return f"| {what} | {value:.3f} | | | {verdict(value, goal, False)} | {runs} |"


def verdict(value: float, goal: float | None, least: bool) -> str:
    """The goal, and whether it is reached."""
    if goal is None:
        return ""
    reached = value >= goal if least else value <= goal
    return f"{'at least' if least else 'at most'} {goal:g}: {'reached' if reached else 'missed'}"


def agreement(work: Path) -> float | None:
    """Lowest cosine of a row of our features and of clip's; None where either is not there."""
    paths = [work / f"encoder-{who}.npy" for who in ("ours", "clip")]
    if not all(path.is_file() for path in paths):
        return None
    # mmproj.comparable, without the torch that mmproj.py needs: this process is to stay small.
    a, b = np.load(paths[0])[:, 1:], np.load(paths[1])[:, :-1]
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--rounds", type=click.IntRange(1), default=2, show_default=True, help="Of the short parts."
)
@click.option(
    "--long", type=click.IntRange(1), default=1, show_default=True, help="Of whole pages."
)
@click.option("--threads", type=click.IntRange(1), default=cpu.threads().prefill, show_default=True)
@click.option(
    "--source", type=click.Path(path_type=Path), help="llama.cpp's source. Default: fetched."
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
    """Measure."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    laptop = Laptop(work, kit.resolve(), checkpoint.resolve(), threads, source)
    measure(work, rounds, long, lambda part: getattr(laptop, part))
    m = open_kit(kit).manifest
    click.echo(
        f"{m.id}: {m.language.type} language model, {m.vision.type} encoder; {cpu.name()}, {threads} threads\n"
    )
    click.echo(table(work, agreement(work)))


if __name__ == "__main__":
    main()
