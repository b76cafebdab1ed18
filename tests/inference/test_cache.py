"""Rows of pages that were encoded before: the same bits, bounded, for their owner alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pulse_edge
from calibration.results import encoding, identity
from pulse_edge import PulseModel
from pulse_edge.common.folders import MARKER
from pulse_edge.errors import FolderError
from pulse_edge.inference.cache import ImageTokenCache, PrefixCache, key_of
from pulse_edge.kit.kit import base_of, encoder_files, open_kit
from pulse_edge.kit.write import listing, write_manifest, writing

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
ROWS = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
posix = pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")


def test_image_tokens_come_back_bit_for_bit(tmp_path: Path) -> None:
    cache = ImageTokenCache(tmp_path / "image-tokens")
    assert cache.get("a") is None
    cache.put("a", ROWS)
    cached = cache.get("a")
    assert cached is not None
    assert cached.dtype == np.float32
    assert cached.tobytes() == ROWS.tobytes()
    assert cache.get("b") is None
    assert cache.info()[0] == 1
    assert cache.clear() == 1
    assert cache.get("a") is None


def test_the_cache_key_depends_on_pixels_kit_and_packing() -> None:
    pixels = np.zeros((2, 3, 4, 4), np.float32)
    other = pixels.copy()
    other[1, 2, 3, 3] = 1e-7
    keys = {
        key_of(pixels, {"merge": "flat"}),
        key_of(other, {"merge": "flat"}),
        key_of(pixels, {"merge": "spatial"}),
    }
    keys.add(key_of(pixels.reshape(1, 6, 4, 4), {"merge": "flat"}))
    assert len(keys) == 4


@posix
def test_cache_entries_are_private_and_an_existing_folder_keeps_its_rights(
    tmp_path: Path,
) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    for name, rights in (("new", 0o700), ("there", 0o755)):
        folder = tmp_path / name
        ImageTokenCache(folder).put("a", ROWS)
        assert folder.stat().st_mode & 0o777 == rights
        assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600] * 2


def names(folder: Path) -> list[str]:
    """Of what is in a cache, without its mark."""
    return sorted(path.name for path in folder.iterdir() if path.name != MARKER)


def test_a_foreign_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    for name in ("photo.tokens", ".unfinished-thesis"):
        (tmp_path / name).write_text("mine")
    rows, prefixes = ImageTokenCache(tmp_path), PrefixCache(tmp_path, 100)
    uses: list[Callable[[], object]] = [
        lambda: rows.put("a", ROWS),
        lambda: rows.get("a"),
        rows.clear,
        rows.info,
        prefixes.clear,
        rows.check,
        lambda: prefixes.save("a", 1, lambda _path: None),
        lambda: prefixes.load("a", lambda _path: True),
    ]
    for use in uses:
        with pytest.raises(FolderError, match="holds files and has no"):
            use()
    assert names(tmp_path) == [".unfinished-thesis", "photo.tokens"]


def test_clearing_a_cache_removes_entries_only(tmp_path: Path) -> None:
    cache, prefixes = (
        ImageTokenCache(tmp_path / "image-tokens", limit=400),
        PrefixCache(tmp_path / "image-tokens", 400),
    )
    cache.put("0" * 64, ROWS)
    prefixes.save("1" * 64, 10, lambda path: path.write_bytes(b"x" * 10) and None)
    others = {
        "photo.tokens": "x" * 4000,
        "film.kv": "x" * 4000,
        ".unfinished-thesis": "x",
        "notes.txt": "x",
    }
    for name, text in others.items():
        (tmp_path / "image-tokens" / name).write_text(text)
        os.utime(tmp_path / "image-tokens" / name, (0, 0))
    (tmp_path / "image-tokens" / "link.tokens").symlink_to(
        tmp_path / "image-tokens" / "photo.tokens"
    )
    cache.put("2" * 64, ROWS)  # the first has to make room
    assert cache.info()[0] == prefixes.info()[0] == 1
    assert (cache.clear(), prefixes.clear()) == (1, 1)
    assert names(tmp_path / "image-tokens") == sorted([*others, "link.tokens"])


@pytest.mark.parametrize("what", ["cut", "bit", "header", "other key", "link", "empty"])
def test_a_damaged_or_foreign_entry_is_removed(tmp_path: Path, what: str) -> None:
    cache = ImageTokenCache(tmp_path)
    cache.put("a", ROWS)
    path = tmp_path / "a.tokens"
    raw = path.read_bytes()
    if what == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        bit = raw[:-1] + bytes([raw[-1] ^ 1])
        changed = {
            "cut": raw[:-4],
            "bit": bit,
            "header": b"[1]" + raw[raw.index(b"\n") :],
            "empty": b"",
        }
        path.write_bytes(changed.get(what, raw.replace(b'"key": "a"', b'"key": "b"')))
    assert cache.get("a") is None
    assert not os.path.lexists(path)
    cache.put("a", ROWS)
    assert np.array_equal(cache.get("a"), ROWS)


def test_the_least_recently_used_entries_make_room(tmp_path: Path) -> None:
    size = 5 * 4 * 7 + 200
    cache = ImageTokenCache(tmp_path, limit=3 * size)
    for age, key in enumerate("abc"):
        cache.put(key, ROWS)
        os.utime(tmp_path / f"{key}.tokens", (time.time() - 100 + age,) * 2)
    assert cache.get("a") is not None  # now the youngest
    cache.put("d", ROWS)
    assert names(tmp_path) == ["a.tokens", "c.tokens", "d.tokens"]
    assert cache.info()[1] <= cache.limit
    cache.put("large", np.zeros((100, 100), np.float32))
    assert cache.get("large") is None
    assert cache.info()[0] == 3


def test_an_old_unfinished_entry_is_removed(tmp_path: Path) -> None:
    ImageTokenCache(tmp_path).put("b", ROWS)
    new, old = tmp_path / ".unfinished-a1b2c3d4", tmp_path / ".unfinished-_b2c3d4e"
    for path in (new, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    ImageTokenCache(tmp_path).put("a", ROWS)
    assert new.exists()
    assert not old.exists()


def test_a_full_disk_disables_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ImageTokenCache(tmp_path / "file" / "rows")
    cache.put("a", ROWS)
    assert cache.get("a") is None
    assert cache.info() == (0, 0)


def test_a_cached_page_is_judged_again_and_not_encoded(
    tiny_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageTokenCache(tmp_path)
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        first = model.encode(PAGE, cache=cache)
        plain = model.encode(PAGE)
        monkeypatch.setattr(model.encoder, "encode", lambda *_: pytest.fail("encoded again"))
        again = model.encode(PAGE, cache=cache)
        assert (
            again.image_tokens.tobytes()
            == first.image_tokens.tobytes()
            == plain.image_tokens.tobytes()
        )
        assert again.checked is not None
        assert "encode" in first.seconds
        assert "cached" in again.seconds
        assert "encode" not in again.seconds
        assert "cached" in model.report(again, [model.ask(again, "Rate?", 2)]).seconds


def test_commands_use_the_cache_unless_it_is_turned_off(tiny_kit: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
        env = os.environ | {"PULSE_EDGE_CACHE": str(tmp_path / "image-tokens")}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout

    ask = ("interpret", PAGE, "--kit", tiny_kit, "--json", "--max-tokens", 2, "--threads", 1)
    assert "encode" in json.loads(run(*ask, "--no-cache"))["seconds"]
    assert not (tmp_path / "image-tokens").exists()
    first, second = json.loads(run(*ask)), json.loads(run(*ask))
    assert "encode" in first["seconds"]
    assert "cached" in second["seconds"]
    assert first["answers"] == second["answers"]
    assert "image tokens of 1 page" in run("cache", "info")
    assert "removed image tokens of 1 page" in run("cache", "clear")


def test_a_stored_kv_cache_gives_the_same_logits_without_prefill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, questions = (
        PAGE.parent / "kits" / "miniature",
        ("Is the rhythm regular?", "What is the rate?"),
    )
    cached = PrefixCache(tmp_path, 64 << 20)

    def numbers(model: PulseModel, rows: str) -> list[bytes]:
        scan = model.encode(PAGE, image_tokens=rows, cache=ImageTokenCache(tmp_path))
        return [model.prefill(scan, model.turns(question, ())).tobytes() for question in questions]

    with PulseModel.load(kit, device="cpu", threads=1) as model:
        plain = {rows: numbers(model, rows) for rows in ("all", "no-padding")}
        model.prefixes = cached
        model.language.clear()
        assert {rows: numbers(model, rows) for rows in ("all", "no-padding")} == plain
        assert cached.info()[0] == 2
        model.language.clear()
        with monkeypatch.context() as patch:
            patch.setattr(model.language, "feed_embeddings", lambda *_: pytest.fail("read again"))
            assert {rows: numbers(model, rows) for rows in ("all", "no-padding")} == plain
        for path in tmp_path.glob("*.kv"):  # broken
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        model.language.clear()
        assert numbers(model, "all") == plain["all"]
        whole = [path for path in tmp_path.glob("*.kv") if path.stat().st_size]
        assert len(whole) == 2  # one was made again, the other was not used
        assert cached.clear() == 2


@posix
def test_a_foreign_kv_cache_entry_is_removed_and_the_oldest_make_room(
    tmp_path: Path,
) -> None:
    cached = PrefixCache(tmp_path, 250)
    for age, key in enumerate("abc"):
        cached.save(key, 100, lambda path: path.write_bytes(b"x" * 100) and None)
        for path in tmp_path.glob(f"{key}-*"):
            assert path.stat().st_mode & 0o777 == 0o600
            os.utime(path, (time.time() - 100 + age,) * 2)
    assert [name[0] for name in names(tmp_path)] == ["b", "c"]
    assert cached.load("c", lambda path: path.read_bytes() == b"x" * 100)
    (other,) = tmp_path.glob("b-*")
    other.rename(tmp_path / other.name.replace("b-", "d-"))
    assert not cached.load("d", lambda _path: pytest.fail("taken"))
    (tmp_path / "e-1.kv").symlink_to(next(tmp_path.glob("c-*")))
    assert not cached.load("e", lambda _path: pytest.fail("taken"))
    cached.save("large", 251, lambda _path: pytest.fail("written"))
    assert not cached.load("c", lambda _path: False)
    assert names(tmp_path) == []


def test_kits_that_differ_in_external_weights_share_no_cache_entry(
    tiny_kit: Path, tmp_path: Path
) -> None:
    with_first, with_second = (
        kit_with_weights_in(tiny_kit, tmp_path / "a", 1.0),
        kit_with_weights_in(tiny_kit, tmp_path / "b", 0.5),
    )
    assert (with_first / "vision.onnx").read_bytes() == (with_second / "vision.onnx").read_bytes()
    cache, rows = ImageTokenCache(tmp_path / "image-tokens"), []
    for kit in (with_first, with_second):
        with PulseModel.load(kit, device="cpu", threads=1) as model:
            encoded, plain = model.encode(PAGE, cache=cache), model.encode(PAGE)
            assert encoded.image_tokens.tobytes() == plain.image_tokens.tobytes()
            rows.append(encoded.image_tokens)
    assert not np.array_equal(*rows)
    assert cache.info()[0] == 2


def kit_with_weights_in(source: Path, target: Path, scale: float) -> Path:
    """A copy of a kit whose encoder keeps its weights in `weights/all.bin`, the last third of them
    times `scale`."""
    import onnx

    with writing(target) as work:
        for name in ("llm.gguf", "vision.onnx"):
            shutil.copy(source / name, work / name)
        (work / "weights").mkdir()
        weights = np.fromfile(source / "vision.onnx.data", "<f4")
        weights[2 * len(weights) // 3 :] *= scale
        weights.tofile(work / "weights" / "all.bin")
        model = onnx.load(work / "vision.onnx", load_external_data=False)
        for entry in (
            e
            for tensor in model.graph.initializer
            for e in tensor.external_data
            if e.key == "location"
        ):
            entry.value = "weights/all.bin"
        (work / "vision.onnx").write_bytes(model.SerializeToString())
        old = open_kit(source).manifest
        write_manifest(work, dataclasses.replace(old, files=listing(work)))
    return target


def test_every_file_that_may_hold_weights_is_an_encoder_file(
    tiny_kit: Path, tmp_path: Path
) -> None:
    first, second = (
        kit_with_weights_in(tiny_kit, tmp_path / name, scale)
        for name, scale in (("a", 1.0), ("b", 0.5))
    )
    manifests = [open_kit(kit).manifest for kit in (first, second)]
    assert [encoder_files(m) for m in manifests] == [["vision.onnx", "weights/all.bin"]] * 2
    assert encoder_files(open_kit(tiny_kit).manifest) == [
        "vision.onnx",
        "vision.onnx.data",
    ]
    assert base_of(manifests[0])["vision"] != base_of(manifests[1])["vision"]
    assert encoding(manifests[0]) != encoding(manifests[1])
    assert identity(manifests[0]) != identity(manifests[1])
