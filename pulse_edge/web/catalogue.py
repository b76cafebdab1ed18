"""The words of the page in seven languages.

The English sentences are the keys (gettext). Texts of the model and of reports are data: they stay
English. Standard library only.
"""

from __future__ import annotations

import gettext as standard_gettext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "web"


@dataclass(frozen=True)
class Language:
    """A language of the page."""

    code: str
    """Two letters of ISO 639-1."""
    name: str
    """Name of the language in itself."""
    direction: str = "ltr"
    """`ltr` or `rtl`, as in HTML's attribute `dir`."""
    reviewed: bool = False
    """Whether a native speaker who reads ECGs has reviewed the translation."""


LANGUAGES = {
    language.code: language
    for language in (
        Language("en", "English", reviewed=True),
        Language("fr", "Français"),
        Language("es", "Español"),
        Language("pt", "Português"),
        Language("ar", "العربية", "rtl"),
        Language("hi", "हिन्दी"),
        Language("sw", "Kiswahili"),
    )
}
"""Code -> language, in the order in which the page offers them."""


def N_(message: str) -> str:
    """Mark a message for translation where it is defined; it is translated where it is shown."""
    return message


@dataclass(frozen=True)
class Catalogue:
    """The words of one language."""

    language: Language
    translations: standard_gettext.NullTranslations

    def gettext(self, message: str) -> str:
        """Return the translation of a message; the message itself where it has none."""
        return self.translations.gettext(message) if message else ""

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        """Return the translation of a counted message."""
        return self.translations.ngettext(singular, plural, number)


@lru_cache(maxsize=len(LANGUAGES))
def catalogue(code: str) -> Catalogue:
    """Return the words of a language.

    Raises KeyError for a language that the page does not have, and FileNotFoundError where the
    package lacks its compiled translations.
    """
    language = LANGUAGES[code]
    if code == "en":
        return Catalogue(language, standard_gettext.NullTranslations())
    return Catalogue(language, standard_gettext.translation(DOMAIN, LOCALE, [code]))


def choose(chosen: str | None, accept_language: str) -> str:
    """Return the code of the language to show: the chosen one, else the browser's, else English.

    `accept_language`: the request's header Accept-Language (RFC 9110, section 12.5.4).
    """
    if chosen in LANGUAGES:
        return chosen
    wishes = []
    for number, wish in enumerate(accept_language.split(",")[:50]):
        tag, _, parameters = wish.strip().partition(";")
        code = tag.strip().partition("-")[0].lower()
        if code in LANGUAGES and (weight := _weight(parameters)) > 0:
            wishes.append((-weight, number, code))
    return min(wishes)[2] if wishes else "en"


def _weight(parameters: str) -> float:
    """Return the weight of a wish, such as 0.8 of `q=0.8`; 1 without one, 0 for nonsense."""
    name, _, value = parameters.partition("=")
    if not name.strip():
        return 1.0
    try:
        weight = float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
