"""What pack writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_bundle
from checkout import ROOT
from installations import KEY, flip

from pulse_edge.cli.main import cli
from pulse_edge.deploy import bundle, documents, wheelhouse
from pulse_edge.errors import KitError
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.manifest import MANIFEST

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_a_bundle_verifies(whole_bundle: Path) -> None:
    assert "signed by key" in bundle.verify(whole_bundle, None, lambda *_: None)


def test_the_same_inputs_give_the_same_bytes(
    bundle_parts: Path, whole_bundle: Path, tmp_path: Path
) -> None:
    wheel = next(bundle_parts.glob("*.whl"))
    again = small_bundle.make(
        tmp_path / "again",
        bundle_parts / "a",
        bundle_parts / "b",
        wheel=wheel,
        key=KEY,
        piece_bytes=3000,
    )
    names = sorted(p.relative_to(whole_bundle) for p in whole_bundle.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert [n for n in names if (whole_bundle / n).read_bytes() != (again / n).read_bytes()] == []


def test_a_large_file_is_carried_in_pieces(whole_bundle: Path, bundle_parts: Path) -> None:
    pieces = [whole_bundle / "kits/kit-a" / f"llm.gguf.{n}" for n in ("001", "002")]
    assert b"".join(p.read_bytes() for p in pieces) == (bundle_parts / "a/llm.gguf").read_bytes()
    assert [p.stat().st_size for p in pieces] == [3000, 2000]


def test_every_bundle_document_is_there(whole_bundle: Path) -> None:
    for name in (
        "README.html",
        "MODEL_CARD.md",
        "install.pyz",
        "install.sh",
        "install.ps1",
        "sbom.cdx.json",
    ):
        assert (whole_bundle / name).stat().st_size
    assert (whole_bundle / "licences/pulse-edge-1.0/LICENSE").read_text() == "MIT\n"
    bill = json.loads((whole_bundle / "sbom.cdx.json").read_text())
    assert {c["name"] for c in bill["components"]} == {"pip", "pulse-edge", "kit a", "kit b"}


def test_an_altered_kit_is_not_packed(bundle_parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(bundle_parts / "a", tmp_path / "kit"))
    flip(kit / "llm.gguf")
    with pytest.raises(KitError, match=r"kit/llm\.gguf"):
        small_bundle.make(tmp_path / "bundle", kit, wheel=next(bundle_parts.glob("*.whl")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constraints.txt", "kit"]


def test_a_bundle_inside_its_kit_is_refused(bundle_parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(bundle_parts / "a", tmp_path / "kit"))
    order = bundle.Order(
        kits=(kit,), out=kit / "bundle", targets=(), wheels=(), constraints=tmp_path / "none"
    )
    with pytest.raises(KitError, match="lies in the kit"):
        bundle.pack(order)
    assert open_kit(kit)


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


def test_a_delta_carries_only_what_has_changed(
    bundle_parts: Path, whole_bundle: Path, tmp_path: Path
) -> None:
    wheel = next(bundle_parts.glob("*.whl"))
    new = small_bundle.kit(tmp_path / "c", "kit c", seed=3)
    delta = small_bundle.make(
        tmp_path / "delta",
        bundle_parts / "a",
        new,
        wheel=wheel,
        key=KEY,
        since=whole_bundle / "bundle.json",
    )
    assert sorted(p.parent.name for p in delta.rglob("*") if p.suffix in (".gguf", ".whl")) == [
        "kit-c"
    ]


def test_an_unfinished_bundle_leaves_nothing(
    bundle_parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        small_bundle.make(
            tmp_path / "out/bundle", bundle_parts / "a", wheel=next(bundle_parts.glob("*.whl"))
        )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["constraints.txt"]


def test_bundle_verify_checks_as_the_installer_does(
    whole_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    cli.main(
        ["bundle", "verify", str(whole_bundle), "--key", str(tmp_path / "key.pub")],
        standalone_mode=False,
    )
    assert f"signed by key {KEY.public().id} (trusted here)" in capsys.readouterr().out
