from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.common import files, paths
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import KitError
from pulse_edge.kit import locate
from pulse_edge.kit import verify as verification
from pulse_edge.kit.kit import KIT_VARIABLE, Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST_VERSION
from pulse_edge.kit.verify import IDLE_DAYS, SAMPLE_BYTES, SAMPLES, WHOLE_DAYS, draw_samples, verify
from pulse_edge.kit.write import writing


@pytest.fixture
def copy(tiny_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_kit, tmp_path / "kit"))


def rewrite(kit: Path, **fields: object) -> None:
    raw = json.loads((kit / "manifest.json").read_text()) | fields
    (kit / "manifest.json").write_text(json.dumps(raw))


def test_a_newer_manifest_asks_for_an_update(copy: Path) -> None:
    rewrite(copy, manifest_version=MANIFEST_VERSION + 1)
    with pytest.raises(KitError, match="Update pulse-edge"):
        open_kit(copy)


def test_unknown_fields_are_refused_by_name(copy: Path) -> None:
    rewrite(copy, surprise=1)
    with pytest.raises(KitError, match="surprise"):
        open_kit(copy)


def test_missing_and_foreign_files_are_named_at_once(copy: Path) -> None:
    (copy / "vision.onnx").unlink()
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(KitError, match=r"vision.onnx is missing.*extra.bin does not belong"):
        open_kit(copy)


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_an_abandoned_unfinished_kit_is_removed_and_a_living_one_stays(tmp_path: Path) -> None:
    unfinished = tmp_path / ".kit.unfinished-0123abcd"
    unfinished.mkdir()
    (unfinished / "llm.gguf").write_bytes(b"half")
    (unfinished / ".pulse-edge-unfinished").write_text("pulse-edge unfinished kit 1\n")
    with writing(tmp_path / "kit") as one:
        assert not unfinished.exists()
        with pytest.raises(KitError, match="no manifest"), writing(tmp_path / "kit"):
            assert one.exists()
        (one / "manifest.json").write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]


def test_a_folder_of_that_name_without_our_mark_stays(tmp_path: Path) -> None:
    other = tmp_path / ".kit.unfinished-0123abcd"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with writing(tmp_path / "kit") as work:
        (work / "manifest.json").write_text("{}")
    assert (other / "letter.txt").read_text() == "mine"


def force(target: Path) -> None:
    with writing(target, force=True) as work:
        (work / "manifest.json").write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def browser_extension(folder: Path) -> None:
    (folder / "src").mkdir(parents=True)
    (folder / "manifest.json").write_text(
        '{"manifest_version": 1, "name": "An extension", "icons": {}}'
    )
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
def test_force_replaces_no_folder_that_is_not_a_kit(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
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
def test_files_put_at_the_target_meanwhile_stay(tmp_path: Path, forced: bool) -> None:
    def write() -> None:
        with writing(tmp_path / "kit", force=forced) as work:
            (work / "manifest.json").write_text("{}")
            letters(tmp_path / "kit")

    with pytest.raises(KitError, match="exists"):
        write()
    assert contents(tmp_path / "kit") == {"letters/one.txt": b"mine"}
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]


def test_a_directory_without_manifest_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="unfinished"):
        open_kit(tmp_path)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty places where a kit is looked for, in the order of looking."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(KIT_VARIABLE, raising=False)
    monkeypatch.setattr(paths, "ASSETS", tmp_path / "package")
    return {
        "named": tmp_path / "named",
        "variable": tmp_path / "variable",
        "installed": tmp_path / "data" / "pulse-edge" / "kits" / "installed",
        "package": tmp_path / "package" / "kits" / "package",
    }


@pytest.mark.parametrize("first", ["named", "variable", "installed", "package"])
def test_the_order_in_which_a_kit_is_searched(
    tiny_kit: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    names = list(places)
    present = names[names.index(first) :]
    for name in present:
        shutil.copytree(tiny_kit, places[name])
    if "variable" in present:
        monkeypatch.setenv(KIT_VARIABLE, str(places["variable"]))
    assert locate.find(places["named"] if first == "named" else None).path == places[first]


@pytest.mark.parametrize("place", ["installed", "package"])
def test_several_kits_in_one_place_are_an_error_that_names_them(
    tiny_kit: Path, places: dict[str, Path], place: str
) -> None:
    for name in ("one", "two"):
        shutil.copytree(tiny_kit, places[place].parent / name)
    with pytest.raises(
        KitError, match=r"several kits \(one, two\)\. Name one with --kit or PULSE_EDGE_KIT"
    ):
        locate.find(None)


def test_a_missing_kit_is_an_error_that_names_the_places(places: dict[str, Path]) -> None:
    with pytest.raises(KitError, match=rf"no kit: .*{places['installed'].parent}.*--kit"):
        locate.find(None)


@pytest.mark.parametrize("place", ["named", "variable"])
def test_a_kit_that_was_named_and_is_absent_is_not_replaced_by_another(
    tiny_kit: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    shutil.copytree(tiny_kit, places["installed"])
    if place == "variable":
        monkeypatch.setenv(KIT_VARIABLE, str(places["variable"]))
    with pytest.raises(KitError, match=f"{places[place]}: no such kit"):
        locate.find(places["named"] if place == "named" else None)


# --- remembered verification ----------------------------------------------------------------------


@pytest.fixture
def remembered(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A kit that has passed, and whose stamps do not show a change: its blocks are altered below
    the file system."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stamps = {path: verification._stamp(path) for path in copy.resolve().iterdir()}
    monkeypatch.setattr(verification, "_stamp", lambda path: stamps[path])
    kit = open_kit(copy)
    verify(kit, remembered=True)
    return kit


def whole_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read whole from now on."""
    reads: list[str] = []
    real = file_sha256

    def noted(path: Path, progress: Callable[[int], None] = lambda _bytes: None) -> str:
        reads.append(path.name)
        return real(path, progress)

    monkeypatch.setattr(files, "file_sha256", noted)
    return reads


def spoil(path: Path, share: float) -> None:
    """Alter the last part of a file, as long as this share of it."""
    raw = bytearray(path.read_bytes())
    start = int(len(raw) * (1 - share))
    raw[start:] = bytes(byte ^ 1 for byte in raw[start:])
    path.write_bytes(raw)


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = time.time() + days * 86400
    monkeypatch.setattr(verification.time, "time", lambda: now)


def test_a_kit_that_passed_is_sampled_and_not_read_whole(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, steps = whole_reads(monkeypatch), []
    verify(remembered, remembered=True, progress=lambda done, total: steps.append((done, total)))
    assert reads == []
    size = sum(file.bytes for file in remembered.manifest.files.values())
    assert steps[-1] == (size, size)
    assert {total for _, total in steps} == {size}
    assert {len(draw_samples(size)) for size in (0, 1, SAMPLE_BYTES)} == {1}
    assert SAMPLES // 2 < len(draw_samples(4 << 30)) <= SAMPLES


@pytest.mark.parametrize("file", ["llm.gguf", "vision.onnx", "vision.onnx.data"])
def test_blocks_altered_below_the_file_system_are_found_by_sampling(
    remembered: Kit, file: str
) -> None:
    if file not in remembered.manifest.files:
        pytest.skip("this kit has no such file")
    spoil(remembered.file(file), 0.5)
    for _ in range(2):
        with pytest.raises(KitError, match=f"altered since it was made: {file}"):
            verify(remembered, remembered=True)


def test_a_single_byte_is_found_where_everything_is_read(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verification, "_hash_samples", lambda _path, offsets: dict.fromkeys(map(str, offsets), "")
    )
    verify(remembered, again=True)  # from now on no place shows a change
    path = remembered.file("llm.gguf")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    verify(remembered, remembered=True)
    with monkeypatch.context() as patch:
        patch.setattr(verification, "_own_file_systems", set)  # a USB drive
        patch.setattr(verification._VerifiedFiles, "save", lambda _self: None)
        with pytest.raises(KitError, match=r"llm\.gguf"):
            verify(remembered, remembered=True)
    verify(remembered, remembered=True)
    with pytest.raises(KitError, match=r"llm\.gguf"):
        verify(remembered, again=True)  # doctor, after which it does not pass as before
    with pytest.raises(KitError, match=r"llm\.gguf"):
        verify(remembered, remembered=True)


@pytest.mark.parametrize("days", [IDLE_DAYS + 0.1, -1])
def test_after_a_long_idle_time_or_a_wrong_clock_everything_is_read(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    reads = whole_reads(monkeypatch)
    later(monkeypatch, days)
    verify(remembered, remembered=True)
    assert sorted(reads) == sorted(remembered.manifest.files)
    verify(remembered, remembered=True)
    assert len(reads) == len(remembered.manifest.files)


def test_a_kit_in_daily_use_is_read_whole_every_month(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, whole = whole_reads(monkeypatch), []
    for day in range(1, 2 * WHOLE_DAYS + 2):
        with monkeypatch.context() as patch:
            later(patch, day)
            verify(remembered, remembered=True)
        whole += [day] * bool(reads)
        reads.clear()
    assert whole == [WHOLE_DAYS, 2 * WHOLE_DAYS]


@pytest.mark.parametrize(
    "field", range(6), ids=["size", "mtime", "ctime", "inode", "device", "file system"]
)
def test_another_stamp_or_file_system_is_read_whole(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch, field: int
) -> None:
    reads, before = whole_reads(monkeypatch), verification._stamp

    def changed(path: Path) -> tuple[int, ...]:
        return tuple(value + (n == field) for n, value in enumerate(before(path)))

    monkeypatch.setattr(verification, "_stamp", changed)
    verify(remembered, remembered=True)
    assert sorted(reads) == sorted(remembered.manifest.files)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"x": 1}', '{"x": {"stamp": [1], "sha256": 2}}', "[" * 100_000]
)
def test_a_damaged_list_of_verified_files_is_ignored(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (paths.user_cache() / "verified" / "verified.json").write_text(content)
    reads = whole_reads(monkeypatch)
    verify(remembered, remembered=True)
    assert len(reads) == len(remembered.manifest.files)


def test_doctor_reads_a_kit_whole_though_it_is_remembered(
    remembered: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pulse_edge.diagnostics import checks

    reads = whole_reads(monkeypatch)
    checks.kit_files(remembered, lambda *_progress: None)
    assert sorted(reads) == sorted(remembered.manifest.files)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_everybody_may_read_a_kit(tiny_kit: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in tiny_kit.iterdir()} == {0o644}
    assert tiny_kit.stat().st_mode & 0o777 == 0o755
