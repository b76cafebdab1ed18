"""Measure what takes long to show about bundles. As root, on Linux.

    python benchmarks/bundle.py bare WORK --kit KIT [--llama WHEEL]
        install in a fresh Debian root without a network, and read a page
    python benchmarks/bundle.py old WORK --kit KIT [--llama WHEEL]
        run the installed program on a processor without AVX (qemu-user)
    python benchmarks/bundle.py kills WORK [--kit KIT] [--llama WHEEL] [--times 30]
        kill installations, updates and removals
    python benchmarks/bundle.py speed --kit KIT --portable PYTHON
        compare the portable llama.cpp with a native one
    python benchmarks/bundle.py fat32 WORK [--gib 4.5]
        bring a kit of that size over a FAT32 image: speed and memory

Needs debootstrap, qemu-user-static, dosfstools and mtools; bundles themselves need none of them.
Prints Markdown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
PAGE = ROOT / "pulse_edge/assets/example_page.png"


def run(*command: object, **how: object) -> subprocess.CompletedProcess[str]:
    """Run to the end, and stop everything when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(
            f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done  # type: ignore[no-any-return]


def packed(work: Path, kit: Path, llama: Path | None) -> Path:
    """A signed bundle for this machine's Python, made by the command."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (work / "bundle").is_dir():
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "key").exists():
            run(sys.executable, "-m", "pulse_edge", "bundle", "keygen", work / "key", cwd=ROOT)
        command = [
            sys.executable,
            "-m",
            "pulse_edge",
            "bundle",
            "pack",
            kit,
            "-o",
            work / "bundle",
            "--sign",
            work / "key",
        ]
        command += [
            "--platform",
            "linux-x86_64",
            "--python",
            python,
            *(["--wheel", llama] if llama else []),
        ]
        run(*command, cwd=ROOT)
    return work / "bundle"


def key_id(work: Path) -> str:
    """Of the key that signs here."""
    from pulse_edge.installer.minisign import read_public_key

    return read_public_key((work / "key.pub").read_text(), "key.pub").id


@click.group()
def main() -> None:
    """Measure."""


_WORK = click.argument("work", type=click.Path(path_type=Path))
_KIT = click.option("--kit", type=click.Path(path_type=Path, exists=True), required=True)
_LLAMA = click.option(
    "--llama",
    type=click.Path(path_type=Path, exists=True),
    help="A portable wheel, to save its build.",
)


@main.command()
@_WORK
@_KIT
@_LLAMA
@click.option("--suite", default="bookworm", show_default=True)
def bare(work: Path, kit: Path, llama: Path | None, suite: str) -> None:
    """Install and read a page in a root that holds Debian's minimum, python3, and nothing else."""
    source, root = packed(work, kit, llama), work / "root"
    if not (root / "usr/bin/python3").exists():
        run("debootstrap", "--variant=minbase", "--include=python3", suite, root)
    shutil.rmtree(root / "bundle", ignore_errors=True)
    shutil.copytree(source, root / "bundle")
    shutil.copy(PAGE, root / "scan.png")
    enter = 'for d in proc sys dev; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" env -i PATH=/usr/bin:/bin HOME=/root "$@"'
    inside = ["unshare", "-nm", "sh", "-c", enter, root]
    start = time.perf_counter()
    run(*inside, "sh", "/bundle/install.sh", "--accept", key_id(work))
    click.echo(f"- bare root: installed in {time.perf_counter() - start:.1f} s")
    done = run(*inside, "/usr/local/bin/pulse-edge", "interpret", "/scan.png", "--max-tokens", "8")
    click.echo(f"- bare root: `{' '.join(done.stdout.split())}`")
    trace = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", work / "trace"]
    run(*trace, *inside, "/usr/local/bin/pulse-edge", "interpret", "/scan.png", "--max-tokens", "8")
    calls = [line for line in (work / "trace").read_text().splitlines() if "(" in line]
    click.echo(f"- bare root: {len(calls)} network system calls while reading a page")
    run(*inside, "python3", "/bundle/install.pyz", "--uninstall")
    left = [
        p
        for p in (root / "opt/pulse-edge", root / "usr/local/bin/pulse-edge")
        if os.path.lexists(p)
    ]
    click.echo(f"- bare root: uninstalled, left behind: {len(left)}")


@main.command()
@_WORK
@_KIT
@_LLAMA
@click.option(
    "--cpu", default="Nehalem", show_default=True, help="A processor of qemu-user without AVX."
)
def old(work: Path, kit: Path, llama: Path | None, cpu: str) -> None:
    """Read a page with the installed program on an emulated old processor."""
    source, home = packed(work, kit, llama), work / "home"
    run(sys.executable, source / "install.pyz", "--to", home, "--accept", key_id(work))
    version = home / "versions" / (home / "current").read_text().strip()
    program = [
        version / "venv/bin/python",
        "-I",
        "-m",
        "pulse_edge",
        "interpret",
        PAGE,
        "--max-tokens",
        "4",
    ]
    here, there = run(*program).stdout, run("qemu-x86_64-static", "-cpu", cpu, *program).stdout
    click.echo(
        f"- {cpu}: `{' '.join(there.split())}`, {'the same words' if here == there else 'OTHER words'} as here"
    )


@main.command()
@_WORK
@click.option(
    "--kit",
    type=click.Path(path_type=Path, exists=True),
    help="Default: stand-ins for kit and program.",
)
@_LLAMA
@click.option("--times", default=30, show_default=True)
@click.option("--seed", default=1, show_default=True)
def kills(work: Path, kit: Path | None, llama: Path | None, times: int, seed: int) -> None:
    """Kill the installer at random moments: what is in use afterwards is whole, and the next run
    finishes.

    With stand-ins it kills updates and removals too, and takes ten minutes.
    """
    bundles = stand_ins(work) if kit is None else [packed(work, kit, llama)]
    home, chance = work / "killed", random.Random(seed)
    trusted = ["--to", str(home), "--accept", key_id(work)]
    commands = [[sys.executable, str(source / "install.pyz"), *trusted] for source in bundles]
    removal = [*commands[0], "--uninstall"]
    steps: list[tuple[str, list[list[str]], list[str]]] = [("installation", [], commands[0])]
    if len(commands) > 1:
        steps += [("update", [commands[0]], commands[1]), ("removal", [commands[0]], removal)]
    for what, before, command in steps:
        whole, again = 0, 0
        for preparing in before:
            run(*preparing)
        seconds = duration(command)
        subprocess.run(removal, capture_output=True, check=False)
        for _ in range(times):
            for preparing in before:
                run(*preparing)
            with subprocess.Popen(
                command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, seconds))
                process.kill()
            whole += is_whole(home, nothing_too=what != "update")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if command is removal:
                again += not home.exists() or not any(home.iterdir())
            else:
                again += done.returncode == 0 and is_whole(home)
                run(*removal)
            if (
                home.exists()
            ):  # an empty folder: killed after it was made, before its mark said by whom
                home.rmdir()
        click.echo(
            f"- {what} killed {times} times within {seconds:.1f} s: whole or nothing afterwards {whole} times, ",
            nl=False,
        )
        click.echo(f"the next run finished {again} times")
        if (whole, again) != (times, times):
            raise SystemExit(1)


def duration(command: list[str]) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    run(*command)
    return time.perf_counter() - start


def stand_ins(work: Path) -> list[Path]:
    """Two signed bundles with a kit of 40 MB, and programs that only say their version."""
    import small_bundle

    from pulse_edge.deploy import signing

    work.mkdir(parents=True, exist_ok=True)
    key = signing.SecretKey(b"standins", bytes(32))
    (work / "key.pub").write_text(key.public().text())
    kit = small_bundle.kit(work / "kit", "kit", size=20 << 20)
    return [
        small_bundle.make(
            work / version, kit, wheel=small_bundle.program(work / f"w{version}", version), key=key
        )
        for version in ("1.0", "2.0")
    ]


def is_whole(home: Path, *, nothing_too: bool = False) -> bool:
    """Whether the installation in use answers, and its kits have the bytes that they were made
    with.
    """
    from pulse_edge.installer.home import Home
    from pulse_edge.kit.kit import open_kit
    from pulse_edge.kit.verify import verify

    name = Home(home).current()
    if name is None:
        return nothing_too
    for kit in (home / "versions" / name / "kits").iterdir():
        verify(open_kit(kit))
    if not (home / "pulse-edge").exists():
        return nothing_too
    return (
        subprocess.run(
            [home / "pulse-edge", "--version"], capture_output=True, check=False
        ).returncode
        == 0
    )


SPEED = """
import sys, time
from pathlib import Path
import numpy as np
from pulse_edge.kit.kit import open_kit
from pulse_edge.inference import language_model as llm
k = open_kit(Path(sys.argv[1]))
language = k.manifest.language
settings = llm.Settings(context=language.context_length, threads=1)
m = llm.LanguageModel(k.file(language.file), settings)
tokens = np.random.default_rng(0).normal(0, 0.02, (2048, m.embedding_length)).astype(np.float32)
start = time.process_time()
m.feed_embeddings(tokens)
middle = time.process_time()
for token in range(1024):
    m.feed_tokens([token % 1000])
print(middle - start, time.process_time() - middle)
"""


@main.command()
@_KIT
@click.option(
    "--portable", required=True, help="A Python with the portable llama-cpp-python and pulse-edge."
)
@click.option(
    "--native", default=sys.executable, help="One with a native build. Default: this one."
)
@click.option("--times", default=7, show_default=True)
def speed(kit: Path, portable: str, native: str, times: int) -> None:
    """Print the processor seconds of one thread for 2,048 image tokens, then 1,024 tokens.

    Both builds take turns; the least of several turns counts.
    """
    best = {portable: [1e9, 1e9], native: [1e9, 1e9]}
    for _ in range(times):
        for python, least in best.items():
            seconds = map(float, run(python, "-c", SPEED, kit).stdout.split())
            best[python] = [min(pair) for pair in zip(least, seconds, strict=True)]
    for what, mine, theirs in zip(
        ("image tokens", "tokens"), best[portable], best[native], strict=True
    ):
        click.echo(
            f"- {what}: portable {mine:.2f} s, native {theirs:.2f} s, {theirs / mine:.2f} x as fast"
        )


@main.command()
@_WORK
@click.option("--gib", default=4.5, show_default=True, help="Size of the language model's file.")
def fat32(work: Path, gib: float) -> None:
    """Pack a large kit onto a FAT32 image, install from it, and compare bytes, seconds and memory."""
    import small_bundle

    work.mkdir(parents=True, exist_ok=True)
    kit = work / "kit"
    if not kit.is_dir():
        large_kit(kit, int(gib * 2**30))
    size = sum(p.stat().st_size for p in kit.iterdir())
    small_bundle.program(work)
    click.echo(
        f"| step, {size / 2**30:.1f} GiB | seconds | against cp and sha256sum | peak MiB |\n|---|---|---|---|"
    )
    copy = f"cp -r {kit} {work}/plain && sha256sum {work}/plain/*"
    drop(kit)
    plain = timed("cp -r of the kit, and sha256sum of the copy", ["sh", "-c", copy])
    shutil.rmtree(work / "plain")
    drop(kit)
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests/support')!r}]\nfrom pathlib import Path\nimport small_bundle\n"
    code += f"work = Path({str(work)!r})\nsmall_bundle.make(work / 'bundle', work / 'kit', wheel=next(work.glob('*.whl')))"
    timed("pack", [sys.executable, "-c", code], plain)
    over_fat32(work, size)
    copy = f"cp -r {work}/bundle {work}/plain && sha256sum {work}/plain/kits/*/*"
    drop(work / "bundle")
    plain = timed("cp -r of the bundle, and sha256sum of the copy", ["sh", "-c", copy])
    shutil.rmtree(work / "plain")
    drop(work / "bundle")
    install = [
        sys.executable,
        str(work / "bundle/install.pyz"),
        "--to",
        str(work / "home"),
        "--accept",
        "unsigned",
    ]
    timed("install", [*install, "--accept", "little-memory"], plain)
    run("diff", "-r", kit, next((work / "home").glob("versions/*/kits/*")))
    click.echo("\nThe kit installed from the FAT32 image has the same bytes.")
    shutil.rmtree(work)


def large_kit(path: Path, size: int) -> None:
    """A kit whose language model is noise of this size."""
    import small_bundle

    from pulse_edge.kit.manifest import MANIFEST
    from pulse_edge.kit.manifest_reader import parse_manifest
    from pulse_edge.kit.write import listing, write_manifest

    small_bundle.kit(path, "large kit", size=1 << 20)
    block = random.Random(0).randbytes(64 << 20)
    with open(path / "llm.gguf", "wb") as f:
        f.write(small_bundle.gguf_header())
        for number in range(size // len(block)):
            f.write(number.to_bytes(8, "little") + block[8:])
        f.write(block[: size - f.tell()])
    manifest = parse_manifest((path / MANIFEST).read_text())
    write_manifest(path, dataclasses.replace(manifest, files=listing(path)))


def over_fat32(work: Path, size: int) -> None:
    """Bring the bundle onto a FAT32 image and back (mtools: a kernel without vfat can do it too)."""
    with open(work / "image", "wb") as f:
        f.truncate(size + (512 << 20))
    run("mkfs.vfat", "-F", "32", work / "image")
    run("mcopy", "-s", "-Q", "-i", work / "image", work / "bundle", "::")
    shutil.rmtree(work / "bundle")
    run("mcopy", "-s", "-Q", "-n", "-i", work / "image", "::bundle", work)
    (work / "image").unlink()


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
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        errors = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what}: {errors}")
    os.sync()
    seconds = time.perf_counter() - start
    ratio = "" if against is None else f"{against / seconds:.2f} x"
    click.echo(f"| {what} | {seconds:.1f} | {ratio} | {usage.ru_maxrss / 1024:.0f} |")
    return seconds


if __name__ == "__main__":
    main()
