"""A fetch brings the needed files, resumes, and notices damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from fake_hub import (
    CHUNK,
    FIRST,
    NEEDED,
    NOT_NEEDED,
    REPOSITORY,
    REVISION,
    SECOND,
    SPEC,
    Hub,
    held,
    refusal,
)

from export.hub import fetch

# --- bringing -------------------------------------------------------------------------------------


def test_a_fetch_downloads_the_needed_files_byte_for_byte(hub: Hub, tmp_path: Path):
    assert fetch(SPEC, tmp_path / "here", endpoint=hub.address) == tmp_path / "here"
    assert held(tmp_path / "here") == NEEDED


def test_a_fetch_without_a_directory_goes_to_the_cache(hub: Hub, tmp_path: Path):
    directory = fetch(SPEC, endpoint=hub.address)
    assert directory == tmp_path / "cache" / "models--someone--tiny-llava" / "snapshots" / REVISION
    assert held(directory) == NEEDED


def test_a_fetch_requests_only_the_needed_files(hub: Hub, tmp_path: Path):
    fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    assert sorted(hub.bodies) == sorted((name, None) for name in NEEDED)
    assert not [path for _, path, _ in hub.requests if path.endswith(tuple(NOT_NEEDED))]


def test_without_safetensors_pytorch_files_are_fetched(hub: Hub, tmp_path: Path):
    hub.files = {name: content for name, content in hub.files.items() if "safetensors" not in name}
    assert "pytorch_model.bin" in held(fetch(SPEC, tmp_path / "here", endpoint=hub.address))


@pytest.mark.parametrize("cached", [False, True])
def test_a_second_fetch_requests_no_file(hub: Hub, tmp_path: Path, cached: bool):
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


def test_a_broken_connection_resumes_within_the_call(hub: Hub, tmp_path: Path):
    hub.cuts = {SECOND: [CHUNK, CHUNK]}
    notes: list[str] = []
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address, note=notes.append)) == NEEDED
    assert [part for name, part in hub.bodies if name == SECOND] == [
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
def test_damaged_files_are_named_and_only_they_are_fetched_again(
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


def test_a_file_that_was_cut_short_on_disk_is_named(hub: Hub, tmp_path: Path):
    directory = fetch(SPEC, tmp_path / "here", endpoint=hub.address)
    os.truncate(directory / FIRST, 99_999)
    assert f"{FIRST} (99999 bytes instead of 100000)" in refusal(hub, directory)


def test_a_damaged_file_in_the_cache_does_not_come_back(hub: Hub, tmp_path: Path):
    cached = fetch(SPEC, endpoint=hub.address) / FIRST
    cached.write_bytes(b"x" * 100_000)
    assert FIRST in refusal(hub, tmp_path / "here")
    assert held(fetch(SPEC, tmp_path / "here", endpoint=hub.address)) == NEEDED


# --- a hub that lies ------------------------------------------------------------------------------


def test_the_cache_is_one_that_huggingface_hub_reads(hub: Hub):
    from huggingface_hub import hf_hub_download

    directory = fetch(SPEC, endpoint=hub.address)
    for name in NEEDED:
        path = hf_hub_download(
            REPOSITORY, name, revision=REVISION, endpoint=hub.address, local_files_only=True
        )
        assert Path(path) == directory / name
