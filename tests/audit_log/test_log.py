"""The record of answers: nothing in it can be changed quietly, and nothing in it says who the patient is."""

from __future__ import annotations

import datetime
import hashlib
import json
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

import pulse_edge
from pulse_edge.audit_log import log as logs
from pulse_edge.audit_log.entries import Retained, answer_entry
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common import files
from pulse_edge.errors import AuditLogError
from pulse_edge.report.report import INTENDED_USE

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


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


@pytest.fixture
def small(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "log")
    for n in range(5):
        log.append({"n": n})
    return log


def run(*arguments: object, log: Path, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, **how)  # type: ignore[call-overload,no-any-return]


def found(folder: Path) -> str:
    """What verify says about a record that was tampered with."""
    with pytest.raises(AuditLogError) as raised:
        AuditLog(folder).verify()
    return str(raised.value)


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
        assert f"entry {line} " in found(folder)


def test_every_changed_bit_of_the_head_is_found(small: AuditLog) -> None:
    whole = (small.folder / "head").read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            (small.folder / "head").write_bytes(changed)
            found(small.folder)


def test_every_removed_line_is_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "entries.log").read_bytes().splitlines(keepends=True)
    for n in [0, 998, 999, *random.Random(8).sample(range(1000), 20)]:
        (folder / "entries.log").write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        assert ("999 entries, and head says 1000" if n == 999 else f"entry {n + 1} ") in found(
            folder
        )


def test_swapped_lines_are_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "entries.log").read_bytes().splitlines(keepends=True)
    for n in random.Random(9).sample(range(999), 20):
        swapped = [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]
        (folder / "entries.log").write_bytes(b"".join(swapped))
        assert f"entry {n + 1} " in found(folder)


def test_a_record_without_its_end_or_head_is_found(small: AuditLog) -> None:
    lines = (small.folder / "entries.log").read_bytes().splitlines(keepends=True)
    (small.folder / "entries.log").write_bytes(b"".join(lines[:2]))
    assert "2 entries, and head says 5" in found(small.folder)
    (small.folder / "head").unlink()
    assert "2 entries, and head says none" in found(small.folder)


def test_a_replaced_record_lacks_the_hash_that_was_noted(small: AuditLog, tmp_path: Path) -> None:
    noted = small.verify().hash
    small.append({"n": 5})
    assert small.verify(noted).entries == 6
    other = AuditLog(tmp_path / "other")
    other.append({"n": 0})
    with pytest.raises(AuditLogError, match="no entry has the hash"):
        other.verify(noted)


@pytest.mark.parametrize("cut", ["half a line", "the head"])
def test_a_power_cut_is_mended_by_the_next_answer(small: AuditLog, cut: str) -> None:
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


def test_nothing_is_written_behind_lines_that_were_removed_or_added(small: AuditLog) -> None:
    whole = (small.folder / "entries.log").read_bytes()
    for content, word in ((whole[:-10], "removed"), (whole + whole[:80] + b"\n", "added")):
        (small.folder / "entries.log").write_bytes(content)
        with pytest.raises(AuditLogError, match=word):
            small.append({"n": 5})
        assert (small.folder / "entries.log").read_bytes() == content


WRITER = "import sys; from pulse_edge.audit_log.log import AuditLog\nfor n in range(30): AuditLog().append({'by': sys.argv[1], 'n': n})"


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], env=env) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert AuditLog(tmp_path / "log").verify().entries == 60
    for name in "ab":
        assert [
            e.fields["n"] for e in AuditLog(tmp_path / "log").entries() if e.fields["by"] == name
        ] == list(range(30))


def test_a_killed_writer_leaves_a_record_that_is_whole(tmp_path: Path) -> None:
    log, env = (
        AuditLog(tmp_path / "log"),
        os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")},
    )
    known = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.replace("30", "100000"), "a"], env=env
        )
        while not (log.folder / "entries.log").exists() or log.verify().entries < known + 3:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        known = log.verify().entries
    assert log.append({}).number in (known, known + 1)


KILLS = 8


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_kills_at_any_moment_lose_no_entry_that_was_acknowledged(tmp_path: Path) -> None:
    code = "from pulse_edge.audit_log.entries import Retained\n"
    code += "from pulse_edge.audit_log.log import AuditLog\nlog = AuditLog()\nlog.ready()\nprint('begun', flush=True)\n"
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
        said = writer.communicate()[0].split()
        AuditLog(folder).ready()
        entries = AuditLog(folder).verify().entries
        assert not said[1:] or int(said[-1]) <= entries <= int(said[-1]) + 1
        assert {
            path.name for path in folder.iterdir() if "pulse-edge" not in path.name
        } <= logs.FILES


def test_who_waits_for_another_process_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(logs, "PATIENCE", 1.0)
    log, other = AuditLog(tmp_path), AuditLog(tmp_path, notes.append)
    with log.locked(), pytest.raises(AuditLogError, match="another pulse-edge has been writing"):
        other.append({})
    assert notes == [f"another pulse-edge is writing the audit log in {tmp_path}: waiting"]


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path) -> None:
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


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_no_text_is_kept_or_removed_through_a_link(tmp_path: Path) -> None:
    log, other = AuditLog(tmp_path / "log"), tmp_path / "other" / "2000-01-01"
    log.append({})
    other.mkdir(parents=True)
    (other / f"{'0' * 64}.json").write_text("somebody's")
    (log.folder / "retained").rmdir()
    (log.folder / "retained").symlink_to(other.parent)
    with pytest.raises(AuditLogError, match="retained: is a link"):
        log.append({}, Retained(1, {"answer": "x"}, None))
    with pytest.raises(AuditLogError, match="retained: is a link"):
        log.forget()
    assert [path.name for path in other.parent.rglob("*")] == ["2000-01-01", f"{'0' * 64}.json"]


def test_a_text_that_cannot_be_kept_stops_everything_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "log")
    log.append({})

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(
        AuditLogError, match=r"retained.* cannot be written \(No space left on device\)"
    ):
        log.append({}, Retained(1, {"answer": "x" * 2000}, None))
    assert [path for path in (log.folder / "retained").rglob("*") if path.is_file()] == []
    assert log.verify().entries == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    log.append({}, Retained(1, {"answer": "x"}, b"picture"))
    for path in (log.folder, *log.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_what_is_kept_goes_when_its_days_are_over_and_the_entry_stays(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = small.append({}, Retained(30, {"answer": "x"}, None))
    assert json.loads(small.retained(item)["texts"].read_text()) == {"answer": "x"}
    today = datetime.date.today()

    class Later(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return today + datetime.timedelta(days=31)

    monkeypatch.setattr(logs.datetime, "date", Later)
    small.forget()
    assert small.retained(item) == {}
    assert small.verify().entries == 6


def test_a_kept_text_that_was_changed_or_removed_is_found(small: AuditLog) -> None:
    path = small.retained(small.append({}, Retained(30, {"answer": "x"}, None)))["texts"]
    path.write_text("{}")
    assert "the texts retained with entry 6 was altered" in found(small.folder)
    path.unlink()
    assert "the texts retained with entry 6 is missing" in found(small.folder)


def test_every_answer_is_recorded_without_names_and_texts(tiny_kit: Path, tmp_path: Path) -> None:
    page = Path(shutil.copy(PAGE, tmp_path / "Erika Mustermann.png"))
    questions = ("-q", "Is Erika well?", "-q", "What is the rate?")
    done = run(
        "interpret",
        page,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        4,
        *questions,
        log=tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    assert AuditLog(tmp_path / "log").verify().entries == 2
    assert b"Erika" not in b"".join(
        p.read_bytes() for p in (tmp_path / "log").rglob("*") if p.is_file()
    )
    listed = run("audit", "list", log=tmp_path / "log").stdout.splitlines()
    assert len(listed) == 2
    assert "4 tokens, cut off" in listed[0]


def test_keep_keeps_texts_and_picture_and_show_shows_them(tiny_kit: Path, tmp_path: Path) -> None:
    done = run(
        "interpret",
        PAGE,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        4,
        "--retain",
        2,
        log=tmp_path / "log",
    )
    *_, answer, intended_use = done.stdout.splitlines()
    assert intended_use == INTENDED_USE
    shown = run("audit", "show", 1, log=tmp_path / "log").stdout
    assert json.dumps(answer, ensure_ascii=False)[1:-1] in shown
    item = next(AuditLog(tmp_path / "log").entries())
    assert AuditLog(tmp_path / "log").retained(item)["picture"].read_bytes().startswith(b"\x89PNG")


def test_an_answer_that_was_broken_off_is_recorded(tiny_kit: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        str(PAGE),
        "--kit",
        str(tiny_kit),
        "--threads",
        "1",
    ]
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    process = subprocess.Popen(
        [*command, "--max-tokens", "3900"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    assert any(line.startswith(b"Page:") for line in process.stdout)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [e.fields["ended"] for e in AuditLog(tmp_path / "log").entries()] == ["broken off"]


def test_without_a_place_for_the_record_nothing_is_answered(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("interpret", PAGE, "--kit", tiny_kit, "--threads", 1, log=tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no folder, so it cannot hold the audit log" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verify_ends_with_an_error_that_says_where(small: AuditLog) -> None:
    assert run("audit", "verify", log=small.folder).stdout.startswith(
        f"{small.folder}: 5 entries are as they were"
    )
    data = bytearray((small.folder / "entries.log").read_bytes())
    data[-5] ^= 1
    (small.folder / "entries.log").write_bytes(data)
    done = run("audit", "verify", log=small.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "entry 5 was altered" in done.stderr


# --- reading changes nothing ------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


def test_reading_changes_nothing_though_a_power_cut_came_and_days_are_over(small: AuditLog) -> None:
    small.append({"n": 5}, Retained(30, {"answer": "x"}, None))
    (small.folder / "retained" / "2001-01-01").mkdir()
    (small.folder / "retained" / "2001-01-01" / ("a" * 64 + ".json")).write_text("{}")
    with open(small.folder / "entries.log", "ab") as file:
        file.write(b"half a line")
    before = snapshot(small.folder)
    for words in (("list",), ("show", 6), ("verify",), ("export",)):
        assert run("audit", *words, log=small.folder).returncode == 0, words
    assert snapshot(small.folder) == before


def test_a_copy_without_mark_or_lock_can_be_read(small: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for name in ("entries.log", "head"):
        shutil.copy(small.folder / name, tmp_path / "copy")
    before = snapshot(tmp_path / "copy")
    assert run("audit", "verify", "--audit-log", tmp_path / "copy", log=tmp_path).stdout.startswith(
        f"{tmp_path / 'copy'}: 5 "
    )
    assert snapshot(tmp_path / "copy") == before


@pytest.mark.parametrize("command", [("list",), ("show", 1), ("verify",), ("export",), ("forget",)])
def test_where_there_is_no_record_it_says_so_and_makes_none(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    done = run("audit", *command, "--audit-log", tmp_path / "gone", log=tmp_path / "other")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "gone") in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_record_whose_file_was_removed_is_not_an_empty_one(small: AuditLog) -> None:
    (small.folder / "entries.log").unlink()
    assert "log: is missing" in found(small.folder)
    (small.folder / "head").unlink()
    assert "log: is missing" in found(small.folder)


def test_a_reader_never_sees_a_record_in_the_middle_of_a_line(tmp_path: Path) -> None:
    log, env = (
        AuditLog(tmp_path / "log"),
        os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")},
    )
    log.append({})
    writer = subprocess.Popen([sys.executable, "-c", WRITER.replace("30", "200"), "a"], env=env)
    seen = 0
    while writer.poll() is None:
        seen = max(seen, log.verify().entries)
    assert seen <= log.verify().entries == 201


# --- long entries -----------------------------------------------------------------------------------------------------


def test_an_entry_that_would_be_too_long_is_refused_and_the_record_goes_on(small: AuditLog) -> None:
    before = (small.folder / "entries.log").read_bytes()
    with pytest.raises(
        AuditLogError, match=r"entry of 1,\d{3},\d{3} bytes is not written; 1,048,576 is the limit"
    ):
        small.append({"text": "x" * (1 << 20)})
    assert (small.folder / "entries.log").read_bytes() == before
    small.append({"text": "x" * ((1 << 20) - 100)})
    assert small.append({}).number == 7
    assert small.verify().entries == len(list(small.entries())) == 7


def test_a_long_entry_of_an_earlier_version_is_read(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(logs, "MAX_LINE", 1 << 30)
        small.append({"text": "x" * 1_100_000})
    small.append({})
    assert small.verify().entries == len(list(small.entries())) == 7


def test_a_power_cut_behind_a_long_entry_is_mended(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = (small.folder / "head").read_bytes()
    small.append({"text": "x" * 1_000_000})
    (small.folder / "head").write_bytes(head)
    assert small.append({}).number == 7
    assert small.verify().entries == 7


def test_a_kit_with_a_long_name_is_on_record_with_the_beginning_of_it(tmp_path: Path) -> None:
    report = {
        "page_sha256": "0" * 64,
        "kit": {"id": "k" * 1_100_000, "sha256": "1" * 64},
        "device": "cpu",
        "file": "x",
    }
    report |= {"versions": {"v" * 2000: "w" * 2000}, "answers": [], "findings": []}
    answer = {"question": "q" * 2_000_000, "text": "t" * 2_000_000, "tokens": 1, "complete": True}
    log = AuditLog(tmp_path / "log")
    fields = log.append(answer_entry(report, answer, {"threads": None})).fields
    assert fields["kit"] == {"id": "k" * 499 + "\u2026", "sha256": "1" * 64}
    assert len((tmp_path / "log" / "entries.log").read_bytes()) < 4000
    assert log.verify().entries == 1


# --- finding a page ---------------------------------------------------------------------------------------------------


def two_pages(tmp_path: Path) -> tuple[AuditLog, Path]:
    """A record of two pages, and the file of the first."""
    page = tmp_path / "scans" / "Erika Mustermann.png"
    page.parent.mkdir()
    page.write_bytes(b"a page")
    log = AuditLog(tmp_path / "log")
    for name, digest in (
        (str(page), hashlib.sha256(b"a page").hexdigest()),
        ("other.pdf#2", "f" * 64),
    ):
        report = {
            "page_sha256": digest,
            "kit": {"id": "kit"},
            "device": "cpu",
            "file": name,
            "versions": {},
        }
        log.append(
            answer_entry(report, {"question": "q", "text": "t", "tokens": 3, "complete": True}, {})
        )
    return log, page


def listed(log: AuditLog, *words: object) -> list[str]:
    """Numbers of the entries that are listed."""
    done = run("audit", "list", *words, log=log.folder)
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_entries_of_a_page_are_found_by_its_file_its_name_and_its_hashes(tmp_path: Path) -> None:
    log, page = two_pages(tmp_path)
    first, second = (item.fields for item in log.entries())
    assert listed(log) == ["1", "2"]
    assert listed(log, "--page", page) == ["1"]
    renamed = page.rename(tmp_path / "renamed.png")
    assert listed(log, "--page", renamed) == ["1"]
    assert listed(log, "--page", "Erika Mustermann.png") == ["1"]
    assert listed(log, "--page", "/elsewhere/other.pdf") == ["2"]
    assert listed(log, "--page", first["page_sha256"][:12]) == ["1"]
    assert listed(log, "--page", second["file_hash"][:8].upper()) == ["2"]
    done = run("audit", "list", "--page", "nobody.png", log=log.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no entry is about nobody.png" in done.stderr


def test_the_hash_of_a_name_cannot_be_found_by_trying_without_the_folder(tmp_path: Path) -> None:
    log, _page = two_pages(tmp_path)
    other, _page = two_pages(Path(shutil.copytree(tmp_path / "scans", tmp_path / "b" / "x").parent))
    hashes = {next(record.entries()).fields["file_hash"] for record in (log, other)}
    assert len(hashes) == 2
    assert hashlib.sha256(b"Erika Mustermann.png").hexdigest() not in hashes
    assert b"Erika" not in (log.folder / "entries.log").read_bytes()


def test_the_list_shows_utc_and_the_local_time_of_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        log, _page = two_pages(tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    fields = next(log.entries()).fields
    utc = datetime.datetime.fromisoformat(fields["time"].replace("Z", "+00:00"))
    local = datetime.datetime.fromisoformat(fields["local_time"])
    assert local.utcoffset() == datetime.timedelta(hours=5, minutes=30)
    assert abs(utc - local) < datetime.timedelta(seconds=1.1)
    line = run("audit", "list", log=log.folder).stdout.splitlines()[0]
    assert (
        f"{fields['time']} ({local:%Y-%m-%d %H:%M:%S} +0530) file {fields['file_hash'][:12]} page "
        in line
    )


def test_entries_of_other_versions_are_listed(small: AuditLog) -> None:
    small.append({"kit": "old", "time": "some day", "tokens": "\x1b[2K", "page_sha256": None})
    done = run("audit", "list", log=small.folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert "\x1b" not in done.stdout
    assert run("audit", "export", "--format", "csv", log=small.folder).returncode == 0


def test_kept_texts_are_not_shown_after_their_day_and_forgotten_alone(
    small: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = small.append({}, Retained(0, {"answer": "x"}, None))
    file = small.retained(item)["texts"]
    foreign = file.with_name("thesis.txt")
    foreign.write_text("mine")
    today = datetime.date.today()

    class Tomorrow(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return today + datetime.timedelta(days=1)

    monkeypatch.setattr(logs.datetime, "date", Tomorrow)
    assert small.retained(item) == {}
    assert file.exists()
    assert small.verify().entries == 6
    assert small.forget() == 1
    assert not file.exists()
    assert foreign.read_text() == "mine"


def test_export_replaces_a_file_only_when_asked_to(small: AuditLog, tmp_path: Path) -> None:
    precious, link = tmp_path / "precious.txt", tmp_path / "link.txt"
    precious.write_text("precious")
    link.symlink_to(precious)
    for target in (precious, link):
        done = run("audit", "export", "-o", target, log=small.folder)
        assert done.returncode == 2
        assert f"{target}: exists, and is not replaced" in done.stderr
    assert run("audit", "export", "-o", link, "--overwrite", log=small.folder).returncode == 0
    assert len(link.read_text().splitlines()) == 5
    assert precious.read_text() == "precious"


def test_export_gives_every_entry(tiny_kit: Path, tmp_path: Path) -> None:
    run(
        "interpret",
        PAGE,
        PAGE,
        "--kit",
        tiny_kit,
        "--threads",
        1,
        "--max-tokens",
        2,
        log=tmp_path / "log",
    )
    lines = run("audit", "export", log=tmp_path / "log").stdout.splitlines()
    assert [json.loads(line)["entry"] for line in lines] == [1, 2]
    table = tmp_path / "table.csv"
    assert (
        run("audit", "export", "--format", "csv", "-o", table, log=tmp_path / "log").returncode == 0
    )
    assert len(table.read_text().splitlines()) == 3
