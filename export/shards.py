"""Read single tensors from safetensors and PyTorch files, under one set of names.

The names are those of the original LLaVA layout. One tensor is read at a time, and nothing stays
mapped, so that memory does not grow with the checkpoint. A file is not trusted until it was
checked: sizes that it states are compared with its own size before anything is allocated, and no
code in it runs.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from export.config import read_json
from pulse_edge.errors import CheckpointError

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"

# The first matching prefix wins. Layouts are transformers up to 4, transformers 5, and LLaVA
# checkpoints saved under transformers 5 (whose CLIPVisionModel has no `vision_model.` level).
PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("model.multi_modal_projector.linear_1.", PROJECTOR + "0."),
    ("model.multi_modal_projector.linear_2.", PROJECTOR + "2."),
    ("multi_modal_projector.linear_1.", PROJECTOR + "0."),
    ("multi_modal_projector.linear_2.", PROJECTOR + "2."),
    ("image_newline", NEWLINE),
    (TOWER, TOWER),
    ("model.vision_tower.vision_tower.", TOWER),
    ("model.vision_tower.vision_model.", TOWER),
    ("model.vision_tower.", TOWER),
    ("vision_tower.vision_model.", TOWER),
    ("vision_tower.", TOWER),
)
TOWER_PREFIXES = (("vision_model.", TOWER), ("", TOWER))

FLOATS = frozenset(["float64", "float32", "float16", "bfloat16"])
"""Types that a weight may have; others belong to a quantized checkpoint."""
# safetensors' own names of types, where they are not torch's.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "I32": "int32",
    "I64": "int64",
}
_LARGEST_HEADER = 8 << 20
"""Largest header of a safetensors file in bytes, which is parsed again for each tensor; that of
a 7B model has some 100 kB."""
_LARGEST_PICKLE = 64 << 20
"""Largest part of a PyTorch file in bytes that is no tensor data; that of a 7B model has some
100 kB."""


def canonical(name: str, prefixes: tuple[tuple[str, str], ...] = PREFIXES) -> str:
    """Return the name in the original LLaVA layout for a name in any of the layouts."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies, and what the file states of it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    """torch's name of the type, such as float16."""


class Shards:
    """Reads single tensors from safetensors and PyTorch files.

    At most one PyTorch file stays mapped.
    """

    def __init__(self) -> None:
        self._open: tuple[Path, dict[str, torch.Tensor]] | None = None

    def listing(self, file: Path) -> Iterator[Stored]:
        """Yield the tensors that a file holds.

        Raises CheckpointError for a truncated file, and for a pickle of other things than tensors.
        """
        if file.suffix == ".safetensors":
            _refuse_foreign_header(file)
            try:
                with safe_open(file, "pt") as f:
                    for name in f.keys():  # noqa: SIM118 (safe_open is no dict)
                        part = f.get_slice(name)
                        kind = str(part.get_dtype())
                        yield Stored(
                            file, name, tuple(part.get_shape()), _TYPES.get(kind, kind.lower())
                        )
            except (SafetensorError, OSError) as e:
                raise CheckpointError(
                    f"{file.name}: truncated or no safetensors file ({_reason(e)})"
                ) from None
        else:
            for name, tensor in self._pytorch(file).items():
                yield Stored(
                    file, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
                )

    def read(self, stored: Stored) -> torch.Tensor:
        """Read a tensor, in its own dtype."""
        if stored.file.suffix != ".safetensors":
            return self._pytorch(stored.file)[stored.name]
        # Opened at each call: pages of a mapping that stays open would count as this process's
        # memory.
        with safe_open(stored.file, "pt") as f:
            return f.get_tensor(stored.name)  # type: ignore[no-any-return]

    def _pytorch(self, file: Path) -> dict[str, torch.Tensor]:
        if self._open is None or self._open[0] != file:
            _refuse_foreign_zip(file)
            try:
                loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            except Exception as e:  # an untrusted pickle can end in any exception of the unpickler
                raise CheckpointError(
                    f"{file.name}: not a plain PyTorch file of tensors ({_reason(e)})"
                ) from None
            if not isinstance(loaded, dict) or not all(
                _plain(name, t) for name, t in loaded.items()
            ):
                raise CheckpointError(f"{file.name}: holds other things than tensors")
            self._open = file, loaded
        return self._open[1]


def _plain(name: object, tensor: object) -> bool:
    """Whether this is a dense tensor with its values in the file."""
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
    )


def _refuse_foreign_header(file: Path) -> None:
    """Raise CheckpointError where a safetensors file states an impossible or oversized header."""
    try:
        with open(file, "rb") as f:
            stated = int.from_bytes(f.read(8), "little")
    except OSError as e:
        raise CheckpointError(f"{file.name}: cannot be read ({e.strerror})") from None
    if not 2 <= stated <= file.stat().st_size - 8:
        raise CheckpointError(
            f"{file.name}: truncated or no safetensors file (a header of {stated} bytes)"
        )
    if stated > _LARGEST_HEADER:
        raise CheckpointError(
            f"{file.name}: has a header of {stated} bytes, and {_LARGEST_HEADER} are the most "
            "allowed"
        )


def _refuse_foreign_zip(file: Path) -> None:
    """Raise CheckpointError unless the file is a zip archive as torch.save writes it.

    That is uncompressed, and within the file's size.
    """
    try:
        with open(file, "rb") as f:
            start = f.read(2)
        if start != b"PK":
            before = start[:1] == b"\x80"
            what = (
                "in PyTorch's format from before version 1.6"
                if before
                else "truncated or no PyTorch file"
            )
            raise CheckpointError(f"{file.name}: {what}")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as e:
        raise CheckpointError(f"{file.name}: truncated or no PyTorch file ({_reason(e)})") from None
    stated = sum(entry.file_size for entry in entries)
    pickled = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or stated > file.stat().st_size or pickled > _LARGEST_PICKLE:
        raise CheckpointError(f"{file.name}: states other sizes than a file of torch.save has")


def _reason(error: BaseException) -> str:
    """Return the first sentence of a library's error."""
    return str(error).split("\n")[0].split(". ")[0].rstrip(". ")[:200] or type(error).__name__


# --- files of a folder ----------------------------------------------------------------------------


def has_weights(path: Path) -> bool:
    """Whether a folder holds files that look like a model's weights."""
    return any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin"))


def weight_files(path: Path) -> list[Path]:
    """Return the weight files of a folder: those of its index, or all of one kind.

    Raises CheckpointError.
    """
    for index, pattern in (
        ("model.safetensors.index.json", "*.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if (path / index).is_file():
            names = _named(path / index)
            outside = [n for n in names if Path(n).name != n]
            absent = [n for n in names if n not in outside and not (path / n).is_file()]
            if not names or outside or absent:
                raise CheckpointError(
                    f"{path / index}: names {shown(outside + absent) or 'no files'}, which are not "
                    "there. Fetch the checkpoint again."
                )
            return [path / n for n in names]
        if files := sorted(p for p in path.glob(pattern) if p.is_file()):
            return files
    raise CheckpointError(
        f"{path}: no *.safetensors and no pytorch_model*.bin. Name a checkpoint directory."
    )


def _named(index: Path) -> list[str]:
    """Return the files that an index names."""
    weights = read_json(index).get("weight_map", {})
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise CheckpointError(
            f"{index}: weight_map does not name files. Fetch the checkpoint again."
        )
    return sorted(set(weights.values()))


def shown(problems: list[str], most: int = 40) -> str:
    """Return problems as one line: the first ones, and how many more there are."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")
