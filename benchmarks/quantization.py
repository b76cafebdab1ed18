"""Measure the gain of an importance matrix from pages and of chosen types: mean KLD to f16 at equal
size, over unseen pages.

    python benchmarks/quantization.py KIT WORK [--pages N] [--samples N] [--level Q4_K_M] [--source DIR]

KIT is an f16 kit of a small model. At each level: (a) the plain type of llama.cpp, (b) with an
importance matrix of text by llama.cpp's own tool, read from the calibration pages' answers, (c)
with ours, of the pages themselves, (d) ours and chosen types, (e) the same with measured
sensitivities; (d) and (e) have the bytes of (a). One question is asked about every test page, and
the distributions along its right answer are compared, behind the base kit's image tokens. It also
checks that `llama-quantize` makes the same tensors of our statistics. All results stay in WORK, and
a killed run is resumed from there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import gguf
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

from llama_cpp_programs import programs

from calibration import ecgbench
from export import choose, ggml, llm_logits
from export.quantize.job import Job, Options
from export.quantize.language_model import sensitivity, write_types
from export.stats import read as read_stats
from pulse_edge import PulseModel
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.kit import prompt
from pulse_edge.kit.kit import Kit, open_kit

PATH = click.Path(path_type=Path)


def command(*words: object) -> None:
    """Run one of our own commands."""
    subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, check=True)


def text_importance(tool: Path, kit: Kit, pages: Path, work: Path) -> dict[str, Any]:
    """llama.cpp's importance matrix of the calibration pages' questions and answers as text."""
    text, out = work / "answers.txt", work / "text.gguf"
    if not out.is_file():
        bench = ecgbench.open_bench(pages)
        samples = [s for t in bench.tasks for s in bench.samples(t, lambda _: None, pictures=False)]
        text.write_text(
            "\n".join(f"{q} {a}" for s in samples for q, a in s.turns), encoding="utf-8"
        )
        model = kit.file(kit.manifest.language.file)
        options = ["-c", "512", "-b", "512", "-ngl", "0", "-t", "2", "--process-output", "--no-ppl"]
        subprocess.run(
            [tool, "-m", model, "-f", text, "-o", out, *options], check=True, capture_output=True
        )
    data = {t.name: t.data for t in gguf.GGUFReader(out).tensors}
    names = [n.removesuffix(".in_sum2") for n in data if n.endswith(".in_sum2")]
    return {n: data[f"{n}.in_sum2"].ravel() / data[f"{n}.counts"].ravel() for n in names}


def same_tensors(tool: Path, source: Path, stats: Path, ours: Path, level: str, work: Path) -> str:
    """Whether llama-quantize makes `ours` of the same statistics."""
    theirs = work / "theirs.gguf"
    subprocess.run(
        [tool, "--imatrix", stats, source, theirs, level, "2"], check=True, capture_output=True
    )
    a, b = ({t.name: t for t in gguf.GGUFReader(path).tensors} for path in (ours, theirs))
    equal = [
        n
        for n in a
        if a[n].tensor_type == b[n].tensor_type and np.array_equal(a[n].data, b[n].data)
    ]
    theirs.unlink()
    return f"{len(equal)} of {len(a | b)} tensors equal"


def variants(kit: Kit, stats: Any, text: Any, level: str, work: Path) -> dict[str, Path]:
    """The files of a level; missing ones are made."""
    source, threads = kit.file(kit.manifest.language.file), 2
    paths = {v: work / f"{level}-{v}.gguf" for v in "abcde"}
    for v, importance in (("a", None), ("b", text), ("c", stats.importance)):
        if not paths[v].is_file():
            ggml.quantize(source, paths[v], level, importance=importance, threads=threads)
    if not (paths["d"].is_file() and paths["e"].is_file()):
        budget = sum(
            int(t.n_bytes) for t in gguf.GGUFReader(paths["a"]).tensors if len(t.shape) > 1
        )
        job = Job(kit, work, Options(), stats, threads, click.echo, lambda _d, _o: None)
        matrices = choose.measure(source, stats.importance)
        sensitive = choose.weighted(matrices, sensitivity(job, matrices, budget))
        for v, those in (("d", matrices), ("e", sensitive)):
            types = choose.choose(those, budget)
            write_types(source, paths[v], types, stats.importance, threads)
    return paths


def questions(pages: Path, count: int) -> Iterator[ecgbench.Sample]:
    """One question of each page, every task in turn."""
    bench = ecgbench.open_bench(pages)
    by_page: dict[str, list[ecgbench.Sample]] = {}
    for task in bench.tasks:
        for sample in bench.samples(task, lambda _: None, pictures=False):
            by_page.setdefault(sample.image, []).append(sample)
    for i, (_, samples) in enumerate(sorted(by_page.items())[:count]):
        yield samples[i % len(samples)]


def compare(
    kit: Path, files: dict[str, Path], pages: Path, count: int, out: Path
) -> list[dict[str, Any]]:
    """{file: [sum of KLD, tokens, same top token]} for each page; lines are appended to `out` as
    they come.
    """
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    visited = {one["id"] for one in done}
    left = [s for s in questions(pages, count) if s.id not in visited]
    if not left:
        return done
    with ExitStack() as stack, out.open("a") as lines:
        model = stack.enter_context(PulseModel.load(kit, device="cpu", threads=2))
        m, language = model.kit.manifest, model.language
        smaller = {
            name: stack.enter_context(
                closing(LanguageModel(path, Settings(context=language.context, threads=2)))
            )
            for name, path in files.items()
        }
        for sample in left:
            question, answer = sample.turns[0]
            rows = model.encode(pages / "images" / sample.image, admit=False).image_tokens
            before = language.tokenize(m.prompt.before, first=True)
            requests = language.tokenize(prompt.fill(m.prompt.after, question), first=False)
            right = language.tokenize(answer, first=False)
            logits = {
                n: forced(one, before, rows, requests + right)[len(requests) - 1 : -1]
                for n, one in smaller.items()
            }
            original = forced(language, before, rows, requests + right)[len(requests) - 1 : -1]
            one: dict[str, Any] = {"id": sample.id}
            for name, result in logits.items():
                same = int((result.argmax(-1) == original.argmax(-1)).sum())
                one[name] = [float(llm_logits.divergence(original, result).sum()), len(right), same]
            lines.write(json.dumps(one) + "\n")
            lines.flush()
            done.append(one)
    return done


def forced(model: LanguageModel, before: list[int], rows: Any, after: list[int]) -> Any:
    model.clear()
    model.feed_tokens(before)
    model.feed_embeddings(rows)
    return model.feed_tokens(after, every=True)


def table(results: list[dict[str, Any]], files: dict[str, Path], level: str) -> None:
    """Markdown: size, KLD, and its ratio to (a) and (b) with a 95 % interval over pages."""
    sums = {v: np.array([r[f"{level}-{v}"] for r in results]) for v in "abcde"}
    picks = np.random.default_rng(0).integers(0, len(results), (2000, len(results)))
    click.echo(f"\n{level}, {len(results)} pages, {int(sums['a'][:, 1].sum())} answer tokens\n")
    click.echo(
        "| | bytes | mean KLD | same top token | to (a) | to (b) |\n|---|---|---|---|---|---|"
    )
    for v, s in sums.items():
        ratios = []
        for other in "ab":
            drawn = s[picks, 0].sum(1) / sums[other][picks, 0].sum(1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            ratios.append(f"{s[:, 0].sum() / sums[other][:, 0].sum():.3f} ({low:.3f}-{high:.3f})")
        kld, top = s[:, 0].sum() / s[:, 1].sum(), s[:, 2].sum() / s[:, 1].sum()
        size = files[f"{level}-{v}"].stat().st_size
        click.echo(f"| ({v}) | {size:,} | {kld:.3g} | {top:.4f} | {ratios[0]} | {ratios[1]} |")


@click.command()
@click.argument("kit", type=PATH)
@click.argument("work", type=PATH)
@click.option("--pages", type=int, default=500, show_default=True, help="To test on.")
@click.option("--samples", type=int, default=64, show_default=True, help="To calibrate on.")
@click.option("--level", "levels", multiple=True, default=("Q4_K_M", "Q3_K_M"), show_default=True)
@click.option(
    "--source", type=PATH, help="llama.cpp's source. Default: fetched with llama-cpp-python's."
)
def main(
    kit: Path, work: Path, pages: int, samples: int, levels: tuple[str, ...], source: Path | None
) -> None:
    """Measure."""
    started, work = time.perf_counter(), work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    opened = open_kit(kit)
    quantizer, imatrix = programs(work, source, "llama-quantize", "llama-imatrix")
    for name, seed, count in (("calibrate", 101, samples), ("test", 202, pages)):
        if not (work / name).is_dir():
            command(
                "calibration",
                "synthesize",
                "-o",
                work / name,
                "--pages",
                count,
                "--seed",
                seed,
                "--processes",
                1,
            )
    stats_file = work / "pages.gguf"
    if not stats_file.is_file():
        bench = ["--bench", work / "calibrate", "--samples", samples, "--threads", 2]
        command("calibration", "collect", opened.path, "-o", stats_file, *bench)
    stats, text = (
        read_stats(stats_file, opened),
        text_importance(imatrix, opened, work / "calibrate", work),
    )
    files: dict[str, Path] = {}
    for level in levels:
        result = variants(opened, stats, text, level, work)
        files |= {f"{level}-{v}": path for v, path in result.items()}
        arguments = (
            opened.file(opened.manifest.language.file),
            stats_file,
            result["c"],
            level,
            work,
        )
        click.echo(f"{level}: llama-quantize with our stats: {same_tensors(quantizer, *arguments)}")
    results = compare(opened.path, files, work / "test", pages, work / "kld.jsonl")
    for level in levels:
        table(results, files, level)
    click.echo(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
