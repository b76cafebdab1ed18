"""Fetching from a hub that runs on loopback and answers as the public one does: listing, HEAD, redirect, ranges."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from checkout import ROOT
from huggingface_hub import constants

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


# --- a hub on loopback ----------------------------------------------------------------------------


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
        said: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_hash(content)}
        if in_lfs(name):
            said["lfs"] = {"sha256": etag(name, content), "size": size, "pointerSize": 134}
        return said


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
            said = {"id": REPOSITORY, "sha": self.hub.commit, "siblings": self.hub.siblings()}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    def resolve(self, name: str) -> None:
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer(401, {"X-Error-Code": "GatedRepo"})
            return
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{etag(name, content)}"'}
        if not in_lfs(name):
            self.body(name, headers)
            return
        # Large files: a redirect to the store, and an offer of Xet, as for every such file on the hub.
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
        asked = self.headers.get("Range")
        if self.command == "GET":
            self.hub.bodies.append((name, asked))
        if asked is None:
            self.answer(200, headers, content, self.cut(name))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
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


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(NEEDED | NOT_NEEDED) as hub:
        yield hub


@pytest.fixture(autouse=True)
def _nobody_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, cache or proxy of whoever runs the tests; small chunks, so that a cut leaves a part behind."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ENABLE_HF_TRANSFER", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)


def held(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def refusal(hub: Hub, into: Path | None, spec: ModelSpec = SPEC, **options: int) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(spec, into, endpoint=hub.address, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- bringing -------------------------------------------------------------------------------------


def test_a_fetch_brings_the_needed_files_byte_for_byte(hub: Hub, tmp_path: Path):
    assert fetch(SPEC, tmp_path / "here", endpoint=hub.address) == tmp_path / "here"
    assert held(tmp_path / "here") == NEEDED


def test_a_fetch_without_a_directory_goes_to_the_cache(hub: Hub, tmp_path: Path):
    directory = fetch(SPEC, endpoint=hub.address)
    assert directory == tmp_path / "cache" / "models--someone--tiny-llava" / "snapshots" / REVISION
    assert held(directory) == NEEDED


def test_nothing_else_is_asked_for(hub: Hub, tmp_path: Path):
    fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    assert sorted(hub.bodies) == sorted((name, None) for name in NEEDED)
    assert not [path for _, path, _ in hub.requests if path.endswith(tuple(NOT_NEEDED))]


def test_without_safetensors_pytorch_files_are_brought(hub: Hub, tmp_path: Path):
    hub.files = {name: content for name, content in hub.files.items() if "safetensors" not in name}
    assert "pytorch_model.bin" in held(fetch(SPEC, tmp_path / "here", endpoint=hub.address))


@pytest.mark.parametrize("cached", [False, True])
def test_a_second_fetch_asks_for_no_file(hub: Hub, tmp_path: Path, cached: bool):
    into = None if cached else tmp_path / "here"
    fetch(SPEC, into, endpoint=hub.address)
    hub.bodies.clear()
    hub.requests.clear()
    fetch(SPEC, into, endpoint=hub.address)
    assert hub.bodies == []
    assert [path for _, path, _ in hub.requests] == [
        f"/api/models/{REPOSITORY}/revision/{REVISION}"
    ]


def test_files_in_the_cache_are_copied_into_a_directory(hub: Hub, tmp_path: Path):
    fetch(SPEC, endpoint=hub.address)
    hub.bodies.clear()
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address)) == NEEDED
    assert hub.bodies == []


def test_a_token_of_the_environment_opens_a_gated_repository(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert held(fetch(SPEC, endpoint=hub.address)) == NEEDED


def test_the_library_s_environment_variables_hold(hub: Hub, tmp_path: Path):
    program = (
        "import pathlib, sys\nfrom export import hub, models\nassert 'huggingface_hub' not in "
        "sys.modules\n"
        "print(hub.fetch(models.load_models(pathlib.Path(sys.argv[1]))['tiny']))"
    )
    models = tmp_path / "models.yaml"
    fields = {
        name: value for name, value in vars(SPEC).items() if name != "name" and value is not None
    }
    models.write_text(json.dumps({"tiny": fields}), encoding="utf-8")
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGINGFACE_"))
    }
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program, models],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    directory = Path(done.stdout.strip())
    assert directory.is_relative_to(tmp_path / "home" / "hub")
    assert held(directory) == NEEDED
    assert done.stderr == ""  # no progress bars into a pipe
    assert not [agent for _, _, agent in hub.requests if "torch" in agent]  # telemetry is off


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_an_interrupted_fetch_resumes_where_it_stopped(hub: Hub, tmp_path: Path, cached: bool):
    into = None if cached else tmp_path / "here"
    hub.cuts = {FIRST: [3 * CHUNK + 5]}
    message = refusal(hub, into, retries=0)
    assert FIRST in message
    assert "Run the same command again: it resumes." in message
    hub.bodies.clear()
    assert held(fetch(SPEC, into, endpoint=hub.address)) == NEEDED
    assert hub.bodies == [(FIRST, f"bytes={3 * CHUNK}-")]


def test_a_broken_connection_is_taken_up_again_within_the_call(hub: Hub, tmp_path: Path):
    hub.cuts = {SECOND: [CHUNK, CHUNK]}
    notes: list[str] = []
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address, note=notes.append)) == NEEDED
    assert [asked for name, asked in hub.bodies if name == SECOND] == [
        None,
        f"bytes={CHUNK}-",
        f"bytes={2 * CHUNK}-",
    ]
    assert [note for note in notes if SECOND in note] == [
        f"tiny: the connection broke in {SECOND}, taking it up again"
    ] * 2


def test_a_part_that_is_too_long_is_not_resumed(hub: Hub, tmp_path: Path):
    hub.cuts = {FIRST: [2 * CHUNK]}
    refusal(hub, None, retries=0)
    (part,) = (tmp_path / "cache").rglob("*.incomplete")
    part.write_bytes(b"x" * 200_000)
    assert held(fetch(SPEC, endpoint=hub.address)) == NEEDED


def test_a_part_with_wrong_bytes_is_refused_and_then_fetched_again(hub: Hub, tmp_path: Path):
    hub.cuts = {FIRST: [2 * CHUNK]}
    refusal(hub, None, retries=0)
    (part,) = (tmp_path / "cache").rglob("*.incomplete")
    part.write_bytes(b"x" * 2 * CHUNK)
    assert FIRST in refusal(hub, None)
    assert held(fetch(SPEC, endpoint=hub.address)) == NEEDED


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_damaged_files_are_named_and_only_they_are_brought_again(
    hub: Hub, tmp_path: Path, cached: bool
):
    into = None if cached else tmp_path / "here"
    hub.damaged = {SECOND, "config.json"}
    message = refusal(hub, into)
    assert f"{SECOND} (sha256 " in message
    assert "config.json (git hash " in message
    assert FIRST not in message
    hub.damaged.clear()
    hub.bodies.clear()
    assert held(fetch(SPEC, into, endpoint=hub.address)) == NEEDED
    assert {name for name, _ in hub.bodies} == {SECOND, "config.json"}


def test_a_file_that_was_cut_short_on_disk_is_found(hub: Hub, tmp_path: Path):
    directory = fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    os.truncate(directory / FIRST, 99_999)
    assert f"{FIRST} (99999 bytes instead of 100000)" in refusal(hub, directory)


def test_a_damaged_file_in_the_cache_does_not_come_back(hub: Hub, tmp_path: Path):
    cached = fetch(SPEC, endpoint=hub.address) / FIRST
    cached.write_bytes(b"x" * 100_000)
    assert FIRST in refusal(hub, tmp_path / "here")
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address)) == NEEDED


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_repository_is_named(hub: Hub, tmp_path: Path):
    message = refusal(hub, tmp_path / "here", ModelSpec(**vars(SPEC) | {"hub": "someone/else"}))
    assert "no repository someone/else" in message


def test_an_unknown_revision_is_named(hub: Hub, tmp_path: Path):
    message = refusal(hub, tmp_path / "here", ModelSpec(**vars(SPEC) | {"revision": "f" * 40}))
    assert f"has no commit {'f' * 40}" in message


def test_another_commit_than_the_asked_one_is_refused(hub: Hub, tmp_path: Path):
    hub.commit = "e" * 40
    assert f"answered with commit '{'e' * 40}'" in refusal(hub, tmp_path / "here")


def test_a_gated_repository_says_what_to_do(hub: Hub, tmp_path: Path):
    hub.token = "hf_secret"
    message = refusal(hub, tmp_path / "here")
    assert "is gated (HTTP 401)" in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize(
    ("status", "told"), [(403, "refuses access"), (503, "HTTP 503. Wait a little.")]
)
def test_a_status_of_failure_is_told(hub: Hub, tmp_path: Path, status: int, told: str):
    hub.status = status
    assert told in refusal(hub, tmp_path / "here")


def test_a_hub_that_is_down_is_named(tmp_path: Path):
    with serving({}) as gone:
        pass
    message = refusal(gone, tmp_path / "here")
    assert f"no connection to {gone.address}, or it broke off (Connection refused)." in message
    assert "Run the same command again" in message


def test_a_hub_that_goes_away_after_the_listing_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the library waits between its tries
    monkeypatch.setattr(
        Handler, "resolve", lambda self, name: setattr(self, "close_connection", True)
    )
    message = refusal(hub, tmp_path / "here")
    assert f"no connection to {hub.address}, or it broke off" in message
    assert "generation_config.json" in message  # the smallest comes first


def test_something_that_is_no_hub_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        Handler, "listing", lambda self, path: self.answer(200, {}, b"<html>Log in</html>")
    )
    assert "does not answer as a hub does" in refusal(hub, tmp_path / "here")


def test_an_address_without_https_is_told(tmp_path: Path):
    message = refusal(Hub({}, address="hub.example"), tmp_path / "here")
    assert message.startswith("tiny: hub.example does not answer as a hub does")
    assert "Check HF_ENDPOINT" in message


def test_a_full_disk_is_refused_before_any_file_is_asked_for(hub: Hub, tmp_path: Path):
    hub.stated_bytes = {FIRST: 10**18}
    message = refusal(hub, tmp_path / "here")
    assert "tiny needs 1000000000.00 GB more there" in message
    assert hub.bodies == []


def test_a_directory_that_cannot_be_made_is_named(hub: Hub, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refusal(hub, tmp_path / "file" / "here")


@pytest.mark.parametrize(
    ("absent", "lacking"), [("config.json", "config.json"), ("weights", "weights")]
)
def test_a_repository_that_is_no_checkpoint_is_refused(
    hub: Hub, tmp_path: Path, absent: str, lacking: str
):
    hub.files = {
        name: content
        for name, content in hub.files.items()
        if name != absent
        and not (absent == "weights" and name.endswith((".safetensors", "model.bin")))
    }
    assert f"holds no {lacking}." in refusal(hub, tmp_path / "here")


# --- a hub that lies ------------------------------------------------------------------------------


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("cached", [False, True])
def test_an_etag_names_no_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
):
    def resolve(self: Handler, name: str) -> None:
        etag = f'"{"../" * 9}{tmp_path}/outside"'
        headers = {"X-Repo-Commit": "../../outside", "ETag": etag, "X-Linked-ETag": etag}
        self.answer(200, headers, b"owned" if name == "README.md" else self.hub.files[name])

    monkeypatch.setattr(Handler, "resolve", resolve)
    into = None if cached else tmp_path / "here"
    message = refusal(hub, into)
    assert f"README.md (5 bytes instead of {len(NEEDED['README.md'])})" in message
    assert {name.split("/")[0] for name in everything(tmp_path)} == {"cache" if cached else "here"}
    assert not any(b"owned" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer\x00.json",
        "tokenizer\x1b[2J.json",
        "tokenizer:stream.json",
        "tokenizer\u202e.json",
        "tokenizer" + "x" * 300,
        "LICENSE\n",
    ],
)
def test_a_name_that_is_none_is_refused(hub: Hub, tmp_path: Path, name: str):
    hub.files[name] = b"{}"
    assert f"names a file {name[:80]!r}, which is no name for a file here" in refusal(
        hub, tmp_path / "here"
    )
    assert everything(tmp_path) == set()


@pytest.mark.parametrize(
    "name", ["../tokenizer.json", "/tokenizer.json", "a/../../tokenizer.json", "..\\tokenizer.json"]
)
def test_names_with_folders_are_never_asked_for(hub: Hub, tmp_path: Path, name: str):
    hub.files[name] = b"{}"
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address)) == NEEDED


@pytest.mark.parametrize(
    "digest", ["../../outside", "", "A" * 40, "f" * 39, 7, None, "f" * 64 + "/.."]
)
def test_a_hash_that_is_none_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str | int | None
):
    honest = Hub.sibling

    def sibling(self: Hub, name: str, content: bytes) -> dict[str, object]:
        return honest(self, name, content) | ({"blobId": digest} if name == "README.md" else {})

    monkeypatch.setattr(Hub, "sibling", sibling)
    assert "states no size or no hash for README.md" in refusal(hub, None)
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("size", [-1, 1.5, "7", True, None, [7]])
def test_a_size_that_is_none_is_refused(hub: Hub, tmp_path: Path, size: object):
    hub.stated_bytes = {"README.md": size}  # type: ignore[dict-item]
    assert "states no size or no hash for README.md" in refusal(hub, tmp_path / "here")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", ["README.md", FIRST])
def test_no_more_is_read_than_was_stated(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cached: bool
):
    sent: list[int] = []

    def body(self: Handler, asked: str, headers: dict[str, str]) -> None:
        if asked != name:
            honest(self, asked, headers)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 32))
        self.end_headers()
        with contextlib.suppress(OSError):
            while sum(sent) < 1 << 28:
                self.wfile.write(bytes(1 << 20))
                sent.append(1 << 20)
        self.close_connection = True

    honest = Handler.body
    monkeypatch.setattr(Handler, "body", body)
    message = refusal(hub, None if cached else tmp_path / "here")
    assert f"sends more than the {len(NEEDED[name])} bytes that it states" in message
    assert sum(sent) < 1 << 28
    assert max(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= max(
        map(len, NEEDED.values())
    )
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_part_that_the_hub_sends_whole_again_is_not_appended(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hub.cuts = {FIRST: [2 * CHUNK]}
    refusal(hub, tmp_path / "here", retries=0)
    honest = Handler.body

    def body(self: Handler, name: str, headers: dict[str, str]) -> None:
        del self.headers["Range"]
        honest(self, name, headers)

    monkeypatch.setattr(Handler, "body", body)
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address)) == NEEDED


def test_a_hub_that_states_far_more_than_models_yaml_is_not_believed(hub: Hub, tmp_path: Path):
    hub.stated_bytes = {FIRST: 300 << 20}
    assert "states 0.31 GB, and models.yaml 0.00 GB" in refusal(hub, tmp_path / "here")
    assert hub.bodies == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"[" * 200_000, "nested too deep"),
        (b"[]", "no list of files"),
        (b'{"siblings": [{"rfilename": 3}]}', "no list of files"),
        (b'{"siblings": {}}', "no list of files"),
        (b'{"a": "' + b"x" * (33 << 20), "longer than 32 MiB"),
    ],
)
def test_a_list_of_files_that_is_none_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str
):
    def listing(self: Handler, path: str) -> None:
        with contextlib.suppress(OSError):  # the other end stops reading
            self.answer(200, {}, answer)

    monkeypatch.setattr(Handler, "listing", listing)
    message = refusal(hub, tmp_path / "here")
    assert "does not answer as a hub does" in message
    assert words in message


def test_the_cache_is_one_that_huggingface_hub_reads(hub: Hub):
    from huggingface_hub import hf_hub_download

    directory = fetch(SPEC, endpoint=hub.address)
    for name in NEEDED:
        found = hf_hub_download(
            REPOSITORY, name, revision=REVISION, endpoint=hub.address, local_files_only=True
        )
        assert Path(found) == directory / name


# --- offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_offline_takes_what_is_there_without_asking(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
):
    into = None if cached else tmp_path / "here"
    fetch(SPEC, into, endpoint=hub.address)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert held(fetch(SPEC, into, endpoint=hub.address)) == NEEDED
    assert hub.requests == []


@pytest.mark.parametrize("cached", [False, True])
def test_offline_a_lacking_shard_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
):
    into = None if cached else tmp_path / "here"
    (fetch(SPEC, into, endpoint=hub.address) / SECOND).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"{SECOND} missing, and HF_HUB_OFFLINE is set" in refusal(hub, into)


def test_offline_a_damaged_file_is_named_and_kept(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directory = fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    (directory / FIRST).write_bytes(b"x" * 100_000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"{FIRST} (sha256 " in refusal(hub, directory)
    assert (directory / FIRST).exists()


def test_offline_another_revision_does_not_count(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directory = fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(hub, directory, ModelSpec(**vars(SPEC) | {"revision": "f" * 40}))
    assert f"tiny at {'f' * 40} is not there" in message


def test_offline_an_empty_cache_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not there, and HF_HUB_OFFLINE is set" in refusal(hub, None)
    assert hub.requests == []
