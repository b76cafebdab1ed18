"""Collect the page's words, bring the translations up to date, and compile them.

    python -m scripts.translations          needs Babel

Words come from the templates and from `N_(...)` in pulse_edge/web. A new word has an empty
translation in each language until somebody writes one; a word that is no longer used is dropped.
"""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "pulse_edge" / "web"
LANGUAGES = ("fr", "es", "pt", "ar", "hi", "sw")
KEYWORDS = {"_": None, "N_": None}
OPTIONS = {"trimmed": "true", "silent": "false"}


def main() -> int:
    """Write each language's .po and .mo; return 1 where translations are missing."""
    words, missing = collected(), 0
    for code in LANGUAGES:
        catalog = updated(code, words)
        names = [message.id for message in catalog if message.id and not message.string]
        missing += len(names)
        print(f"{code}: {len(words)} messages, {len(names)} without translation")
        po, mo = files(code)
        po.parent.mkdir(parents=True, exist_ok=True)
        po.write_bytes(po_bytes(catalog))
        mo.write_bytes(mo_bytes(catalog))
    return 1 if missing else 0


def files(code: str) -> tuple[Path, Path]:
    """Return the paths of a language's text and of its compiled form."""
    folder = WEB / "locale" / code / "LC_MESSAGES"
    return folder / "web.po", folder / "web.mo"


def collected() -> list[str]:
    """Return the page's words, sorted."""
    words: set[str] = set()
    sources = [(path, "python") for path in WEB.glob("*.py")]
    sources += [(path, "jinja2") for path in (WEB / "templates").glob("*.html")]
    for path, kind in sources:
        method = "jinja2.ext:babel_extract" if kind == "jinja2" else "python"
        with path.open("rb") as file:
            for _line, message, _comments, _context in extract(
                method, file, KEYWORDS, options=OPTIONS
            ):
                words.update([message] if isinstance(message, str) else message)
    return sorted(words)


def updated(code: str, words: list[str]) -> Catalog:
    """Return a language's translations of exactly these words."""
    po, _mo = files(code)
    earlier: dict[str, str] = {}
    if po.exists():
        with po.open("rb") as file:
            earlier = {str(m.id): str(m.string) for m in read_po(file, locale=code) if m.id}
    catalog = Catalog(locale=code, project="pulse-edge", fuzzy=False)
    for word in words:
        catalog[word] = Message(word, earlier.get(word, ""))
    return catalog


def po_bytes(catalog: Catalog) -> bytes:
    """Return the text of a catalogue, without dates and places in the code."""
    file = io.BytesIO()
    write_po(file, catalog, width=100, no_location=True, omit_header=True)
    header = f"# The words of the page in {catalog.locale.english_name}.\n"  # type: ignore[union-attr]
    header += 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    return header.encode() + file.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    """Return the compiled form of a catalogue (GNU gettext manual, "The Format of GNU MO Files").

    The same words give the same bytes: unlike Babel's own, it holds no date and no version.
    """
    header = "Content-Type: text/plain; charset=UTF-8\n"
    texts = {"": header} | {str(m.id): str(m.string) for m in catalog if m.id and m.string}
    pairs = sorted((k.encode(), v.encode()) for k, v in texts.items())
    tables_end = 28 + 16 * len(pairs)
    places: list[int] = []
    strings = b""
    for column in (0, 1):
        for pair in pairs:
            places += [len(pair[column]), tables_end + len(strings)]
            strings += pair[column] + b"\0"
    head = (0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, tables_end)
    return struct.pack(f"<{len(head) + len(places)}I", *head, *places) + strings


if __name__ == "__main__":
    sys.exit(main())
