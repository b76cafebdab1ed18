"""The audit log shows every change, and loses no entry."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audit_logs import verify_error
from waiting import DEADLINE, wait_until

from pulse_edge.audit_log import log as logs
from pulse_edge.audit_log.entries import Retained
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import AuditLogError

WRITER = """
import sys
from pulse_edge.audit_log.log import AuditLog
for n in range(30): AuditLog().append({"by": sys.argv[1], "n": n})
"""
KILLS = 8


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 1,000 entries."""
    folder = tmp_path_factory.mktemp("thousand") / "log"
    log = AuditLog(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _file: None)  # the disk's time is not what is tested
        for n in range(1000):
            log.append({"n": n, "text": "ß" * (n % 7)})
    return folder


def run(*arguments: object, log: Path, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, **how)  # type: ignore[call-overload,no-any-return]


def test_every_changed_bit_is_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    whole = (folder / "entries.log").read_bytes()
    rng = random.Random(7)
    starts = [0, *(i + 1 for i, c in enumerate(whole[:-1]) if c == 10)]
    for position in [
        0,
        64,
        len(whole) - 1,
        whole.index(b"\n"),
        *rng.sample(range(len(whole)), 200),
    ]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        (folder / "entries.log").write_bytes(changed)
        line = sum(start <= position for start in starts)
        assert f"entry {line} " in verify_error(folder)


def test_every_changed_bit_of_the_head_is_found(small: AuditLog) -> None:
    whole = (small.folder / "head").read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            (small.folder / "head").write_bytes(changed)
            verify_error(small.folder)


def test_every_removed_line_is_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "entries.log").read_bytes().splitlines(keepends=True)
    for n in [0, 998, 999, *random.Random(8).sample(range(1000), 20)]:
        (folder / "entries.log").write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        assert (
            "999 entries, and head says 1000" if n == 999 else f"entry {n + 1} "
        ) in verify_error(folder)


def test_swapped_lines_are_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "entries.log").read_bytes().splitlines(keepends=True)
    for n in random.Random(9).sample(range(999), 20):
        swapped = [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]
        (folder / "entries.log").write_bytes(b"".join(swapped))
        assert f"entry {n + 1} " in verify_error(folder)


def test_missing_end_or_head_is_found(small: AuditLog) -> None:
    lines = (small.folder / "entries.log").read_bytes().splitlines(keepends=True)
    (small.folder / "entries.log").write_bytes(b"".join(lines[:2]))
    assert "2 entries, and head says 5" in verify_error(small.folder)
    (small.folder / "head").unlink()
    assert "2 entries, and head says none" in verify_error(small.folder)


def test_replaced_log_lacks_the_noted_hash(small: AuditLog, tmp_path: Path) -> None:
    noted = small.verify().hash
    small.append({"n": 5})
    assert small.verify(noted).entries == 6
    other = AuditLog(tmp_path / "other")
    other.append({"n": 0})
    with pytest.raises(AuditLogError, match="no entry has the hash"):
        other.verify(noted)


@pytest.mark.parametrize("cut", ["half a line", "the head"])
def test_next_answer_repairs_a_power_cut(small: AuditLog, cut: str) -> None:
    head = (small.folder / "head").read_bytes()
    small.append({"n": 5})
    line = (small.folder / "entries.log").read_bytes().splitlines(keepends=True)[-1]
    (small.folder / "head").write_bytes(head)
    if cut == "half a line":
        os.truncate(small.folder / "entries.log", int(head.split()[1]) + len(line) // 2)
    entries = 5 if cut == "half a line" else 6
    assert small.verify().entries == entries
    assert small.append({"n": 6}).number == entries + 1
    assert small.verify().entries == entries + 1


def test_tampered_log_takes_no_entry(small: AuditLog) -> None:
    whole = (small.folder / "entries.log").read_bytes()
    for content, word in ((whole[:-10], "removed"), (whole + whole[:80] + b"\n", "added")):
        (small.folder / "entries.log").write_bytes(content)
        with pytest.raises(AuditLogError, match=word):
            small.append({"n": 5})
        assert (small.folder / "entries.log").read_bytes() == content


def test_two_writers_lose_no_entry(tmp_path: Path) -> None:
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], env=env) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert AuditLog(tmp_path / "log").verify().entries == 60
    for name in "ab":
        assert [
            e.fields["n"] for e in AuditLog(tmp_path / "log").entries() if e.fields["by"] == name
        ] == list(range(30))


def test_killed_writer_leaves_an_intact_log(tmp_path: Path) -> None:
    log, env = (
        AuditLog(tmp_path / "log"),
        os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")},
    )
    expected = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.replace("30", "100000"), "a"], env=env
        )
        wait_until(
            lambda least=expected + 3: (
                (log.folder / "entries.log").exists() and log.verify().entries >= least
            ),
            writer,
        )
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        expected = log.verify().entries
    assert log.append({}).number in (expected, expected + 1)


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_kills_at_any_moment_lose_no_acknowledged_entry(tmp_path: Path) -> None:
    code = "from pulse_edge.audit_log.entries import Retained\n"
    code += "from pulse_edge.audit_log.log import AuditLog\n"
    code += "log = AuditLog()\nlog.ready()\nprint('begun', flush=True)\n"
    code += "while True: print(log.append({}, Retained(9, {'a': 'b'}, b'c')).number, flush=True)"
    dice = random.Random(3)
    for kill in range(KILLS):
        folder = tmp_path / str(kill // 2)  # every other time the folder is new
        env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(folder)}
        writer = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
        )
        time.sleep(dice.uniform(0.03, 0.4))
        writer.kill()
        text = writer.communicate()[0].split()
        AuditLog(folder).ready()
        entries = AuditLog(folder).verify().entries
        assert not text[1:] or int(text[-1]) <= entries <= int(text[-1]) + 1
        assert {
            path.name for path in folder.iterdir() if "pulse-edge" not in path.name
        } <= logs.FILES


def test_waiting_for_another_process_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(logs, "PATIENCE", 1.0)
    log, other = AuditLog(tmp_path), AuditLog(tmp_path, notes.append)
    with log.locked(), pytest.raises(AuditLogError, match="another pulse-edge has been writing"):
        other.append({})
    assert notes == [f"another pulse-edge is writing the audit log in {tmp_path}: waiting"]


def test_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    code = """
import resource, signal
from pulse_edge.audit_log import log as logs
from pulse_edge.common import files
from pulse_edge.errors import AuditLogError
from pulse_edge.audit_log.log import AuditLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    while True: AuditLog().append({"text": "x" * 300})
except AuditLogError as e:
    print(e)
"""
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert AuditLog(tmp_path / "log").verify().entries == 13  # of 377 bytes
    AuditLog(tmp_path / "log").append({})


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_only_its_owner_may_read_the_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    log.append({}, Retained(1, {"answer": "x"}, b"picture"))
    for path in (log.folder, *log.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_log_without_its_file_is_not_an_empty_one(small: AuditLog) -> None:
    (small.folder / "entries.log").unlink()
    assert "log: is missing" in verify_error(small.folder)
    (small.folder / "head").unlink()
    assert "log: is missing" in verify_error(small.folder)


def test_reader_never_sees_half_a_line(tmp_path: Path) -> None:
    log, env = (
        AuditLog(tmp_path / "log"),
        os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")},
    )
    log.append({})
    writer = subprocess.Popen([sys.executable, "-c", WRITER.replace("30", "200"), "a"], env=env)
    visited, deadline = 0, time.monotonic() + DEADLINE
    while writer.poll() is None:
        assert time.monotonic() < deadline
        visited = max(visited, log.verify().entries)
    assert visited <= log.verify().entries == 201
