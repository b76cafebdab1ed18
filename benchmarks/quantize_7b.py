"""Quantize a large f16 kit to Q4_K_M with an importance matrix: seconds and peak memory of ours and
`llama-quantize` in the same run.

    python benchmarks/quantize_7b.py KIT WORK [--source DIR] [--level Q4_K_M]

The importance is artificial, because only time and memory are measured. Needs the disk of two
quantized files in WORK, and removes them. The kit is dropped from the page cache before each run;
theirs, ours, ours, theirs, so that a machine that gets slower or faster favours neither.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import gguf
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

from convert_7b import measure, row
from llama_cpp_programs import programs

OURS = """
import sys
from pathlib import Path
import gguf
from export import ggml
source, stats, target, level, threads = sys.argv[1:]
data = {t.name: t.data for t in gguf.GGUFReader(stats).tensors}
names = [n.removesuffix(".counts") for n in data if n.endswith(".counts")]
importance = {n: data[n + ".in_sum2"].ravel() / data[n + ".counts"].ravel() for n in names}
ggml.quantize(Path(source), Path(target), level, importance=importance, threads=int(threads))
"""


def made_up(source: Path, path: Path) -> None:
    """An importance matrix of random positive numbers."""
    random, writer = np.random.default_rng(0), gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["made up"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 256)
    for t in gguf.GGUFReader(source).tensors:
        if len(t.shape) > 1 and t.name != "token_embd.weight":
            writer.add_tensor(
                f"{t.name}.in_sum2",
                random.exponential(256, (1, int(t.shape[0]))).astype(np.float32),
            )
            writer.add_tensor(f"{t.name}.counts", np.full((1, 1), 256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@click.command()
@click.argument("kit", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option(
    "--source", type=click.Path(path_type=Path), help="llama.cpp's source. Default: fetched."
)
@click.option("--level", default="Q4_K_M", show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
def main(kit: Path, work: Path, source: Path | None, level: str, threads: int) -> None:
    """Measure."""
    work = work.resolve()
    (quantizer,) = programs(work, source, "llama-quantize")
    llm, stats, ours, theirs = (
        kit.resolve() / "llm.gguf",
        *(work / f"{n}.gguf" for n in ("made-up", "ours", "theirs")),
    )
    made_up(llm, stats)
    try:
        click.echo("| step | seconds | peak resident GiB |\n|---|---|---|")
        of = {
            "llama-quantize": (
                str(quantizer),
                "--imatrix",
                str(stats),
                str(llm),
                str(theirs),
                level,
                str(threads),
            ),
            "ours": (
                sys.executable,
                "-c",
                OURS,
                str(llm),
                str(stats),
                str(ours),
                level,
                str(threads),
            ),
        }
        took = dict.fromkeys(of, 0.0)
        for who in ("llama-quantize", "ours", "ours", "llama-quantize"):
            run = measure(*of[who], cold=kit)
            took[who] += run.seconds
            row(f"{who}, {level}, {threads} threads", run)
        click.echo(
            f"\nours takes {took['ours'] / took['llama-quantize']:.3f} x the time of llama-quantize."
        )
        a, b = ({t.name: t for t in gguf.GGUFReader(path).tensors} for path in (ours, theirs))
        equal = sum(
            a[n].tensor_type == b[n].tensor_type and np.array_equal(a[n].data, b[n].data) for n in a
        )
        click.echo(f"{equal} of {len(a)} tensors equal; {ours.stat().st_size:,} bytes.")
    finally:
        for path in (stats, ours, theirs):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
