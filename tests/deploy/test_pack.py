"""What pack writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import small_bundle
from checkout import ROOT
from installations import KEY, flip

from pulse_edge.cli.main import cli
from pulse_edge.deploy import bundle, documents, wheelhouse, wheels
from pulse_edge.deploy.targets import EXTRAS
from pulse_edge.deploy.wheelhouse import Supply
from pulse_edge.errors import KitError, UsageError
from pulse_edge.kit.kit import open_kit
from pulse_edge.machine import memory_plan

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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kit", "locks"]


def test_a_bundle_inside_its_kit_is_refused(bundle_parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(bundle_parts / "a", tmp_path / "kit"))
    order = bundle.Order((kit,), kit / "bundle", (), Supply((), tmp_path / "none"))
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
Requires-Dist: starlette; extra == "serve"
Requires-Dist: cryptography; extra == "pack"
"""


@pytest.fixture
def supply(tmp_path: Path) -> list[Path]:
    """Stand-ins for pulse-edge with its real parts, and for everything that it needs."""
    own = small_bundle.wheel(tmp_path, "pulse-edge", "1.0", {}, small_bundle.EXTRAS + NEEDED)
    llama = small_bundle.wheel(tmp_path, "llama-cpp-python", "1.0", KERNELS)
    names = ("onnxruntime", "pypdfium2", "pillow-heif", "pydicom", "typst", "starlette")
    return [
        own,
        small_bundle.pip_wheel(),
        llama,
        *(small_bundle.wheel(tmp_path, n, "1.0", {}) for n in names),
    ]


def test_packing_names_each_long_step(
    supply: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = small_bundle.here()
    locks = small_bundle.write_lock(tmp_path / "locks", target, supply)
    absent = supply.pop()
    monkeypatch.setattr(wheelhouse, "fetch", lambda *_: wheels.read_wheel(absent))
    kit = small_bundle.kit(tmp_path / "kit", "kit a")
    lines: list[str] = []
    steps: list[tuple[str, int, int]] = []
    order = bundle.Order((kit,), tmp_path / "bundle", (target,), Supply(tuple(supply), locks))
    bundle.pack(order, lambda *step: steps.append(step), lines.append)
    assert lines == [
        f"fetching {absent.name.split('-')[0]}==1.0 for {target}",
        "copying and hashing the kits",
        "copying the program, and writing the documents",
    ]
    size = sum(path.stat().st_size for path in kit.iterdir())
    assert steps[-1] == ("pack", size, size)


def packed_parts(supply: list[Path], out: Path, *without: str) -> tuple[set[str], str]:
    """Names of the wheels that a bundle holds, and its README."""
    kit = small_bundle.kit(out.parent / f"{out.name}-kit", "kit a")
    needless = {"pdf": "pypdfium2", "heic": "pillow_heif", "dicom": "pydicom", "report": "typst"}
    needless["serve"] = "starlette"
    given = tuple(
        p for p in supply if not any(p.name.startswith(needless[part]) for part in without)
    )
    locks = small_bundle.write_lock(out.parent / "locks", small_bundle.here(), supply)
    order = bundle.Order((kit,), out, (small_bundle.here(),), Supply(given, locks), without=without)
    bundle.pack(order)
    names = {p.name.split("-")[0] for p in (out / "wheels").iterdir()}
    return names, (out / "README.html").read_text()


def test_readers_and_the_writer_of_reports_are_packed(supply: list[Path], tmp_path: Path) -> None:
    names, page = packed_parts(supply, tmp_path / "bundle")
    assert {"pypdfium2", "pillow_heif", "pydicom", "typst", "starlette"} <= names
    assert "<li>reads PDF files</li>" in page


@pytest.mark.parametrize("part", EXTRAS)
def test_a_part_is_left_out_only_on_request(supply: list[Path], tmp_path: Path, part: str) -> None:
    whole, _ = packed_parts(supply, tmp_path / "whole")
    names, page = packed_parts(supply, tmp_path / "bundle", part)
    assert len(whole - names) == 1
    assert names < whole
    assert f"<b>not packed</b>: {EXTRAS[part]}" in page
    assert part not in json.loads((tmp_path / "bundle/bundle.json").read_text())["extras"]


def test_the_parts_are_those_that_the_program_offers() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for part in EXTRAS:
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
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["locks"]


def test_the_least_memory_is_that_of_the_smallest_memory_plan(tiny_kit: Path) -> None:
    kit = open_kit(tiny_kit)
    plans = memory_plan.ladder(
        kit, memory_plan.Workload(pages=1), None, frozenset(), exact_int8=False
    )
    assert bundle.least_memory(kit) == min(plan.peak for plan in plans)


def test_the_least_memory_counts_the_type_of_the_keys(tiny_kit: Path) -> None:
    kit = open_kit(tiny_kit)
    language = dataclasses.replace(kit.manifest.language, context_length=1 << 22)
    sizes = {}
    for key_type in ("f16", "q8_0"):
        of_keys = dataclasses.replace(language, key_cache_type=key_type)
        manifest = dataclasses.replace(kit.manifest, language=of_keys)
        sizes[key_type] = bundle.least_memory(dataclasses.replace(kit, manifest=manifest))
    saved = (2 - 34 / 32) * language.layers * language.key_value_length * (1 << 22)
    assert sizes["f16"] - sizes["q8_0"] == int(saved)


def test_a_bundle_states_the_least_memory_of_its_kits(
    whole_bundle: Path, bundle_parts: Path
) -> None:
    raw = json.loads((whole_bundle / "bundle.json").read_text())
    kit = open_kit(bundle_parts / "a")
    assert raw["kits"]["kit-a"]["memory"] == bundle.least_memory(kit)


def test_bundle_verify_checks_as_the_installer_does(
    whole_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    cli.main(
        ["bundle", "verify", str(whole_bundle), "--key", str(tmp_path / "key.pub")],
        standalone_mode=False,
    )
    assert f"signed by key {KEY.public().id} (trusted here)" in capsys.readouterr().out


def test_kit_verify_of_a_bundle_names_the_command_for_bundles(whole_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"is a bundle.*`pulse-edge bundle verify`"):
        cli.main(["kit", "verify", str(whole_bundle)], standalone_mode=False)
