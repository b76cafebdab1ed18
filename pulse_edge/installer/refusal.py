"""The error that stops the installer, and the rule by which names of files become harmless text."""

from __future__ import annotations

import unicodedata

_HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_BLANK = "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_SHOWN = {"\n": "\\n", "\t": "\\t", "\u200c": "\u200c", "\u200d": "\u200d"}
_ESCAPES = ((2, "x"), (4, "u"), (8, "U"))
"""Number of hexadecimal digits, and the letter of the escape."""


def visible(text: str) -> str:
    """Return the text on one line, with what a terminal would act on as escapes such as `\\x1b`.

    The same rule as `pulse_edge.common.text.one_line`.
    """

    def escape(number: int) -> str:
        digits, letter = next(pair for pair in _ESCAPES if number < 16 ** pair[0])
        return f"\\{letter}{number:0{digits}x}"

    return "".join(
        _SHOWN.get(c)
        or (escape(ord(c)) if unicodedata.category(c) in _HARMFUL or c in _BLANK else c)
        for c in text
    )


class Refused(Exception):
    """The installer stops. Each line names a file, what is wrong with it, and the next step."""

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(map(visible, lines))
        super().__init__("\n".join(self.lines))
