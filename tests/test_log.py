"""The record of answers: nothing in it can be changed quietly, and nothing in it says who the patient is."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.errors import LogError
from pulse_edge.log import Kept, Log

PAGE = Path(pulse_edge.__file__).parent / "example_page.png"


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 1,000 entries."""
    folder = tmp_path_factory.mktemp("thousand") / "log"
    log = Log(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _file: None)  # the disk's time is not what is tested
        for n in range(1000):
            log.append({"n": n, "text": "ß" * (n % 7)})
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Log:
    log = Log(tmp_path / "log")
    for n in range(5):
        log.append({"n": n})
    return log


def run(*arguments: object, log: Path, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
    env = os.environ | {"PULSE_EDGE_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, **how)  # type: ignore[call-overload,no-any-return]


def found(folder: Path) -> str:
    """What verify says about a record that was tampered with."""
    with pytest.raises(LogError) as raised:
        Log(folder).verify()
    return str(raised.value)


def test_every_changed_bit_is_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    whole = (folder / "log").read_bytes()
    rng = random.Random(7)
    starts = [0, *(i + 1 for i, c in enumerate(whole[:-1]) if c == 10)]
    for position in [0, 64, len(whole) - 1, whole.index(b"\n"), *rng.sample(range(len(whole)), 200)]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        (folder / "log").write_bytes(changed)
        line = sum(start <= position for start in starts)
        assert f"entry {line} " in found(folder)


def test_every_changed_bit_of_the_head_is_found(small: Log) -> None:
    whole = (small.folder / "head").read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            (small.folder / "head").write_bytes(changed)
            found(small.folder)


def test_every_removed_line_is_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "log").read_bytes().splitlines(keepends=True)
    for n in [0, 998, 999, *random.Random(8).sample(range(1000), 20)]:
        (folder / "log").write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        assert ("999 entries, and head says 1000" if n == 999 else f"entry {n + 1} ") in found(folder)


def test_swapped_lines_are_found(thousand: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(thousand, tmp_path / "copy"))
    lines = (folder / "log").read_bytes().splitlines(keepends=True)
    for n in random.Random(9).sample(range(999), 20):
        swapped = [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]
        (folder / "log").write_bytes(b"".join(swapped))
        assert f"entry {n + 1} " in found(folder)


def test_a_record_without_its_end_or_head_is_found(small: Log) -> None:
    lines = (small.folder / "log").read_bytes().splitlines(keepends=True)
    (small.folder / "log").write_bytes(b"".join(lines[:2]))
    assert "2 entries, and head says 5" in found(small.folder)
    (small.folder / "head").unlink()
    assert "2 entries, and head says none" in found(small.folder)


def test_a_replaced_record_lacks_the_hash_that_was_noted(small: Log, tmp_path: Path) -> None:
    noted = small.verify().hash
    small.append({"n": 5})
    assert small.verify(noted).entries == 6
    other = Log(tmp_path / "other")
    other.append({"n": 0})
    with pytest.raises(LogError, match="no entry has the hash"):
        other.verify(noted)


@pytest.mark.parametrize("cut", ["half a line", "the head"])
def test_a_power_cut_is_mended_by_the_next_answer(small: Log, cut: str) -> None:
    head = (small.folder / "head").read_bytes()
    small.append({"n": 5})
    line = (small.folder / "log").read_bytes().splitlines(keepends=True)[-1]
    (small.folder / "head").write_bytes(head)
    if cut == "half a line":
        os.truncate(small.folder / "log", int(head.split()[1]) + len(line) // 2)
    entries = 5 if cut == "half a line" else 6
    assert small.verify().entries == entries
    assert small.append({"n": 6}).number == entries + 1
    assert small.verify().entries == entries + 1


def test_nothing_is_written_behind_lines_that_were_removed_or_added(small: Log) -> None:
    whole = (small.folder / "log").read_bytes()
    for content, word in ((whole[:-10], "removed"), (whole + whole[:80] + b"\n", "added")):
        (small.folder / "log").write_bytes(content)
        with pytest.raises(LogError, match=word):
            small.append({"n": 5})
        assert (small.folder / "log").read_bytes() == content


WRITER = "import sys; from pulse_edge.log import Log\nfor n in range(30): Log().append({'by': sys.argv[1], 'n': n})"


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    env = os.environ | {"PULSE_EDGE_LOG": str(tmp_path / "log")}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], env=env) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert Log(tmp_path / "log").verify().entries == 60
    for name in "ab":
        assert [e.fields["n"] for e in Log(tmp_path / "log").entries() if e.fields["by"] == name] == list(range(30))


def test_a_killed_writer_leaves_a_record_that_is_whole(tmp_path: Path) -> None:
    log, env = Log(tmp_path / "log"), os.environ | {"PULSE_EDGE_LOG": str(tmp_path / "log")}
    known = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER.replace("30", "100000"), "a"], env=env)
        while not (log.folder / "log").exists() or log.verify().entries < known + 3:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        known = log.verify().entries
    assert log.append({}).number in (known, known + 1)


def test_who_waits_for_another_process_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pulse_edge.log as logs

    notes: list[str] = []
    monkeypatch.setattr(logs, "PATIENCE", 1.0)
    log, other = Log(tmp_path), Log(tmp_path, notes.append)
    with log._turn(), pytest.raises(LogError, match="another pulse-edge has been writing"):
        other.append({})
    assert notes == [f"another pulse-edge is writing the record in {tmp_path}: waiting"]


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    code = """
import resource, signal
from pulse_edge.errors import LogError
from pulse_edge.log import Log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    while True: Log().append({"text": "x" * 300})
except LogError as e:
    print(e)
"""
    env = os.environ | {"PULSE_EDGE_LOG": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert Log(tmp_path / "log").verify().entries == 13  # of 377 bytes
    Log(tmp_path / "log").append({})


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.append({}, Kept(1, {"answer": "x"}, b"picture"))
    for path in (log.folder, *log.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_what_is_kept_goes_when_its_days_are_over_and_the_entry_stays(
    small: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime

    import pulse_edge.log as logs

    item = small.append({}, Kept(30, {"answer": "x"}, None))
    assert json.loads(small.kept(item)["texts"].read_text()) == {"answer": "x"}
    today = datetime.date.today()

    class Later(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return today + datetime.timedelta(days=31)

    monkeypatch.setattr(logs.datetime, "date", Later)
    small.forget()
    assert small.kept(item) == {}
    assert small.verify().entries == 6


def test_a_kept_text_that_was_changed_or_removed_is_found(small: Log) -> None:
    path = small.kept(small.append({}, Kept(30, {"answer": "x"}, None)))["texts"]
    path.write_text("{}")
    assert "the texts kept with entry 6 was altered" in found(small.folder)
    path.unlink()
    assert "the texts kept with entry 6 is missing" in found(small.folder)


def test_every_answer_is_recorded_without_names_and_texts(tiny_kit: Path, tmp_path: Path) -> None:
    page = Path(shutil.copy(PAGE, tmp_path / "Erika Mustermann.png"))
    questions = ("-q", "Is Erika well?", "-q", "What is the rate?")
    done = run(
        "interpret", page, "--kit", tiny_kit, "--threads", 1, "--max-tokens", 4, *questions, log=tmp_path / "log"
    )
    assert done.returncode == 0, done.stderr
    assert Log(tmp_path / "log").verify().entries == 2
    assert b"Erika" not in b"".join(p.read_bytes() for p in (tmp_path / "log").rglob("*") if p.is_file())
    listed = run("log", "list", log=tmp_path / "log").stdout.splitlines()
    assert len(listed) == 2
    assert "4 tokens, cut off" in listed[0]


def test_keep_keeps_texts_and_picture_and_show_shows_them(tiny_kit: Path, tmp_path: Path) -> None:
    done = run(
        "interpret", PAGE, "--kit", tiny_kit, "--threads", 1, "--max-tokens", 4, "--keep", 2, log=tmp_path / "log"
    )
    answer = done.stdout.splitlines()[-1]
    shown = run("log", "show", 1, log=tmp_path / "log").stdout
    assert json.dumps(answer, ensure_ascii=False)[1:-1] in shown
    item = next(Log(tmp_path / "log").entries())
    assert Log(tmp_path / "log").kept(item)["picture"].read_bytes().startswith(b"\x89PNG")


def test_an_answer_that_was_broken_off_is_recorded(tiny_kit: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pulse_edge", "interpret", str(PAGE), "--kit", str(tiny_kit), "--threads", "1"]
    env = os.environ | {"PULSE_EDGE_LOG": str(tmp_path / "log")}
    process = subprocess.Popen(
        [*command, "--max-tokens", "3900"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    process.stdout.readline()  # that it is a demonstration
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [e.fields["ended"] for e in Log(tmp_path / "log").entries()] == ["broken off"]


def test_without_a_place_for_the_record_nothing_is_answered(tiny_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("interpret", PAGE, "--kit", tiny_kit, "--threads", 1, log=tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert "answers cannot be recorded here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verify_ends_with_an_error_that_says_where(small: Log) -> None:
    assert run("log", "verify", log=small.folder).stdout.startswith(f"{small.folder}: 5 entries are as they were")
    data = bytearray((small.folder / "log").read_bytes())
    data[-5] ^= 1
    (small.folder / "log").write_bytes(data)
    done = run("log", "verify", log=small.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "entry 5 was altered" in done.stderr


def test_export_gives_every_entry(tiny_kit: Path, tmp_path: Path) -> None:
    run("interpret", PAGE, PAGE, "--kit", tiny_kit, "--threads", 1, "--max-tokens", 2, log=tmp_path / "log")
    lines = run("log", "export", log=tmp_path / "log").stdout.splitlines()
    assert [json.loads(line)["entry"] for line in lines] == [1, 2]
    table = tmp_path / "table.csv"
    assert run("log", "export", "--format", "csv", "-o", table, log=tmp_path / "log").returncode == 0
    assert len(table.read_text().splitlines()) == 3
