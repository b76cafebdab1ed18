"""A refused fetch says what happened and what to do next."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_hub import (
    FIRST,
    SPEC,
    Handler,
    Hub,
    refusal,
    serving,
)

from export.models import ModelSpec


def test_an_unknown_repository_is_named(hub: Hub, tmp_path: Path):
    message = refusal(hub, tmp_path / "here", ModelSpec(**vars(SPEC) | {"hub": "someone/else"}))
    assert "no repository someone/else" in message


def test_an_unknown_revision_is_named(hub: Hub, tmp_path: Path):
    message = refusal(hub, tmp_path / "here", ModelSpec(**vars(SPEC) | {"revision": "f" * 40}))
    assert f"has no commit {'f' * 40}" in message


def test_another_commit_than_the_pinned_one_is_refused(hub: Hub, tmp_path: Path):
    hub.commit = "e" * 40
    assert f"answered with commit '{'e' * 40}'" in refusal(hub, tmp_path / "here")


def test_the_message_about_a_gated_repository_names_the_next_step(hub: Hub, tmp_path: Path):
    hub.token = "hf_secret"
    message = refusal(hub, tmp_path / "here")
    assert "is gated (HTTP 401)" in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize(
    ("status", "words"), [(403, "refuses access"), (503, "HTTP 503. Wait a little.")]
)
def test_a_status_of_failure_is_explained(hub: Hub, tmp_path: Path, status: int, words: str):
    hub.status = status
    assert words in refusal(hub, tmp_path / "here")


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


def test_a_server_that_is_no_hub_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        Handler, "listing", lambda self, path: self.answer(200, {}, b"<html>Log in</html>")
    )
    assert "does not answer as a hub does" in refusal(hub, tmp_path / "here")


def test_an_address_without_https_is_named(tmp_path: Path):
    message = refusal(Hub({}, address="hub.example"), tmp_path / "here")
    assert message.startswith("tiny: hub.example does not answer as a hub does")
    assert "Check HF_ENDPOINT" in message


def test_a_full_disk_is_refused_before_any_file_is_requested(hub: Hub, tmp_path: Path):
    hub.stated_bytes = {FIRST: 10**18}
    message = refusal(hub, tmp_path / "here")
    assert "tiny needs 1000000000.00 GB more there" in message
    assert hub.bodies == []


def test_a_directory_that_cannot_be_created_is_named(hub: Hub, tmp_path: Path):
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
