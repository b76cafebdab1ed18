"""The page's words are those of the modules that the server does not load."""

from __future__ import annotations

from pulse_edge.inference.reporting import NOT_PROVEN
from pulse_edge.measurement import summary
from pulse_edge.page.quality_limits import LIMITS
from pulse_edge.report.content import URGENCY
from pulse_edge.web import words


def test_advice_is_that_of_the_check() -> None:
    assert {key: (limit.fact, limit.action) for key, limit in LIMITS.items()} == words.ADVICE


def test_measurements_are_those_of_reports_in_their_order() -> None:
    assert [*words.MEASUREMENTS] == [*summary.LABELS]
    assert words.PHRASES.keys() == summary.PHRASES.keys()
    assert words.COUNTS == summary.COUNTS
    assert (words.ST_LEVEL, words.ST_SHOWN) == (summary.ST_LEVEL, summary.ST_SHOWN)


def test_urgencies_are_those_of_reports() -> None:
    assert words.URGENCIES.keys() == URGENCY.keys()


def test_tiles_are_measurements() -> None:
    assert set(words.TILES) <= words.MEASUREMENTS.keys()
    assert NOT_PROVEN
