"""The table of benchmarks/laptop.py: medians of ours and theirs, ratios and goals, as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
OVERHEAD = ("read", "check", "cut", "pack", "key", "get_rows", "put_rows", "tokenize", "copy")
"""Watches of laptop_parts.py whose time belongs to neither engine."""


def measured(work: Path) -> list[Figures]:
    """The results so far; a line that a kill cut short does not count."""
    path, results = work / "results.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            results.append(json.loads(line))
        except ValueError:
            continue
    return results


def spent(page: Figures) -> Figures:
    """Shares of our page's seconds to the first token."""
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


class Medians:
    """Medians of the measured runs by part and program."""

    def __init__(self, work: Path) -> None:
        self.runs: dict[tuple[str, str], list[Figures]] = {}
        for result in measured(work):
            self.runs.setdefault((result["part"], result["who"]), []).append(result)

    def of(self, part: str, who: str, value: Callable[[Figures], float]) -> float:
        """Median of a value over the runs."""
        return statistics.median(value(run) for run in self.runs[part, who])

    def count(self, part: str, who: str) -> int:
        """Number of runs."""
        return len(self.runs[part, who])

    def first(self, part: str, who: str, key: str) -> int:
        """A number that is the same in every run."""
        return int(self.runs[part, who][0][key])

    def page(self, key: str) -> float:
        """Median of a figure of `spent`."""
        return self.of("command", "page", lambda run: spent(run)[key])

    def encode(self, who: str) -> float:
        """Median seconds of a page's tiles."""
        return self.of("encoder", who, lambda run: run["seconds"])

    def peak(self, part: str, who: str) -> float:
        """Median peak memory in GiB."""
        return self.of(part, who, lambda run: run["peak"]) / 2**30


def table(work: Path, encoders: float | None) -> str:
    """Markdown: each figure, ours and theirs, ratio, goal and number of runs.

    `encoders` is the lowest cosine of an image token.
    """
    medians = Medians(work)
    lines = [*_pairs(medians), *_ours(medians)]
    if encoders is not None:
        tiles = medians.first("encoder", "ours", "tiles")
        lines.append(
            f"| lowest cosine of an image token, ours and clip's | {encoders:.6f} | | | "
            f"| {tiles} tiles |"
        )
    lines += _peaks(medians)
    head = ["| | ours | theirs | ratio | goal | runs |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *lines])


def _pairs(m: Medians) -> list[str]:
    short, long = m.count("encoder", "ours"), m.count("command", "page")
    tiles, tokens = m.first("encoder", "ours", "tiles"), m.first("command", "page", "rows")
    theirs = m.first("mtmd_cli", "theirs", "rows")
    bench = m.of("llama_bench", "theirs", lambda run: run["rate"])
    first = m.of("mtmd_cli", "theirs", lambda run: run["first_token"])
    bare = m.of("mtmd_cli", "theirs", lambda run: run["first_token"] - run["loaded"])
    ours, clip, torch = (m.encode(who) for who in ("ours", "clip", "torch"))
    prefill = f"{tokens} image tokens, against llama-bench"
    page = f"page to first token ({tokens} image tokens; theirs {theirs})"
    return [
        pair(f"{tiles} tiles, against libmtmd's clip", "s", ours, clip, 0.5, short),
        pair(f"{tiles} tiles, against torch float32", "s", ours, torch, 0.8, short),
        pair(prefill, "tokens/s", m.page("rate"), bench, 0.97, long, least=True),
        pair(page, "s", m.page("first_token"), first, 0.75, long),
        pair("the same without loading", "s", m.page("without_load"), bare, None, long),
    ]


def _ours(m: Medians) -> list[str]:
    long, short = m.count("command", "page"), m.count("encoder", "ours")
    began = m.of("command", "start", lambda run: run["entered"]["encode"][0])
    again = m.of("command", "seen", lambda run: run["entered"]["load_model"][0])
    texts = {
        "overhead": "reading, checking, tiling, tokenizing, copying, caching: share",
        "others": "all but loading, encoding and decoding, start of Python included: share",
        "start": "start of the process to the first tile, hashes remembered, encoder loaded: seconds",
        "second": "second question to its first token, of the first one's time",
        "again": "page seen before: start of the process to the loading of the weights, "
        "no tile encoded: seconds",
    }
    return [
        alone(texts["overhead"], m.page("overhead"), 0.02, long),
        alone(texts["others"], m.page("others"), None, long),
        alone(texts["start"], began, 1.0, short),
        alone(texts["second"], m.page("second"), 0.03, long),
        alone(texts["again"], again, None, short),
    ]


def _peaks(m: Medians) -> list[str]:
    torch, bench = m.peak("encoder", "torch"), m.peak("llama_bench", "theirs")
    encoders = m.peak("encoder", "ours"), m.peak("encoder", "clip")
    pages = m.peak("command", "page"), m.peak("mtmd_cli", "theirs")
    return [
        pair("peak memory, encoder", "GiB", *encoders, None, m.count("encoder", "ours")),
        pair("peak memory, page", "GiB", *pages, None, m.count("command", "page")),
        f"| peak memory of torch's encoder, of llama-bench: GiB | | {torch:.2f}, {bench:.2f} | | | |",
    ]


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
    """A line that compares ours with theirs."""
    ratio = ours / theirs
    outcome = verdict(ratio, goal, least)
    return f"| {what}: {unit} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {outcome} | {runs} |"


def alone(what: str, value: float, goal: float | None, runs: int) -> str:
    """A line with a figure of ours."""
    return f"| {what} | {value:.3f} | | | {verdict(value, goal, False)} | {runs} |"


def verdict(value: float, goal: float | None, least: bool) -> str:
    """The goal, and whether it is reached."""
    if goal is None:
        return ""
    reached = value >= goal if least else value <= goal
    return f"{'at least' if least else 'at most'} {goal:g}: {'reached' if reached else 'missed'}"


def agreement(work: Path) -> float | None:
    """Lowest cosine of an image token of ours and clip's; None where either was not measured."""
    paths = [work / f"encoder-{who}.npy" for who in ("ours", "clip")]
    if not all(path.is_file() for path in paths):
        return None
    # mmproj.comparable, without the torch that mmproj.py needs: this process has to stay small.
    a, b = np.load(paths[0])[:, 1:], np.load(paths[1])[:, :-1]
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())
