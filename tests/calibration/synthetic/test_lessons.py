"""What a trainer is told about a page, against the page."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from checkout import ROOT

from calibration.synthetic import FINDINGS, LEADS, PageStyle, draw, page_at, synthesize
from calibration.synthetic.lessons import BEAT, KINDS, UNKNOWN, Lesson, lesson
from calibration.synthetic.stream import PINPOINTS, lesson_at


def taught(findings: tuple[str, ...] = ("PVC",), **style: object) -> tuple[object, Lesson]:
    recording = synthesize(5, findings, noise=0.0)
    page = draw(recording, PageStyle(**style))  # type: ignore[arg-type]
    return page, lesson(page, b"[]", size=336, patch=28, pinpoints=PINPOINTS)


def canvas(targets: Lesson) -> np.ndarray:
    """Grid patches (tiles * tokens, 28, 28, 3), numbered as in the lesson."""
    tiles = targets.tiles[1:]
    return (
        tiles.reshape(len(tiles), 12, 28, 12, 28, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, 28, 28, 3)
    )


@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+3", "6x2", "12x1"])
def test_the_trace_is_dark_where_its_height_is_told(layout: str) -> None:
    _, targets = taught(layout=layout, grid="none", ink_px=2.0, header=(), footer=())
    patches = canvas(targets)[targets.traced].min(axis=3)
    dark = []
    for patch, heights in zip(patches, targets.heights, strict=True):
        for k in np.flatnonzero(np.isfinite(heights)):
            y = int(heights[k] * 28)
            dark.append(patch[max(0, y - 2) : y + 3, 2 * k : 2 * k + 2].min())
    assert np.mean(np.array(dark) < 130) > 0.97


def test_beats_are_told_where_they_are_drawn_with_their_own_intervals() -> None:
    page, targets = taught(layout="12x1")
    beats = page.recording.beats  # type: ignore[attr-defined]
    assert {KINDS[k] for k in targets.kind} == {"", "N", "V"}
    for lead in range(12):
        here = (targets.lead == lead) & (targets.kind > 0)
        shown = [KINDS[k] for k in targets.kind[here]]
        assert (
            abs(len(shown) - len(beats)) <= 1
        )  # at the very edge a patch's middle may lie outside the strip
        widths = {round(b.end - b.onset, 3) for b in beats}
        assert {round(float(w), 3) for w in targets.beat[here][:, BEAT.index("qrs")]} <= widths
    ventricular = targets.beat[targets.kind == KINDS.index("V")]
    assert np.isnan(ventricular[:, BEAT.index("pr")]).all()


def test_every_lead_is_told_on_its_own_row() -> None:
    _, targets = taught(layout="12x1")
    rows = targets.at // 144 // 2 * 12 + targets.at % 144 // 12
    order = [int(np.median(rows[targets.lead == i])) for i in range(12)]
    assert order == sorted(order)
    assert len(set(order)) == 12
    assert {LEADS[i] for i in targets.lead} == set(LEADS)


def test_black_padding_is_not_inside() -> None:
    _, targets = taught(layout="3x4+1")
    patches = canvas(targets)
    assert (patches[targets.inner.reshape(-1) == 0] == 0).all()
    assert (
        patches[targets.inner.reshape(-1) == 1].reshape(targets.inner.sum(), -1).max(1) > 0
    ).all()


def test_labels_are_the_records() -> None:
    page, targets = taught(("AF", "STD"))
    assert [n for n, v in zip(FINDINGS, targets.findings, strict=True) if v] == ["AF", "STD"]
    assert targets.measures[0] == pytest.approx(page.recording.measurements.rate / 60)  # type: ignore[attr-defined]
    assert np.isnan(targets.measures[1])
    assert targets.levels == pytest.approx(page.recording.measurements.st)  # type: ignore[attr-defined]


def test_of_a_recording_only_what_its_labels_tell_is_told() -> None:
    from calibration.synthetic.real import ptbxl_labels
    from calibration.synthetic.recording import UNKNOWN as NOTHING
    from calibration.synthetic.recording import Recording

    signal = synthesize(3, ()).signal
    recording = Recording(signal, None, ptbxl_labels(["AFIB"], ["STTC"]), NOTHING)
    targets = lesson(draw(recording, PageStyle()), b"[]", size=336, patch=28, pinpoints=PINPOINTS)
    names = dict(zip(FINDINGS, targets.findings, strict=True))
    assert (names["AF"], names["LBBB"], names["LAFB"]) == (1, 0, UNKNOWN)
    assert (targets.kind == UNKNOWN).all()
    assert np.isnan(targets.measures).all()
    assert np.isfinite(targets.heights).any()


def test_a_stream_gives_the_same_lessons_in_any_number_of_processes() -> None:
    def stream(first: int, step: int, count: int) -> list[dict[str, np.ndarray]]:
        command = [
            sys.executable,
            "-m",
            "calibration.synthetic.stream",
            "--seed=4",
            f"--first={first}",
        ]
        command += [f"--step={step}", f"--count={count}"]
        raw = io.BytesIO(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
        frames = [raw.read(int.from_bytes(raw.read(8), "little")) for _ in range(count)]
        assert raw.read() == b""
        return [dict(np.load(io.BytesIO(f))) for f in frames]

    alone, odd = stream(0, 1, 4), stream(1, 2, 2)
    here = lesson_at(4, 3, patch=28)
    for name in (f.name for f in fields(Lesson)):
        assert np.array_equal(alone[1][name], odd[0][name], equal_nan=name not in ("words",))
        assert np.array_equal(alone[3][name], odd[1][name], equal_nan=name not in ("words",))
        assert np.array_equal(alone[3][name], getattr(here, name), equal_nan=name not in ("words",))


def test_questions_of_a_page_come_with_it() -> None:
    import json

    turns = json.loads(bytes(lesson_at(4, 0, patch=28).words))
    page = page_at(4, 0)
    assert any("report" in q for q, _ in turns)
    assert any(str(round(page.recording.measurements.rate or 0)) in a for _, a in turns)
