"""Make foreign texts (names of files, ids of kits, answers of a model) harmless, by one rule for
every output.

A character is harmless if a terminal, a browser, an XML reader or a person cannot mistake it for
another one. Controls, lone surrogates, unassigned and private characters, line separators of
Unicode, and invisible characters that reorder or hide text are not harmless. Documents leave them
out; terminals and names show them as escapes, so that two names never look alike. Standard library
only.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_BAD = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Persian, Indic scripts and emoji are not written without them."""
_BLANK = "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Fillers of Hangul, Khmer and Braille, which Unicode counts as letters and no font shows."""
_FORMULA = "=+-@"
_SEPARATORS = re.compile("([;\t\r\n])")
"""Where a spreadsheet may begin another cell: semicolons are the list separator of many countries'
Windows."""


def harmless(character: str) -> bool:
    """Whether a character may reach a terminal or a document as it is; line feed and tab may."""
    return (
        character in "\n\t"
        or character in _JOINERS
        or (unicodedata.category(character) not in _BAD and character not in _BLANK)
    )


def printable(text: str) -> str:
    """Return the text without its harmful characters; for documents."""
    return text if text.isascii() and text.isprintable() else "".join(filter(harmless, text))


def visible(text: str) -> str:
    """Return the text with harmful characters as escapes such as `\\x1b`; for terminals. Lines stay
    lines."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if harmless(c) else _escape(c) for c in text)


def one_line(name: str) -> str:
    """Return a name on one line: line feeds and tabs are escapes too. An empty name becomes
    `""`."""
    return visible(name).replace("\n", r"\n").replace("\t", r"\t") or '""'


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun, such as "1 file was" or "3 files were"."""
    return f"{number:,} {singular if number == 1 else plural}"


def duration(seconds: float) -> str:
    """Return a duration as `40 s`, `7 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def json_text(value: Any, **how: Any) -> str:
    """Return JSON that a terminal can show: harmful characters are JSON's own escapes, which a
    parser turns back."""
    return escaped_json(json.dumps(value, ensure_ascii=False, **how))


def escaped_json(text: str) -> str:
    """Return JSON text with harmful characters, which only its strings can hold, as JSON's
    escapes."""
    return "".join(c if harmless(c) else json.dumps(c)[1:-1] for c in text)


def spreadsheet_cell(value: object) -> str:
    """Return a cell that no spreadsheet reads as a formula, nor any part of it if it splits cells
    at semicolons or tabs."""
    text = printable(str(value))
    if isinstance(value, int | float):
        return text
    return "".join(f"'{part}" if _is_formula(part) else part for part in _SEPARATORS.split(text))


def _is_formula(part: str) -> bool:
    """Quotes give no protection: a reader that splits at another separator removes them."""
    return unicodedata.normalize("NFKC", part).lstrip(' \xa0"\u200c\u200d')[:1] in tuple(_FORMULA)


def _escape(character: str) -> str:
    number = ord(character)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )
