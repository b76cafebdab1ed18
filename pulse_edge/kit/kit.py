"""Kits: a directory that explains itself. Open, verify, find and write one. Standard library only.

`manifest.json` says everything that the runtime must know, and is written last: a directory without one is unfinished.
Nobody edits a kit in place; `writing` makes a new one beside its target and renames it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pulse_edge.common import files, installation, json_input, paths
from pulse_edge.common import folders as owned
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import FolderError, KitError
from pulse_edge.kit import manifest_limits

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
KIT_VARIABLE = "PULSE_EDGE_KIT"
_DOCUMENTS = ("golden", "accuracy/", "findings.json", "README.md", "MODEL_CARD.md")
"""Beginnings of the names of files that no engine reads."""
MAX_NAME = 200
"""Characters of a file's name in a kit: every file system takes that many."""

Merge = Literal["flat", "spatial", "spatial_unpad"]
Aspect = Literal["anyres", "pad", "square"]
Keys = Literal["f16", "q8_0"]


@dataclass(frozen=True)
class File:
    """One file of the kit."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Language:
    """The language model, a GGUF file."""

    file: str
    type: str
    """Weight type: f16, bf16, f32, Q8_0, ..."""
    context_length: int
    """Tokens, image tokens included."""
    embedding_length: int
    """Width d of a token or an image token."""
    layers: int
    key_value_length: int
    """Numbers per token and layer in the key cache; the value cache has as many."""
    vocabulary: int
    keys: Keys = "f16"
    """Type of the key cache. Of the kit and not of the moment: with other keys come other answers, so that a kit is measured
    with its own. Values stay f16: smaller ones need flash attention, whose sums depend on the number of threads."""


@dataclass(frozen=True)
class Vision:
    """The vision encoder with its projector, an ONNX file: pixel_values (n,3,S,S) -> image_features (n,P,d)."""

    file: str
    type: str
    """Weight type: fp32, fp16, ..."""
    image_size: int
    """Side S of a tile in pixels."""
    patches_per_side: int
    """P is its square."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Packing:
    """How a page becomes tiles, and their features become image tokens (LLaVA's config fields of the same names)."""

    aspect_ratio: Aspect
    merge: Merge
    grid_pinpoints: tuple[tuple[int, int], ...]
    """Allowed grid sizes (width, height) in pixels; empty unless anyres."""
    newline_file: str | None
    """The image_newline row, d little-endian float32; null unless the packing inserts it."""


@dataclass(frozen=True)
class Prompt:
    """The conversation's text on either side of the image; `{question}` stands in `after`."""

    template: str
    before: str
    after: str
    max_tokens: int
    """New tokens at most; greedy decoding."""


@dataclass(frozen=True)
class Quantization:
    """How a kit was made of another one; see export/quantize.py for when it comes to the same bytes."""

    base: dict[str, str]
    """sha256 of the other kit's language model (`language`) and encoder (`vision`): which weights these were."""
    settings: dict[str, Any]
    """What was asked for, by option of `export quantize`; `recipe` is a name in models.yaml."""
    tensors: dict[str, str]
    """Weight type of every tensor of the language model that is not float32."""
    notes: tuple[str, ...]
    """What was asked for and not done, and why."""
    stats: str | None
    """sha256 of the file of `calibration collect`; null: none was used."""
    calibration: dict[str, tuple[str, ...]]
    """Task -> ids that calibrated it, on which it must not be tested."""
    content: str | None
    """sha256 over these ids and their pictures."""


@dataclass(frozen=True)
class Calibration:
    """How the log odds of yes against no become a statement's probability: logistic(scale * log odds + offset)."""

    scale: float
    offset: float
    uncertain_from: float
    """From this probability on, up to and including `uncertain_to`, the kit abstains."""
    uncertain_to: float
    pages: int
    """Of the calibration split that it was fitted on."""
    auc: float | None
    """On pages that it was not fitted on; null: these have no page with the finding, or none without."""
    reason: str = ""
    """Why the kit abstains always; else empty."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says."""

    manifest_version: int
    id: str
    """Name for people: model and weight types."""
    demonstration: bool
    """True: the weights are not fit for patients, and every answer says so."""
    created: str
    """UTC, ISO 8601; a quantized kit keeps its base's, so that it can be made again (export/quantize.py says to which bytes)."""
    files: dict[str, File]
    language: Language
    vision: Vision
    packing: Packing
    prompt: Prompt
    source: dict[str, Any]
    """Provenance: checkpoint, files with sha256, revision, licence, adapters."""
    parity: dict[str, Any]
    """How the kit was proven against the original, with figures."""
    versions: dict[str, str]
    """Of the programs that made it."""
    accuracy: dict[str, Any] | None = None
    """Measured on ECGBench; null: not measured yet."""
    quantization: Quantization | None = None
    """Null: converted from a checkpoint as it is."""
    findings: dict[str, Calibration] | None = None
    """By statement (pulse_edge.report.findings); null: never calibrated. A statement that is absent here was not."""
    draft_table_file: str | None = None
    """Which token follows which in reference answers (pulse_edge.inference.speculative); null: there is no such table."""


@dataclass(frozen=True)
class Kit:
    """An opened kit: its directory, manifest, and the manifest file's sha256 (which covers every other file's)."""

    path: Path
    manifest: Manifest
    sha256: str

    def file(self, name: str) -> Path:
        """Path of one of the kit's files."""
        return self.path / name


# --- reading ---------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as `kind`, a dataclass or one of the few types used above; ValueError names the field."""
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where} is {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (args[-1] is not Ellipsis and len(value) != len(args)):
            raise ValueError(f"{where} is not a list of the expected length")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(
            _build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not an object")
        return {k: _build(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if type(None) in args:
        return None if value is None else _build(args[0], value, where)
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}, expected {kind.__name__}")
    return value


def _build_dataclass(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    hints = get_type_hints(kind)
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}  # type: ignore[arg-type]
    if missing := sorted(needed - value.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{where} has unknown {', '.join(unknown)}")
    return kind(**{k: _build(hints[k], v, f"{where}.{k}") for k, v in value.items()})


def parse_manifest(text: str, where: str = MANIFEST) -> Manifest:
    """Manifest from its JSON text. Raises KitError for anything that this version does not understand."""
    try:
        raw = json_input.parse(text)
        if not isinstance(raw, dict):
            raise ValueError("not a JSON object")
        version = raw.get("manifest_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"manifest_version is {version!r}")
    except ValueError as e:
        raise KitError(
            f"{where}: not a kit's manifest ({e}). Copy the kit again, or convert the checkpoint again."
        ) from None
    if version > MANIFEST_VERSION:
        raise KitError(
            f"{where}: manifest version {version} is newer than this program understands ({MANIFEST_VERSION}). "
            "Update pulse-edge."
        )
    try:
        manifest: Manifest = _build(Manifest, raw, "manifest")
        _check_names(manifest)
        manifest_limits.check(manifest)
    except ValueError as e:
        raise KitError(
            f"{where}: {e}. Copy the kit again, or convert the checkpoint again."
        ) from None
    return manifest


def _check_names(manifest: Manifest) -> None:
    """Files are named inside the kit only, and everything that the manifest refers to is listed."""
    for name in manifest.files:
        pure = PurePosixPath(name)
        odd = "\\" in name or ":" in name or not name.isprintable() or len(name) > MAX_NAME
        if pure.is_absolute() or ".." in pure.parts or odd or not pure.name or name == MANIFEST:
            raise ValueError(f"file name {name[:80]!r} is not allowed")
    used = [
        manifest.language.file,
        manifest.vision.file,
        manifest.packing.newline_file,
        manifest.draft_table_file,
    ]
    for wanted in used:
        if wanted is not None and wanted not in manifest.files:
            raise ValueError(f"{wanted} is used but not listed under files")
    packing = manifest.packing
    if packing.aspect_ratio == "anyres" and not packing.grid_pinpoints:
        raise ValueError("packing anyres needs grid_pinpoints")
    if (
        packing.aspect_ratio == "anyres"
        and packing.merge == "spatial_unpad"
        and packing.newline_file is None
    ):
        raise ValueError("packing spatial_unpad needs newline_file")
    if "{question}" not in manifest.prompt.after:
        raise ValueError("prompt.after has no {question}")


def open_kit(path: Path) -> Kit:
    """Read a kit's manifest and check that its files, and no others, are there with their sizes.

    Does not read the files: see `verify`. Raises KitError with everything that is wrong at once.
    """
    if not path.is_dir():
        raise KitError(f"{path}: no such kit directory. Name one with --kit or {KIT_VARIABLE}.")
    try:
        raw = json_input.read(path / MANIFEST)
    except OSError as e:
        reason = (
            "has no manifest.json, so it is unfinished or no kit"
            if isinstance(e, FileNotFoundError)
            else str(e)
        )
        raise KitError(f"{path}: {reason}. Make one with `python -m export convert`.") from None
    except ValueError as e:
        raise KitError(f"{path / MANIFEST}: {e}, so this is no kit. Copy the kit again.") from None
    manifest = parse_manifest(raw.decode("utf-8", "replace"), str(path / MANIFEST))
    wrong = []
    for name, file in manifest.files.items():
        try:
            about = (path / name).stat()
        except OSError:
            wrong.append(f"{name} is missing")
            continue
        if not stat.S_ISREG(about.st_mode):
            wrong.append(f"{name} is no regular file")
        elif not (path / name).resolve().is_relative_to(path.resolve()):
            wrong.append(f"{name} is a link to a file outside the kit")
        elif about.st_size != file.bytes:
            wrong.append(f"{name} has {about.st_size} bytes instead of {file.bytes}")
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}
    wrong += [
        f"{name} does not belong to it"
        for name in sorted(present - manifest.files.keys() - {MANIFEST})
    ]
    if wrong:
        raise KitError(f"{path}: {'; '.join(wrong)}. Copy the kit again.")
    return Kit(path.resolve(), manifest, hashlib.sha256(raw).hexdigest())


def encoder_files(manifest: Manifest) -> list[str]:
    """The files that the encoder may read, in order of their names: its graph, and whatever else is not known.

    ONNX lets a graph keep its weights in files of any name, so all count that are not known to be something else.
    """
    others = (manifest.language.file, manifest.packing.newline_file, manifest.draft_table_file)
    return sorted(
        name for name in manifest.files if name not in others and not name.startswith(_DOCUMENTS)
    )


def base_of(manifest: Manifest) -> dict[str, str]:
    """sha256 of the unquantized `language` model and `vision` encoder that a kit comes from; its own where it is that."""
    if manifest.quantization is not None:
        return manifest.quantization.base
    # An encoder's weights may lie beside its graph: one hash over both.
    parts = [(name, manifest.files[name].sha256) for name in encoder_files(manifest)]
    encoder = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {"language": manifest.files[manifest.language.file].sha256, "vision": encoder}


# --- verifying -------------------------------------------------------------------------------------------------------


def verify(
    kit: Kit,
    *,
    remembered: bool = False,
    again: bool = False,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Check every file's sha256 against the manifest. Raises KitError naming each file that differs.

    With `remembered`, a file that passed before is not read whole again, but only where it was sampled, if

    - its path, file system, size, times and inode are those that it passed with,
    - it lies on the file system of this user's cache, or of this program: what another machine may have changed, such as a
      USB drive, is always read whole,
    - it was used in the last IDLE_DAYS and read whole in the last WHOLE_DAYS.

    With `again` every file is read whole, and that is remembered.
    """
    memory = _Verified() if remembered or again else None
    wrong = []
    for name, file in kit.manifest.files.items():
        path = kit.file(name)
        if memory is not None and not again and memory.knows(path, file.sha256):
            progress(file.bytes)
            continue
        stamp = _stamp(path)
        if file_sha256(path, progress) != file.sha256:
            wrong.append(name)
            if memory is not None:
                memory.drop(path)
        elif memory is not None:
            memory.add(path, stamp, file.sha256)
    if memory is not None:
        memory.save()
    if wrong:
        raise KitError(
            f"{kit.path}: altered since it was made: {', '.join(wrong)}. Do not use it; copy the kit again."
        )


IDLE_DAYS = 7
"""Days after which a kit that was not used is read whole again."""
WHOLE_DAYS = 30
"""Days after which any kit is."""
PLACES = 48
"""Of a file, drawn when it was read whole: who alters a twentieth of it is found out with 91 % at each start."""
SAMPLE_BYTES = 1 << 16
"""Bytes of a place: together 3 MiB of a file, which a laptop's disk reads in some tenths of a second at most."""
_DAY = 86400.0


def _stamp(path: Path) -> tuple[int, ...]:
    s = path.stat()
    system = os.statvfs(path).f_fsid if hasattr(os, "statvfs") else 0
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, system


def _own_systems() -> set[int]:
    """Devices of the file systems that hold this user's cache and this program: whoever changes those needs no kit."""
    folders = [paths.user_cache(), Path(sys.prefix)]
    while not folders[0].exists() and folders[0] != folders[0].parent:
        folders[0] = folders[0].parent
    return {folder.stat().st_dev for folder in folders if folder.exists()}


@dataclass
class _Passed:
    """A file as it was when it passed."""

    stamp: tuple[int, ...]
    sha256: str
    read: float
    """When it was read whole, seconds since 1970."""
    used: float
    places: dict[str, str]
    """Offset -> hash of SAMPLE_BYTES there. Which ones these are is in this file only, for its owner alone."""


class _Verified:
    """Which files passed, in the user's cache directory, readable by the owner alone."""

    def __init__(self) -> None:
        self._folder = paths.user_cache() / "verified"
        self._known: dict[str, _Passed] = {}
        self._changed = False
        try:
            if owned.check(self._folder, "verified-files"):
                raw = json.loads((self._folder / "verified.json").read_text("utf-8"))
                self._known = {path: _build(_Passed, passed, path) for path, passed in raw.items()}
        except (OSError, ValueError, AttributeError, FolderError, RecursionError):
            self._known = {}  # nothing remembered: the files are read again, which is always right

    def knows(self, path: Path, sha256: str) -> bool:
        passed, now = self._known.get(str(path)), time.time()
        if passed is None or passed.stamp != _stamp(path) or passed.sha256 != sha256:
            return False
        fresh = (
            0 <= now - passed.used < IDLE_DAYS * _DAY and 0 <= now - passed.read < WHOLE_DAYS * _DAY
        )
        if not fresh or passed.stamp[4] not in _own_systems() or not passed.places:
            return False
        if passed.places != _sampled(path, [int(at) for at in passed.places]):
            self.drop(path)
            return False
        if now - passed.used > _DAY / 24:  # not at every start
            passed.used, self._changed = now, True
        return True

    def add(self, path: Path, stamp: tuple[int, ...], sha256: str) -> None:
        now = time.time()
        self._known[str(path)] = _Passed(stamp, sha256, now, now, _sampled(path, _drawn(stamp[0])))
        self._changed = True

    def drop(self, path: Path) -> None:
        self._changed |= self._known.pop(str(path), None) is not None

    def save(self) -> None:
        if not self._changed:
            return
        now = time.time()
        recent = {
            path: passed
            for path, passed in self._known.items()
            if now - passed.read < WHOLE_DAYS * _DAY
        }
        try:
            owned.claim(self._folder, "verified-files")
            text = json.dumps({path: dataclasses.asdict(passed) for path, passed in recent.items()})
            files.write_text(self._folder / "verified.json", text)
        except (OSError, FolderError):
            pass  # a read-only home only costs the next start its time


def _drawn(size: int) -> list[int]:
    """Offsets of places in a file of `size` bytes: the first, the last, and others that cannot be foreseen."""
    last = max(0, size - SAMPLE_BYTES)
    return sorted({0, last, *(secrets.randbelow(last + 1) for _ in range(PLACES - 2))})


def _sampled(path: Path, offsets: list[int]) -> dict[str, str]:
    """Hashes of a file's places."""
    with open(path, "rb", buffering=0) as f:
        digests = {}
        for at in offsets:
            f.seek(at)
            digests[str(at)] = hashlib.sha256(f.read(SAMPLE_BYTES)).hexdigest()
    return digests


# --- finding ---------------------------------------------------------------------------------------------------------


def installed_dir() -> Path:
    """Where kits are installed, one directory a kit: with the program that a bundle installed, or for this user."""
    if (version := installation.version_folder()) is not None:
        return version / "kits"
    return paths.user_data() / "kits"


def warning(kit: Kit) -> str | None:
    """Return what every answer must say about the bundle that the kit, or the program, came from."""
    version = installation.version_folder()
    if version is None:
        return None
    try:
        record = installation.read_record(version)
    except (OSError, ValueError) as e:
        raise KitError(
            f"{version / installation.INSTALL_RECORD}: cannot be read ({e}). "
            "Run the bundle's installer again."
        ) from None
    if record is None:
        return None
    inside = kit.path.parent == installed_dir().resolve()
    return record.kits.get(kit.path.name, record.warning) if inside else record.warning


def find(named: Path | None) -> Kit:
    """The kit to use: `named` (a directory, or an installed kit's name), else $PULSE_EDGE_KIT (likewise), else the one that
    `choose` made the default, else the only one installed, else the one that the package carries.

    Raises KitError when there is none, or when several are installed and none was named or chosen.
    """
    if named is None and (variable := os.environ.get(KIT_VARIABLE)):
        named = Path(variable)
    if named is not None:
        return open_kit(_by_name(named, installed()) or named)
    if (name := default_name()) is not None:
        if name not in (kits := _kits_in(installed_dir())):
            raise KitError(
                f"{installed_dir()}: {name} was chosen as the default, and is not installed any more. Choose another with "
                f"`pulse-edge kit use NAME`{_listed(kits)}."
            )
        return open_kit(kits[name])
    for folder in (installed_dir(), _carried_dir()):
        kits = _kits_in(folder)
        if len(kits) > 1:
            raise KitError(
                f"{folder}: several kits ({', '.join(kits)}). Name one with --kit or {KIT_VARIABLE}, or choose one for good "
                "with `pulse-edge kit use NAME`."
            )
        if kits:
            return open_kit(next(iter(kits.values())))
    raise KitError(
        f"no kit: none named, none in {installed_dir()}, none carried by the package. Name one with --kit or "
        f"{KIT_VARIABLE}; `python -m export convert` makes one from a checkpoint."
    )


def _carried_dir() -> Path:
    return paths.ASSETS / "kits"


def _kits_in(folder: Path) -> dict[str, Path]:
    return (
        {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{MANIFEST}"))}
        if folder.is_dir()
        else {}
    )


def installed() -> dict[str, Path]:
    """Name and directory of every kit that can be named without its path: the installed ones, then what the package carries."""
    kits = _kits_in(installed_dir())
    return kits | {
        name: path for name, path in _kits_in(_carried_dir()).items() if name not in kits
    }


def _listed(names: Iterable[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def folder_name(kit_id: str) -> str:
    """A kit's id as a folder that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", kit_id).strip("-.")[:60] or "kit"


def _by_name(named: Path, kits: Mapping[str, Path]) -> Path | None:
    """The kit of this name or id, or the only one whose name begins so; None where `named` is a path.

    A directory of that name in the current folder comes first. Raises KitError where no kit, or several, begin so.
    """
    if len(named.parts) != 1 or named.exists():
        return None
    word = folder_name(named.name)
    if word in kits:
        return kits[word]
    alike = [name for name in kits if name.casefold().startswith(word.casefold())]
    if len(alike) > 1:
        raise KitError(
            f"{named}: several kits begin so ({', '.join(alike)}). Write more of the name."
        )
    if not alike:
        raise KitError(
            f"{named}: no such kit directory, and no kit of this name is installed{_listed(kits)}."
        )
    return kits[alike[0]]


def default_name() -> str | None:
    """Name of the installed kit that answers when none is named; None where none was chosen. Raises KitError."""
    folder = installed_dir().parent
    try:
        default = installation.read_default(folder)
    except (OSError, ValueError) as e:
        raise KitError(
            f"{folder / installation.DEFAULT_KIT}: cannot be read ({e}). Choose a kit again with `pulse-edge kit use NAME`."
        ) from None
    return None if default is None else default.kit


def choose(named: str) -> Kit:
    """Make an installed kit the one that answers when none is named, for everybody who uses this installation; the kit.

    `named` is its name or the beginning of it. Raises KitError.
    """
    kits = _kits_in(installed_dir())
    if named in _kits_in(_carried_dir()) and named not in kits:
        raise KitError(
            f"{named}: comes with the program, so it cannot be chosen: it answers while no kit is installed. Name it with "
            f"--kit, or set {KIT_VARIABLE}={named}. Installed in {installed_dir()}{_listed(kits) or ': none'}."
        )
    path = kits.get(named) or _by_name(Path(named), kits)
    if path is None:
        raise KitError(
            f"{named}: is not an installed kit. Installed in {installed_dir()}{_listed(kits) or ': none'}."
        )
    kit = open_kit(path)
    try:
        installation.write_default(
            installed_dir().parent, installation.DefaultKit(path.name, chosen=True)
        )
    except OSError as e:
        raise KitError(
            f"{installed_dir().parent}: the choice cannot be written ({e.strerror}). Ask whoever installed pulse-edge; for "
            f"yourself alone, set {KIT_VARIABLE}={path.name}."
        ) from None
    return kit


# --- writing ---------------------------------------------------------------------------------------------------------


_UNFINISHED = ".pulse-edge-unfinished"
"""Marks a folder of ours beside a target, in which a kit is being made."""
_UNFINISHED_TEXT = "pulse-edge unfinished kit 1\n"
_LARGEST_MANIFEST = 64 << 20


@contextlib.contextmanager
def writing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A directory beside `target` to build a kit in; renamed to `target` at the end, removed if anything is raised.

    Raises KitError if `target` exists, unless `force`, which replaces it after the new kit is complete, and replaces
    kits and empty directories only: a mistyped target does not cost somebody's files. What a killed process left beside
    it goes too, if it carries our mark.
    """
    refuse_target(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    outer = target.parent / f".{target.name}.unfinished-{secrets.token_hex(4)}"
    work = outer / "kit"
    try:  # from here on: a signal may come as soon as the folder is there
        outer.mkdir(mode=0o755)
        with _held(outer):
            (outer / _UNFINISHED).write_text(_UNFINISHED_TEXT, "utf-8")
            work.mkdir(mode=0o755)
            yield work
            if not (work / MANIFEST).is_file():
                raise KitError(f"{target}: no manifest was written, so there is no kit.")
            for path in work.rglob(
                "*"
            ):  # onnx writes weights for their owner alone, and a kit is for everybody
                path.chmod(0o755 if path.is_dir() else 0o644)
            refuse_target(
                target, force=force
            )  # hours may have passed: somebody may have put files there
            _replace(work, target)
    finally:
        _remove(outer)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """The folder locked as long as this process lives; False where another one holds it, or nobody can (Windows)."""
    if sys.platform == "win32":
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield files.try_lock(handle)
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what a killed process left beside `target`; folders of that name without our mark stay."""
    for old in target.parent.glob(f".{glob.escape(target.name)}.unfinished-*"):
        mark = old / _UNFINISHED
        with contextlib.suppress(OSError), _held(old) as dead:
            if dead and mark.is_file() and mark.read_text("utf-8", "replace") == _UNFINISHED_TEXT:
                _remove(old)


def refuse_target(target: Path, *, force: bool) -> None:
    """Raise KitError when a kit cannot be written at `target`.

    `force` allows a kit, known by its content and holding nothing else, and an empty folder.
    """
    if not os.path.lexists(target):
        return
    if not force:
        raise KitError(f"{target}: exists. Choose another target, or replace it with --force.")
    if reason := _why_no_kit(target):
        raise KitError(
            f"{target}: {reason}, so --force does not replace it. Choose another target."
        )


def _why_no_kit(folder: Path) -> str | None:
    """Why a folder is no kit of ours that may be replaced; None for a kit, also a damaged one, and an empty folder."""
    if folder.is_symlink() or not folder.is_dir():
        return "exists and is no folder"
    try:
        present = _present(folder)
        if not present:
            return None
        if (
            not (folder / MANIFEST).is_file()
            or (folder / MANIFEST).stat().st_size > _LARGEST_MANIFEST
        ):
            return "exists and is no kit (it has no manifest.json of ours)"
        listed = _manifest_files(json.loads((folder / MANIFEST).read_text("utf-8")))
    except OSError as e:
        return f"cannot be looked at ({e.strerror})"
    except (ValueError, RecursionError) as e:
        return f"exists and is no kit (manifest.json: {str(e)[:100]})"
    if foreign := sorted(present - listed - {MANIFEST}):
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        return f"holds what is not the kit's ({', '.join(foreign[:3])}{more})"
    return None


def _present(folder: Path) -> set[str]:
    """Everything below `folder` but its folders, relative to it; a link to a folder counts as a file. Raises OSError."""

    def refuse(error: OSError) -> None:
        raise error

    present = set()
    for place, folders, names in os.walk(folder, onerror=refuse):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        present |= {
            (Path(place) / name).relative_to(folder).as_posix() for name in [*names, *links]
        }
    return present


def _manifest_files(manifest: Any) -> set[str]:
    """The files that a kit's manifest lists. Looser than `parse_manifest`: an older or damaged kit may be replaced.

    Raises ValueError for JSON that is no manifest of ours, such as a browser extension's.
    """
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if type(version) is not int or not 1 <= version <= MANIFEST_VERSION:
        raise ValueError(f"manifest_version is {version!r}, which no kit has")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(file, dict)
        and type(file.get("bytes")) is int
        and isinstance(file.get("sha256"), str)
        for file in files.values()
    ):
        raise ValueError("files are not listed with bytes and sha256")
    for part in ("language", "vision"):
        engine = manifest.get(part)
        if not isinstance(engine, dict) or engine.get("file") not in files:
            raise ValueError(f"{part} names no file that is listed")
    return set(files)


def _replace(work: Path, target: Path) -> None:
    """Rename `work` to `target`; an old kit is moved aside first and put back should the rename fail."""
    if not target.exists():
        os.rename(work, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.replaced-", dir=target.parent))
    try:
        os.rename(target, old / "kit")
        os.rename(work, target)
    finally:
        if not target.exists():
            os.rename(old / "kit", target)
        _remove(old)


def _remove(folder: Path) -> None:
    """Remove a directory, also when a second signal comes meanwhile: `timeout` sends two."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def listing(path: Path) -> dict[str, File]:
    """Every file below `path` but the manifest, with size and sha256, for a manifest about to be written."""
    return {
        p.relative_to(path).as_posix(): File(p.stat().st_size, file_sha256(p))
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest` into the kit directory `path`: the last file of every kit. Raises KitError if invalid."""
    text = (
        json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False, allow_nan=False)
        + "\n"
    )
    if parse_manifest(text) != manifest:
        raise KitError(f"{path / MANIFEST}: would not read back as it was written.")
    with open(path / MANIFEST, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
