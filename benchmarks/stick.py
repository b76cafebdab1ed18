"""What takes long to show of sticks: a bare root, old processors, kills, a FAT32 image, speed and memory. As root, on Linux.

    python benchmarks/stick.py bare WORK --kit KIT [--llama WHEEL]     install in a fresh Debian root without network, and read a page
    python benchmarks/stick.py old WORK --kit KIT [--llama WHEEL]      the installed program on a processor without AVX (qemu-user)
    python benchmarks/stick.py kills WORK --kit KIT [--llama WHEEL]    kill the installer at 20 random moments
    python benchmarks/stick.py fat32 WORK [--gib 4.5]                  a kit of that size over a FAT32 image, speed and memory

Needs debootstrap, qemu-user-static and dosfstools; nothing of it is needed for sticks themselves. Prints Markdown.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAGE = ROOT / "pulse_edge/example_page.png"


def run(*command: object, **how: object) -> subprocess.CompletedProcess[str]:
    """Run to the end, and stop everything when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done  # type: ignore[no-any-return]


def packed(work: Path, kit: Path, llama: Path | None) -> Path:
    """A signed stick for this machine's Python, made by the command."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (work / "stick").is_dir():
        work.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "pulse_edge", "kit", "keygen", work / "key", cwd=ROOT)
        command = [sys.executable, "-m", "pulse_edge", "kit", "pack", kit, "-o", work / "stick", "--sign", work / "key"]
        command += ["--platform", "linux-x86_64", "--python", python, *(["--wheel", llama] if llama else [])]
        run(*command, cwd=ROOT)
    return work / "stick"


@click.group()
def main() -> None:
    """Measure."""


_WORK = click.argument("work", type=click.Path(path_type=Path))
_KIT = click.option("--kit", type=click.Path(path_type=Path, exists=True), required=True)
_LLAMA = click.option(
    "--llama", type=click.Path(path_type=Path, exists=True), help="A portable wheel, to save its build."
)


@main.command()
@_WORK
@_KIT
@_LLAMA
@click.option("--suite", default="bookworm", show_default=True)
def bare(work: Path, kit: Path, llama: Path | None, suite: str) -> None:
    """Install and read a page in a root that holds Debian's minimum, python3, and nothing else."""
    stick, root = packed(work, kit, llama), work / "root"
    if not (root / "usr/bin/python3").exists():
        run("debootstrap", "--variant=minbase", "--include=python3", suite, root)
    shutil.rmtree(root / "stick", ignore_errors=True)
    shutil.copytree(stick, root / "stick")
    shutil.copy(PAGE, root / "scan.png")
    enter = 'for d in proc sys dev; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" env -i PATH=/usr/bin:/bin HOME=/root "$@"'
    inside = ["unshare", "-nm", "sh", "-c", enter, root]
    start = time.perf_counter()
    run(*inside, "sh", "/stick/install.sh")
    click.echo(f"- bare root: installed in {time.perf_counter() - start:.1f} s")
    done = run(*inside, "/usr/local/bin/pulse-edge", "interpret", "/scan.png", "--max-tokens", "8")
    click.echo(f"- bare root: `{' '.join(done.stdout.split())}`")
    trace = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", work / "trace"]
    run(*trace, *inside, "/usr/local/bin/pulse-edge", "interpret", "/scan.png", "--max-tokens", "8")
    calls = [line for line in (work / "trace").read_text().splitlines() if "(" in line]
    click.echo(f"- bare root: {len(calls)} network system calls while reading a page")
    run(*inside, "python3", "/stick/install.py", "--uninstall")
    left = [p for p in (root / "opt/pulse-edge", root / "usr/local/bin/pulse-edge") if os.path.lexists(p)]
    click.echo(f"- bare root: uninstalled, left behind: {len(left)}")


@main.command()
@_WORK
@_KIT
@_LLAMA
@click.option("--cpu", default="Nehalem", show_default=True, help="A processor of qemu-user without AVX.")
def old(work: Path, kit: Path, llama: Path | None, cpu: str) -> None:
    """Read a page with the installed program on an emulated old processor."""
    stick, home = packed(work, kit, llama), work / "home"
    run(sys.executable, stick / "install.py", "--to", home)
    version = home / "versions" / (home / "current").read_text().strip()
    program = [version / "venv/bin/python", "-I", "-m", "pulse_edge", "interpret", PAGE, "--max-tokens", "4"]
    here, there = run(*program).stdout, run("qemu-x86_64-static", "-cpu", cpu, *program).stdout
    click.echo(f"- {cpu}: `{' '.join(there.split())}`, {'the same words' if here == there else 'OTHER words'} as here")


@main.command()
@_WORK
@_KIT
@_LLAMA
@click.option("--times", default=20, show_default=True)
def kills(work: Path, kit: Path, llama: Path | None, times: int) -> None:
    """Kill the installer at random moments of its work; then let it finish."""
    stick, home = packed(work, kit, llama), work / "killed"
    command = [sys.executable, str(stick / "install.py"), "--to", str(home)]
    start = time.perf_counter()
    run(*command)
    whole = time.perf_counter() - start
    run(*command, "--uninstall")
    chance, finished = random.Random(1), 0
    for _ in range(times):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, whole))
            process.kill()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        finished += done.returncode == 0
        run(home / "pulse-edge", "kit", "verify", next(home.glob("versions/*/kits/*")))
        run(*command, "--uninstall")
    click.echo(f"- killed {times} times within {whole:.0f} s: the next run finished {finished} times")


@main.command()
@_WORK
@click.option("--gib", default=4.5, show_default=True, help="Size of the language model's file.")
def fat32(work: Path, gib: float) -> None:
    """Pack a large kit onto a FAT32 image, install from it, and compare bytes, seconds and memory."""
    import small_stick

    work.mkdir(parents=True, exist_ok=True)
    kit = work / "kit"
    if not kit.is_dir():
        large_kit(kit, int(gib * 2**30))
    size = sum(p.stat().st_size for p in kit.iterdir())
    small_stick.program(work)
    click.echo(f"| step, {size / 2**30:.1f} GiB | seconds | against cp and sha256sum | peak MiB |\n|---|---|---|---|")
    with image(work, size) as mount:
        plain = timed(
            "cp -r, and sha256sum of the copy", ["sh", "-c", f"cp -r {kit} {mount}/plain && sha256sum {mount}/plain/*"]
        )
        shutil.rmtree(mount / "plain")
        code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\nfrom pathlib import Path\nimport small_stick\n"
        code += f"small_stick.make(Path({str(mount / 'stick')!r}), Path({str(kit)!r}), wheel=next(Path({str(work)!r}).glob('*.whl')))"
        timed("pack onto the image", [sys.executable, "-c", code], plain)
        drop(mount)
        base = timed(
            "cp -r from the image, and sha256sum",
            ["sh", "-c", f"cp -r {mount}/stick {work}/copy && sha256sum {work}/copy/kits/*/*"],
        )
        shutil.rmtree(work / "copy")
        drop(mount)
        install = [sys.executable, str(mount / "stick/install.py"), "--to", str(work / "home"), "--accept", "unsigned"]
        timed("install from the image", [*install, "--accept", "little-memory"], base)
    run("diff", "-r", kit, next((work / "home").glob("versions/*/kits/*")))
    click.echo("\nThe installed kit has the same bytes.")
    for path in (kit, work / "home"):
        shutil.rmtree(path)


def large_kit(path: Path, size: int) -> None:
    """A kit whose language model is noise of this size."""
    import small_stick

    from pulse_edge import kit as kits

    small_stick.kit(path, "large kit", size=1 << 20)
    block = random.Random(0).randbytes(64 << 20)
    with open(path / "llm.gguf", "wb") as f:
        for number in range(-(-size // len(block))):
            f.write(number.to_bytes(8, "little") + block[8 : min(len(block), size - number * len(block))])
    import dataclasses

    manifest = kits.parse_manifest((path / kits.MANIFEST).read_text())
    kits.write_manifest(path, dataclasses.replace(manifest, files=kits.listing(path)))


@contextlib.contextmanager
def image(work: Path, size: int) -> Iterator[Path]:
    """A mounted FAT32 image with room for a kit."""
    file, mount = work / "image", work / "mount"
    with open(file, "wb") as f:
        f.truncate(size + (512 << 20))
    run("mkfs.vfat", "-F", "32", file)
    mount.mkdir(exist_ok=True)
    run("mount", "-o", "loop", file, mount)
    try:
        yield mount
    finally:
        run("umount", mount)
        file.unlink()


def drop(folder: Path) -> None:
    """Write back, and forget a folder's files in the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(what: str, command: list[str], against: float | None = None) -> float:
    """Run, print a row, and return the seconds, written back to the disk."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what}: {said}")
    os.sync()
    seconds = time.perf_counter() - start
    ratio = "" if against is None else f"{against / seconds:.2f} x"
    click.echo(f"| {what} | {seconds:.1f} | {ratio} | {usage.ru_maxrss / 1024:.0f} |")
    return seconds


if __name__ == "__main__":
    main()
