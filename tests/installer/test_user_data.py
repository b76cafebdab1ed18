"""Caches and audit logs after an uninstallation."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from installations import contents, run

from pulse_edge.common import folders
from pulse_edge.installer import command
from pulse_edge.installer.home import MARK, Home

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a cache and an audit log, marked as the program marks them, and files of
    others in both.
    """
    folder = tmp_path / "user"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / ".local/state"))
    for name in ("PULSE_EDGE_CACHE", "PULSE_EDGE_AUDIT_LOG"):
        monkeypatch.delenv(name, raising=False)
    rows, log = folder / ".cache/pulse-edge/rows", folder / ".local/state/pulse-edge/audit-log"
    tests = folder / ".local/state/pulse-edge/self-tests"
    files = [
        *(
            folder / ".cache/pulse-edge/machine" / f"{'d' * 20}-{'e' * 20}.json",
            tests / f"{'d' * 20}-{'e' * 20}.json",
        ),
        folder / ".cache/pulse-edge/verified/verified.json",
        *(rows / f"{'a' * 64}.tokens", rows / f"{'a' * 64}-{'b' * 64}.kv", rows / ".unfinished-x"),
        *(
            log / "entries.log",
            log / "head",
            log / "lock",
            log / "retained/2026-01-02" / f"{'c' * 64}.png",
        ),
    ]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    kinds = {"page-cache": rows, "audit-log": log, "self-test-results": tests}
    kinds |= {
        "machine-profile": rows.with_name("machine"),
        "verified-files": rows.with_name("verified"),
    }
    for kind, path in kinds.items():
        assert kind in folders.KINDS
        folders.claim(path, kind, lambda: True)
    return folder


def test_uninstalling_says_what_stays_and_how_to_remove_it(home: Path, user: Path) -> None:
    before = contents(user)
    done = run(home, home, "--uninstall")
    rows, log = user / ".cache/pulse-edge/rows", user / ".local/state/pulse-edge/audit-log"
    assert f"left: {rows} (page cache). --uninstall --remove-cache removes it" in done.stderr
    assert (
        f"left: {log} (audit log: what was answered and when). --uninstall --remove-audit-log removes it"
        in done.stderr
    )
    assert contents(user) == before


@pytest.mark.parametrize("at_once", [True, False])
def test_caches_and_the_audit_log_are_removed_on_request(
    home: Path, bundles: dict[str, Path], user: Path, at_once: bool
) -> None:
    if not at_once:
        run(bundles["one"], home, "--uninstall")
    done = run(bundles["one"], home, "--uninstall", "--remove-cache")
    assert f"removed: {user / '.cache/pulse-edge/rows'} (page cache)" in done.stdout
    assert not (user / ".cache/pulse-edge").exists()
    assert (user / ".local/state/pulse-edge/audit-log/entries.log").exists()
    run(bundles["one"], home, "--uninstall", "--remove-audit-log")
    assert not (user / ".local/state/pulse-edge").exists()


def test_pages_of_the_local_page_go_with_the_audit_log(
    home: Path, bundles: dict[str, Path], user: Path
) -> None:
    web = user / ".local/state/pulse-edge/web"
    folders.claim(web, "web")
    id, upload = "i" * 22, "u" * 22
    files = ["web.sqlite", "web.sqlite-wal", "lock", "token", "phones.json", "phone-key.pem"]
    for name in [*files, f"uploads/{upload}", f"pictures/{id}-thumb.jpg", "notes-of-22-characters"]:
        (web / name).parent.mkdir(exist_ok=True)
        (web / name).write_text("x")
    done = run(bundles["one"], home, "--uninstall", "--remove-cache")
    assert f"left: {web} (local page: uploads, answers, confirmations)" in done.stderr
    assert (web / "uploads" / upload).exists()
    run(bundles["one"], home, "--uninstall", "--remove-audit-log")
    assert sorted(p.name for p in web.rglob("*") if p.name != MARK) == ["notes-of-22-characters"]


def test_files_of_others_in_caches_and_the_log_stay(home: Path, user: Path) -> None:
    rows, log = user / ".cache/pulse-edge/rows", user / ".local/state/pulse-edge/audit-log"
    (rows / "thesis.txt").write_text("mine")
    (log / "retained/letters").mkdir()
    (log / "retained/letters/letter.pdf").write_text("mine")
    done = run(home, home, "--uninstall", "--remove-cache", "--remove-audit-log")
    assert sorted(p.name for p in user.rglob("*") if p.is_file() and p.name != MARK) == [
        "letter.pdf",
        "thesis.txt",
    ]
    assert f"left: {rows / 'thesis.txt'} (" in done.stderr


@pytest.mark.parametrize("answers", [["yes", "no"], ["no", "yes"], ["", ""]])
def test_on_a_terminal_each_is_asked_about(
    home: Path, user: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers)))
    command.remove_all(Home(home), cache=False, audit_log=False)
    names = (".cache/pulse-edge/machine", ".cache/pulse-edge/rows")
    assert [(user / name).exists() for name in names] == [answer != "yes" for answer in answers]
    assert (user / ".local/state/pulse-edge/audit-log/entries.log").exists()


def test_a_cache_without_a_mark_is_left_and_named(home: Path, user: Path) -> None:
    for path in user.rglob(MARK):
        path.unlink()
    before = contents(user)
    done = run(home, home, "--uninstall", "--remove-cache", "--remove-audit-log")
    assert contents(user) == before
    for name in (".cache/pulse-edge", ".local/state/pulse-edge/audit-log"):
        assert f"left: {user / name} (without a mark" in done.stderr
