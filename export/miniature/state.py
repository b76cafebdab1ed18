"""Save and load what a training needs to go on exactly where it was.

Tensors are in shards of at most 16 MB, the rest is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pulse_edge.errors import CheckpointError

SHARD_BYTES = 16_000_000
FOLDER = "training"


def save(
    out: Path, parts: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], facts: Any
) -> None:
    """Write to a new folder, then rename it: the last good state survives a kill at any moment."""
    tensors = {
        f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()
    }
    for name, optimizer in optimizers.items():
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{k}": torch.as_tensor(v) for k, v in values.items()}
    new, old, final = (out / f"{FOLDER}{end}" for end in (".new", ".old", ""))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for n, shard in enumerate(shards(tensors)):
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in shard.items()},
            new / f"state-{n:03d}.safetensors",
        )
    (new / "state.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if final.is_dir():
        os.rename(final, old)
    os.rename(new, final)
    shutil.rmtree(old, ignore_errors=True)


def shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Distribute the tensors over shards, filled in order."""
    filled: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size() + 200  # its entry in the header
        if size > room and filled[-1]:
            filled.append({})
            room = SHARD_BYTES
        filled[-1][name] = tensor
        room -= size
    return filled


def facts(out: Path) -> Any:
    """Return the JSON part, or None if there is no state.

    Raises CheckpointError where it is broken.
    """
    folder = _folder(out)
    if folder is None:
        return None
    try:
        return json.loads((folder / "state.json").read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise CheckpointError(
            f"{folder}: the state of the training is broken ({e}). Remove it, and start again."
        ) from None


def _folder(out: Path) -> Path | None:
    """Return the state's folder, or the one before it if a kill came between the two renames."""
    return next(
        (f for f in (out / FOLDER, out / f"{FOLDER}.old") if (f / "state.json").is_file()), None
    )


def load(
    out: Path, parts: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Put the saved tensors back. Raises CheckpointError if they are not those of these modules."""
    folder = _folder(out)
    assert folder is not None
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("state-*.safetensors")):
        tensors |= load_file(shard)
    try:
        for name, part in parts.items():
            part.load_state_dict(_below(tensors, name))
        for name, optimizer in optimizers.items():
            states: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, name).items():
                index, field = key.split(".", 1)
                states.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    except (RuntimeError, KeyError, ValueError) as e:
        raise CheckpointError(
            f"{folder}: is not a state of this training ({e}). Remove it, and start again."
        ) from None


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
