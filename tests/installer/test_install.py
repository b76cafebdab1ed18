"""Install, install again, update, and continue after an interruption, with a stand-in for the
program.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_bundle
from installations import KEY, TRUSTED, run, says

from pulse_edge.common import folders
from pulse_edge.installer.bundle import open_bundle
from pulse_edge.installer.install import Request, install

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def test_the_installed_program_runs(first: Path) -> None:
    assert says(first, "interpret", "scan.jpg") == "1.0 interpret scan.jpg"


def test_kits_arrive_byte_for_byte_from_their_pieces(first: Path, bundles: dict[str, Path]) -> None:
    kit = next(first.glob("versions/*/kits/kit-a"))
    source = bundles["one"].parent / "a"
    assert {p.name: p.read_bytes() for p in kit.iterdir()} == {
        p.name: p.read_bytes() for p in source.iterdir()
    }


def test_installing_again_changes_nothing(home: Path, bundles: dict[str, Path]) -> None:
    before = sorted(home.rglob("*"))
    assert run(bundles["one"], home).returncode == 0
    assert sorted(home.rglob("*")) == before


def test_a_broken_bundle_installs_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    (copy / "kits/kit-a/llm.gguf.001").write_bytes(bytes(3000))
    done = run(copy, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "error: kits/kit-a/llm.gguf.001: altered"
    assert not (tmp_path / "home").exists()


def test_an_upgrade_is_in_use_when_it_has_passed(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["two"], home).returncode == 0
    assert says(home) == "2.0"


def test_an_upgrade_that_fails_leaves_the_version_before(
    home: Path, bundles: dict[str, Path]
) -> None:
    done = run(bundles["broken"], home)
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
    assert "reading with kit-a: failed" in done.stderr
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 1


def test_only_the_version_in_use_before_an_upgrade_stays(
    home: Path, bundles: dict[str, Path]
) -> None:
    run(bundles["two"], home)
    run(bundles["two"], home, "--rollback")
    run(bundles["more"], home)
    run(bundles["more"], home, "--rollback")
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 2


def test_a_second_kit_is_installed_with_the_first(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["more"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert sorted(p.name for p in (current / "kits").iterdir()) == ["kit-a", "kit-b"]


def test_self_test_results_stay_through_an_update(home: Path, bundles: dict[str, Path]) -> None:
    results = home / "versions" / (home / "current").read_text().strip() / "self-tests"
    folders.claim(results, "self-test-results")
    (results / "kit-processor.json").write_text("refused")
    assert run(bundles["more"], home).returncode == 0
    updated = home / "versions" / (home / "current").read_text().strip() / "self-tests"
    assert updated != results
    assert (updated / "kit-processor.json").read_text() == "refused"
    assert folders.read(updated) == folders.read(results)


def test_a_delta_takes_from_the_installed_version_what_it_does_not_carry(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["delta"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    for name in ("a", "b"):
        source = bundles["one"].parent / name / "llm.gguf"
        assert (current / f"kits/kit-{name}/llm.gguf").read_bytes() == source.read_bytes()


def test_a_delta_alone_says_what_is_missing(bundles: dict[str, Path], tmp_path: Path) -> None:
    done = run(bundles["delta"], tmp_path / "home")
    assert (
        "error: llm.gguf: not carried by this bundle, and not installed here. Use the whole bundle"
        in done.stderr
    )
    assert not (tmp_path / "home").exists()


def test_a_delta_finds_what_is_installed_under_another_name(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    """A file was renamed, one has a name with brackets, and the bundle before had the same bytes in
    another kit.
    """
    before = small_bundle.kit(
        tmp_path / "before", "kit a", seed=1, files=("llm[1].gguf", "vision.onnx")
    )
    after = small_bundle.kit(
        tmp_path / "after", "kit z", seed=1, files=("model.gguf", "vision.onnx")
    )
    wheel = small_bundle.program(tmp_path)
    whole = small_bundle.make(tmp_path / "whole", before, wheel=wheel, key=KEY)
    delta = small_bundle.make(
        tmp_path / "delta", after, before, wheel=wheel, key=KEY, since=whole / "bundle.json"
    )
    assert not list(delta.rglob("*.gguf"))
    for folder in (whole, delta):
        assert run(folder, tmp_path / "home").returncode == 0
    current = tmp_path / "home/versions" / (tmp_path / "home/current").read_text().strip()
    assert (current / "kits/kit-z/model.gguf").read_bytes() == (after / "model.gguf").read_bytes()
    assert (current / "kits/kit-a/llm[1].gguf").read_bytes() == (after / "model.gguf").read_bytes()


def test_an_older_bundle_must_be_accepted(home: Path, bundles: dict[str, Path]) -> None:
    assert run(bundles["two"], home).returncode == 0
    done = run(bundles["one"], home)
    assert done.returncode == 1
    assert "has pulse-edge 1.0" in done.stderr
    assert "in use is the newer 2.0" in done.stderr
    assert says(home) == "2.0"
    assert run(bundles["one"], home, "--accept", "older").returncode == 0
    assert says(home) == "1.0"


def test_older_kits_of_the_same_program_must_be_accepted(home: Path, tmp_path: Path) -> None:
    wheel = small_bundle.program(tmp_path, "1.0")
    older = small_bundle.kit(tmp_path / "kit", "kit a", created="2025-12-31T23:59:59+00:00")
    done = run(small_bundle.make(tmp_path / "bundle", older, wheel=wheel, key=KEY), home)
    assert (
        "with kits of 2025-12-31, and in use is the newer 1.0 with kits of 2026-01-02"
        in done.stderr
    )


def test_what_is_installed_is_what_was_checked(bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    signed = (copy / "install.pyz").read_bytes()

    def changing(text: str) -> None:
        if "installing the program" in text:
            (copy / "install.pyz").write_text("print('not what was signed')")

    request = Request(tmp_path / "home", accept=(KEY.public().id,))
    install(open_bundle(copy), request, lambda *_: None, changing)
    assert (tmp_path / "home/install.pyz").read_bytes() == signed


def test_a_kit_that_is_not_what_its_manifest_says_is_not_installed(
    tmp_path: Path, bundles: dict[str, Path]
) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    raw = json.loads((copy / "bundle.json").read_text())
    raw["kits"]["kit-a"]["files"]["llm.gguf"]["sha256"] = "0" * 64
    (copy / "bundle.json").write_text(json.dumps(raw))
    (copy / "bundle.json.minisig").write_text(KEY.sign((copy / "bundle.json").read_bytes(), "c"))
    assert (
        "llm.gguf: its pieces are not the file that the manifest names"
        in run(copy, tmp_path / "home").stderr
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_an_interrupted_upgrade_leaves_the_version_before_and_the_next_run_finishes(
    home: Path, bundles: dict[str, Path], number: int
) -> None:
    chance = random.Random(number)
    for _ in range(2):
        command = [sys.executable, str(bundles["two"] / "install.pyz"), "--to", str(home), *TRUSTED]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(chance.uniform(0.05, 1.5))
            os.kill(process.pid, number)
        assert says(home) in ("1.0", "2.0")
    done = run(bundles["two"], home)
    assert done.returncode == 0, done.stderr
    assert says(home) == "2.0"


@pytest.mark.parametrize(
    "words", [["--to", ""], ["--accept", "unsinged"], ["--remove-audit-log"], ["--remove-cache"]]
)
def test_a_mistyped_option_is_not_ignored(
    bundles: dict[str, Path], tmp_path: Path, words: list[str]
) -> None:
    command = [
        sys.executable,
        str(bundles["one"] / "install.pyz"),
        "--to",
        str(tmp_path / "home"),
        *words,
    ]
    assert subprocess.run(command, capture_output=True, check=False, cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []
