"""Run all commands and watch: none may send anything, or leave files in a fresh home folder.

    python benchmarks/network.py WORK [--stay 20] [--checkpoint CHECKPOINT]

Linux only, in a network namespace in which every address is this machine and a resolver answers
every name: see tests/support/namespace.py. Every process stays for `--stay` seconds after its work,
because telemetry takes its time: ONNX Runtime 1.32 asks for its maker's address ten seconds after
it is imported, which the first line shows as a control. Prints what each command sent, and the
files below HOME; exit code 1 where it is more than docs/security.md lists. Takes a quarter of an
hour.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
STAY = """
import atexit, runpy, sys, time
atexit.register(time.sleep, float(sys.argv.pop(1)))
sys.path.append(sys.argv.pop(1))
module = sys.argv[0] = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
CONTROL = "import onnxruntime, sys, time; time.sleep(float(sys.argv[1]))"
TASKS = "cpsc-test,arena"
COMMANDS = (
    "export convert checkpoint -o f16 --golden page.png --demonstration",
    "calibration synthesize -o bench --pages 6 --processes 2 --tasks cpsc-test,arena",
    "calibration split --bench bench --share 0.5 -o split.json",
    "calibration collect f16 -o stats.gguf --samples 4 --bench bench --split split.json",
    "export quantize f16 -o q8 --llm Q8_0 --vision int8 --stats stats.gguf --golden page.png",
    f"calibration evaluate f16 q8 -o results --bench bench --split split.json --tasks {TASKS} --max-tokens 8 --device cpu",
    "calibration report results -o report --bench bench",
    "calibration draft-table f16 -o table --bench bench",
    "calibration findings q8 -o findings.json --bench bench --split split.json --device cpu",
    "pulse_edge check page.png scan.pdf",
    "pulse_edge kit info q8",
    "pulse_edge kit verify q8",
    "pulse_edge bundle keygen key",
    "pulse_edge doctor --kit q8",
    "pulse_edge interpret page.png scan.pdf --kit q8 --findings --force",
    "pulse_edge interpret page.png --kv-cache-size 1GB --format html -o answer.html",
    "pulse_edge interpret page.png --kv-cache-size 1GB --format json",
    "pulse_edge ask page.png",
    "pulse_edge batch page.png scan.pdf -o out",
    "pulse_edge bench",
    "pulse_edge audit list",
    "pulse_edge audit verify",
    "pulse_edge cache info",
)


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option(
    "--stay", type=float, default=20.0, show_default=True, help="Seconds that every process stays."
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True),
    help="Default: a tiny one is made.",
)
def main(work: Path, stay: float, checkpoint: Path | None) -> None:
    """Run all commands in WORK, a folder to make."""
    import namespace
    from home_files import files, undocumented

    if why := namespace.why_not():
        raise click.ClickException(why)
    prepare(work, checkpoint)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
    }
    control = environment | {"HOME": str(work / "other home")}
    where: dict[str, Any] = {"cwd": work, "resolver": work / "resolv.conf", "seconds": 7200.0}
    heard = namespace.recorded(
        [[sys.executable, "-c", CONTROL, stay]], work / "control", control, **where
    )
    print(
        f"control, onnxruntime alone: {', '.join(heard[0].sent) or 'silent'}; left {sorted(files(work / 'other home'))}"
    )
    own = [[sys.executable, "-c", STAY, stay, ROOT, *line.split()] for line in COMMANDS]
    done = namespace.recorded(
        own, work / "recorder", environment, typed="Is it regular?\n", held=1.0, **where
    )
    for one, line in zip(done, COMMANDS, strict=True):
        print(
            f"{line}: {', '.join(one.sent) or 'sent nothing'}"
            + (f" ({one.code}: {one.stderr[-300:]})" if one.code else "")
        )
    print("\n".join(f"~/{name}" for name in sorted(files(work / "home"))))
    print("left in TMPDIR:", sorted(files(work / "tmp")) or "nothing")
    raise SystemExit(
        1 if any(one.sent or one.code for one in done) or undocumented(work / "home") else 0
    )


def prepare(work: Path, checkpoint: Path | None) -> None:
    """The folder with a checkpoint and pages."""
    from PIL import Image

    for name in ("home", "other home", "tmp"):
        (work / name).mkdir(parents=True)
    shutil.copy(ROOT / "pulse_edge" / "assets" / "example_page.png", work / "page.png")
    Image.open(work / "page.png").convert("RGB").save(work / "scan.pdf")
    if checkpoint is not None:
        (work / "checkpoint").symlink_to(checkpoint.resolve())
    else:
        import tiny

        tiny.checkpoint(work / "checkpoint")


if __name__ == "__main__":
    main()
