from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.errors import UsageError
from pulse_edge.kit.manifest_reader import parse_manifest
from pulse_edge.kit.write import listing, write_manifest

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
QUESTIONS = ("Is the rhythm regular?", "What is the rate?")


def run(*arguments: object, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulse_edge", *map(str, arguments)]
    env = os.environ if log is None else os.environ | {"PULSE_EDGE_AUDIT_LOG": str(log)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_answer_does_not_depend_on_threads_or_order(tiny_kit: Path) -> None:
    alone = {}
    for threads, question in ((1, QUESTIONS[0]), (2, QUESTIONS[1])):
        with PulseModel.load(tiny_kit, device="cpu", threads=threads) as model:
            alone[question] = model.interpret(PAGE, question, max_tokens=24).answers[0].text
    with PulseModel.load(tiny_kit, device="cpu", threads=3) as model:
        first = model.encode(PAGE)
        other = model.encode(first_page().rotate(180), straighten=False, force=True)
        for scan, question in ((first, 1), (other, 0), (first, 0), (first, 1)):
            text = model.ask(scan, QUESTIONS[question], 24).answer().text
            if scan is first:
                assert text == alone[QUESTIONS[question]]


def first_page():  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.open(PAGE).convert("RGB")


def test_answer_ended_by_another_question_says_so(tiny_kit: Path) -> None:
    with PulseModel.load(tiny_kit, device="cpu") as model:
        scan = model.encode(PAGE)
        running = model.ask(scan, QUESTIONS[0], 24)
        next(running)
        model.ask(scan, QUESTIONS[1], 4).answer()
        with pytest.raises(UsageError, match="another question"):
            running.answer()


def test_json_has_page_kit_and_every_answer(tiny_kit: Path) -> None:
    done = run(
        "interpret",
        PAGE,
        "--kit",
        tiny_kit,
        "--json",
        "--max-tokens",
        8,
        "-q",
        QUESTIONS[0],
        "-q",
        QUESTIONS[1],
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [a["question"] for a in report["answers"]] == list(QUESTIONS)
    assert report["image_tokens"] == 80
    assert report["kit"]["demonstration"] is True
    assert len(report["page_sha256"]) == 64


@pytest.mark.parametrize("pages", [1, 2])
def test_unloadable_encoder_is_one_line(pages: int, tiny_kit: Path, tmp_path: Path) -> None:
    kit = shutil.copytree(tiny_kit, tmp_path / "kit")
    (kit / "vision.onnx").write_bytes(b"no graph")
    manifest = parse_manifest((kit / "manifest.json").read_text())
    write_manifest(kit, dataclasses.replace(manifest, files=listing(kit)))
    done = run("interpret", *[PAGE] * pages, "--kit", kit)
    assert done.returncode == 1
    assert done.stderr.count("ONNX Runtime cannot load it") == 1
    assert "Traceback" not in done.stderr


def test_demonstration_notice_stands_before_the_answer(tiny_kit: Path) -> None:
    done = run("interpret", PAGE, "--kit", tiny_kit, "--max-tokens", 4)
    assert done.stdout.startswith("DEMONSTRATION")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 1), (b"no picture", 1), (b"\x89PNG\r\n\x1a\n", 1), (b"%PDF-1.7 ...", 1)],
)
def test_file_that_is_no_page_is_one_line(
    tiny_kit: Path, tmp_path: Path, content: bytes, code: int
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    done = run("interpret", bad, "--kit", tiny_kit)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert str(bad) in done.stderr


def test_altered_kit_is_refused(tiny_kit: Path, tmp_path: Path) -> None:
    import shutil

    altered = Path(shutil.copytree(tiny_kit, tmp_path / "altered"))
    with open(altered / "llm.gguf", "r+b") as f:
        f.seek(-1, 2)
        last = f.read(1)
        f.seek(-1, 2)
        f.write(bytes([last[0] ^ 1]))
    for command in (("kit", "verify", altered), ("interpret", PAGE, "--kit", altered)):
        done = run(*command)
        assert done.returncode == 1
        assert "llm.gguf" in done.stderr


def test_every_real_page_gets_an_answer_or_a_clear_refusal(tiny_kit: Path, shared: Path) -> None:
    from pulse_edge.errors import PulseEdgeError

    with PulseModel.load(tiny_kit, device="cpu") as model:
        for page in sorted((shared / "ecg" / "images" / "render").iterdir()):
            try:
                assert model.interpret(page, max_tokens=2).answers[0].tokens <= 2
            except PulseEdgeError as e:
                assert str(page) in str(e)


def test_json_has_an_object_for_every_page_and_the_worst_page_is_the_code(
    tiny_kit: Path, tmp_path: Path
) -> None:
    from PIL import Image

    bad, narrow = tmp_path / "bad.png", tmp_path / "narrow.png"
    bad.write_bytes(b"no picture")
    Image.new("RGB", (5000, 3)).save(narrow)
    done = run("interpret", bad, narrow, PAGE, "--kit", tiny_kit, "--json", "--max-tokens", 2)
    assert done.returncode == 3
    one, two, three = map(json.loads, done.stdout.splitlines())
    assert (one["file"], one["exit_code"]) == (str(bad), 1)
    assert (two["file"], two["exit_code"]) == (str(narrow), 3)
    assert "too narrow" in two["error"]
    assert three["file"] == str(PAGE)
    assert three["answers"][0]["tokens"] == 2


def test_narrow_page_is_refused_with_code_3(tiny_kit: Path, tmp_path: Path) -> None:
    first_page().resize((5000, 3)).save(tmp_path / "narrow.png")
    done = run("interpret", tmp_path / "narrow.png", "--kit", tiny_kit)
    assert done.returncode == 3
    assert "narrow.png: the page is 5000 x 3 pixels: too narrow" in done.stderr
    assert len(done.stdout.splitlines()) <= 1  # that it is a demonstration


def test_refused_page_ends_with_3_and_force_answers_and_logs_it(
    tiny_kit: Path, tmp_path: Path
) -> None:
    from PIL import Image

    blank = tmp_path / "blank.png"
    Image.new("RGB", (800, 600), "white").save(blank)
    done = run("interpret", blank, "--kit", tiny_kit, "--max-tokens", 2)
    assert done.returncode == 3
    assert "Check that the right file" in done.stderr
    forced = run("interpret", blank, "--kit", tiny_kit, "--max-tokens", 2, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    report = json.loads(forced.stdout)
    assert (report["quality"]["verdict"], report["quality"]["forced"]) == ("refused", True)


def test_clean_page_gives_the_same_image_tokens_without_rectifying(
    tiny_kit: Path,
) -> None:
    with PulseModel.load(tiny_kit, device="cpu") as model:
        assert (
            model.encode(PAGE).image_tokens_sha256
            == model.encode(PAGE, straighten=False).image_tokens_sha256
        )


def test_file_name_cannot_control_the_terminal(tiny_kit: Path, tmp_path: Path) -> None:
    done = run(
        "interpret", tmp_path / "\x1b[2J\nno.png", "--kit", tiny_kit, "--json", "--threads", 1
    )
    assert done.returncode == 1
    assert "\x1b" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_tampered_log_stops_further_answers(tiny_kit: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run("interpret", PAGE, "--kit", tiny_kit, "--max-tokens", 2, "--threads", 1, log=log)
    (log / "entries.log").write_bytes((log / "entries.log").read_bytes()[:-9])
    done = run(
        "interpret", PAGE, PAGE, "--kit", tiny_kit, "--max-tokens", 2, "--threads", 1, log=log
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "something was removed" in done.stderr
