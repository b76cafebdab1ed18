"""Measure PULSE-7B's shapes from checkpoint to answer: seconds and peak memory of each step, and
llama.cpp's converter for comparison.

    python benchmarks/convert_7b.py WORK --tokenizer TOKENIZER [--retain] [--max-tokens N]

Makes 14 GB of random weights in WORK (about 60 GB of disk are needed), converts them, reads one
page with the kit, prints a table in Markdown, and removes its files. Sources are dropped from the
page cache before each measured step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
HALF = """
import sys
from pathlib import Path
from export import llm
from export.checkpoint import Checkpoint
from export.config import read_config
source, target = map(Path, sys.argv[1:])
config = read_config(source / "config.json", tower_dir=None)
llm.write(Checkpoint(source, config, tower_dir=None), target, "f16", llm.About("7b", "Apache-2.0", "", ""))
"""


@dataclass(frozen=True)
class Run:
    """One measured process."""

    seconds: float
    peak: int  # bytes, largest resident set of the process itself
    out: str


PLAIN = """
import json, shutil, sys
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
source, out = map(Path, sys.argv[1:])
out.mkdir()
index = {}
for shard in sorted(source.glob("*.safetensors")):
    with safe_open(shard, "pt") as f:
        tensors = {n: f.get_tensor(n) for n in f.keys() if n.startswith(("model.layers", "model.embed", "model.norm", "lm_head"))}
    save_file(tensors, out / shard.name, {"format": "pt"})
    index |= dict.fromkeys(tensors, shard.name)
(out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
config = json.loads((source / "config.json").read_text())
config = {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
(out / "config.json").write_text(json.dumps(config))
for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
    shutil.copy(source / name, out)
"""
"""Lays out the language tensors as a plain Llama folder; a process of its own, because a child's
peak memory begins at its parent's.
"""


def measure(*command: str, cold: Path | None = None) -> Run:
    """Run a command to its end; stop everything when it fails."""
    if cold is not None:
        drop(cold)
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Run(time.perf_counter() - start, usage.ru_maxrss * 1024, out)


def drop(folder: Path) -> None:
    """Write back, and forget a folder's files in the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def row(what: str, run: Run) -> None:
    click.echo(f"| {what} | {run.seconds:.1f} | {run.peak / 2**30:.2f} |")


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    type=click.Path(exists=True),
    required=True,
    help="A SentencePiece model of 32,000 pieces.",
)
@click.option(
    "--retain", is_flag=True, help="Leave checkpoint and kit in WORK, and use those that are there."
)
@click.option("--max-tokens", type=int, default=32, show_default=True)
def main(work: Path, tokenizer: str, retain: bool, max_tokens: int) -> None:
    """Measure and print the table."""
    from llama_cpp_tools import llama_cpp_converter

    converter = llama_cpp_converter()
    checkpoint, kit = work / "checkpoint", work / "kit"
    work.mkdir(exist_ok=True)
    try:
        if not checkpoint.is_dir():
            make = [sys.executable, "tests/support/random_llava.py", str(checkpoint)]
            shape = ["--shape", "7b", "--tokenizer", tokenizer]
            subprocess.run([*make, *shape], cwd=ROOT, check=True)
        click.echo("| step | seconds | peak resident GiB |\n|---|---|---|")
        converters(work, checkpoint, converter)
        convert = f"-m export convert {checkpoint} -o {kit} --force".split()
        whole = measure(sys.executable, *convert, cold=checkpoint)
        row("the whole conversion, with proof", whole)
        ask = f"-m pulse_edge interpret pulse_edge/assets/example_page.png --kit {kit} --json"
        tokens = ("--max-tokens", str(max_tokens))
        run = measure(sys.executable, *ask.split(), *tokens, cold=kit)
        row(f"interpret, {max_tokens} tokens", run)
        report = json.loads(run.out)
        stages = ", ".join(f"{k} {v:.1f}" for k, v in report["seconds"].items())
        click.echo(f"\nseconds by stage: {stages}.")
        parity = json.loads((kit / "manifest.json").read_text())["parity"]
        click.echo(f"Proof: {json.dumps(parity)}")
    finally:
        if not retain:
            shutil.rmtree(work)


def converters(work: Path, checkpoint: Path, converter: Path) -> None:
    """Measure llama.cpp's converter and ours on the same language tensors."""
    plain, theirs, ours = work / "plain", work / "t.gguf", work / "o.gguf"
    subprocess.run([sys.executable, "-c", PLAIN, str(checkpoint), str(plain)], check=True)
    options = f"{converter} {plain} --outfile {theirs} --outtype f16".split()
    run = measure(sys.executable, *options, cold=plain)
    row("llama.cpp's converter, the same language tensors", run)
    theirs.unlink()
    shutil.rmtree(plain)
    language = measure(sys.executable, "-c", HALF, str(checkpoint), str(ours), cold=checkpoint)
    row(f"our language model ({language.seconds / run.seconds:.2f} x)", language)
    ours.unlink()


if __name__ == "__main__":
    main()
