"""The trainer of the miniature: a much smaller one, a few steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.miniature import data, layout, state, text, train
from export.miniature.model import Llama, Shape
from export.miniature.plan import Stage, planned
from export.miniature.run import Run
from pulse_edge.errors import UsageError

SMALL = Shape(
    vision_width=32,
    vision_heads=2,
    vision_mlp=64,
    vision_layers=2,
    width=256,
    heads=4,
    mlp=256,
    layers=2,
    vocabulary=600,
)
COMMON = {"batch": 2, "passes": 2, "block": 4, "muon": 1e-3, "adam": 1e-3, "warm": 2}
PLAN = (
    Stage("tower", steps=3, tower=1.0, turns=0, **COMMON),  # type: ignore[arg-type]
    Stage("language", steps=3, tower=0.5, turns=2, **COMMON),  # type: ignore[arg-type]
)


@pytest.fixture(autouse=True)
def short_exams(monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = data.first_lessons
    monkeypatch.setattr(
        data, "first_lessons", lambda seed, _count, patch, **more: lessons(seed, 8, patch, **more)
    )
    monkeypatch.setattr(text, "LINES", 400)


def finish(run: Run) -> Run:
    assert train.train(run, 60, 1, None, lambda _line: None)
    return run


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        lessons = data.first_lessons
        patch.setattr(
            data, "first_lessons", lambda seed, _count, p, **more: lessons(seed, 8, p, **more)
        )
        patch.setattr(text, "LINES", 400)
        return finish(Run(tmp_path_factory.mktemp("mini"), "cpu", 1, SMALL, PLAN))


def test_a_training_in_many_sittings_equals_one_in_one(unbroken: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, "cpu", 1, SMALL, PLAN)
    run.bf16 = unbroken.bf16  # chosen by speed where a training begins, and kept from then on
    sittings = 0
    while not train.train(run, 0, 1, None, lambda _line: None):
        run = Run.resume(tmp_path, "cpu")
        sittings += 1
    assert sittings >= 5
    for name, part in unbroken.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, run.parts[name].state_dict()[key]), f"{name}.{key}"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "cpu", 1, SMALL, PLAN)
    run.progress.step = 2
    run.save()
    (tmp_path / state.FOLDER).rename(tmp_path / f"{state.FOLDER}.old")
    assert Run.resume(tmp_path, "cpu").progress.step == 2


def test_no_shard_is_larger_than_16_mb(unbroken: Run) -> None:
    layout.write(unbroken.parts, unbroken.shape, unbroken.out)
    sizes = [p.stat().st_size for p in unbroken.out.rglob("*.safetensors")]
    assert sizes
    assert max(sizes) <= 16_000_000


def test_the_checkpoint_becomes_a_kit_that_is_proven_against_the_published_classes(
    unbroken: Run, tmp_path: Path
) -> None:
    from export.convert import Options, convert

    layout.write(unbroken.parts, unbroken.shape, unbroken.out)
    convert(unbroken.out, tmp_path / "kit", Options(vision="fp32", demonstration=True))
    parity = json.loads((tmp_path / "kit" / "manifest.json").read_text())["parity"]
    assert parity["vision"]["cosine_min"] > 0.9999


def test_the_trainers_tower_and_llama_equal_the_runtimes(unbroken: Run, tmp_path: Path) -> None:
    from PIL import Image

    from export.convert import Options, convert
    from pulse_edge import PulseModel

    layout.write(unbroken.parts, unbroken.shape, unbroken.out)
    convert(
        unbroken.out, tmp_path / "kit", Options(language="f32", vision="fp32", demonstration=True)
    )
    lesson = next(x for x in data.first_lessons(9, 8, 28) if len(x["tiles"]) == 5)
    batch = data.collate([lesson], 28, whole=True)
    with torch.no_grad():
        ours = unbroken.image_tokens(batch, None).flatten(0, 1)
    grid = Image.fromarray(_page(lesson))
    with PulseModel.load(tmp_path / "kit") as model:
        theirs = torch.from_numpy(model.encode(grid, admit=False).image_tokens)
    cosine = torch.nn.functional.cosine_similarity(ours[144:], theirs[144:])
    assert len(ours) == len(theirs)
    assert cosine.min() > 0.99  # weights were rounded to float16 between the two


def _page(lesson: data.Lesson) -> object:
    """The grid of 672 x 672 pixels, black padding and all: as a page it is cut into the same
    tiles again."""
    tiles = lesson["tiles"][1:]
    return tiles.reshape(2, 2, 336, 336, 3).transpose(0, 2, 1, 3, 4).reshape(672, 672, 3)


def test_a_turn_reads_the_page_and_itself_only() -> None:
    torch.manual_seed(0)
    llama = Llama(SMALL)
    image_tokens = [torch.randn(7, 256), torch.randn(5, 256)]
    before, turns = torch.tensor([1, 5, 9]), torch.randint(3, 600, (2, 3, 6))
    with torch.no_grad():
        together = llama(image_tokens, before, turns)
        alone = llama(image_tokens[1:], before, turns[1:, 2:])
    assert torch.allclose(together[1, 2], alone[0, 0], atol=1e-5)


def test_the_first_stage_reads_only_patches_that_show_the_page() -> None:
    (lesson,) = list(data.first_lessons(9, 1, 28))[:1]
    part, whole = (data.collate([lesson], 28, whole=w) for w in (False, True))
    inner = int(lesson["inner"].sum())
    count = part.mask.sum() if part.mask is not None else part.tokens.numel()
    assert count == inner
    assert whole.tokens.numel() == len(lesson["tiles"]) * 144
    for batch in (part, whole):
        flat = batch.patches.reshape(-1, batch.patches.shape[2])
        expected = data.cut_patches(lesson["tiles"][1:], 28).reshape(-1, flat.shape[1])[
            lesson["at"]
        ]
        patches = flat[batch.targets["at"]].numpy()
        assert len(patches) == len(expected)
        assert (patches == expected).all()


def test_dropped_patches_without_a_trace_leave_all_targets() -> None:
    (lesson,) = list(data.first_lessons(9, 1, 28))[:1]
    full = data.collate([lesson], 28, whole=False)
    sparse = data.collate([lesson], 28, whole=False, blank=0.15, rng=np.random.default_rng(3))
    count = [int(b.mask.sum()) if b.mask is not None else b.tokens.numel() for b in (sparse, full)]
    assert len(set(lesson["at"]) | set(lesson["traced"])) <= count[0] < count[1]
    for number, names in data.PER_PATCH.items():
        shown = [
            b.patches.reshape(-1, b.patches.shape[2])[b.targets[number]] for b in (sparse, full)
        ]
        assert torch.equal(*shown)
        for name in names:
            assert torch.equal(sparse.targets[name].nan_to_num(9), full.targets[name].nan_to_num(9))


def test_a_new_plan_begins_with_the_weights_and_words_of_another(
    unbroken: Run, tmp_path: Path
) -> None:
    unbroken.save()
    run = Run.from_training(unbroken.out, tmp_path / "next", "cpu", 5)
    assert all(
        torch.equal(a, b)
        for name, part in run.parts.items()
        for a, b in zip(part.parameters(), unbroken.parts[name].parameters(), strict=True)
    )
    assert run.speech_file.read_bytes() == unbroken.speech_file.read_bytes()
    assert (run.progress.stage, run.progress.step, run.progress.pages) == (
        0,
        0,
        unbroken.progress.pages,
    )


def test_a_plan_cannot_begin_with_a_folder_that_holds_no_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no training"):
        Run.from_training(tmp_path, tmp_path / "new", "cpu", 2)


def test_in_the_stage_of_words_only_the_language_model_learns(
    unbroken: Run, tmp_path: Path
) -> None:
    run = Run.from_training(unbroken.out, tmp_path, "cpu", 2)
    words = Stage("words", steps=3, tower=0.0, turns=2, **COMMON)  # type: ignore[arg-type]
    run.plan = (*planned(PLAN, ("tower=0", "language=0")), words)
    finish(run)
    assert {
        e["stage"] for e in map(json.loads, (tmp_path / "curve.jsonl").read_text().splitlines())
    } == {"words"}
    assert Run.resume(tmp_path, "cpu").progress.stage == len(run.plan)
    for name, part in run.parts.items():
        before = unbroken.parts[name].state_dict()
        same = all(torch.equal(value, before[key]) for key, value in part.state_dict().items())
        assert same == (name != "llama"), name


def test_a_second_training_in_the_same_folder_is_refused(unbroken: Run) -> None:
    options = train.Options(minutes=1.0, processes=1)
    with pytest.raises(UsageError, match="--resume"):
        train.start_or_resume(unbroken.out, options, print)
    with pytest.raises(UsageError, match="Start one without --resume"):
        train.start_or_resume(unbroken.out / "nowhere", replace(options, resume=True), print)


def test_the_length_of_a_stage_can_be_changed_by_name_only() -> None:
    assert [s.steps for s in planned(PLAN, ("language=7",))] == [3, 7]
    assert [s.steps for s in planned(PLAN, ("tower=0",))] == [0, 3]
    with pytest.raises(UsageError, match="STAGE=N"):
        planned(PLAN, ("speech=7",))


def test_the_curve_has_a_line_for_every_exam(unbroken: Run) -> None:
    lines = [json.loads(line) for line in (unbroken.out / "curve.jsonl").read_text().splitlines()]
    exams = [line for line in lines if "exam" in line]
    assert [line["stage"] for line in exams] == ["tower", "language"]
    assert set(exams[0]["exam"]["f1"]) == set(train.NAMES)


def test_weights_are_stored_as_float16_under_llavas_names(unbroken: Run) -> None:
    layout.write(unbroken.parts, unbroken.shape, unbroken.out)
    tensors: dict[str, torch.Tensor] = {}
    for shard in unbroken.out.glob("model-*.safetensors"):
        tensors |= load_file(shard)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert "model.mm_projector.2.weight" in tensors
    assert "model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight" in tensors
