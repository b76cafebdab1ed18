"""A hub on loopback that answers as the public one does: listing, HEAD, redirect, ranges."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from export.hub import fetch
from export.models import ModelSpec
from pulse_edge.errors import FetchError

REPOSITORY = "someone/tiny-llava"
REVISION = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 16384
SPEC = ModelSpec(
    name="tiny",
    hub=REPOSITORY,
    revision=REVISION,
    licence="MIT",
    architecture="LlavaLlamaForCausalLM",
    bytes=200_000,
    prompt="llava_v1",
    description="A miniature.",
)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NEEDED = {
    "config.json": b'{"architectures": ["LlavaLlamaForCausalLM"]}',
    "generation_config.json": b"{}",
    "tokenizer.model": random.Random(1).randbytes(5_000),
    "tokenizer_config.json": b'{"legacy": true}',
    "special_tokens_map.json": b'{"bos_token": "<s>"}',
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode(),
    FIRST: random.Random(2).randbytes(100_000),
    SECOND: random.Random(3).randbytes(90_000),
    "README.md": b"# tiny\n",
    "LICENSE": b"MIT\n",
}
NOT_NEEDED = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "optimizer.pt": b"o" * 50_000,
    "pytorch_model.bin": b"p" * 50_000,
    "trainer_state.json": b"{}",
    "training_args.bin": b"t",
    "checkpoint-10/config.json": b"{}",
    "checkpoint-10/model.safetensors": b"m" * 50_000,
}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def in_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt", ".model"))


def etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if in_lfs(name) else git_hash(content)


@dataclass
class Hub:
    """What the hub holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    address: str = ""
    commit: str = REVISION
    """What it says that the asked commit is."""
    token: str | None = None
    """Files are given to this token only."""
    status: int | None = None
    """Answers every listing with this status."""
    stated_bytes: dict[str, int] = field(default_factory=dict)
    """File -> size in the listing, where that is not the true one."""
    damaged: set[str] = field(default_factory=set)
    """Files whose bytes arrive wrong."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """File -> bytes after which the next transfers break off, one each."""
    bodies: list[tuple[str, str | None]] = field(default_factory=list)
    """Every file body that was asked for, with its Range."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Every request: method, path, User-Agent."""

    def siblings(self) -> list[dict[str, object]]:
        return [self.sibling(name, content) for name, content in self.files.items()]

    def sibling(self, name: str, content: bytes) -> dict[str, object]:
        size = self.stated_bytes.get(name, len(content))
        entry: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_hash(content)}
        if in_lfs(name):
            entry["lfs"] = {"sha256": etag(name, content), "size": size, "pointerSize": 134}
        return entry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("User-Agent", "")))
        if path.startswith("/api/models/"):
            self.listing(path)
        elif path.startswith(f"/{REPOSITORY}/resolve/{REVISION}/"):
            self.resolve(path.removeprefix(f"/{REPOSITORY}/resolve/{REVISION}/"))
        elif path.startswith("/store/"):
            self.body(path.removeprefix("/store/"), {})
        else:
            self.answer(404, {})

    def listing(self, path: str) -> None:
        repository, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if self.hub.status:
            self.answer(self.hub.status, {})
        elif repository != REPOSITORY:
            self.answer(401, {"X-Error-Code": "RepoNotFound"})  # what the hub says to a stranger
        elif revision != REVISION:
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            content = {"id": REPOSITORY, "sha": self.hub.commit, "siblings": self.hub.siblings()}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def resolve(self, name: str) -> None:
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer(401, {"X-Error-Code": "GatedRepo"})
            return
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{etag(name, content)}"'}
        if not in_lfs(name):
            self.body(name, headers)
            return
        # Large files: a redirect to the store, and an offer of Xet, as for every such file on the
        # hub.
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": headers["ETag"],
            "X-Xet-Hash": "f" * 64,
            "X-Xet-Refresh-Route": f"{self.hub.address}/api/xet",
            "Location": f"{self.hub.address}/store/{name}",
        }
        self.answer(302, headers)

    def body(self, name: str, headers: dict[str, str]) -> None:
        content = self.hub.files[name]
        if name in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        part = self.headers.get("Range")
        if self.command == "GET":
            self.hub.bodies.append((name, part))
        if part is None:
            self.answer(200, headers, content, self.cut(name))
            return
        start = int(part.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.answer(416, headers)
        else:
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.answer(206, headers, content[start:], self.cut(name))

    def cut(self, name: str) -> int | None:
        cuts = self.hub.cuts.get(name)
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def answer(
        self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, address: object) -> None:
        """A client that stops reading is what some tests are about."""


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(dict(files))
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def held(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def refusal(hub: Hub, into: Path | None, spec: ModelSpec = SPEC, **options: Any) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(spec, into, endpoint=hub.address, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
