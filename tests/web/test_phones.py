"""Pairing codes, paired phones, and their limits, with a clock that the test sets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pulse_edge.errors import ServeError
from pulse_edge.web.phones import (
    CODE_SECONDS,
    FILE,
    MAX_PHONES,
    PHONE_SECONDS,
    Phones,
    RateLimit,
    phone_name,
)

AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def phones(tmp_path: Path, clock: Clock) -> Phones:
    return Phones(tmp_path, clock)


def paired(phones: Phones) -> str:
    cookie = phones.pair(phones.new_code(), AGENT)
    assert cookie is not None
    return cookie


def test_a_code_pairs_one_phone_only(phones: Phones) -> None:
    code = phones.new_code()
    assert phones.pair(code, AGENT) is not None
    assert phones.pair(code, AGENT) is None
    assert [phone.name for phone in phones.paired()] == ["iPhone"]


@pytest.mark.parametrize("code", ["", "x", "\u00e9", "x" * 10_000])
def test_a_wrong_code_pairs_no_phone(phones: Phones, code: str) -> None:
    assert phones.pair(code, AGENT) is None
    right = phones.new_code()
    assert phones.pair(code, AGENT) is None
    assert phones.valid_code(right)


def test_a_new_code_replaces_the_one_before(phones: Phones) -> None:
    first, second = phones.new_code(), phones.new_code()
    assert phones.pair(first, AGENT) is None
    assert phones.pair(second, AGENT) is not None


def test_a_code_expires(phones: Phones, clock: Clock) -> None:
    code = phones.new_code()
    clock.now += CODE_SECONDS - 1
    assert phones.valid_code(code)
    clock.now += 1
    assert not phones.valid_code(code)
    assert phones.pair(code, AGENT) is None


def test_a_cookie_expires(phones: Phones, clock: Clock) -> None:
    cookie = paired(phones)
    assert phones.of_cookie(cookie) is not None
    clock.now += PHONE_SECONDS
    assert phones.of_cookie(cookie) is None
    assert phones.paired() == []


def test_a_revoked_phone_is_a_stranger_also_after_a_restart(
    phones: Phones, clock: Clock, tmp_path: Path
) -> None:
    first, second = paired(phones), paired(phones)
    assert phones.revoke(phones.paired()[0].id)
    for access in (phones, Phones(tmp_path, clock)):
        assert access.of_cookie(first) is None
        assert access.of_cookie(second) is not None


def test_no_cookie_lies_on_the_disk_and_the_file_is_private(phones: Phones, tmp_path: Path) -> None:
    cookie = paired(phones)
    path = tmp_path / FILE
    assert cookie not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[{"id": 1}]')
    with pytest.raises(ServeError, match=r"phones\.json: cannot be read .* Remove it"):
        Phones(tmp_path)


def test_the_number_of_phones_is_bounded(phones: Phones) -> None:
    for _ in range(MAX_PHONES):
        paired(phones)
    with pytest.raises(ServeError, match="connected already"):
        phones.pair(phones.new_code(), AGENT)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (AGENT, "iPhone"),
        ("Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36", "Android 15"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "X11"),
        ("", "phone"),
        ("(\x1b[31m;\n)", "\\x1b[31m"),
        (f"({'a' * 100})", "a" * 40),
    ],
)
def test_a_phone_is_named_as_its_browser_says(agent: str, name: str) -> None:
    assert phone_name(agent) == name


def test_a_rate_limit_counts_each_key_in_its_window(clock: Clock) -> None:
    limit = RateLimit(2, 60, clock)
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]
    assert limit.allows("b")
    clock.now += 61
    assert limit.allows("a")
