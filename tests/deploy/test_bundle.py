"""A bundle: what pack writes, and that nothing broken, foreign or unsigned gets in unseen."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_bundle
from checkout import ROOT

from pulse_edge.cli.main import cli
from pulse_edge.common import paths
from pulse_edge.deploy import bundle, documents, signing, wheelhouse
from pulse_edge.errors import KitError
from pulse_edge.installer import install
from pulse_edge.kit import locate
from pulse_edge.kit.kit import KIT_VARIABLE, open_kit
from pulse_edge.kit.manifest import MANIFEST

pytest.importorskip("cryptography", reason="signing needs the package cryptography")
KEY = signing.SecretKey(b"ourclin1", bytes(range(32)))
OTHER = signing.SecretKey(b"stranger", bytes(range(1, 33)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kits and a program."""
    folder = tmp_path_factory.mktemp("parts")
    small_bundle.kit(folder / "a", "kit a", seed=1)
    small_bundle.kit(folder / "b", "kit b", seed=2)
    small_bundle.program(folder)
    return folder


@pytest.fixture(scope="module")
def whole(parts: Path) -> Path:
    wheel = next(parts.glob("*.whl"))
    return small_bundle.make(
        parts / "bundle", parts / "a", parts / "b", wheel=wheel, key=KEY, piece_bytes=3000
    )


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def faults(folder: Path) -> str:
    """What the installer says before it does anything; nothing may have been written."""
    home = folder.parent / "home"
    wishes = install.Wishes(home, accept=(KEY.public().id,))
    with pytest.raises(install.Refused) as e:
        install.install(install.open_bundle(folder), wishes, lambda *_: None, lambda _text: None)
    assert not home.exists()
    return str(e.value)


# --- what pack writes -------------------------------------------------------------------------------------------------


def test_a_bundle_verifies(whole: Path) -> None:
    assert "signed by key" in bundle.verify(whole, None, lambda *_: None)


def test_the_same_inputs_give_the_same_bytes(parts: Path, whole: Path, tmp_path: Path) -> None:
    wheel = next(parts.glob("*.whl"))
    again = small_bundle.make(
        tmp_path / "again", parts / "a", parts / "b", wheel=wheel, key=KEY, piece_bytes=3000
    )
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert [n for n in names if (whole / n).read_bytes() != (again / n).read_bytes()] == []


def test_a_large_file_is_carried_in_pieces(whole: Path, parts: Path) -> None:
    pieces = [whole / "kits/kit-a" / f"llm.gguf.{n}" for n in ("001", "002")]
    assert b"".join(p.read_bytes() for p in pieces) == (parts / "a/llm.gguf").read_bytes()
    assert [p.stat().st_size for p in pieces] == [3000, 2000]


def test_every_bundle_document_is_there(whole: Path) -> None:
    for name in (
        "README.html",
        "MODEL_CARD.md",
        "install.py",
        "install.sh",
        "install.ps1",
        "sbom.cdx.json",
    ):
        assert (whole / name).stat().st_size
    assert (whole / "licences/pulse-edge-1.0/LICENSE").read_text() == "MIT\n"
    bill = json.loads((whole / "sbom.cdx.json").read_text())
    assert {c["name"] for c in bill["components"]} == {"pip", "pulse-edge", "kit a", "kit b"}


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "a\\b",
        "C:x",
        "aux",
        "kits/nul.txt",
        "a/",
        "a.",
        "a b ",
        "",
        "x?",
        "a/../b",
        "n" * 200,
    ],
)
def test_names_that_a_bundle_cannot_hold_are_known(name: str) -> None:
    assert not install.name_fits(name)


def test_an_altered_kit_is_not_packed(parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(parts / "a", tmp_path / "kit"))
    flip(kit / "llm.gguf")
    with pytest.raises(KitError, match=r"kit/llm\.gguf"):
        small_bundle.make(tmp_path / "bundle", kit, wheel=next(parts.glob("*.whl")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constraints.txt", "kit"]


def test_a_bundle_inside_its_kit_is_refused(parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(parts / "a", tmp_path / "kit"))
    order = bundle.Order(
        kits=(kit,), out=kit / "bundle", targets=(), wheels=(), constraints=tmp_path / "none"
    )
    with pytest.raises(KitError, match="lies in the kit"):
        bundle.pack(order)
    assert open_kit(kit)


def test_everything_missing_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wheelhouse, "_fetched", lambda *_: None)
    more = "Requires-Dist: numpy\nRequires-Dist: colorama; sys_platform == 'win32'\nRequires-Dist: llama-cpp-python\n"
    needing = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, small_bundle.EXTRAS + more)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==1.0 ; python_version < '3.12'\nllama-cpp-python==9.9\n")
    targets = bundle.targets(["windows-x86_64"], ["3.11", "3.12"], "cpu")
    with pytest.raises(KitError) as e:
        wheelhouse.gather(targets, [needing, small_bundle.pip_wheel()], constraints)
    for line in (
        "numpy==1.0 for windows-x86_64 with Python 3.11",
        "numpy for windows-x86_64 with Python 3.12 (no version of it in constraints.txt)",
        "colorama for windows-x86_64 with Python 3.11 (no version",
        "llama-cpp-python==9.9 for windows-x86_64 with Python 3.12",
        "--wheel",
    ):
        assert line in str(e.value)


KERNELS = {f"llama_cpp/lib/libggml-cpu-{name}.so": b"" for name in ("x64", "haswell")}
NEEDED = """Requires-Dist: llama-cpp-python
Requires-Dist: onnxruntime; extra == "cpu"
Requires-Dist: pypdfium2; extra == "pdf"
Requires-Dist: pillow-heif; extra == "heic"
Requires-Dist: pydicom; extra == "dicom"
Requires-Dist: typst; extra == "report"
Requires-Dist: cryptography; extra == "pack"
"""


@pytest.fixture
def supply(tmp_path: Path) -> list[Path]:
    """Stand-ins for pulse-edge with its real parts, and for everything that it needs."""
    own = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, small_bundle.EXTRAS + NEEDED)
    llama = small_bundle.wheel(tmp_path, "llama-cpp-python", "1.0", KERNELS)
    names = ("onnxruntime", "pypdfium2", "pillow-heif", "pydicom", "typst")
    (tmp_path / "constraints.txt").write_text("")
    return [
        own,
        small_bundle.pip_wheel(),
        llama,
        *(small_bundle.wheel(tmp_path, n, "1.0", {}) for n in names),
    ]


def test_packing_says_what_takes_time(
    supply: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    absent = supply.pop()
    constraints, name = absent.parent / "constraints.txt", absent.name.split("-")[0]
    constraints.write_text(f"{name}==1.0\n")
    monkeypatch.setattr(wheelhouse, "_fetched", lambda *_: wheelhouse.read_wheel(absent))
    kit, said, seen = (
        small_bundle.kit(tmp_path / "kit", "kit a"),
        list[str](),
        list[tuple[str, int, int]](),
    )
    order = bundle.Order(
        (kit,), tmp_path / "bundle", (small_bundle.here(),), constraints, tuple(supply)
    )
    bundle.pack(order, lambda *step: seen.append(step), said.append)
    assert said == [
        f"fetching {name}==1.0 for {small_bundle.here()}",
        "copying and hashing the kits",
        "copying the program, and writing the documents",
    ]
    stage, done, of = seen[-1]
    assert stage == "pack"
    assert (
        done
        == of
        == sum(file.bytes for file in open_kit(kit).manifest.files.values()) + _manifest_bytes(kit)
    )


def _manifest_bytes(kit: Path) -> int:
    return (kit / MANIFEST).stat().st_size


def packed_parts(supply: list[Path], out: Path, *without: str) -> tuple[set[str], str]:
    """Names of the wheels that a bundle holds, and its README."""
    kit = small_bundle.kit(out.parent / f"{out.name}-kit", "kit a")
    needless = {"pdf": "pypdfium2", "heic": "pillow_heif", "dicom": "pydicom", "report": "typst"}
    given = tuple(
        p for p in supply if not any(p.name.startswith(needless[part]) for part in without)
    )
    constraints = supply[0].parent / "constraints.txt"
    bundle.pack(
        bundle.Order((kit,), out, (small_bundle.here(),), constraints, given, without=without)
    )
    return {p.name.split("-")[0] for p in (out / "wheels").iterdir()}, (
        out / "README.html"
    ).read_text()


def test_readers_and_the_writer_of_reports_are_packed(supply: list[Path], tmp_path: Path) -> None:
    names, page = packed_parts(supply, tmp_path / "bundle")
    assert {"pypdfium2", "pillow_heif", "pydicom", "typst"} <= names
    assert "<li>reads PDF files</li>" in page


@pytest.mark.parametrize("part", wheelhouse.EXTRAS)
def test_a_part_is_left_out_only_where_that_is_asked_for(
    supply: list[Path], tmp_path: Path, part: str
) -> None:
    whole, _ = packed_parts(supply, tmp_path / "whole")
    names, page = packed_parts(supply, tmp_path / "bundle", part)
    assert len(whole - names) == 1
    assert names < whole
    assert f"<b>not packed</b>: {wheelhouse.EXTRAS[part]}" in page
    assert part not in json.loads((tmp_path / "bundle/bundle.json").read_text())["extras"]


def test_the_parts_are_those_that_the_program_offers() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for part in wheelhouse.EXTRAS:
        assert f"\n{part} = [" in text


def test_a_program_that_lacks_a_part_is_not_packed_in_silence(tmp_path: Path) -> None:
    own = small_bundle.wheel(
        tmp_path, "pulse-edge", "1.0", {}, "Provides-Extra: cpu\nProvides-Extra: pdf\n"
    )
    (tmp_path / "constraints.txt").write_text("")
    with pytest.raises(KitError, match="has no part dicom, heic, report"):
        wheelhouse.gather(
            [small_bundle.here()], [own, small_bundle.pip_wheel()], tmp_path / "constraints.txt"
        )


NATIVE = {"llama_cpp/lib/libggml-cpu.so": b"", "llama_cpp/lib/libllama.so": b""}
NEWER = {"llama_cpp/lib/libggml-cpu-haswell.so": b""}


@pytest.mark.parametrize("files", [NATIVE, NEWER, {}], ids=["native", "without the oldest", "none"])
def test_a_llama_cpp_of_one_processor_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = small_bundle.wheel(
        tmp_path, "llama-cpp-python", "1.0", files, tag="py3-none-manylinux_2_28_x86_64"
    )
    with pytest.raises(
        KitError,
        match=r"llama_cpp_python-1\.0.*was built for the processor of one machine.*GGML_NATIVE=OFF",
    ):
        wheelhouse.read_wheel(path)


@pytest.mark.parametrize(
    "file",
    ["libggml-cpu-x64.so", "ggml-cpu-x64.dll", "libggml-cpu-armv8.0_1.so"],
    ids=["Linux", "Windows", "ARM"],
)
def test_a_llama_cpp_of_every_processor_is_taken(tmp_path: Path, file: str) -> None:
    path = small_bundle.wheel(tmp_path, "llama-cpp-python", "1.0", {f"llama_cpp/lib/{file}": b""})
    assert wheelhouse.read_wheel(path).name == "llama-cpp-python"


def test_a_wheel_that_was_built_for_its_builder_is_refused(tmp_path: Path) -> None:
    path = small_bundle.wheel(tmp_path, "numpy", "1.0", {}, tag="cp311-cp311-linux_x86_64")
    with pytest.raises(KitError, match="was built for the machine that built it"):
        wheelhouse.read_wheel(path)


def test_what_packing_starts_is_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip and auditwheel do not see the current folder, PYTHON and PIP variables, or the user's settings for pip."""
    for name in (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_CONFIG_FILE",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.setenv(name, str(tmp_path))
    seen: list[tuple[list[str], dict[str, str]]] = []

    def failing(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        seen.append((command, how["env"]))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(wheelhouse.subprocess, "run", failing)
    assert wheelhouse._fetched("numpy==1.0", small_bundle.here(), tmp_path) is None
    for start in (
        lambda: wheelhouse._pip_wheel(tmp_path, tmp_path, {}),
        lambda: wheelhouse.portable("1.0", tmp_path),
        lambda: wheelhouse.repair(tmp_path / "x.whl", tmp_path),
    ):
        with pytest.raises(KitError):
            start()
    assert len(seen) == 4
    for command, variables in seen:
        assert command[:2] == [sys.executable, "-I"]
        assert "pip" not in command or "--isolated" in command
        assert not [n for n in variables if n.startswith(("PYTHON", "PIP_", "XDG_CONFIG"))]


def test_a_slimmed_wheel_lists_what_it_holds(tmp_path: Path) -> None:
    held = ["llama_cpp/llama.py", "llama_cpp/lib/libllama.so", "llama_cpp-1.dist-info/METADATA"]
    needless = [
        "llama_cpp/include/llama.h",
        "include/ggml.h",
        "llama_cpp/lib/libmtmd.so",
        "bin/llama-server",
    ]
    record = "llama_cpp-1.dist-info/RECORD"
    with zipfile.ZipFile(tmp_path / "llama_cpp-1-py3-none-any.whl", "w") as wheel:
        for name in held + needless:
            wheel.writestr(name, name)
        wheel.writestr(
            record,
            "".join(f"{name},sha256=x,{len(name)}\n" for name in held + needless) + f"{record},,\n",
        )
    slim = wheelhouse.slimmed(tmp_path / "llama_cpp-1-py3-none-any.whl", tmp_path / "slim")
    with zipfile.ZipFile(slim) as wheel:
        listed = [row.split(",")[0] for row in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist()) == sorted([*held, record])


def test_a_delta_carries_only_what_has_changed(parts: Path, whole: Path, tmp_path: Path) -> None:
    wheel = next(parts.glob("*.whl"))
    new = small_bundle.kit(tmp_path / "c", "kit c", seed=3)
    delta = small_bundle.make(
        tmp_path / "delta", parts / "a", new, wheel=wheel, key=KEY, since=whole / "bundle.json"
    )
    assert sorted(p.parent.name for p in delta.rglob("*") if p.suffix in (".gguf", ".whl")) == [
        "kit-c"
    ]


# --- nothing broken gets in -------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


KINDS = (
    "kits/kit-a/llm.gguf.002",
    "kits/kit-b/manifest.json",
    "wheels/pulse_edge-1.0-py3-none-any.whl",
    "install.py",
    "install.sh",
    "README.html",
    "MODEL_CARD.md",
    "sbom.cdx.json",
    "licences/pulse-edge-1.0/LICENSE",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_byte_is_found_and_named(copy: Path, name: str) -> None:
    flip(copy / name)
    assert f"{name}: altered" in faults(copy)


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_file_is_found_and_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert f"{name}: missing" in faults(copy)


@pytest.mark.parametrize(
    "name", ["x", "wheels/numpy-9-py3-none-any.whl", "kits/kit-a/more.bin", "json.py"]
)
def test_a_file_more_is_found_and_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"x")
    assert f"{name}: does not belong" in faults(copy)


def test_what_systems_leave_on_bundles_is_ignored(copy: Path) -> None:
    (copy / "System Volume Information").mkdir()
    (copy / "System Volume Information/WPSettings.dat").write_bytes(b"x")
    (copy / "._README.html").write_bytes(b"x")
    assert bundle.verify(copy, None, lambda *_: None)


def test_a_link_is_found_and_named(copy: Path) -> None:
    path = copy / "README.html"
    path.rename(copy.parent / "elsewhere")
    path.symlink_to(copy.parent / "elsewhere")
    assert "README.html: not a plain file" in faults(copy)


def test_files_renamed_across_kits_are_found_and_named(copy: Path) -> None:
    a, b, free = copy / "kits/kit-a/llm.gguf.001", copy / "kits/kit-b/llm.gguf.001", copy / "free"
    a.rename(free)
    b.rename(a)
    free.rename(b)
    said = faults(copy)
    assert "kits/kit-a/llm.gguf.001: altered" in said
    assert "kits/kit-b/llm.gguf.001: altered" in said


def test_a_changed_manifest_does_not_agree_with_its_signature(copy: Path) -> None:
    text = (copy / "bundle.json").read_text()
    (copy / "bundle.json").write_text(text.replace("kit a", "kit z"))
    assert "bundle.json: does not agree with its signature" in faults(copy)


def test_another_signature_is_found(copy: Path) -> None:
    (copy / "bundle.json.minisig").write_text(OTHER.sign((copy / "bundle.json").read_bytes(), "c"))
    assert "bundle.pub: not the key of the signature" in faults(copy)


def test_a_copy_cut_short_anywhere_is_found_and_named(whole: Path, tmp_path: Path) -> None:
    """`cp -r` ended after that many bytes: the last file is short, and the rest is not there."""
    names = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    total = sum((whole / n).stat().st_size for n in names)
    for left in random.Random(7).sample(range(total), 20):
        cut = tmp_path / f"{left}" / "bundle"
        cut.mkdir(parents=True)
        short = None
        for name in names:
            data = (whole / name).read_bytes()[: max(left, 0)]
            if left <= 0:
                break
            (cut / name).parent.mkdir(parents=True, exist_ok=True)
            (cut / name).write_bytes(data)
            short = name if left < (whole / name).stat().st_size else None
            left -= (whole / name).stat().st_size
        try:
            said = faults(cut)
        except install.Refused as e:
            said = str(e)
        assert str(short) in said or "missing" in said


def test_a_manifest_that_points_outside_is_refused(copy: Path) -> None:
    raw = json.loads((copy / "bundle.json").read_text())
    raw["files"]["../evil"] = {"bytes": 1, "sha256": "0" * 64}
    (copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(install.Refused, match=r"'\.\./evil' is not allowed"):
        install.open_bundle(copy)


def changed(raw: dict[str, Any], where: str, value: object) -> None:
    """Set one field of a manifest; `where` is its path with slashes, `kits:` and `wheels:` rename the first of these."""
    *parts, last = where.split("/")
    for part in parts:
        raw = (
            raw[int(part)] if isinstance(raw, list) else raw["llm.gguf" if part == "llm" else part]
        )
    if last.endswith(":"):
        of = raw[last[:-1]]
        first = next(iter(of))
        of[value] = of.pop(first)
    elif value is None:
        raw.pop(last)
    else:
        raw[last] = value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("pulse_edge", "../../../outside/1.0"),
        ("pulse_edge", "1.0/x"),
        ("pulse_edge", "1.0\n"),
        ("pulse_edge", 1),
        ("created", "yesterday"),
        ("created", 5),
        ("default_kit", "kit-z"),
        ("default_kit", "../kit-a"),
        ("kits:", "a/b"),
        ("kits:", ".."),
        ("kits/kit-a/memory", "x"),
        ("kits/kit-a/memory", -1),
        ("kits/kit-a/files", []),
        ("kits/kit-a/files:", "../../x"),
        ("kits/kit-a/files/llm/bytes", -5),
        ("kits/kit-a/files/llm/bytes", 4999),
        ("kits/kit-a/files/llm/bytes", 1e300),
        ("kits/kit-a/files/llm/bytes", True),
        ("kits/kit-a/files/llm/sha256", "x"),
        ("kits/kit-a/files/llm/pieces", ["kits/kit-a/nothing"]),
        ("kits/kit-a/files/llm/pieces", ["../../etc/passwd"]),
        ("kits/kit-a/files/llm/pieces", [["x"]]),
        ("kits/kit-a/files/llm/pieces", None),
        ("targets", {}),
        ("targets/0/glibc", None),
        ("targets/0/glibc", ["2", "5"]),
        ("targets/0/unpacked", "x"),
        ("targets/0/wheels:", "../x.whl"),
        ("targets/0/wheels:", "x.tar.gz"),
        ("targets/0/wheels", {}),
        ("files:", "../evil"),
        ("files:", "/evil"),
        ("files:", "readme.HTML"),
    ],
)
def test_a_manifest_that_lies_is_refused_in_a_line(copy: Path, where: str, value: object) -> None:
    raw = json.loads((copy / "bundle.json").read_text())
    changed(raw, where, value)
    (copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(install.Refused, match=r"bundle\.json: not a bundle's manifest") as refusal:
        install.open_bundle(copy)
    assert "Error" not in str(refusal.value)
    assert "object is not" not in str(refusal.value)


def test_what_a_manifest_lacks_is_named(copy: Path) -> None:
    raw = json.loads((copy / "bundle.json").read_text())
    del raw["targets"][0]["glibc"]
    (copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(install.Refused, match=r"not a bundle's manifest \('glibc' is missing\)"):
        install.open_bundle(copy)


def test_versions_are_ordered_as_packaging_orders_them() -> None:
    from packaging.version import Version

    chance = random.Random(3)
    texts = [
        "0.1.0",
        "0.1",
        "0.10",
        "1.0",
        "1.0.dev1",
        "1.0a1.dev2",
        "1.0a1",
        "1.0rc1",
        "1.0.post1",
        "1.0.post1.dev3",
    ]
    texts += [
        f"{chance.randrange(3)}.{chance.randrange(12)}.{chance.randrange(3)}" for _ in range(20)
    ]
    for a in texts:
        for b in texts:
            assert (install.version_order(a) < install.version_order(b)) == (
                Version(a) < Version(b)
            ), (a, b)


@pytest.mark.parametrize(
    "text", ["", "x", "../1.0", "1.0 ", "1.0\n", "1/2", "\u0661.0", "1" * 50, "1.0-1", "."]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        install.version_order(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"bundle_version": 1}', '{"bundle_version": 2}', "[" * 100000]
)
def test_a_manifest_that_is_none_is_refused_in_a_line(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_text(text)
    with pytest.raises(install.Refused, match=r"bundle\.json: "):
        install.open_bundle(copy)


def bad_wheel(path: Path, change: Callable[[zipfile.ZipFile], None]) -> list[str]:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/__init__.py", b"")
        change(archive)
    return install.archive_faults(path)


def linked(archive: zipfile.ZipFile, kind: int) -> None:
    entry = zipfile.ZipInfo("x/link")
    entry.external_attr = (kind | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "name", ["../../evil.py", "/evil.py", "x/../../evil.py", "C:/evil.py", "..\\evil.py"]
)
def test_an_archive_with_a_path_outside_is_refused(tmp_path: Path, name: str) -> None:
    assert (
        "would leave its folder"
        in bad_wheel(tmp_path / "w.whl", lambda a: a.writestr(name, b""))[0]
    )


@pytest.mark.parametrize(
    "kind", [0o120000, 0o020000, 0o060000, 0o010000], ids=["link", "character", "block", "pipe"]
)
def test_an_archive_with_a_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    assert "link or a device" in bad_wheel(tmp_path / "w.whl", lambda a: linked(a, kind))[0]


def test_an_archive_that_would_fill_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_UNPACKED_BYTES", 1 << 20)
    said = bad_wheel(tmp_path / "w.whl", lambda a: a.writestr("zeros", bytes(2 << 20)))
    assert "would unpack to more than" in said[0]


# --- whom to trust ----------------------------------------------------------------------------------------------------


def judged(folder: Path, *pinned: signing.SecretKey, **how: object) -> install.Trust:
    wishes: dict[str, object] = {"accept": []} | how
    return install.judged(install.open_bundle(folder), [k.public() for k in pinned], **wishes)  # type: ignore[arg-type]


def test_the_first_key_is_pinned(whole: Path) -> None:
    assert dataclasses.astuple(judged(whole))[1:] == (True, True)


def test_a_pinned_key_is_trusted_without_a_word(whole: Path) -> None:
    assert judged(whole, OTHER, KEY).warning is None


def test_a_foreign_key_needs_its_id_as_a_word(whole: Path) -> None:
    with pytest.raises(install.Refused, match=f"--accept {KEY.public().id}"):
        judged(whole, OTHER)
    assert KEY.public().id in str(judged(whole, OTHER, accept=[KEY.public().id]).warning)


def test_an_unsigned_bundle_needs_a_word(copy: Path) -> None:
    (copy / "bundle.json.minisig").unlink()
    with pytest.raises(install.Refused, match="--accept unsigned"):
        judged(copy, KEY)
    assert "UNSIGNED" in str(judged(copy, KEY, accept=["unsigned"]).warning)


def test_a_named_key_is_the_only_one_that_counts(whole: Path) -> None:
    assert judged(whole, key=KEY.public()).pinned
    with pytest.raises(install.Refused, match="trusted here"):
        judged(whole, KEY, key=OTHER.public())


def test_a_stranger_with_a_known_number_is_not_taken_for_its_owner(copy: Path) -> None:
    liar = signing.SecretKey(KEY.number, OTHER.seed)
    (copy / "bundle.json.minisig").write_text(liar.sign((copy / "bundle.json").read_bytes(), "c"))
    (copy / "bundle.pub").write_text(liar.public().text())
    with pytest.raises(install.Refused, match="does not agree with its signature"):
        judged(copy, KEY)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Path) -> Path:
    """A version's folder that this very process seems to run from, of an unsigned bundle with an older kit that was signed."""
    version = tmp_path / "versions/1.0"
    (version / "venv").mkdir(parents=True)
    (version / "bundle.json").write_text("{}")
    shutil.copytree(parts / "a", version / "kits/kit-a")
    shutil.copytree(parts / "b", version / "kits/kit-b")
    about = {"warning": None, "kits": {"kit-a": "UNSIGNED BUNDLE", "kit-b": None}}
    (version / "install.json").write_text(json.dumps(about))
    monkeypatch.setattr(sys, "prefix", str(version / "venv"))
    monkeypatch.delenv(KIT_VARIABLE, raising=False)
    return version


@pytest.mark.parametrize(("name", "warning"), [("kit-a", "UNSIGNED BUNDLE"), ("kit-b", None)])
def test_answers_say_what_is_wrong_with_the_bundle_of_their_kit(
    installed: Path, name: str, warning: str | None
) -> None:
    assert locate.bundle_warning(open_kit(installed / "kits" / name)) == warning


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_warning_reaches_who_reads_the_answer(
    tiny_kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.setattr(locate, "bundle_warning", lambda _kit: "UNSIGNED BUNDLE")
    words = [
        "interpret",
        str(paths.EXAMPLE_PAGE),
        "--kit",
        str(tiny_kit),
        "--max-tokens",
        "1",
    ]
    with pytest.raises(SystemExit):
        cli.main([*words, *(["--json"] if form == "json" else [])], standalone_mode=False)
    out = capsys.readouterr().out
    assert (
        json.loads(out)["kit"]["warning"] == "UNSIGNED BUNDLE"
        if form == "json"
        else "\nUNSIGNED BUNDLE\n" in out
    )


def test_an_installed_kit_is_found_by_its_name(installed: Path) -> None:
    assert locate.find(Path("kit-b")).path == (installed / "kits/kit-b").resolve()


@pytest.mark.parametrize("name", ["kit-b", "kit b", "kit (b)", "KIT-B"])
def test_an_installed_kit_is_found_by_its_variable(
    installed: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KIT_VARIABLE, name)
    assert locate.find(None).path.name == "kit-b"


def test_the_beginning_of_a_name_is_enough_where_it_tells_kits_apart(installed: Path) -> None:
    (installed / "kits/kit-b").rename(installed / "kits/pulse-7b")
    assert locate.find(Path("pul")).path.name == "pulse-7b"
    shutil.copytree(installed / "kits/kit-a", installed / "kits/kit-c")
    with pytest.raises(KitError, match=r"ki: several kits begin so \(kit-a, kit-c\)"):
        locate.find(Path("ki"))
    with pytest.raises(
        KitError,
        match=r"kit-z: no such kit directory.* installed: kit-a, kit-c, pulse-7b, miniature",
    ):
        locate.find(Path("kit-z"))


def test_two_installed_kits_are_told_apart_by_name(installed: Path) -> None:
    with pytest.raises(KitError, match=r"several kits \(kit-a, kit-b\).*kit use NAME"):
        locate.find(None)


def test_a_kit_is_chosen_for_good(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["kit", "use", "kit-b"], standalone_mode=False)
    assert locate.find(None).path.name == "kit-b"
    cli.main(["kit", "list"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines[1:]] == ["  kit-a", "* kit-b", "  minia"]


def test_kits_are_listed_for_programs(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (installed / "kits/kit-a/llm.gguf").unlink()
    locate.choose("kit-b")
    cli.main(["kit", "list", "--json"], standalone_mode=False)
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "llm.gguf is missing" in rows["kit-a"]["broken"]
    assert rows["kit-b"] == {
        "name": "kit-b",
        "default": True,
        "path": str(installed / "kits/kit-b"),
        "id": "kit b",
        "bytes": 10000,
        "demonstration": True,
    }


def test_choosing_the_kit_that_comes_with_the_program_says_when_it_answers(installed: Path) -> None:
    with pytest.raises(
        KitError, match=r"miniature: comes with the program.* while no kit is installed"
    ):
        locate.choose("miniature")


@pytest.mark.parametrize("name", ["kit-z", "miniature", "../kits/kit-b", ".", "kit"])
def test_only_an_installed_kit_can_be_chosen(installed: Path, name: str) -> None:
    with pytest.raises(KitError, match=r"kit-a, kit-b"):
        locate.choose(name)
    assert not (installed / install.DEFAULT_KIT).exists()


def test_a_chosen_kit_that_is_gone_is_not_replaced_by_another(installed: Path) -> None:
    locate.choose("kit-b")
    shutil.rmtree(installed / "kits/kit-b")
    with pytest.raises(
        KitError, match=r"kit-b was chosen as the default, and is not installed any more.*kit-a"
    ):
        locate.find(None)


def test_a_broken_choice_is_said(installed: Path) -> None:
    (installed / install.DEFAULT_KIT).write_text("[]")
    with pytest.raises(KitError, match=r"default-kit\.json: cannot be read.*kit use NAME"):
        locate.find(None)


def test_the_page_has_no_script_and_fetches_nothing(whole: Path) -> None:
    text = (whole / "README.html").read_text()
    assert "<script" not in text
    assert "http" not in text


def test_a_model_card_says_what_it_is_for_and_its_limits(parts: Path) -> None:
    text = documents.card(open_kit(parts / "a").manifest)
    for word in ("Intended use", "Limits", "NOT FOR PATIENTS", "Not measured yet"):
        assert word in text


def test_an_unfinished_bundle_leaves_nothing(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        small_bundle.make(tmp_path / "out/bundle", parts / "a", wheel=next(parts.glob("*.whl")))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["constraints.txt"]
