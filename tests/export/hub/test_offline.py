"""Without network only files that were fetched before are used."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import (
    FIRST,
    NEEDED,
    SECOND,
    SPEC,
    Hub,
    held,
    refusal,
)
from huggingface_hub import constants

from export.hub import fetch
from export.models import ModelSpec


@pytest.mark.parametrize("cached", [False, True])
def test_offline_uses_fetched_files_without_a_request(
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


def test_offline_a_damaged_file_is_named_and_stays(
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
