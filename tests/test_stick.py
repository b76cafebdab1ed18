"""A stick: what pack writes, and that nothing broken, foreign or unsigned gets in unseen."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import small_stick

from pulse_edge import install, papers, stick, wheelhouse
from pulse_edge import kit as kits
from pulse_edge.cli import cli
from pulse_edge.errors import KitError

pytest.importorskip("cryptography", reason="signing needs the package cryptography")
KEY = stick.SecretKey(b"ourclin1", bytes(range(32)))
OTHER = stick.SecretKey(b"stranger", bytes(range(1, 33)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kits and a program."""
    folder = tmp_path_factory.mktemp("parts")
    small_stick.kit(folder / "a", "kit a", seed=1)
    small_stick.kit(folder / "b", "kit b", seed=2)
    small_stick.program(folder)
    return folder


@pytest.fixture(scope="module")
def whole(parts: Path) -> Path:
    wheel = next(parts.glob("*.whl"))
    return small_stick.make(parts / "stick", parts / "a", parts / "b", wheel=wheel, key=KEY, piece_bytes=3000)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "stick"))


def faults(folder: Path) -> str:
    """What the installer says before it does anything; nothing may have been written."""
    home = folder.parent / "home"
    with pytest.raises(install.Refused) as e:
        install.install(install.open_stick(folder), install.Wishes(home), lambda *_: None, lambda _text: None)
    assert not home.exists()
    return str(e.value)


# --- what pack writes -------------------------------------------------------------------------------------------------


def test_a_stick_verifies(whole: Path) -> None:
    assert "signed by key" in stick.verify(whole, None, lambda *_: None)


def test_the_same_inputs_give_the_same_bytes(parts: Path, whole: Path, tmp_path: Path) -> None:
    wheel = next(parts.glob("*.whl"))
    again = small_stick.make(tmp_path / "again", parts / "a", parts / "b", wheel=wheel, key=KEY, piece_bytes=3000)
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert [n for n in names if (whole / n).read_bytes() != (again / n).read_bytes()] == []


def test_a_large_file_is_carried_in_pieces(whole: Path, parts: Path) -> None:
    pieces = [whole / "kits/kit-a" / f"llm.gguf.{n}" for n in ("001", "002")]
    assert b"".join(p.read_bytes() for p in pieces) == (parts / "a/llm.gguf").read_bytes()
    assert [p.stat().st_size for p in pieces] == [3000, 2000]


def test_every_paper_is_there(whole: Path) -> None:
    for name in ("README.html", "MODEL_CARD.md", "install.py", "install.sh", "install.ps1", "sbom.cdx.json"):
        assert (whole / name).stat().st_size
    assert (whole / "licences/pulse-edge-1.0/LICENSE").read_text() == "MIT\n"
    bill = json.loads((whole / "sbom.cdx.json").read_text())
    assert {c["name"] for c in bill["components"]} == {"pip", "pulse-edge", "kit a", "kit b"}


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a\\b", "C:x", "aux", "kits/nul.txt", "a/", "a.", "a b ", "", "x?", "a/../b", "n" * 200]
)
def test_names_that_a_stick_cannot_hold_are_known(name: str) -> None:
    assert not install.name_fits(name)


def test_an_altered_kit_is_not_packed(parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(parts / "a", tmp_path / "kit"))
    flip(kit / "llm.gguf")
    with pytest.raises(KitError, match=r"kit/llm\.gguf"):
        small_stick.make(tmp_path / "stick", kit, wheel=next(parts.glob("*.whl")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constraints.txt", "kit"]


def test_a_stick_inside_its_kit_is_refused(parts: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(parts / "a", tmp_path / "kit"))
    order = stick.Order(kits=(kit,), out=kit / "stick", targets=(), wheels=(), constraints=tmp_path / "none")
    with pytest.raises(KitError, match="lies in the kit"):
        stick.pack(order)
    assert kits.open_kit(kit)


def test_everything_missing_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wheelhouse, "_fetched", lambda *_: None)
    own = small_stick.wheel(tmp_path, "pulse-edge", "1.0", {})
    needing = tmp_path / "needing" / own.name
    needing.parent.mkdir()
    with zipfile.ZipFile(own) as old, zipfile.ZipFile(needing, "w") as new:
        for name in old.namelist():
            more = b"Requires-Dist: numpy\nRequires-Dist: colorama; sys_platform == 'win32'\nRequires-Dist: llama-cpp-python\n"
            new.writestr(name, old.read(name) + (more if name.endswith("METADATA") else b""))
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==1.0 ; python_version < '3.12'\nllama-cpp-python==9.9\n")
    targets = stick.targets(["windows-x86_64"], ["3.11", "3.12"], "cpu")
    with pytest.raises(KitError) as e:
        wheelhouse.gather(targets, [needing, small_stick.pip_wheel()], constraints)
    for line in (
        "numpy==1.0 for windows-x86_64 with Python 3.11",
        "numpy for windows-x86_64 with Python 3.12 (no version of it in constraints.txt)",
        "colorama for windows-x86_64 with Python 3.11 (no version",
        "llama-cpp-python==9.9 for windows-x86_64 with Python 3.12",
        "--wheel",
    ):
        assert line in str(e.value)


def test_a_slimmed_wheel_lists_what_it_holds(tmp_path: Path) -> None:
    held = ["llama_cpp/llama.py", "llama_cpp/lib/libllama.so", "llama_cpp-1.dist-info/METADATA"]
    needless = ["llama_cpp/include/llama.h", "include/ggml.h", "llama_cpp/lib/libmtmd.so", "bin/llama-server"]
    record = "llama_cpp-1.dist-info/RECORD"
    with zipfile.ZipFile(tmp_path / "llama_cpp-1-py3-none-any.whl", "w") as wheel:
        for name in held + needless:
            wheel.writestr(name, name)
        wheel.writestr(record, "".join(f"{name},sha256=x,{len(name)}\n" for name in held + needless) + f"{record},,\n")
    slim = wheelhouse.slimmed(tmp_path / "llama_cpp-1-py3-none-any.whl", tmp_path / "slim")
    with zipfile.ZipFile(slim) as wheel:
        listed = [row.split(",")[0] for row in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist()) == sorted([*held, record])


def test_a_delta_carries_only_what_has_changed(parts: Path, whole: Path, tmp_path: Path) -> None:
    wheel = next(parts.glob("*.whl"))
    new = small_stick.kit(tmp_path / "c", "kit c", seed=3)
    delta = small_stick.make(tmp_path / "delta", parts / "a", new, wheel=wheel, key=KEY, since=whole / "stick.json")
    assert sorted(p.parent.name for p in delta.rglob("*") if p.suffix in (".gguf", ".whl")) == ["kit-c"]


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


@pytest.mark.parametrize("name", ["x", "wheels/numpy-9-py3-none-any.whl", "kits/kit-a/more.bin", "json.py"])
def test_a_file_more_is_found_and_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"x")
    assert f"{name}: does not belong" in faults(copy)


def test_what_systems_leave_on_sticks_is_ignored(copy: Path) -> None:
    (copy / "System Volume Information").mkdir()
    (copy / "System Volume Information/WPSettings.dat").write_bytes(b"x")
    (copy / "._README.html").write_bytes(b"x")
    assert stick.verify(copy, None, lambda *_: None)


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
    text = (copy / "stick.json").read_text()
    (copy / "stick.json").write_text(text.replace("kit a", "kit z"))
    assert "stick.json: does not agree with its signature" in faults(copy)


def test_another_signature_is_found(copy: Path) -> None:
    (copy / "stick.json.minisig").write_text(OTHER.sign((copy / "stick.json").read_bytes(), "c"))
    assert "stick.pub: not the key of the signature" in faults(copy)


def test_a_copy_cut_short_anywhere_is_found_and_named(whole: Path, tmp_path: Path) -> None:
    """`cp -r` ended after that many bytes: the last file is short, and the rest is not there."""
    names = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    total = sum((whole / n).stat().st_size for n in names)
    for left in random.Random(7).sample(range(total), 20):
        cut = tmp_path / f"{left}" / "stick"
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
    raw = json.loads((copy / "stick.json").read_text())
    raw["files"]["../evil"] = {"bytes": 1, "sha256": "0" * 64}
    (copy / "stick.json").write_text(json.dumps(raw))
    with pytest.raises(install.Refused, match=r"'\.\./evil' is not allowed"):
        install.open_stick(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"stick_version": 1}', '{"stick_version": 2}', "[" * 100000])
def test_a_manifest_that_is_none_is_refused_in_a_line(copy: Path, text: str) -> None:
    (copy / "stick.json").write_text(text)
    with pytest.raises(install.Refused, match=r"stick\.json: "):
        install.open_stick(copy)


def bad_wheel(path: Path, change: Callable[[zipfile.ZipFile], None]) -> list[str]:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/__init__.py", b"")
        change(archive)
    return install.archive_faults(path)


def linked(archive: zipfile.ZipFile, kind: int) -> None:
    entry = zipfile.ZipInfo("x/link")
    entry.external_attr = (kind | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize("name", ["../../evil.py", "/evil.py", "x/../../evil.py", "C:/evil.py", "..\\evil.py"])
def test_an_archive_with_a_path_outside_is_refused(tmp_path: Path, name: str) -> None:
    assert "would leave its folder" in bad_wheel(tmp_path / "w.whl", lambda a: a.writestr(name, b""))[0]


@pytest.mark.parametrize("kind", [0o120000, 0o020000, 0o060000, 0o010000], ids=["link", "character", "block", "pipe"])
def test_an_archive_with_a_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    assert "link or a device" in bad_wheel(tmp_path / "w.whl", lambda a: linked(a, kind))[0]


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_UNPACKED_BYTES", 1 << 20)
    said = bad_wheel(tmp_path / "w.whl", lambda a: a.writestr("zeros", bytes(2 << 20)))
    assert "would unpack to more than" in said[0]


# --- whom to trust ----------------------------------------------------------------------------------------------------


def judged(folder: Path, *pinned: stick.SecretKey, **how: object) -> install.Trust:
    wishes: dict[str, object] = {"accept": []} | how
    return install.judged(install.open_stick(folder), [k.public() for k in pinned], **wishes)  # type: ignore[arg-type]


def test_the_first_key_is_pinned(whole: Path) -> None:
    assert dataclasses.astuple(judged(whole))[1:] == (True, True)


def test_a_pinned_key_is_trusted_without_a_word(whole: Path) -> None:
    assert judged(whole, OTHER, KEY).warning is None


def test_a_foreign_key_needs_its_id_as_a_word(whole: Path) -> None:
    with pytest.raises(install.Refused, match=f"--accept {KEY.public().id}"):
        judged(whole, OTHER)
    assert KEY.public().id in str(judged(whole, OTHER, accept=[KEY.public().id]).warning)


def test_an_unsigned_stick_needs_a_word(copy: Path) -> None:
    (copy / "stick.json.minisig").unlink()
    with pytest.raises(install.Refused, match="--accept unsigned"):
        judged(copy, KEY)
    assert "UNSIGNED" in str(judged(copy, KEY, accept=["unsigned"]).warning)


def test_a_named_key_is_the_only_one_that_counts(whole: Path) -> None:
    assert judged(whole, key=KEY.public()).pinned
    with pytest.raises(install.Refused, match="trusted here"):
        judged(whole, KEY, key=OTHER.public())


def test_a_stranger_with_a_known_number_is_not_taken_for_its_owner(copy: Path) -> None:
    liar = stick.SecretKey(KEY.number, OTHER.seed)
    (copy / "stick.json.minisig").write_text(liar.sign((copy / "stick.json").read_bytes(), "c"))
    (copy / "stick.pub").write_text(liar.public().text())
    with pytest.raises(install.Refused, match="does not agree with its signature"):
        judged(copy, KEY)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Path) -> Path:
    """A version's folder that this very process seems to run from, of an unsigned stick with an older kit that was signed."""
    version = tmp_path / "versions/1.0"
    (version / "venv").mkdir(parents=True)
    (version / "stick.json").write_text("{}")
    shutil.copytree(parts / "a", version / "kits/kit-a")
    shutil.copytree(parts / "b", version / "kits/kit-b")
    about = {"warning": None, "kits": {"kit-a": "UNSIGNED STICK", "kit-b": None}}
    (version / "install.json").write_text(json.dumps(about))
    monkeypatch.setattr(kits.sys, "prefix", str(version / "venv"))
    monkeypatch.delenv(kits.KIT_VARIABLE, raising=False)
    return version


@pytest.mark.parametrize(("name", "warning"), [("kit-a", "UNSIGNED STICK"), ("kit-b", None)])
def test_answers_say_what_is_wrong_with_the_stick_of_their_kit(installed: Path, name: str, warning: str | None) -> None:
    assert kits.warning(kits.open_kit(installed / "kits" / name)) == warning


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_warning_reaches_who_reads_the_answer(
    tiny_kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.setattr(kits, "warning", lambda _kit: "UNSIGNED STICK")
    words = [
        "interpret",
        str(Path(kits.__file__).parent / "example_page.png"),
        "--kit",
        str(tiny_kit),
        "--max-tokens",
        "1",
    ]
    with pytest.raises(SystemExit):
        cli.main([*words, *(["--json"] if form == "json" else [])], standalone_mode=False)
    out = capsys.readouterr().out
    assert json.loads(out)["kit"]["warning"] == "UNSIGNED STICK" if form == "json" else "\nUNSIGNED STICK\n" in out


def test_an_installed_kit_is_found_by_its_name(installed: Path) -> None:
    assert kits.find(Path("kit-b")).path == (installed / "kits/kit-b").resolve()


def test_two_installed_kits_are_told_apart_by_name(installed: Path) -> None:
    with pytest.raises(KitError, match=r"several kits \(kit-a, kit-b\)"):
        kits.find(None)


def test_the_page_has_no_script_and_fetches_nothing(whole: Path) -> None:
    text = (whole / "README.html").read_text()
    assert "<script" not in text
    assert "http" not in text


def test_a_model_card_says_what_it_is_for_and_its_limits(parts: Path) -> None:
    text = papers.card(kits.open_kit(parts / "a").manifest)
    for word in ("Intended use", "Limits", "NOT FOR PATIENTS", "Not measured yet"):
        assert word in text


def test_an_unfinished_stick_leaves_nothing(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(papers, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        small_stick.make(tmp_path / "out/stick", parts / "a", wheel=next(parts.glob("*.whl")))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["constraints.txt"]
