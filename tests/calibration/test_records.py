"""Frozen dataclasses as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from calibration.records import as_json, from_json


@dataclass(frozen=True)
class Inner:
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Outer:
    texts: str | tuple[str, ...]
    pairs: tuple[tuple[str, int], ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    inner: Inner | None = None
    flag: bool = False


@pytest.mark.parametrize(
    "record",
    [
        Outer(texts="one"),
        Outer(texts=("one", "two"), pairs=(("a", 1),), flag=True),
        Outer(texts="", by_name={"x": Inner(None), "y": Inner(0.5)}, inner=Inner(1.0)),
    ],
)
def test_a_record_survives_the_round_trip(record: Outer) -> None:
    assert from_json(Outer, as_json(record)) == record


def test_defaults_are_left_out_and_none_without_a_default_is_null() -> None:
    assert as_json(Outer(texts="one", inner=Inner(None))) == {
        "texts": "one",
        "inner": {"value": None},
    }


def test_a_default_of_another_type_is_written() -> None:
    assert as_json(Outer(texts="one", flag=0)) == {"texts": "one", "flag": 0}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [{}, {"texts": 1}, {"texts": "one", "inner": {"value": "high"}}, {"texts": "a", "pairs": "b"}],
)
def test_missing_fields_and_other_types_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_json(Outer, raw)
