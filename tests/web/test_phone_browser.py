"""A laptop's and a phone's browser: pair, send, read, disconnect; and what axe-core says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import axe_source, chromium, violations
from web_server import DEADLINE, PAGE, WebServer

ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36"
SCREENS = ({}, {"color_scheme": "dark"}, {"locale": "ar"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    options = ("--phone", "--phone-address", "127.0.0.1", "--phone-port", "0")
    with WebServer(tmp_path_factory.mktemp("phones"), *options) as running:
        yield running


def opened(browser: Any, **options: Any) -> Any:
    context = browser.new_context(ignore_https_errors=True, **options)
    context.set_default_timeout(DEADLINE * 1000)
    return context.new_page()


@pytest.fixture(scope="module")
def laptop(browser: Any, server: WebServer) -> Any:
    page = opened(browser)
    page.goto(server.link())
    page.wait_for_url("**/")
    return page


def new_link(server: WebServer, laptop: Any) -> str:
    """A pairing link, as the code on the laptop's screen holds it."""
    laptop.goto(f"{server.address}/phone")
    laptop.locator("form[action^='/phone/new'] button").click()
    laptop.locator("img.code").wait_for()
    return str(re.findall(r"https://[^<\s]+/p/pair\?code=[\w-]+", laptop.content())[0])


def paired(browser: Any, server: WebServer, laptop: Any, **options: Any) -> Any:
    size = {"width": 360, "height": 740}
    phone = opened(browser, viewport=size, user_agent=ANDROID, **options)
    phone.goto(new_link(server, laptop))
    phone.locator("form[action^='/p/pair'] button").click()
    phone.wait_for_url("**/p/")
    return phone


def test_a_phone_photographs_a_page_and_is_disconnected(
    browser: Any, server: WebServer, laptop: Any
) -> None:
    phone = paired(browser, server, laptop)
    phone.locator("input[capture]").set_input_files(PAGE)
    phone.wait_for_url("**/p/r/*")
    phone.get_by_text("Unconfirmed: requires physician overread").wait_for()
    phone.get_by_text("Contradictions: look here first").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    laptop.goto(f"{server.address}/")
    laptop.locator(f"a[href*='{phone.url.rpartition('/')[2]}']").wait_for()
    laptop.goto(f"{server.address}/phone")
    laptop.get_by_role("button", name="Disconnect Android 15").last.click()
    laptop.wait_for_load_state()
    phone.reload()
    assert phone.get_by_text("This phone is not connected").is_visible()
    phone.context.close()


def test_a_code_that_was_used_pairs_no_second_phone(
    browser: Any, server: WebServer, laptop: Any
) -> None:
    link = new_link(server, laptop)
    first, second = opened(browser), opened(browser)
    for phone in (first, second):
        phone.goto(link)
    first.locator("form[action^='/p/pair'] button").click()
    first.wait_for_url("**/p/")
    second.locator("form[action^='/p/pair'] button").click()
    assert second.get_by_text("This code was used, or its time is over").is_visible()
    first.context.close()
    second.context.close()


@pytest.mark.parametrize("options", SCREENS, ids=["light", "dark", "arabic"])
def test_axe_finds_no_violation_on_the_pages_about_phones(
    browser: Any, server: WebServer, laptop: Any, options: dict[str, str]
) -> None:
    axe_source()
    phone = paired(browser, server, laptop, **options)
    problems = {"home": violations(phone)}
    phone.locator("input[capture]").set_input_files(PAGE)
    phone.wait_for_url("**/p/r/*")
    phone.locator("[data-version^=done]").wait_for()
    problems["reading"] = violations(phone)
    phone.goto(new_link(server, laptop))
    problems["pair"] = violations(phone)
    problems["laptop"] = violations(laptop)
    assert {name: rules for name, rules in problems.items() if rules} == {}
    phone.context.close()
