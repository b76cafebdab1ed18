"""Teacher forcing and conversations: the numbers are those of the answer that the model gives
itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.errors import UsageError
from pulse_edge.inference.decoding import generate
from pulse_edge.kit.prompt import TEMPLATES, conversation

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
AFTER = TEMPLATES["llava_v1"][1]
QUESTION, SECOND = "Is the rhythm regular?", "What is the rate?"


@pytest.fixture(scope="module")
def model(tiny_kit: Path):  # type: ignore[no-untyped-def]
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as loaded:
        yield loaded


def test_teacher_forcing_on_the_own_answer_prefers_each_token(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    answering = model.ask(scan, QUESTION, 24)
    answering.answer()
    (logits,) = model.score(scan, QUESTION, [answering.ids])
    assert logits.shape == (24, model.language.vocabulary)
    assert logits.argmax(1).tolist() == answering.ids


def test_forced_logits_are_those_of_feeding_one_token_after_another(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    ids = model.language.tokenize("The rhythm is irregular.", first=False)
    (logits,) = model.score(scan, QUESTION, [ids])
    at = model.prefill(scan, model.turns(QUESTION, ()))
    for row, token in zip(logits, ids, strict=True):
        np.testing.assert_allclose(row, at, atol=5e-3)
        at = model.language.feed_tokens([token])


def test_one_answer_does_not_change_the_numbers_of_the_next(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    long, short = (
        model.language.tokenize(text, first=False) for text in ("The rhythm is irregular.", "The")
    )
    first, _, again = model.score(scan, QUESTION, [short, long, short])
    assert np.array_equal(first, again)
    assert len(first) == len(short)


def test_scores_end_when_another_question_is_asked(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    scores = model.score(scan, QUESTION, [[5], [6]])
    next(scores)
    model.ask(scan, SECOND, 1).answer()
    with pytest.raises(UsageError, match="another question"):
        next(scores)


def test_a_second_turn_has_llavas_text() -> None:
    texts = conversation("llava_v1", AFTER, SECOND, [(QUESTION, "Yes.")])
    assert texts == [f"\n{QUESTION} ASSISTANT: Yes.", f"USER: {SECOND} ASSISTANT:"]


def test_a_second_turn_follows_the_first_answer_and_its_end_token(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    with_history = model.ask(scan, SECOND, 12, [(QUESTION, "Yes.")]).answer().text
    language, m = model.language, model.kit.manifest
    language.prefill(scan.image_tokens_sha256, m.prompt.before, scan.image_tokens)
    first, second = (
        language.tokenize(t, first=False) for t in model.turns(SECOND, [(QUESTION, "Yes.")])
    )
    pieces = generate(language, language.feed_tokens([*first, language.end, *second]), 12)
    assert "".join(piece.text for piece in pieces).strip() == with_history
    assert with_history != model.ask(scan, SECOND, 12).answer().text


def test_a_template_without_a_second_turn_is_refused() -> None:
    with pytest.raises(UsageError, match="has no second turn"):
        conversation("other", AFTER, SECOND, [(QUESTION, "Yes.")])


def test_an_answer_counts_the_tokens_in_front_of_it(model: PulseModel) -> None:
    scan = model.encode(PAGE)
    first = model.ask(scan, QUESTION, 4)
    first.answer()
    texts = [model.kit.manifest.prompt.before, *model.turns(QUESTION, ())]
    words = [model.language.tokenize(text, first=n == 0) for n, text in enumerate(texts)]
    count = len(scan.image_tokens) + sum(map(len, words))
    assert first.answer().prompt_tokens == count
    second = model.ask(scan, SECOND, 4, [(QUESTION, first.text)])
    assert second.answer().prompt_tokens > count
