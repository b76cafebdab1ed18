"""`pulse-edge serve` on the command line: errors in one line, the browser, the sockets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from checkout import ROOT
from click.testing import CliRunner
from web_server import WebServer, children, wait_for

from pulse_edge.cli import serve as command
from pulse_edge.cli.main import cli
from pulse_edge.web import server as running_server


def serve(
    server: WebServer, *options: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, where it ends by itself."""
    words = ["serve", "--kit", server.kit, "--folder", server.folder, *options]
    return subprocess.run(
        [sys.executable, "-m", "pulse_edge", *map(str, words)],
        env={**server.environment, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with WebServer(tmp_path_factory.mktemp("command")) as running:
        yield running


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = serve(WebServer(tmp_path), "--port", port)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}: cannot be listened on" in line
    assert "--port" in line


def test_a_folder_in_use_is_one_line(server: WebServer) -> None:
    done = serve(server, "--port", 0)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "another pulse-edge works on it" in line
    assert "--folder" in line


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    server = WebServer(tmp_path)
    server.folder.mkdir()
    (server.folder / "letter.txt").write_text("mine")
    done = serve(server, "--port", 0)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "nothing is changed there" in line
    assert [path.name for path in server.folder.iterdir()] == ["letter.txt"]


def test_an_audit_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    server = WebServer(tmp_path)
    server.audit_log.folder.mkdir()
    (server.audit_log.folder / "letter.txt").write_text("mine")
    done = serve(server, "--port", 0)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "PULSE_EDGE_AUDIT_LOG" in line


def test_too_little_memory_is_shown_and_the_page_is_measured(tmp_path: Path) -> None:
    with WebServer(tmp_path, "--memory", "1MiB") as server:
        id = server.upload()
        assert server.wait(id, "waiting")["measurements"]["measurements"]
        with server.browser() as client:
            wait_for(lambda: "1 MiB are allowed" in client.get("/").text)


def test_without_its_libraries_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "LIBRARIES", ("no_such_library",))
    result = CliRunner().invoke(cli, ["serve"])
    assert "pip install 'pulse-edge[serve]'" in str(result.exception)


@pytest.mark.skipif(os.name != "posix", reason="a browser that is a shell script")
def test_open_hands_the_browser_a_private_file_also_of_a_running_server(server: WebServer) -> None:
    note = server.home / "opened"
    browser = server.home / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {note}\n')
    browser.chmod(0o755)
    before = server.link()
    done = serve(server, "--open", "--port", 0, BROWSER=str(browser))
    assert done.returncode == 0, done.stderr
    assert "running already" in done.stderr
    wait_for(note.exists)
    wait_for(lambda: note.read_text().endswith("\n"))
    opened = Path(note.read_text().strip().removeprefix("file://"))
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600
    assert before in opened.read_text()
    assert before.partition("token=")[2] not in note.read_text()
    assert httpx.get(before).status_code == 200


def test_the_link_of_a_killed_server_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link").write_text("http://127.0.0.1:1/?token=x\n")
    (tmp_path / "lock").touch()
    assert not running_server.open_running(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="a signal as POSIX has it")
def test_the_end_of_the_server_ends_sessions_and_the_link(tmp_path: Path) -> None:
    with WebServer(tmp_path) as server:
        with server.browser() as client:
            assert client.get("/").status_code == 200
            cookies = dict(client.cookies)
        server.kill(signal.SIGTERM)
        assert not (server.folder / "link").exists()
        server.start()
        assert httpx.get(server.address, cookies=cookies).status_code == 401
        with server.browser() as client:
            cookies = dict(client.cookies)
        server.kill(signal.SIGKILL)
        server.start()
        assert httpx.get(server.address, cookies=cookies).status_code == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_only_socket_is_the_one_that_listens(server: WebServer) -> None:
    server.wait(server.upload(), "done")
    assert server.process is not None
    processes = [server.process.pid]
    for process in processes:
        processes += [pid for pid, _words in children(process)]
    assert len(processes) >= 3  # with both workers, and decoders while they have work
    sockets = {pid: internet_sockets(pid) for pid in processes}
    listening = {
        address for addresses in sockets.values() for address, state in addresses if state == "0A"
    }
    port = int(server.address.rpartition(":")[2])
    assert listening == {f"0100007F:{port:04X}"}
    assert [pid for pid in processes[1:] if sockets[pid]] == []


def internet_sockets(pid: int) -> set[tuple[str, str]]:
    """Local address and state of every internet socket that a process holds."""
    inodes = set()
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir() if folder.exists() else ():  # a decoder without work ends
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    held = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                held.add((fields[1], fields[3]))
    return held


def test_a_kit_that_cannot_be_used_is_shown_and_the_pages_wait(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(WebServer(tmp_path).kit, tmp_path / "kit"))
    (broken / "llm.gguf").write_bytes(b"no model")
    with WebServer(tmp_path, kit=broken) as server:
        id = server.upload()
        reading = server.wait(id, "waiting")
        assert reading["measurements"]["measurements"]
    with WebServer(tmp_path) as server:
        assert server.wait(id, "done")["text"]


def test_the_server_loads_no_engine() -> None:
    code = (
        "import sys; import pulse_edge.web.server; "
        "print({'numpy', 'cv2', 'PIL', 'onnxruntime', 'llama_cpp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
