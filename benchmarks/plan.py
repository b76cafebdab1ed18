"""Compare the memory plan with the memory of processes: every plan of a kit, and limits of a
control group.

    python benchmarks/plan.py WORK --kit KIT [--threads N] [--max-tokens N] [--only N...]
    python benchmarks/plan.py WORK --kit KIT --limits 6GiB 4GiB

The first command takes each rung of the plan's ladder (batch, layout of the weights, encoder closed
first or not), reads the example page with it, and compares the predicted peak with VmHWM. The
second runs `pulse-edge interpret` within a memory limit of the kernel's (cgroup v2 or v1, as root);
where no control group can be made it says so and takes --memory. Results go to WORK/plan.json, and
as a table to standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pulse_edge import PulseModel
from pulse_edge.inference import vision_encoder
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.machine import cpu, memory, memory_plan

PAGE = Path(__file__).parent.parent / "pulse_edge" / "assets" / "example_page.png"
USES = {
    "encoder closed first": memory_plan.Workload(pages=1),
    "encoder kept": memory_plan.Workload(),
}


def rungs(kit: Kit) -> list[tuple[str, memory_plan.Plan]]:
    """Every plan of a kit, regardless of free memory."""
    return [
        (use, p)
        for use, expected in USES.items()
        for p in memory_plan.ladder(
            kit,
            expected,
            None,
            cpu.flags(),
            exact_int8=vision_encoder.needs_exact_sums(kit.manifest.vision.type),
        )
    ]


def child(kit: Kit, number: int, threads: int, max_tokens: int) -> None:
    """Run one plan on the page and print the memory it took.

    The context is the kit's own, filled by the page.
    """
    use, chosen = rungs(kit)[number]
    memory_plan.make = lambda *_args, **_more: chosen
    start = time.perf_counter()
    with PulseModel.load(
        kit, device="cpu", threads=threads, workload=USES[use], force=True
    ) as model:
        report = model.interpret(PAGE, max_tokens=max_tokens)
    text = {
        "use": use,
        "repack": chosen.repack,
        "batch": chosen.batch,
        "context": chosen.context,
        "planned": chosen.peak,
        "measured": memory.peak(),
        "seconds": round(time.perf_counter() - start, 1),
        "stages": report.seconds,
        "text": report.answers[0].text,
    }
    print(json.dumps(text))


def every_plan(o: argparse.Namespace) -> list[dict[str, object]]:
    kit, rows = open_kit(o.kit), []
    print(
        "use                  weights   batch  planned     measured    off     prefill s  answer s"
    )
    for number in o.only or range(len(rungs(kit))):
        command = [
            sys.executable,
            __file__,
            str(o.work),
            "--kit",
            str(o.kit),
            "--child",
            str(number),
        ]
        command += ["--threads", str(o.threads), "--max-tokens", str(o.max_tokens)]
        row = json.loads(
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
        )
        rows.append(row | {"number": number})
        off = row["measured"] / row["planned"] - 1
        stages = f"{row['stages']['prefill']:>9.1f}  {row['stages']['answer']:>8.1f}"
        layout = "repacked" if row["repack"] else "mapped"
        print(
            f"{row['use']:<20} {layout:<9} {row['batch']:>5}  {memory.shown(row['planned']):<10}  "
            f"{memory.shown(row['measured']):<10} {off:>+6.1%}  {stages}",
            flush=True,
        )
    return rows


def within(o: argparse.Namespace, limit: str) -> dict[str, object]:
    """Run `pulse-edge interpret` within a limit: exit code (-9: killed by the kernel), the kernel's
    peak, last line.
    """
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(PAGE),
        "--kit",
        str(o.kit),
        "--max-tokens",
    ]
    command += [str(o.max_tokens), "--threads", str(o.threads)]
    group, how = control_group(memory.parse(limit))
    if group is None:
        command += ["--memory", limit]

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    start = time.perf_counter()
    try:
        # The child joins before it runs Python, so that everything it takes is counted.
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=join)
        peak = group and next(
            filter(None, (read(group / n) for n in ("memory.peak", "memory.max_usage_in_bytes"))),
            None,
        )
    finally:
        if group is not None:
            group.rmdir()
    last = (done.stderr.strip().splitlines() or [""])[-1]
    killed = " (killed)" if done.returncode in (-signal.SIGKILL, 137) else ""
    print(
        f"{limit} by {how}: exit {done.returncode}{killed} after {time.perf_counter() - start:.0f} s: {last or 'answered'}"
    )
    return {
        "limit": limit,
        "how": how,
        "exit": done.returncode,
        "peak": peak,
        "said": last,
        "text": done.stdout,
    }


def read(path: Path) -> int | None:
    """Read a number from a file of the kernel."""
    return int(path.read_text()) if path.is_file() else None


def control_group(limit: int) -> tuple[Path | None, str]:
    """A new control group with this limit and no swap; None where none can be made."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    for parent, name in ((v1, "memory.limit_in_bytes"), (v2, "memory.max")):
        group = parent / f"pulse-edge-plan-{os.getpid()}"
        if not (parent / "cgroup.procs").is_file():
            continue
        try:
            group.mkdir()
            (group / name).write_text(str(limit))
            for swap in ("memory.swap.max", "memory.swappiness"):
                if (group / swap).is_file():
                    (group / swap).write_text("0")
            return group, f"control group ({name})"
        except OSError as e:
            print(f"no control group at {group}: {e}", file=sys.stderr)
            if group.is_dir():
                group.rmdir()
    return None, "--memory (no control group can be made here)"


def main() -> None:
    """Run the command line."""
    a = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    a.add_argument("work", type=Path)
    a.add_argument("--kit", type=Path, required=True)
    a.add_argument("--threads", type=int, default=cpu.threads().prefill)
    a.add_argument("--max-tokens", type=int, default=16)
    a.add_argument("--only", type=int, nargs="*", help="numbers of the plans, counted from 0")
    a.add_argument(
        "--limits", nargs="*", metavar="SIZE", help="control group limits instead of plans"
    )
    a.add_argument("--child", type=int, help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.child is not None:
        child(open_kit(o.kit), o.child, o.threads, o.max_tokens)
        return
    o.work.mkdir(parents=True, exist_ok=True)
    rows = [within(o, limit) for limit in o.limits] if o.limits else every_plan(o)
    about = {
        "kit": dataclasses.asdict(open_kit(o.kit).manifest.language),
        "machine": cpu.name(),
        "rows": rows,
    }
    name = "limits" if o.limits else "plan"
    (o.work / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
