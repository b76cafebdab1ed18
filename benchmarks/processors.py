"""Compare a kit's encoder, in each of its types, on x86 processors of several generations.

    python benchmarks/processors.py measure WORK --kit KIT [--pages N] [--emulated-tiles N] [--only NAME] [--large]

Older processors are run in two ways. qemu-x86_64 (Debian: qemu-user) emulates a Nehalem, a Haswell
and a Skylake; it is slow, its seconds say nothing about real ones, and it has no AVX-512. And ONNX
Runtime itself is copied with its detection of AVX-512, or of VNNI alone, switched off, so that this
machine runs the kernels of a processor without them, at their real speed (in CPU seconds, on which
other work has little influence).

Cosines are of each image token, against this processor's float32 ones and against its own of the
same type. "plain" is ONNX Runtime without the setting that pulse_edge/inference/vision_encoder.py
makes where sums saturate. `--large` measures the time for random weights of ViT-L/14-336.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

PATH = click.Path(path_type=Path)
Float = npt.NDArray[np.float32]
TYPES = ("fp32", "fp16", "w8", "int8", "int8-static")
DETECTION = {
    "AVX-VNNI": (rb"\x0f\xa2\xa8\x10()\x74", b"\xeb"),  # cpuid; test $16, al; je
    "AVX-512": (rb"\x41\xf7\xc2\x00\x00\x01\x00()\x74", b"\xeb"),  # test $1 << 16, r10d; je
    "AVX-512 VNNI": (
        rb"\x81\xe7()\x00\x08\x00\x00\xf3\x0f\x7e",
        b"\x00\x00\x00\x00",
    ),
}
"""Machine code of MLAS_PLATFORM's constructor in onnxruntime 1.32.0 for Linux: where to write, and
what switches it off.
"""


@dataclass(frozen=True)
class Processor:
    """A processor on which the encoder runs."""

    name: str
    emulator: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Keys of DETECTION."""


PROCESSORS = (
    Processor("this one"),
    Processor("AVX-512 without VNNI", without=("AVX-VNNI", "AVX-512 VNNI")),
    Processor("AVX2 without VNNI", without=("AVX-VNNI", "AVX-512")),
    Processor("Skylake-Client (qemu)", ("qemu-x86_64", "-cpu", "Skylake-Client")),
    Processor("Haswell (qemu)", ("qemu-x86_64", "-cpu", "Haswell")),
    Processor("IvyBridge (qemu)", ("qemu-x86_64", "-cpu", "IvyBridge")),
    Processor("Nehalem (qemu)", ("qemu-x86_64", "-cpu", "Nehalem")),
)


@click.group()
def cli() -> None:
    """Measure encoders on several processors."""


@cli.command()
@click.argument("pixels", type=PATH)
@click.argument("target", type=PATH)
@click.argument("models", type=PATH, nargs=-1)
@click.option("--turns", default=1)
def encode(pixels: Path, target: Path, models: tuple[Path, ...], turns: int) -> None:
    """Encoders on one processor: writes image tokens (n, P, d) to TARGET, prints the least CPU
    seconds a tile of each.
    """
    for model in models:
        for plain in (False, True) if "int8" in model.name else (False,):
            features, seconds = _encode(model, np.load(pixels), plain=plain, turns=turns)
            np.save(target / f"{model.stem}{'-plain' * plain}.npy", features)
            print(seconds, flush=True)


def _encode(model: Path, tiles: Float, *, plain: bool, turns: int) -> tuple[Float, float]:
    import onnxruntime as ort

    from pulse_edge.inference import vision_encoder

    add = ort.SessionOptions.add_session_config_entry

    def others(options: ort.SessionOptions, key: str, value: str) -> None:
        if key != vision_encoder.EXACT:
            add(options, key, value)

    ort.SessionOptions.add_session_config_entry = others if plain else add
    encoder = vision_encoder.VisionEncoder(model, device="cpu", threads=1)
    encoder.ready()
    ort.SessionOptions.add_session_config_entry = add
    seconds, features = [], []
    for tile in tiles:
        for _ in range(turns):
            start = time.process_time()
            features.append(encoder.encode(tile[None]))
            seconds.append(time.process_time() - start)
    encoder.close()
    return np.concatenate(features[::turns]), min(seconds)


@cli.command()
@click.argument("work", type=PATH)
@click.option("--kit", type=PATH, required=True)
@click.option("--pages", default=4, show_default=True, help="The example page and drawn ones.")
@click.option("--emulated-tiles", default=4, show_default=True)
@click.option("--large", is_flag=True, help="Measure the time at ViT-L/14-336 instead.")
@click.option("--only", default="", help="Of the other processors those with this in their names.")
def measure(work: Path, kit: Path, pages: int, emulated_tiles: int, large: bool, only: str) -> None:
    """Measure and print the table."""
    work.mkdir(parents=True, exist_ok=True)
    tiles = _pixels(kit, pages)
    models = _models(work, kit, tiles, large=large)
    if large:
        tiles = tiles[:1]
    native: dict[str, Float] = {}
    print(
        "| processor | type | | to float32: mean, least | to this one: mean, least | largest difference | CPU s a tile |"
    )
    print("|---|---|---|---|---|---|---|")
    for processor in (
        PROCESSORS[0],
        *(p for p in PROCESSORS[1 : 3 if large else None] if only in p.name),
    ):
        some = tiles[:emulated_tiles] if processor.emulator else tiles
        used = {
            kind: path for kind, path in models.items() if not processor.emulator or kind != "fp32"
        }
        seconds = _run(work, processor, [*used.values()], some, turns=5 if large else 1)
        for kind, model in used.items():
            for plain in (False, True) if "int8" in kind else (False,):
                features = np.load(work / f"{model.stem}{'-plain' * plain}.npy")
                native.setdefault(kind, features)
                _say(processor, kind, plain, features, native["fp32"], native[kind], seconds.pop(0))


def _say(
    processor: Processor,
    kind: str,
    plain: bool,
    features: Float,
    original: Float,
    native: Float,
    seconds: float,
) -> None:
    from export.image_tokens import cosine

    n = len(features)
    both = [cosine(features, other[:n]) for other in (original, native)]
    shown = " | ".join(f"{c.mean():.6f}, {c.min():.6f}" for c in both)
    took = "" if processor.emulator else f"{seconds:.3f}"
    largest = np.abs(features - native[:n]).max()
    print(
        f"| {processor.name} | {kind} | {'plain' * plain} | {shown} | {largest:.2g} | {took} |",
        flush=True,
    )


def _run(
    work: Path, processor: Processor, models: list[Path], tiles: Float, *, turns: int
) -> list[float]:
    """The seconds a tile of each model, and without the setting of integer ones; image tokens are
    then in WORK.
    """
    np.save(work / "pixels.npy", tiles)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if processor.without:
        environment["PYTHONPATH"] = str(_runtime(work, processor.without))
    if processor.name.startswith(("Nehalem", "IvyBridge")):
        environment["OPENBLAS_CORETYPE"] = (
            "Nehalem"  # NumPy's OpenBLAS dies of an illegal instruction while it looks
        )
    command = [
        *processor.emulator,
        sys.executable,
        __file__,
        "encode",
        work / "pixels.npy",
        work,
        *models,
    ]
    done = subprocess.run(
        [*map(str, command), "--turns", str(turns)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # qemu's warnings
    )
    return [float(line) for line in done.stdout.split()]


def _runtime(work: Path, without: tuple[str, ...]) -> Path:
    """A folder with ONNX Runtime that does not see these instruction sets."""
    import onnxruntime

    folder = work / "-".join(["onnxruntime", *without]).replace(" ", "_")
    if folder.exists():
        return folder
    source = Path(onnxruntime.__file__).parent
    shutil.copytree(
        source,
        folder / "new" / "onnxruntime",
        ignore=shutil.ignore_patterns("*.so.*", "tools", "transformers"),
    )
    library = next((folder / "new").glob("onnxruntime/capi/onnxruntime_pybind11_state*"))
    code = bytearray(library.read_bytes())
    for name in without:
        pattern, off = DETECTION[name]
        matches = list(re.finditer(pattern, code, re.DOTALL))
        if len(matches) != 1:
            raise click.ClickException(
                f"{library}: {len(matches)} places look like the detection of {name}, expected one."
            )
        at = matches[0].start(1)
        code[at : at + len(off)] = off
    library.unlink()
    library.write_bytes(code)
    (folder / "new" / "onnxruntime").rename(folder / "onnxruntime")
    return folder


def _pixels(kit: Path, pages: int) -> Float:
    """Tiles (n, 3, S, S) of the example page and of synthetic pages."""
    from PIL import Image

    from calibration.synthetic import page_at
    from pulse_edge.inference import tiling
    from pulse_edge.kit.kit import open_kit
    from pulse_edge.page import reader

    m = open_kit(kit).manifest
    images = [reader.read(ROOT / "pulse_edge" / "assets" / "example_page.png").image]
    images += [Image.fromarray(page_at(900_016, i).image) for i in range(pages - 1)]
    how: dict[str, Any] = {
        "size": m.vision.image_size,
        "aspect_ratio": m.packing.aspect_ratio,
        "pinpoints": m.packing.grid_pinpoints,
    }
    return np.concatenate(
        [tiling.cut(image, mean=m.vision.mean, std=m.vision.std, **how) for image in images]
    )


def _models(work: Path, kit: Path, tiles: Float, *, large: bool) -> dict[str, Path]:
    """The encoder as each type."""
    from calibration.observers import RangeObserver
    from export import vision
    from pulse_edge.kit.kit import open_kit

    opened = open_kit(kit)
    source = work / "large.onnx" if large else opened.file(opened.manifest.vision.file)
    if large and not source.exists():
        _write_large(source)
    ranges = {} if large else RangeObserver(opened, 1).of(tiles[:5])
    models = {}
    for kind in [t for t in TYPES if ranges or t != "int8-static"]:
        models[kind] = work / f"{'large-' * large}{kind}.onnx"
        if not models[kind].exists():
            vision.requantize(source, models[kind], kind, ranges)
    return models


def _write_large(path: Path) -> None:
    """Random weights in PULSE-7B's shapes."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from export.vision import Encoder, write

    class Large(Encoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            torch.manual_seed(1)
            shapes = {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
            }
            config = CLIPVisionConfig(
                **shapes, image_size=336, patch_size=14, attn_implementation="eager"
            )
            self.tower = CLIPVisionModel(config)
            self.projector = torch.nn.Sequential(
                torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 4096)
            )
            self.eval().requires_grad_(False)

    write(Large(), path, "fp16", 336)


if __name__ == "__main__":
    cli()
