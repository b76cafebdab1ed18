from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge import kit as kits
from pulse_edge.errors import KitError


@pytest.fixture
def copy(tiny_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_kit, tmp_path / "kit"))


def rewrite(kit: Path, **fields: object) -> None:
    raw = json.loads((kit / "manifest.json").read_text()) | fields
    (kit / "manifest.json").write_text(json.dumps(raw))


def test_a_newer_manifest_asks_for_an_update(copy: Path) -> None:
    rewrite(copy, manifest_version=kits.MANIFEST_VERSION + 1)
    with pytest.raises(KitError, match="Update pulse-edge"):
        kits.open_kit(copy)


def test_unknown_fields_are_refused_by_name(copy: Path) -> None:
    rewrite(copy, surprise=1)
    with pytest.raises(KitError, match="surprise"):
        kits.open_kit(copy)


def test_missing_and_foreign_files_are_named_at_once(copy: Path) -> None:
    (copy / "vision.onnx").unlink()
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(KitError, match=r"vision.onnx is missing.*extra.bin does not belong"):
        kits.open_kit(copy)


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_what_a_killed_process_left_goes_and_what_a_living_one_makes_stays(tmp_path: Path) -> None:
    left = tmp_path / ".kit.unfinished-0123abcd"
    left.mkdir()
    (left / "llm.gguf").write_bytes(b"half")
    (left / ".pulse-edge-unfinished").write_text("pulse-edge unfinished kit 1\n")
    with kits.writing(tmp_path / "kit") as one:
        assert not left.exists()
        with pytest.raises(KitError, match="no manifest"), kits.writing(tmp_path / "kit"):
            assert one.exists()
        (one / "manifest.json").write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]


def test_a_folder_of_that_name_without_our_mark_stays(tmp_path: Path) -> None:
    other = tmp_path / ".kit.unfinished-0123abcd"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with kits.writing(tmp_path / "kit") as work:
        (work / "manifest.json").write_text("{}")
    assert (other / "letter.txt").read_text() == "mine"


def force(target: Path) -> None:
    with kits.writing(target, force=True) as work:
        (work / "manifest.json").write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def browser_extension(folder: Path) -> None:
    (folder / "src").mkdir(parents=True)
    (folder / "manifest.json").write_text('{"manifest_version": 1, "name": "An extension", "icons": {}}')
    (folder / "src" / "main.js").write_text("two years of work")


def web_app(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "An app", "start_url": "/"}')


def no_json(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text('{"a":' * 100_000)


def letters(folder: Path) -> None:
    (folder / "letters").mkdir(parents=True)
    (folder / "letters" / "one.txt").write_text("mine")


@pytest.mark.parametrize("make", [browser_extension, web_app, no_json, letters])
def test_force_replaces_no_folder_that_is_not_a_kit(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "folder")
    before = contents(tmp_path / "folder")
    with pytest.raises(KitError, match=r"is no kit .*--force does not replace it"):
        force(tmp_path / "folder")
    assert contents(tmp_path / "folder") == before


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links are others there")
def test_force_replaces_no_link_and_waits_for_no_pipe(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy)
    with pytest.raises(KitError, match="exists and is no folder"):
        force(tmp_path / "link")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "manifest.json")
    with pytest.raises(KitError, match="is no kit"):
        force(tmp_path / "pipe")
    (copy / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(KitError, match=r"holds what is not the kit's \(elsewhere\)"):
        force(copy)


def test_force_replaces_no_kit_that_holds_other_files(copy: Path) -> None:
    (copy / "notes").mkdir()
    (copy / "notes" / "letter.txt").write_text("mine")
    with pytest.raises(KitError, match=r"holds what is not the kit's \(notes/letter.txt\)"):
        force(copy)
    assert (copy / "notes" / "letter.txt").read_text() == "mine"


def test_force_replaces_a_kit_a_damaged_one_and_an_empty_folder(copy: Path, tmp_path: Path) -> None:
    (copy / "vision.onnx").unlink()
    rewrite(copy, surprise=1)
    (tmp_path / "empty").mkdir()
    for target in (copy, tmp_path / "empty"):
        force(target)
        assert [p.name for p in target.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("forced", [False, True])
def test_what_was_put_at_the_target_meanwhile_stays(tmp_path: Path, forced: bool) -> None:
    def write() -> None:
        with kits.writing(tmp_path / "kit", force=forced) as work:
            (work / "manifest.json").write_text("{}")
            letters(tmp_path / "kit")

    with pytest.raises(KitError, match="exists"):
        write()
    assert contents(tmp_path / "kit") == {"letters/one.txt": b"mine"}
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]


def test_a_directory_without_manifest_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="unfinished"):
        kits.open_kit(tmp_path)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty places where a kit is looked for, in the order of looking."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(kits.KIT_VARIABLE, raising=False)
    monkeypatch.setattr(kits, "__file__", str(tmp_path / "package" / "kit.py"))
    return {
        "named": tmp_path / "named",
        "variable": tmp_path / "variable",
        "installed": tmp_path / "data" / "pulse-edge" / "kits" / "installed",
        "package": tmp_path / "package" / "kits" / "package",
    }


@pytest.mark.parametrize("first", ["named", "variable", "installed", "package"])
def test_a_kit_is_looked_for_in_this_order(
    tiny_kit: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    names = list(places)
    present = names[names.index(first) :]
    for name in present:
        shutil.copytree(tiny_kit, places[name])
    if "variable" in present:
        monkeypatch.setenv(kits.KIT_VARIABLE, str(places["variable"]))
    assert kits.find(places["named"] if first == "named" else None).path == places[first]


@pytest.mark.parametrize("place", ["installed", "package"])
def test_several_kits_in_one_place_are_an_error_that_names_them(
    tiny_kit: Path, places: dict[str, Path], place: str
) -> None:
    for name in ("one", "two"):
        shutil.copytree(tiny_kit, places[place].parent / name)
    with pytest.raises(KitError, match=r"several kits \(one, two\)\. Name one with --kit or PULSE_EDGE_KIT"):
        kits.find(None)


def test_no_kit_anywhere_says_where_it_was_looked_for(places: dict[str, Path]) -> None:
    with pytest.raises(KitError, match=rf"no kit: .*{places['installed'].parent}.*--kit"):
        kits.find(None)


@pytest.mark.parametrize("place", ["named", "variable"])
def test_a_kit_that_was_named_and_is_absent_is_not_replaced_by_another(
    tiny_kit: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    shutil.copytree(tiny_kit, places["installed"])
    if place == "variable":
        monkeypatch.setenv(kits.KIT_VARIABLE, str(places["variable"]))
    with pytest.raises(KitError, match=f"{places[place]}: no such kit"):
        kits.find(places["named"] if place == "named" else None)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_everybody_may_read_a_kit(tiny_kit: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in tiny_kit.iterdir()} == {0o644}
    assert tiny_kit.stat().st_mode & 0o777 == 0o755
