"""The installer, with a program that stands in for pulse-edge's wheel: fresh, again, killed, upgraded, back, and away."""

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
import small_stick

from pulse_edge import install, stick
from pulse_edge.cli import cli
from pulse_edge.errors import KitError

pytest.importorskip("cryptography", reason="signing needs the package cryptography")
KEY = stick.SecretKey(b"ourclin1", bytes(range(32)))
OTHER = stick.SecretKey(b"stranger", bytes(range(1, 33)))


@pytest.fixture(scope="module")
def sticks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`one` and `two` are versions with kit a, `broken` cannot read pages, `more` brings another kit, `foreign` a key."""
    folder = tmp_path_factory.mktemp("sticks")
    a, b = small_stick.kit(folder / "a", "kit a", seed=1), small_stick.kit(folder / "b", "kit b", seed=2)
    one, two = small_stick.program(folder, "1.0"), small_stick.program(folder, "2.0")
    broken = small_stick.program(folder, "3.0", broken=True)
    return {
        "one": small_stick.make(folder / "one", a, wheel=one, key=KEY, piece_bytes=3000),
        "two": small_stick.make(folder / "two", a, wheel=two, key=KEY),
        "broken": small_stick.make(folder / "broken", a, wheel=broken, key=KEY),
        "more": small_stick.make(folder / "more", b, wheel=two, key=KEY),
        "foreign": small_stick.make(folder / "foreign", b, wheel=two, key=OTHER),
        "delta": small_stick.make(folder / "delta", a, b, wheel=one, key=KEY, since=folder / "one/stick.json"),
    }


def run(folder: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "install.py"), "--to", str(home), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def says(home: Path, *arguments: str) -> str:
    """What the installed program prints."""
    launcher = str(home / "pulse-edge")
    return subprocess.run([launcher, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def first(sticks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("first") / "home"
    done = run(sticks["one"], home)
    assert (done.returncode, done.stdout) == (0, f"installed. Read a page: {home}/pulse-edge interpret scan.jpg\n")
    return home


@pytest.fixture
def home(first: Path, tmp_path: Path) -> Path:
    """A copy of a finished installation of `one`; its virtual environment is good enough for its launcher."""
    return Path(shutil.copytree(first, tmp_path / "home", symlinks=True))


def test_the_installed_program_runs(first: Path) -> None:
    assert says(first, "interpret", "scan.jpg") == "1.0 interpret scan.jpg"


def test_kits_arrive_byte_for_byte_from_their_pieces(first: Path, sticks: dict[str, Path]) -> None:
    kit = next(first.glob("versions/*/kits/kit-a"))
    source = sticks["one"].parent / "a"
    assert {p.name: p.read_bytes() for p in kit.iterdir()} == {p.name: p.read_bytes() for p in source.iterdir()}


def test_installing_again_changes_nothing(home: Path, sticks: dict[str, Path]) -> None:
    before = sorted(home.rglob("*"))
    assert run(sticks["one"], home).returncode == 0
    assert sorted(home.rglob("*")) == before


def test_a_broken_stick_installs_nothing(sticks: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sticks["one"], tmp_path / "stick"))
    (copy / "kits/kit-a/llm.gguf.001").write_bytes(bytes(3000))
    done = run(copy, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "error: kits/kit-a/llm.gguf.001: altered"
    assert not (tmp_path / "home").exists()


def test_an_upgrade_is_in_use_when_it_has_passed(home: Path, sticks: dict[str, Path]) -> None:
    assert run(sticks["two"], home).returncode == 0
    assert says(home) == "2.0"


def test_an_upgrade_that_fails_leaves_the_version_before(home: Path, sticks: dict[str, Path]) -> None:
    done = run(sticks["broken"], home)
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
    assert "reading with kit-a: failed" in done.stderr
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 1


def test_rollback_goes_back_and_forth(home: Path, sticks: dict[str, Path]) -> None:
    run(sticks["two"], home)
    seen = []
    for _ in range(2):
        assert run(sticks["two"], home, "--rollback").returncode == 0
        seen.append(says(home))
    assert seen == ["1.0", "2.0"]


def test_the_version_in_use_before_an_upgrade_is_kept_and_no_other(home: Path, sticks: dict[str, Path]) -> None:
    run(sticks["two"], home)
    run(sticks["two"], home, "--rollback")
    run(sticks["more"], home)
    run(sticks["more"], home, "--rollback")
    assert says(home) == "1.0"
    assert len(list(home.glob("versions/*"))) == 2


def test_without_an_earlier_version_rollback_says_so(home: Path, sticks: dict[str, Path]) -> None:
    done = run(sticks["one"], home, "--rollback")
    assert (done.returncode, done.stderr) == (1, f"error: {home}: there is no earlier version to go back to.\n")


def test_a_second_kit_stands_beside_the_first(home: Path, sticks: dict[str, Path]) -> None:
    assert run(sticks["more"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert sorted(p.name for p in (current / "kits").iterdir()) == ["kit-a", "kit-b"]


def test_a_foreign_stick_needs_a_word_and_stays_marked(home: Path, sticks: dict[str, Path]) -> None:
    assert run(sticks["foreign"], home).returncode == 1
    assert run(sticks["foreign"], home, "--accept", OTHER.public().id).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    assert OTHER.public().id in json.loads((current / "install.json").read_text())["kits"]["kit-b"]
    assert install.Home(home).pinned() == [KEY.public()]


def test_a_delta_takes_from_the_installed_version_what_it_does_not_carry(home: Path, sticks: dict[str, Path]) -> None:
    assert run(sticks["delta"], home).returncode == 0
    current = home / "versions" / (home / "current").read_text().strip()
    for name in ("a", "b"):
        source = sticks["one"].parent / name / "llm.gguf"
        assert (current / f"kits/kit-{name}/llm.gguf").read_bytes() == source.read_bytes()


def test_a_delta_alone_says_what_is_missing(sticks: dict[str, Path], tmp_path: Path) -> None:
    done = run(sticks["delta"], tmp_path / "home")
    assert "error: llm.gguf: not carried by this stick, and not installed here. Use the whole stick" in done.stderr
    assert not (tmp_path / "home").exists()


def test_uninstall_leaves_nothing(home: Path, sticks: dict[str, Path]) -> None:
    run(sticks["two"], home)
    (home / ".current.x1y2").touch()  # of an installer that was killed while it wrote
    done = subprocess.run(
        [sys.executable, str(home / "install.py"), "--to", str(home), "--uninstall"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert not home.exists()


def test_uninstall_leaves_what_is_somebody_elses(home: Path, sticks: dict[str, Path]) -> None:
    (home / "notes.txt").write_text("mine")
    assert run(sticks["one"], home, "--uninstall").returncode == 0
    assert [p.name for p in home.iterdir()] == ["notes.txt"]


def test_uninstall_of_a_place_where_nothing_is_touches_nothing(sticks: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(sticks["one"], tmp_path, "--uninstall").returncode == 1
    assert (tmp_path / "notes.txt").exists()


def test_too_little_disk_is_said_with_figures(
    sticks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1, 1, 1 << 20))
    with pytest.raises(install.Refused, match=r"needs 0\.3 GiB of disk, and 0\.0 GiB are free"):
        install.install(
            install.open_stick(sticks["one"]), install.Wishes(tmp_path / "home"), lambda *_: None, lambda _text: None
        )
    assert not (tmp_path / "home").exists()


def test_too_little_memory_is_said_with_figures(
    sticks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "installed_memory", lambda: 1 << 28)
    with pytest.raises(install.Refused, match=r"needs 0\.3 GiB of memory, and this machine has 0\.2 GiB"):
        install.install(
            install.open_stick(sticks["one"]), install.Wishes(tmp_path / "home"), lambda *_: None, lambda _text: None
        )


def test_a_stick_for_another_machine_says_for_which(
    sticks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "this_platform", lambda: "windows-x86_64")
    with pytest.raises(install.Refused, match=r"made for linux-.* with Python 3\.\d+; this is windows-x86_64"):
        install.install(
            install.open_stick(sticks["one"]), install.Wishes(tmp_path / "home"), lambda *_: None, lambda _text: None
        )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_an_interrupted_upgrade_leaves_the_version_before_and_the_next_run_finishes(
    home: Path, sticks: dict[str, Path], number: int
) -> None:
    chance = random.Random(number)
    for _ in range(2):
        command = [sys.executable, str(sticks["two"] / "install.py"), "--to", str(home)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.05, 1.5))
            os.kill(process.pid, number)
        assert says(home) in ("1.0", "2.0")
    done = run(sticks["two"], home)
    assert done.returncode == 0, done.stderr
    assert says(home) == "2.0"


def test_install_sh_finds_a_python_and_passes_everything_on(sticks: dict[str, Path], tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(sticks["one"] / "install.sh"), "--to", str(tmp_path), "--rollback"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"error: {tmp_path}: there is no earlier version to go back to.\n"


def test_install_sh_without_python_says_what_to_do(sticks: dict[str, Path], tmp_path: Path) -> None:
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(tmp_path / "sh"), str(sticks["one"] / "install.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python 3.10 or newer was found" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has one place")
@pytest.mark.parametrize(
    ("user", "user_only", "place"),
    [(0, False, "/opt"), (0, True, "/data"), (1000, False, "/data"), (1000, True, "/data")],
)
def test_an_administrator_installs_for_everybody_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, user: int, user_only: bool, place: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert install.default_home(user_only=user_only) == Path(place) / "pulse-edge"


def test_rollback_of_a_program_that_no_stick_brought_says_so() -> None:
    with pytest.raises(KitError, match="not installed from a stick"):
        cli.main(["kit", "rollback"], standalone_mode=False)


def test_kit_verify_checks_a_stick(sticks: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pub").write_text(KEY.public().text())
    cli.main(["kit", "verify", str(sticks["one"]), "--key", str(tmp_path / "key.pub")], standalone_mode=False)
    assert f"signed by key {KEY.public().id} (trusted here)" in capsys.readouterr().out


@pytest.fixture
def namespace() -> list[str]:
    """A command prefix that runs without any network interface."""
    command = ["unshare", "-rn"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no network namespaces here")
    return command


def test_the_installer_works_without_any_network_interface(
    sticks: dict[str, Path], tmp_path: Path, namespace: list[str]
) -> None:
    command = [*namespace, sys.executable, str(sticks["one"] / "install.py"), "--to", str(tmp_path / "home")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_page_is_read_without_any_network_interface(tiny_kit: Path, namespace: list[str]) -> None:
    assert subprocess.run([*namespace, *reading(tiny_kit)], check=False, capture_output=True).returncode == 0


def reading(kit: Path) -> list[str]:
    page = Path(__file__).parent.parent / "pulse_edge/example_page.png"
    return [sys.executable, "-m", "pulse_edge", "interpret", str(page), "--kit", str(kit), "--max-tokens", "2"]


def test_the_installer_connects_to_nothing(sticks: dict[str, Path], tmp_path: Path) -> None:
    """pip's copy of urllib3 opens a socket when imported, to see whether there is IPv6; it goes nowhere."""
    command = [sys.executable, str(sticks["one"] / "install.py"), "--to", str(tmp_path / "home")]
    assert [c for c in sockets(command, tmp_path) if "connect(" in c or "send" in c] == []


def sockets(command: list[str], folder: Path) -> list[str]:
    """Every socket call of a command and its children."""
    trace = folder / "trace"
    watched = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg,bind", "-o", str(trace)]
    if (
        shutil.which("strace") is None
        or subprocess.run([*watched, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("strace cannot trace here")
    done = subprocess.run([*watched, *command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in trace.read_text().splitlines() if "(" in line and "SIG" not in line]


def test_reading_a_page_opens_no_socket(tiny_kit: Path, tmp_path: Path) -> None:
    assert sockets(reading(tiny_kit), tmp_path) == []
