"""Files that `interpret` and `check` write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image
from reports import report

import pulse_edge
from pulse_edge.errors import OutputError
from pulse_edge.report import writers

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"


@pytest.fixture(scope="module")
def page() -> Image.Image:
    return Image.open(PAGE).convert("RGB")


def pdf_text(pdf: pypdfium2.PdfDocument) -> str:
    return "".join(sheet.get_textpage().get_text_bounded() for sheet in pdf)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "interpret",
        "--threads",
        "1",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_several_formats_go_into_a_folder(tiny_kit: Path, tmp_path: Path) -> None:
    forms = [word for form in writers.ENDINGS for word in ("--format", form)]
    patient = ("--patient-id", "Erika-42", "--patient-system", "urn:oid:1.2")
    out = ("--findings", "-o", tmp_path / "out", "--retain", 1)
    done = run(PAGE, "--kit", tiny_kit, "--max-tokens", 8, *forms, *out, *patient)
    assert done.returncode == 0, done.stderr
    files = {Path(line) for line in done.stdout.splitlines()}
    assert files == set((tmp_path / "out").iterdir())
    assert {file.name.split(".", 1)[1] for file in files} == set(writers.ENDINGS.values())
    named = [file.name.split(".", 1)[1] for file in files if b"Erika-42" in file.read_bytes()]
    assert named == ["fhir.json"]
    log = Path(os.environ["PULSE_EDGE_AUDIT_LOG"])
    assert not any(b"Erika-42" in file.read_bytes() for file in log.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--format", "pdf"), "-o"),
        (("--format", "text", "--format", "json"), "-o"),
        (("--patient-id", "42"), "--format fhir"),
        (("--patient-id", ""), "--format fhir"),
        (("--format", "fhir", "--patient-id", ""), "--patient-id: is empty"),
        (("--format", "fhir", "--patient-id", " \u00a0"), "--patient-id: is empty"),
        (("--format", "fhir", "--patient-id", "\udce4"), r"--patient-id \udce4: has spaces"),
        (("--format", "fhir", "--patient-id", "4\u202e2"), r"--patient-id 4\u202e2: has spaces"),
        (("--format", "fhir", "--patient-id", "42\n"), r"--patient-id 42\n: has spaces"),
        (("--format", "fhir", "--patient-id", "4" * 201), "201 characters"),
        (("--format", "fhir", "--patient-system", "urn:oid:1.2"), "and the id"),
        (("--format", "fhir", "--patient-id", "4", "--patient-system", ""), "--patient-system"),
        (("--format", "fhir", "--patient-id", "4", "--patient-system", "our numbers"), "is no URI"),
    ],
)
def test_wrong_output_options_are_refused_before_a_model_is_loaded(
    arguments: tuple[str, ...], word: str
) -> None:
    done = run(PAGE, "--kit", "nowhere", *arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_every_format_says_that_a_page_was_forced(tiny_kit: Path, tmp_path: Path) -> None:
    from pulse_edge.report.report import FORCED

    Image.new("RGB", (800, 600), "white").save(tmp_path / "blank.png")
    forms = [word for form in writers.ENDINGS for word in ("--format", form)]
    done = run(
        tmp_path / "blank.png",
        "--kit",
        tiny_kit,
        "--max-tokens",
        2,
        "--force",
        *forms,
        "-o",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "out").iterdir():
        raw = file.read_bytes()
        text = pdf_text(pypdfium2.PdfDocument(raw)) if file.suffix == ".pdf" else raw.decode()
        assert FORCED in text, file


def test_second_report_on_a_page_has_files_of_its_own(tiny_kit: Path, tmp_path: Path) -> None:
    how = (
        PAGE,
        "--kit",
        tiny_kit,
        "--max-tokens",
        2,
        "--no-findings",
        "-o",
        tmp_path / "out",
        "--format",
        "json",
    )
    written = []
    for question, more in (("One?", ()), ("Two?", ()), ("Three?", ("--overwrite",))):
        done = run(*how, "-q", question, *more)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        written.append(
            (Path(line).name, json.loads(Path(line).read_text())["answers"][0]["question"])
        )
    (first, _), (second, _), (third, _) = written
    assert [question for _, question in written] == ["One?", "Two?", "Three?"]
    assert second == first.replace(".json", "-2.json")
    assert third == first
    assert {path.name for path in (tmp_path / "out").iterdir()} == {first, second}


def test_saved_pages_of_one_name_get_numbers_and_links_stay(
    tmp_path: Path,
) -> None:
    page = Image.open(PAGE).convert("RGB")
    for folder, picture in (("a", page), ("b", page.point(lambda value: int(0.9 * value)))):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "scan.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.txt").write_text("precious")
    (out / "scan-2.png.png").symlink_to(tmp_path / "precious.txt")
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "check",
        "a/scan.png",
        "b/scan.png",
        "--save-page",
        "out",
    ]
    for _ in range(2):
        subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    names = {path.name for path in out.iterdir()}
    assert {f"scan{n}.png.png" for n in ("", "-2", "-3", "-4", "-5")} <= names
    pictures = {(out / f"scan{n}.png.png").read_bytes() for n in ("", "-3")}
    assert len(pictures) == 2
    assert (tmp_path / "precious.txt").read_text() == "precious"
    subprocess.run([*command, "--overwrite"], capture_output=True, check=True, cwd=tmp_path)
    assert {path.name for path in out.iterdir()} == names


def test_page_with_the_longest_name_can_be_saved(tmp_path: Path) -> None:
    page = tmp_path / f"{'ü' * 120}.png"
    shutil.copyfile(PAGE, page)
    command = [
        sys.executable,
        "-m",
        "pulse_edge",
        "check",
        str(page),
        "--save-page",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, capture_output=True, check=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{'ü' * 100}.png.overlay.png",
        f"{'ü' * 100}.png.png",
    ]


def test_question_that_is_no_unicode_is_wrong_usage() -> None:
    done = run(PAGE, "--kit", "nowhere", "-q", os.fsdecode(b"Rhythm\xff?"))
    assert (done.returncode, done.stderr) == (
        2,
        "error: the question holds characters that are not valid UTF-8. Type it again.\n",
    )


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_file_in_the_place_of_the_folder_is_an_error(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "out"
    if kind == "file":
        place.write_text("precious")
    else:
        place.symlink_to(tmp_path / "gone")
    target = writers.Target(place, "page")
    with pytest.raises(OutputError, match=r"out: cannot be written \(Not a directory"):
        writers.write(target, ["json"], report(), Image.new("RGB", (9, 9)))
    done = run(PAGE, "--kit", "nowhere", "--format", "json", "-o", place)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: -o {place}: exists and is no folder. Name a folder, or one that does not exist "
        "yet.\n",
    )


def test_saved_page_whose_name_looks_like_an_option_gets_a_prefix(tmp_path: Path) -> None:
    shutil.copyfile(PAGE, tmp_path / "-rf.png")
    command = [sys.executable, "-m", "pulse_edge", "check", "--save-page", "out", "--", "-rf.png"]
    subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["page-rf.png.overlay.png", "page-rf.png.png"]


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names on Windows")
def test_named_pipe_is_no_json_schema(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "schema")
    done = run(PAGE, "--kit", "nowhere", "--json-schema", tmp_path / "schema")
    assert done.returncode == 2
    assert f"{tmp_path / 'schema'}: is a named pipe" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="shells of Windows have no pipes as files")
def test_json_schema_may_come_from_a_shell(tmp_path: Path) -> None:
    line = f"{sys.executable} -m pulse_edge interpret {PAGE} --kit nowhere --json-schema <(echo 5)"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is a named pipe" not in done.stderr
    assert "/dev/fd/" in done.stderr
