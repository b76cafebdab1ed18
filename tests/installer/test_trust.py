"""Whose signature makes a bundle trustworthy."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from installations import KEY, OTHER, flip, run

from pulse_edge.deploy import signing
from pulse_edge.installer.bundle import open_bundle
from pulse_edge.installer.home import Home
from pulse_edge.installer.refusal import Refused
from pulse_edge.installer.trust import Trust, assess

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


def judged(folder: Path, *pinned: signing.SecretKey, **how: object) -> Trust:
    request: dict[str, object] = {"accept": []} | how
    return assess(open_bundle(folder), [k.public() for k in pinned], **request)  # type: ignore[arg-type]


def test_the_first_key_is_pinned(whole_bundle: Path) -> None:
    assert dataclasses.astuple(judged(whole_bundle))[1:] == (True, True)


def test_a_pinned_key_is_trusted_without_acceptance(whole_bundle: Path) -> None:
    assert judged(whole_bundle, OTHER, KEY).warning is None


def test_a_foreign_key_must_be_accepted_by_its_id(whole_bundle: Path) -> None:
    with pytest.raises(Refused, match=f"--accept {KEY.public().id}"):
        judged(whole_bundle, OTHER)
    assert KEY.public().id in str(judged(whole_bundle, OTHER, accept=[KEY.public().id]).warning)


def test_an_unsigned_bundle_must_be_accepted(bundle_copy: Path) -> None:
    (bundle_copy / "bundle.json.minisig").unlink()
    with pytest.raises(Refused, match="--accept unsigned"):
        judged(bundle_copy, KEY)
    assert "UNSIGNED" in str(judged(bundle_copy, KEY, accept=["unsigned"]).warning)


def test_a_named_key_is_the_only_one_that_counts(whole_bundle: Path) -> None:
    assert judged(whole_bundle, key=KEY.public()).pinned
    with pytest.raises(Refused, match="trusted here"):
        judged(whole_bundle, KEY, key=OTHER.public())


def test_a_stranger_with_a_known_number_is_not_taken_for_its_owner(bundle_copy: Path) -> None:
    liar = signing.SecretKey(KEY.number, OTHER.seed)
    (bundle_copy / "bundle.json.minisig").write_text(
        liar.sign((bundle_copy / "bundle.json").read_bytes(), "c")
    )
    (bundle_copy / "bundle.pub").write_text(liar.public().text())
    with pytest.raises(Refused, match="does not agree with its signature"):
        judged(bundle_copy, KEY)


def test_a_foreign_bundle_must_be_accepted_and_stays_marked(
    home: Path, bundles: dict[str, Path]
) -> None:
    assert run(bundles["foreign"], home).returncode == 1
    assert run(bundles["foreign"], home, "--accept", OTHER.public().id).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert OTHER.public().id in json.loads((current / "install.json").read_text())["kits"]["kit-b"]
    assert Home(home).pinned() == [KEY.public()]


@pytest.mark.parametrize("answer", ["", "no\n", "\n", "yess\n"])
def test_the_first_key_is_not_trusted_without_a_yes(
    bundles: dict[str, Path], tmp_path: Path, answer: str
) -> None:
    done = run(bundles["one"], tmp_path / "home", trusted=False, input=answer)
    assert done.returncode == 1
    assert f"signed by key {KEY.public().id}" in done.stderr
    assert f"--accept {KEY.public().id}" in done.stderr
    assert not (tmp_path / "home").exists()


def test_the_first_key_is_trusted_after_a_yes_and_is_not_asked_about_again(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert run(bundles["one"], home, trusted=False, input="yes\n").returncode == 0
    assert Home(home).pinned() == [KEY.public()]
    assert run(bundles["two"], home, trusted=False, input="").returncode == 0


def test_a_key_that_was_named_is_trusted_without_a_question(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    done = run(
        bundles["one"],
        tmp_path / "home",
        "--key",
        str(tmp_path / "key.pub"),
        trusted=False,
        input="",
    )
    assert done.returncode == 0, done.stderr
    assert Home(tmp_path / "home").pinned() == [KEY.public()]


def test_the_id_of_another_key_trusts_nobody(bundles: dict[str, Path], tmp_path: Path) -> None:
    done = run(
        bundles["one"], tmp_path / "home", "--accept", OTHER.public().id, trusted=False, input=""
    )
    assert done.returncode == 1
    assert not (tmp_path / "home").exists()


def test_files_are_checked_before_the_key_is_asked_about(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundles["one"], tmp_path / "bundle"))
    flip(copy / "README.html")
    done = run(copy, tmp_path / "home", trusted=False, input="yes\n")
    assert done.returncode == 1
    assert "README.html: altered" in done.stderr
    assert "Trust this key" not in done.stderr
