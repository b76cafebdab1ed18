"""Run commands in a network namespace in which every address is this machine, and record what they
send.

`recorded(commands, ...)` starts this file again below `unshare`; there it answers every question
for a name, with an address that leads nowhere, and takes down every packet. Needs Linux, `unshare`
and `ip`, and a system that permits it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

UNSHARE = ("unshare", "--map-root-user", "--net", "--mount")
ADDRESS = "192.0.2.7"
"""For documentation, and routed nowhere (RFC 5737)."""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    words: list[str]
    code: int
    stdout: str
    stderr: str
    sent: list[str]
    """Names that it asked for, and addresses that it sent packets to; in order, without repeats."""


def why_not() -> str | None:
    """Why nothing can be recorded here; None where it can."""
    if not sys.platform.startswith("linux") or any(
        shutil.which(name) is None for name in ("unshare", "ip")
    ):
        return "needs Linux with unshare and ip"
    trial = subprocess.run(
        [*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    return (
        f"this system permits no network namespace ({trial.stderr.strip()})"
        if trial.returncode
        else None
    )


def recorded(
    commands: Sequence[Sequence[object]],
    folder: Path,
    environment: Mapping[str, str],
    *,
    cwd: Path,
    resolver: Path,
    typed: str = "",
    held: float = 0.0,
    seconds: float = 600,
) -> list[Done]:
    """Run the commands one after the other in `cwd`; `folder` takes this function's own files.

    Each gets `typed` on its standard input, whose end comes after `held` seconds: a command that
    reads it stays that long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    resolver.write_text(f"nameserver {ADDRESS}\n")
    plan: dict[str, object] = {
        "commands": [[str(word) for word in words] for words in commands],
        "resolver": str(resolver),
    }
    plan |= {"typed": typed, "held": held}
    (folder / "plan.json").write_text(json.dumps(plan))
    words = [*UNSHARE, sys.executable, __file__, str(folder)]
    subprocess.run(words, env=dict(environment), cwd=cwd, check=True, timeout=seconds)
    return [Done(**one) for one in json.loads((folder / "done.json").read_text())]


# --- inside -----------------------------------------------------------------------------------


class _Recorder:
    """Everything that goes over the loopback device, which all routes lead to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: list[str] = []
        self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._names.bind(("", 53))
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))
        for work in (self._answer, self._listen):
            threading.Thread(target=work, daemon=True).start()

    def take(self) -> list[str]:
        """What was sent since the last call."""
        with self._lock:
            sent, self._sent = self._sent, []
        return list(dict.fromkeys(sent))

    def _note(self, text: str) -> None:
        with self._lock:
            self._sent.append(text)

    def _answer(self) -> None:
        while True:
            question, asker = self._names.recvfrom(512)
            end = 12
            labels = []
            while length := question[end]:
                labels.append(question[end + 1 : end + 1 + length].decode("ascii", "replace"))
                end += 1 + length
            self._note(f"name {'.'.join(labels)}")
            kind = question[end + 1 : end + 3]
            head = (
                question[:2]
                + b"\x81\x80\0\1"
                + (b"\0\1" if kind == b"\0\1" else b"\0\0")
                + b"\0\0\0\0"
            )
            answer = (
                b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ADDRESS)
                if kind == b"\0\1"
                else b""
            )
            self._names.sendto(head + question[12 : end + 5] + answer, asker)

    def _listen(self) -> None:
        while True:
            packet, about = self._packets.recvfrom(128)
            if about[2] == socket.PACKET_OUTGOING:  # each is seen twice, once as it comes back
                continue
            if packet[0] >> 4 == 4:
                kind, target, at = packet[9], socket.inet_ntoa(packet[16:20]), 4 * (packet[0] & 15)
            else:
                kind, target, at = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40]), 40
            if kind == socket.IPPROTO_ICMPV6:
                continue  # the kernel's own: this device makes itself known
            port = int.from_bytes(packet[at + 2 : at + 4], "big")
            self._note(f"{ {6: 'tcp', 17: 'udp'}.get(kind, kind) } {target} {port}")


def _inside(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    for route in (
        "link set lo up",
        "route add local 0.0.0.0/0 dev lo",
        "-6 route add local ::/0 dev lo",
    ):
        subprocess.run(
            ["ip", *route.split()], check=not route.startswith("-6"), stderr=subprocess.DEVNULL
        )
    subprocess.run(["mount", "--bind", plan["resolver"], "/etc/resolv.conf"], check=True)
    recorder, matches = _Recorder(), []
    for words in plan["commands"]:
        recorder.take()
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            threading.Thread(
                target=_type, args=(process, plan["typed"], plan["held"]), daemon=True
            ).start()
            with ThreadPoolExecutor(2) as readers:
                out, err = (
                    readers.submit(stream.read)
                    for stream in (process.stdout, process.stderr)
                    if stream
                )
        matches.append(
            Done(
                words,
                process.returncode,
                out.result()[-4000:],
                err.result()[-4000:],
                recorder.take(),
            )
        )
    (folder / "done.json").write_text(json.dumps([vars(one) for one in matches]))


def _type(process: subprocess.Popen[str], text: str, held: float) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(text)
        process.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(held)
        process.stdin.close()


if __name__ == "__main__":
    _inside(Path(sys.argv[1]))
    os._exit(0)
