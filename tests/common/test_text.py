"""One rule for texts of strangers: nothing reaches a terminal, a document or a spreadsheet that
would act on it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.common.text import (
    counted,
    harmless,
    json_text,
    one_line,
    printable,
    spreadsheet_cell,
    visible,
)
from pulse_edge.installer import refusal

HOSTILE = [
    "\x1b[2K",
    "\x9b31m",
    "\r",
    "\x00",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\u3164",
    "\u2800",
    "\udcff",
    "\ue000",
]
HOSTILE += ["\U000e0041", "\uffff", "\u00ad"]
EVERYDAY = [
    "Ärzte",
    "Пётр",
    "한글",
    "שלום",
    "\u0645\u06cc\u200c\u062e",
    "e\u0301",
    "😀",
    "👩\u200d⚕\ufe0f",
    "a\u00a0b",
    "12 µV",
    "²",
]
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"


@pytest.mark.parametrize("text", EVERYDAY)
def test_letters_of_every_alphabet_stay_as_they_are(text: str) -> None:
    assert printable(text) == visible(text) == one_line(text) == text


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_harmful_characters_are_dropped_in_documents_and_escaped_elsewhere(text: str) -> None:
    name = f"a{text}b"
    assert not any(map(harmless, text[:1]))
    assert text[0] not in printable(name)
    assert text[0] not in visible(name)
    assert "\\" in visible(name)
    assert json.loads(json_text({"name": name})) == {"name": name}
    assert text[0] not in json_text(name)


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(n, "file was", "files were") for n in (0, 1, 2, 1000)] == [
        "0 files were",
        "1 file was",
        "2 files were",
        "1,000 files were",
    ]


def test_names_stay_on_one_line_and_lines_of_a_text_stay_lines() -> None:
    assert one_line("a\nb\tc") == r"a\nb\tc"
    assert visible("a\nb\tc") == printable("a\nb\tc") == "a\nb\tc"
    assert one_line("") == '""'


def test_the_installer_which_runs_alone_has_the_same_rule() -> None:
    for number in range(0x110000):
        assert refusal.visible(chr(number)) == one_line(chr(number))


CELLS = [
    "=1+1", "scan;=1+1;.png", "x\t=1+1", "x\n=1+1", "x\r\n+1", "\u200b=1+1", "\uff1d1+1", "  "
    "@SUM(1)", "+1", "-1",
    'a;"=1+1"', '"=1+1";=2', "\u00a0=1", "\u200c=1", "a;\u200d =1",
]  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=ascii)
@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_no_part_of_a_cell_is_a_formula_wherever_a_spreadsheet_splits(
    cell: str, separator: str
) -> None:
    file = io.StringIO()
    csv.writer(file).writerow(
        [spreadsheet_cell(value) for value in ("notice", cell, 1, "answered")]
    )
    for row in csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=separator):
        assert not [
            part for part in row if part.strip(" \u00a0\u200c\u200d")[:1] in tuple("=+-@\uff1d")
        ]


def test_numbers_and_plain_texts_are_cells_as_they_are() -> None:
    assert spreadsheet_cell(-1.5) == "-1.5"
    assert spreadsheet_cell("Sinus rhythm; axis -30") == "Sinus rhythm; axis -30"
    assert spreadsheet_cell("QRS 90 ms\nST = 0") == "QRS 90 ms\nST = 0"


BAD = "scan\x1b[2K\u202egnp\n.png"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "{folder}/{bad}"),
        ("check", "{folder}/broken{bad}"),
        ("check", "--json", "{folder}/broken{bad}"),
        ("check", "--{bad}"),
        ("{bad}",),
        ("kit", "info", "{folder}/{bad}"),
        ("kit", "info", "{folder}"),
        ("kit", "verify", "{folder}"),
        ("audit", "verify", "--audit-log", "{folder}/{bad}"),
        ("audit", "list", "--page", "{folder}/{bad}"),
        ("--debug", "kit", "info", "{folder}/{bad}"),
    ],
    ids=" ".join,
)
def test_no_command_lets_a_name_act_on_the_terminal(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / BAD).write_bytes(PAGE.read_bytes())
    (tmp_path / f"broken{BAD}").write_bytes(PAGE.read_bytes()[:3000])
    (tmp_path / "manifest.json").write_bytes(
        (ROOT / "pulse_edge/assets/kits/miniature/manifest.json").read_bytes()
    )
    words = [word.format(folder=tmp_path, bad=BAD) for word in command]
    AuditLog(tmp_path / "log").append({})
    env = os.environ | {"PULSE_EDGE_AUDIT_LOG": str(tmp_path / "log")}
    run = [sys.executable, "-m", "pulse_edge", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)
    shown = done.stdout + done.stderr
    assert not {"\x1b", "\u202e"} & set(shown)
    assert "gnp\n" not in shown or "--debug" in command  # where it came from has lines of its own
    assert r"\u202e" in shown


def test_the_kit_s_id_cannot_speak_in_the_program_s_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace
    from typing import Any

    from pulse_edge.cli.console import Console

    manifest = SimpleNamespace(id="good\x1b[1A\nall is well", demonstration=True)
    kit: Any = SimpleNamespace(manifest=manifest, path=tmp_path)
    model: Any = SimpleNamespace(kit=kit, device="cpu", fallback=None, refused=None)
    Console().loaded(model)
    assert (
        capsys.readouterr().err
        == "DEMONSTRATION KIT - NOT FOR PATIENTS: good\\x1b[1A\\nall is well\n"
    )
