"""The page's words in each language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

from pulse_edge.web.catalogue import LANGUAGES, catalogue, choose

WEB = ROOT / "pulse_edge" / "web"
OTHERS = [code for code in LANGUAGES if code != "en"]
BABEL = "needs Babel, which collects the page's words"


def placeholders(message: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)s|\{[^}]*\}", message))


@pytest.fixture(scope="module")
def collected() -> list[str]:
    pytest.importorskip("babel", reason=BABEL)
    from scripts import translations

    return translations.collected()


def test_the_pages_words_are_many(collected: list[str]) -> None:
    assert len(collected) > 200


@pytest.mark.parametrize("code", OTHERS)
def test_every_word_has_a_translation_with_the_same_placeholders(
    code: str, collected: list[str]
) -> None:
    pytest.importorskip("babel", reason=BABEL)
    from babel.messages.pofile import read_po

    with (WEB / "locale" / code / "LC_MESSAGES" / "web.po").open("rb") as file:
        translated = {m.id: m.string for m in read_po(file, locale=code) if m.id}
    assert sorted(translated) == collected
    assert [m for m, text in translated.items() if not text] == []
    assert [m for m, text in translated.items() if placeholders(m) != placeholders(text)] == []


@pytest.mark.parametrize("code", OTHERS)
def test_the_compiled_words_are_those_of_the_text(code: str) -> None:
    pytest.importorskip("babel", reason=BABEL)
    from babel.messages.pofile import read_po

    from scripts import translations

    po, mo = translations.files(code)
    with po.open("rb") as file:
        assert mo.read_bytes() == translations.mo_bytes(read_po(file, locale=code))


@pytest.mark.parametrize("template", sorted((WEB / "templates").glob("*.html"), key=str))
def test_no_template_holds_words_outside_the_catalogue(template: Path) -> None:
    text = template.read_text("utf-8")
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "0", text, flags=re.S)
    for name in ("alt", "title", "aria-label", "placeholder"):
        assert re.findall(rf'\s{name}="[^"]*[A-Za-z]{{2}}[^"]*"', text) == []
    text = re.sub(r'<[a-zA-Z0-9/!](?:[^>"]|"[^"]*")*>', " ", text)
    words = set(re.findall(r"[A-Za-z]{2,}", text)) - {"pulse", "edge", "doctor", "English"}
    assert words == set()


def test_scripts_hold_no_sentences() -> None:
    for script in (WEB / "static").glob("*.js"):
        code = re.sub(r"//[^\n]*", "", script.read_text("utf-8"))
        assert re.findall(r"textContent = [\"'`](?=\w)", code) == [], script


@pytest.mark.parametrize(
    ("chosen", "header", "code"),
    [
        (None, "", "en"),
        (None, "fr-CH, fr;q=0.9, en;q=0.8", "fr"),
        (None, "de, sw;q=0.3, pt-BR;q=0.7", "pt"),
        (None, "de", "en"),
        (None, "ar;q=0, hi;q=0.1", "hi"),
        (None, "fr;q=nonsense, es;q=0.2", "es"),
        ("hi", "fr", "hi"),
        ("xx", "fr", "fr"),
        ("../../etc", ",,;q=,", "en"),
    ],
)
def test_the_language_is_the_one_chosen_or_the_browsers(chosen, header: str, code: str) -> None:
    assert choose(chosen, header) == code


def test_a_word_without_translation_stays_english() -> None:
    assert catalogue("fr").gettext("no such message") == "no such message"
    assert catalogue("fr").gettext("") == ""


def test_only_arabic_runs_from_right_to_left() -> None:
    assert [c for c, language in LANGUAGES.items() if language.direction == "rtl"] == ["ar"]
