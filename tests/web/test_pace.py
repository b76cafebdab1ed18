"""The time left of a page: from the profile, from earlier pages, from the stage's own pace."""

from __future__ import annotations

import pytest

from pulse_edge.machine.profile import Speed
from pulse_edge.web.pace import Pace

SPEED = Speed(
    load_seconds=20.0,
    tile_seconds=4.0,
    image_tokens_per_second=10.0,
    tokens_per_second=2.0,
    prefill_threads=4,
    decode_threads=4,
)
"""Five tiles take 20 s, 1,000 image tokens 100 s, 100 tokens of an answer 50 s."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pace(speed: Speed | None, clock: Clock, findings: int = 0) -> Pace:
    return Pace(speed, tiles=5, image_tokens=1000, findings=findings, clock=clock)


def test_the_profile_gives_the_whole_page() -> None:
    assert pace(SPEED, Clock()).page() == pytest.approx(170.0)
    assert pace(SPEED, Clock(), findings=10).page() == pytest.approx(170.0 + 10 * 4.5)
    assert pace(None, Clock()).page() is None


@pytest.mark.parametrize(
    ("stage", "done", "total", "left"),
    [
        ("load", 0, 1000, 20 + 170.0),
        ("encode", 0, 5, 170.0),
        ("prefill", 0, 1000, 150.0),
        ("answer", 0, 100, 50.0),
        ("verify", 0, 10, None),
    ],
)
def test_the_profile_gives_the_rest_of_a_stage_and_those_after_it(
    stage: str, done: int, total: int, left: float | None
) -> None:
    assert pace(SPEED, Clock()).left(stage, done, total) == left


def test_a_stage_whose_own_pace_differs_is_believed_after_a_tenth() -> None:
    clock = Clock()
    slow = pace(SPEED, clock)
    slow.left("prefill", 0, 1000)
    clock.now = 4.0
    assert slow.left("prefill", 50, 1000) == pytest.approx(95.0 + 50.0)  # as the profile says
    clock.now = 40.0
    assert slow.left("prefill", 200, 1000) == pytest.approx(160.0 + 50.0)  # 0.2 s a token


def test_the_wait_for_a_first_unit_counts() -> None:
    clock = Clock()
    waiting = pace(SPEED, clock)
    assert waiting.left("encode", 0, 5) == pytest.approx(170.0)
    clock.now = 3.0
    assert waiting.left("encode", 0, 5) == pytest.approx(167.0)
    clock.now = 300.0
    assert waiting.left("encode", 0, 5) == pytest.approx(150.0)


def run(pace: Pace, clock: Clock, stage: str, units: int, seconds: float) -> None:
    """Let a stage pass at an even pace."""
    for done in range(units + 1):
        clock.now += seconds / units if done else 0.0
        pace.left(stage, done, units)


def test_without_a_profile_the_first_page_teaches_the_second() -> None:
    clock = Clock()
    learning = pace(None, clock)
    assert learning.left("encode", 0, 5) is None
    run(learning, clock, "encode", 5, 10.0)
    run(learning, clock, "prefill", 600, 30.0)
    run(learning, clock, "answer", 40, 20.0)
    learning.answered(tiles=5, image_tokens=600, tokens=[40])
    assert learning.page() == pytest.approx(10.0 + 30.0 + 20.0)
    assert learning.left("prefill", 0, 600) == pytest.approx(30.0 + 20.0)


def test_a_stage_of_one_step_is_timed_from_the_end_of_the_one_before() -> None:
    clock = Clock()
    learning = pace(None, clock)
    run(learning, clock, "encode", 5, 10.0)
    clock.now += 30.0
    learning.left("prefill", 600, 600)
    run(learning, clock, "answer", 100, 50.0)
    learning.answered(tiles=5, image_tokens=600, tokens=[100])
    assert learning.page() == pytest.approx(10.0 + 30.0 + 50.0)


def test_the_length_of_an_answer_is_learnt() -> None:
    learning = pace(SPEED, Clock())
    assert learning.expected_tokens() == 100
    learning.answered(5, 1000, [40])
    assert learning.expected_tokens() == 40
    learning.answered(5, 1000, [60])
    assert learning.expected_tokens() == 50
    assert learning.page() == pytest.approx(20.0 + 100.0 + 25.0)
    learning.begin(questions=3, findings=0)
    assert learning.expected_tokens() == 150


def test_a_question_about_a_page_in_the_kv_cache_teaches_no_pace_of_prefill() -> None:
    clock = Clock()
    learning = pace(SPEED, clock)
    learning.begin(questions=1, findings=0)
    run(learning, clock, "answer", 100, 50.0)
    learning.answered(5, 1000, [100])
    assert learning.page() == pytest.approx(170.0)


def test_a_slow_stage_is_believed_after_some_seconds() -> None:
    """Other programs take the processor: two tokens in 8 s, where the profile expects 1 s."""
    clock = Clock()
    slow = pace(SPEED, clock)
    slow.left("answer", 0, 100)
    clock.now = 8.0
    assert slow.left("answer", 2, 100) == pytest.approx(98 * 4.0)


def test_a_long_answer_never_ends_at_once() -> None:
    clock = Clock()
    talking = pace(SPEED, clock)
    talking.left("answer", 0, 100)
    clock.now = 100.0
    left = talking.left("answer", 200, 200)
    assert left is not None
    assert left > 0
