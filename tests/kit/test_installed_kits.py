"""Installed kits: found by name, chosen for good, and what answers say about their bundle."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pulse_edge.cli.main import cli
from pulse_edge.common import paths
from pulse_edge.errors import KitError
from pulse_edge.installer.home import DEFAULT_KIT
from pulse_edge.kit import locate
from pulse_edge.kit.kit import KIT_VARIABLE, open_kit

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_parts: Path) -> Path:
    """A version's folder that this very process seems to run from, of an unsigned bundle with an
    older kit that was signed."""
    version = tmp_path / "versions/1.0"
    (version / "venv").mkdir(parents=True)
    (version / "bundle.json").write_text("{}")
    shutil.copytree(bundle_parts / "a", version / "kits/kit-a")
    shutil.copytree(bundle_parts / "b", version / "kits/kit-b")
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
def test_the_warning_about_the_bundle_is_in_the_answer(
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


def test_the_beginning_of_a_name_is_enough_if_it_is_unique(installed: Path) -> None:
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


def test_with_two_installed_kits_one_must_be_named(installed: Path) -> None:
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
    assert not (installed / DEFAULT_KIT).exists()


def test_a_chosen_kit_that_is_gone_is_not_replaced_by_another(installed: Path) -> None:
    locate.choose("kit-b")
    shutil.rmtree(installed / "kits/kit-b")
    with pytest.raises(
        KitError, match=r"kit-b was chosen as the default, and is not installed any more.*kit-a"
    ):
        locate.find(None)


def test_a_broken_default_kit_is_an_error(installed: Path) -> None:
    (installed / DEFAULT_KIT).write_text("[]")
    with pytest.raises(KitError, match=r"default-kit\.json: cannot be read.*kit use NAME"):
        locate.find(None)
