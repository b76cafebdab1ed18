"""A broken, foreign or lying bundle is refused before anything is written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from installations import KEY, OTHER, flip

from pulse_edge.deploy import bundle
from pulse_edge.installer.bundle import open_bundle
from pulse_edge.installer.fields import name_fits, version_order
from pulse_edge.installer.install import Request, install
from pulse_edge.installer.refusal import Refused

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def faults(folder: Path) -> str:
    """What the installer says before it does anything; nothing may have been written."""
    home = folder.parent / "home"
    request = Request(home, accept=(KEY.public().id,))
    with pytest.raises(Refused) as e:
        install(open_bundle(folder), request, lambda *_: None, lambda _text: None)
    assert not home.exists()
    return str(e.value)


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
def test_names_that_a_bundle_cannot_hold_are_refused(name: str) -> None:
    assert not name_fits(name)


KINDS = (
    "kits/kit-a/llm.gguf.002",
    "kits/kit-b/manifest.json",
    "wheels/pulse_edge-1.0-py3-none-any.whl",
    "install.pyz",
    "install.sh",
    "README.html",
    "MODEL_CARD.md",
    "sbom.cdx.json",
    "licences/pulse-edge-1.0/LICENSE",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_byte_is_found_and_named(bundle_copy: Path, name: str) -> None:
    flip(bundle_copy / name)
    assert f"{name}: altered" in faults(bundle_copy)


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_file_is_found_and_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    assert f"{name}: missing" in faults(bundle_copy)


@pytest.mark.parametrize(
    "name", ["x", "wheels/numpy-9-py3-none-any.whl", "kits/kit-a/more.bin", "json.py"]
)
def test_an_additional_file_is_found_and_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).write_bytes(b"x")
    assert f"{name}: does not belong" in faults(bundle_copy)


def test_files_that_operating_systems_leave_are_ignored(bundle_copy: Path) -> None:
    (bundle_copy / "System Volume Information").mkdir()
    (bundle_copy / "System Volume Information/WPSettings.dat").write_bytes(b"x")
    (bundle_copy / "._README.html").write_bytes(b"x")
    assert bundle.verify(bundle_copy, None, lambda *_: None)


def test_a_link_is_found_and_named(bundle_copy: Path) -> None:
    path = bundle_copy / "README.html"
    path.rename(bundle_copy.parent / "elsewhere")
    path.symlink_to(bundle_copy.parent / "elsewhere")
    assert "README.html: not a plain file" in faults(bundle_copy)


def test_files_renamed_across_kits_are_found_and_named(bundle_copy: Path) -> None:
    a, b, free = (
        bundle_copy / "kits/kit-a/llm.gguf.001",
        bundle_copy / "kits/kit-b/llm.gguf.001",
        bundle_copy / "free",
    )
    a.rename(free)
    b.rename(a)
    free.rename(b)
    lines = faults(bundle_copy)
    assert "kits/kit-a/llm.gguf.001: altered" in lines
    assert "kits/kit-b/llm.gguf.001: altered" in lines


def test_a_changed_manifest_does_not_agree_with_its_signature(bundle_copy: Path) -> None:
    text = (bundle_copy / "bundle.json").read_text()
    (bundle_copy / "bundle.json").write_text(text.replace("kit a", "kit z"))
    assert "bundle.json: does not agree with its signature" in faults(bundle_copy)


def test_another_signature_is_found(bundle_copy: Path) -> None:
    (bundle_copy / "bundle.json.minisig").write_text(
        OTHER.sign((bundle_copy / "bundle.json").read_bytes(), "c")
    )
    assert "bundle.pub: not the key of the signature" in faults(bundle_copy)


def test_a_copy_cut_short_anywhere_is_found_and_named(whole_bundle: Path, tmp_path: Path) -> None:
    """`cp -r` ended after that many bytes: the last file is short, and the rest is not there."""
    names = [p.relative_to(whole_bundle) for p in sorted(whole_bundle.rglob("*")) if p.is_file()]
    total = sum((whole_bundle / n).stat().st_size for n in names)
    for left in random.Random(7).sample(range(total), 20):
        cut = tmp_path / f"{left}" / "bundle"
        cut.mkdir(parents=True)
        short = None
        for name in names:
            data = (whole_bundle / name).read_bytes()[: max(left, 0)]
            if left <= 0:
                break
            (cut / name).parent.mkdir(parents=True, exist_ok=True)
            (cut / name).write_bytes(data)
            short = name if left < (whole_bundle / name).stat().st_size else None
            left -= (whole_bundle / name).stat().st_size
        try:
            lines = faults(cut)
        except Refused as e:
            lines = str(e)
        assert str(short) in lines or "missing" in lines


def test_a_manifest_that_points_outside_is_refused(bundle_copy: Path) -> None:
    raw = json.loads((bundle_copy / "bundle.json").read_text())
    raw["files"]["../evil"] = {"bytes": 1, "sha256": "0" * 64}
    (bundle_copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(Refused, match=r"'\.\./evil' is not allowed"):
        open_bundle(bundle_copy)


def changed(raw: dict[str, Any], where: str, value: object) -> None:
    """Set one field of a manifest; `where` is its path with slashes, `kits:` and `wheels:` rename
    the first of these.
    """
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
def test_a_manifest_that_lies_is_refused_in_a_line(
    bundle_copy: Path, where: str, value: object
) -> None:
    raw = json.loads((bundle_copy / "bundle.json").read_text())
    changed(raw, where, value)
    (bundle_copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(Refused, match=r"bundle\.json: not a bundle's manifest") as refusal:
        open_bundle(bundle_copy)
    assert "Error" not in str(refusal.value)
    assert "object is not" not in str(refusal.value)


def test_what_a_manifest_lacks_is_named(bundle_copy: Path) -> None:
    raw = json.loads((bundle_copy / "bundle.json").read_text())
    del raw["targets"][0]["glibc"]
    (bundle_copy / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(Refused, match=r"not a bundle's manifest \('glibc' is missing\)"):
        open_bundle(bundle_copy)


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
            assert (version_order(a) < version_order(b)) == (Version(a) < Version(b)), (a, b)


@pytest.mark.parametrize(
    "text", ["", "x", "../1.0", "1.0 ", "1.0\n", "1/2", "\u0661.0", "1" * 50, "1.0-1", "."]
)
def test_a_text_that_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        version_order(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"bundle_version": 1}', '{"bundle_version": 2}', "[" * 100000]
)
def test_a_manifest_that_is_none_is_refused_in_a_line(bundle_copy: Path, text: str) -> None:
    (bundle_copy / "bundle.json").write_text(text)
    with pytest.raises(Refused, match=r"bundle\.json: "):
        open_bundle(bundle_copy)
