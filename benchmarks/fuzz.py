"""Send damaged files of all kinds through one `pulse-edge batch`.

Usage: `python benchmarks/fuzz.py [FILES]`, by default 1,000 files.

Each is a good page in one of the formats with bytes changed, cut off, doubled, or zeroed. Every
file must have a result, an answer or a reason; none may be a fault of the program (PageFailed), and
the memory must stay flat. Prints how many files of each format were answered, refused and
unreadable, and the largest memory of the working process in each tenth of the time.
"""

from __future__ import annotations

import collections
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"


def seeds() -> dict[str, bytes]:
    """Return ending -> an intact file of that kind."""
    import pillow_heif
    from documents import picture_file, waveform_file

    page = Image.open(PAGE).convert("RGB").resize((825, 638))
    out: dict[str, bytes] = {}

    def save(ending: str, fmt: str, image: Image.Image = page, **options: object) -> None:
        file = io.BytesIO()
        image.save(file, fmt, **options)
        out[ending] = file.getvalue()

    save("jpg", "JPEG")
    save("progressive.jpg", "JPEG", progressive=True)
    save("png", "PNG")
    save("palette.png", "PNG", page.convert("P"))
    save("bmp", "BMP")
    save("webp", "WEBP")
    save("lossless.webp", "WEBP", lossless=True)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        save(f"{compression}.tif", "TIFF", compression=compression)
    save("group4.tif", "TIFF", page.convert("1"), compression="group4")
    save("two.tif", "TIFF", compression="tiff_lzw", save_all=True, append_images=[page])
    save("pdf", "PDF")
    file = io.BytesIO()
    pillow_heif.from_pillow(page).save(file, quality=80)
    out["heic"] = file.getvalue()
    out["wave.dcm"] = waveform_file()
    out["picture.dcm"] = picture_file(np.asarray(page))
    return out


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one of several ways."""
    damaged_bytes = bytearray(data)
    way = rng.randrange(7)
    if way == 0:
        return data[: rng.randrange(1, len(data))]
    if way == 1:
        start = rng.randrange(len(data))
        damaged_bytes[start:] = bytes([rng.choice((0, 255))]) * (len(data) - start)
    elif way == 2:
        start = rng.randrange(len(data))
        length = rng.randrange(1, 5000)
        damaged_bytes[start : start + length] = rng.randbytes(length)
    elif way == 3:
        start = rng.randrange(len(data))
        damaged_bytes[start:start] = damaged_bytes[max(0, start - 3000) : start]
    else:  # mostly in the headers, where a byte matters most
        for _ in range(rng.choice((1, 3, 20, 200))):
            at = rng.randrange(min(len(damaged_bytes), rng.choice((64, 600, len(damaged_bytes)))))
            damaged_bytes[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(damaged_bytes)


def files(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Return name and bytes of damaged files; every tenth is intact."""
    rng, intact = random.Random(seed), seeds()
    for n in range(count):
        ending = list(intact)[n % len(intact)]
        yield f"{n:04}.{ending}", intact[ending] if n % 10 == 9 else damaged(intact[ending], rng)


class _Memory(threading.Thread):
    """Samples the resident memory of the working process, in MiB."""

    def __init__(self, supervisor: int) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self._supervisor, self.stop = supervisor, threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.5):
            try:
                path = f"/proc/{self._supervisor}/task/{self._supervisor}/children"
                children = Path(path).read_text().split()
                pages = int(Path(f"/proc/{children[0]}/statm").read_text().split()[1])
                self.samples.append(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))
            except (OSError, IndexError, ValueError):
                continue


def main(count: int) -> int:
    """Run the batch and return 1 where a file has no result or the program failed, else 0."""
    with tempfile.TemporaryDirectory() as folder:
        pages, out = Path(folder) / "pages", Path(folder) / "out"
        pages.mkdir()
        for name, data in files(count):
            (pages / name).write_bytes(data)
        command = [
            sys.executable,
            "-m",
            "pulse_edge",
            "batch",
            str(pages),
            "-o",
            str(out),
            "--max-tokens",
            "2",
            "--threads",
            "1",
        ]
        variables = os.environ | {
            "PULSE_EDGE_AUDIT_LOG": f"{folder}/log",
            "PULSE_EDGE_CACHE": f"{folder}/cache",
        }
        start = time.monotonic()
        batch = subprocess.Popen(
            command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True
        )
        memory = _Memory(batch.pid)
        memory.start()
        _, errors = batch.communicate()
        memory.stop.set()
        print(f"exit code {batch.returncode}, {time.monotonic() - start:.0f} s")
        return _verdict(out, count, errors, memory.samples)


def _verdict(out: Path, count: int, errors: str, memory: list[float]) -> int:
    results = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    names, faults = set(), []
    for result in results:
        name = Path(result["file"].split("#")[0]).name
        names.add(name)
        error = result.get("error") or ""
        how = "answered" if not error else "refused" if result["exit_code"] == 3 else "unreadable"
        if (
            "the program failed" in error
            or "ended the program" in error
            or "ends the decoder" in error
        ):
            how = "FAULT"
            faults.append(error)
        table[name.split(".", 1)[1]][how] += 1
    for kind, counts in sorted(table.items()):
        print(f"{kind:24}", ", ".join(f"{how} {n}" for how, n in sorted(counts.items())))
    missing = count - len(names)
    crashes = errors.count("the program crashed")
    print(
        f"{len(names)} of {count} files have a result, {len(faults)} faults, {crashes} crashes of "
        "the working process"
    )
    for error in faults[:20]:
        print("  ", error)
    if memory:
        parts = np.array_split(np.array(memory), min(10, len(memory)))
        print(
            "largest memory in MiB in each tenth of the time:",
            *(round(float(part.max())) for part in parts),
        )
    return int(bool(missing or crashes or any("ends the decoder" not in fault for fault in faults)))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
