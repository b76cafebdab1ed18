"""Guesses: what they know, and that an answer is the same with and without them, whatever they
say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tiny

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.errors import KitError
from pulse_edge.inference import speculative
from pulse_edge.inference.decoding import STEP_WIDTH, generate
from pulse_edge.inference.speculative import Drafter

PACKAGE = Path(pulse_edge.__file__).parent
PAGE = PACKAGE / "assets" / "example_page.png"
QUESTIONS = (
    "Is the rhythm regular?",
    "What is the rate?",
    "Please write a clinical report based on this ECG image.",
)


class Wrong:
    """Guesses at random, now and then none."""

    def __init__(self, vocabulary: int) -> None:
        self._draw = random.Random(3)
        self._vocabulary = vocabulary

    def add(self, token: int) -> None:
        pass

    def propose(self, most: int) -> list[int]:
        return [
            self._draw.randrange(self._vocabulary) for _ in range(self._draw.randrange(most + 1))
        ]


class Oracle:
    """Knows the answer, but for every seventh token."""

    def __init__(self, answer: list[int]) -> None:
        self._answer, self._at = answer, 0

    def add(self, token: int) -> None:
        self._at += 1

    def propose(self, most: int) -> list[int]:
        return [0 if n % 7 == 6 else t for n, t in enumerate(self._answer)][
            self._at : self._at + most
        ]


@pytest.fixture(scope="module", params=["f16", "Q4_K_M", "Q8_0"])
def model(request: pytest.FixtureRequest, tiny_kit: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    kind = request.param
    kit = (
        tiny_kit
        if kind == "f16"
        else tiny.quantized(tiny_kit, tmp_path_factory.mktemp("kits") / kind, kind)
    )
    with PulseModel.load(kit, device="cpu", threads=1) as loaded:
        loaded.language.step_width = STEP_WIDTH
        yield loaded


@pytest.mark.parametrize("question", QUESTIONS)
def test_right_and_wrong_draft_tokens_give_the_same_answer(
    model: PulseModel, question: str
) -> None:
    # 160 tokens behind some 170: past 256, where llama.cpp widens what attention looks at.
    scan, language = model.encode(PAGE), model.language

    def decode(drafts: object) -> tuple[list[int], int]:
        logits, before = model.prefill(scan, model.turns(question, ())), language.steps
        ids = [piece.token for piece in generate(language, logits, 160, drafts)]  # type: ignore[arg-type]
        return ids, language.steps - before

    plain, steps = decode(None)
    assert len(plain) == 160
    assert language.position > 256
    assert steps == 160
    assert decode(Wrong(language.vocabulary))[0] == plain
    assert decode(Drafter())[0] == plain
    decoded, few = decode(Oracle(plain))
    assert decoded == plain
    assert few < 160 / 2


def test_a_token_has_the_same_logits_at_every_place_of_a_verification_step(
    model: PulseModel,
) -> None:
    scan, language = model.encode(PAGE), model.language
    ids = model.language.tokenize(
        "Sinus rhythm with left bundle branch block, no acute", first=False
    )[:12]
    logits_by_place = []
    for first in (1, 2, 3, 4):
        model.prefill(scan, model.turns(QUESTIONS[0], ()))
        rows, at = [], 0
        while at < len(ids):
            size = first if at == 0 else 4
            group = ids[at : at + size]
            filled = [*group, *([7] * (4 - len(group)))]
            rows.append(language.feed_tokens(filled, every=True)[: len(group)])
            language.rewind(4 - len(group))
            at += size
        logits_by_place.append(np.concatenate(rows))
    assert all(np.array_equal(logits_by_place[0], other) for other in logits_by_place[1:])


def test_an_answer_ends_where_the_context_has_no_room_for_a_verification_step(
    model: PulseModel,
) -> None:
    scan, language = model.encode(PAGE), model.language
    logits = model.prefill(scan, model.turns(QUESTIONS[0], ()))
    room, language.context = language.context, language.position + 9
    try:
        for drafts in (None, Wrong(language.vocabulary)):
            language.rewind(language.position - (language.context - 9))
            pieces = list(generate(language, logits, 50, drafts))
            assert language.position <= language.context
            assert 6 <= len(pieces) <= 10
    finally:
        language.context = room


def test_the_miniature_gives_the_same_answer_in_fewer_steps() -> None:
    with PulseModel.load(
        PACKAGE / "assets" / "kits" / "miniature", device="cpu", threads=1
    ) as model:
        scan, language = model.encode(PAGE), model.language
        assert (language.step_width, model.drafter) == (1, None)  # it carries no table
        drafter, answers, language.step_width = Drafter(), [], STEP_WIDTH
        for model.drafter in (None, drafter, drafter):
            before = language.steps
            texts = [model.ask(scan, question, 64).answer() for question in QUESTIONS]
            answers.append((texts, language.steps - before))
        (plain, most), (first, fewer), (second, fewest) = answers
        assert plain == first == second
        assert fewest < fewer <= most


def test_the_longest_context_decides_and_the_draft_table_comes_first() -> None:
    drafter = Drafter({(1,): 2, (1, 2): 3, (9, 2): 8})
    drafter.begin([9, 1])
    assert drafter.propose(3) == [2, 3]
    drafter.begin([4, 5, 6, 7, 4, 5])
    assert drafter.propose(3) == [6, 7, 4]
    drafter.begin([50])
    assert drafter.propose(3) == []


def test_a_draft_table_holds_the_most_frequent_follower_of_each_context() -> None:
    table = speculative.build(
        [[1, 2, 3], [1, 2, 3], [1, 2, 4], [5, 2, 4], [5, 2, 4]], vocabulary=10
    )
    assert table == {(1,): 2, (2,): 4, (5,): 2, (1, 2): 3}


def test_a_draft_table_survives_its_file_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "draft-table.json", {(1, 2): 3, (1,): 2}
    speculative.write(path, table, 10)
    assert speculative.read(path, 10) == table
    bad = json.dumps({"format": 1, "vocabulary": 10, "follows": {"1": 10}})
    for text, vocabulary in ((path.read_text(), 11), (bad, 10), ("[]", 10), ("{", 10)):
        path.write_text(text)
        with pytest.raises(KitError, match=r"draft table|outside the kit's vocabulary"):
            speculative.read(path, vocabulary)


def test_a_kit_carries_the_draft_table_of_its_calibration_answers(
    tiny_kit: Path, tmp_path: Path
) -> None:
    from calibration.draft_table import add
    from calibration.synthesize import Plan, synthesize
    from pulse_edge.kit.kit import open_kit
    from pulse_edge.kit.verify import verify

    synthesize(tmp_path / "bench", Plan(pages=3, seed=4, tasks=("ptb-test-report",)), 1)
    contexts = add(tiny_kit, tmp_path / "kit", tmp_path / "bench", None)
    opened = open_kit(tmp_path / "kit")
    verify(opened)
    assert contexts > 0
    assert opened.manifest.draft_table_file == "draft_table.json"
    with (
        PulseModel.load(opened, device="cpu", threads=1) as model,
        PulseModel.load(tiny_kit, device="cpu") as plain,
    ):
        answers = [m.interpret(PAGE, QUESTIONS[0], max_tokens=24).answers for m in (model, plain)]
        assert answers[0] == answers[1]
