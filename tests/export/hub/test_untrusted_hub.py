"""A hub that lies about names, sizes, hashes or lists is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from fake_hub import (
    CHUNK,
    FIRST,
    NEEDED,
    SPEC,
    Handler,
    Hub,
    everything,
    held,
    refusal,
)

from export.hub import fetch


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
def test_names_with_folders_are_never_requested(hub: Hub, tmp_path: Path, name: str):
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

    def body(self: Handler, requested: str, headers: dict[str, str]) -> None:
        if requested != name:
            honest(self, requested, headers)
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
