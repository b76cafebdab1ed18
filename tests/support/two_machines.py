"""Start the server in this network namespace, and ask it from a second one that a cable joins to
it.

Runs below `unshare --map-root-user --net`; prints JSON: what the client got for each address.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path

SERVER, CLIENT = "192.0.2.1", "192.0.2.2"
PORT, PHONE_PORT = 8412, 8413


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def join() -> subprocess.Popen[bytes]:
    """Make the second namespace and the cable; return the process that holds the namespace."""
    run("ip", "link", "set", "lo", "up")
    other = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    time.sleep(0.5)
    inside = ["nsenter", "-t", str(other.pid), "-n"]
    run(
        "ip",
        "link",
        "add",
        "cable0",
        "type",
        "veth",
        "peer",
        "name",
        "cable1",
        "netns",
        str(other.pid),
    )
    run("ip", "addr", "add", f"{SERVER}/24", "dev", "cable0")
    run("ip", "link", "set", "cable0", "up")
    run(*inside, "ip", "addr", "add", f"{CLIENT}/24", "dev", "cable1")
    run(*inside, "ip", "link", "set", "cable1", "up")
    return other


def ask(address: str, port: int, path: str, method: str = "GET", *, tls: bool) -> dict[str, object]:
    """Return status or error of one request."""
    connection = http.client.HTTPConnection(address, port, timeout=20)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, port, timeout=20, context=context)
    try:
        connection.request(method, path)
        return {"status": connection.getresponse().status}
    except OSError as e:
        return {"error": str(e).lower()}
    finally:
        connection.close()


def client() -> dict[str, dict[str, object]]:
    """What another machine gets."""
    return {
        "page": ask(SERVER, PORT, "/", tls=False),
        "phones": ask(SERVER, PHONE_PORT, "/p/", tls=True),
        "wrong code": ask(SERVER, PHONE_PORT, "/p/pair?code=wrong", tls=True),
        "upload": ask(SERVER, PHONE_PORT, "/p/upload", "POST", tls=True),
    }


def main(home: Path, kit: str, options: list[str]) -> None:
    other = join()
    link = home / "web" / "link"
    words = ["serve", "--kit", kit, "--folder", str(home / "web"), *options]
    server = subprocess.Popen([sys.executable, "-m", "pulse_edge", *words], stdout=sys.stderr)
    try:
        while not (link.exists() and link.read_text().endswith("\n")):
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)
        statuses = {"own machine": ask("127.0.0.1", PORT, "/", tls=False)}
        inside = ["nsenter", "-t", str(other.pid), "-n", sys.executable, __file__]
        answer = subprocess.run(inside, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
        print(json.dumps(statuses | json.loads(answer.stdout)))
    finally:
        server.terminate()
        server.wait(60)
        other.terminate()
        other.wait(60)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(client()))
    else:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
