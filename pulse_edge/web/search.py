"""Find readings by what a person would call their words: names, and texts of model and reader.

Standard library only.
"""

from __future__ import annotations

import sqlite3

_PART = "part.key IN ('text', 'conclusion') AND instr(folded(part.value), sought.text)"
HOLDS_TEXT = f"""
(WITH sought(text) AS (SELECT folded(?))
SELECT instr(folded(r.name), sought.text)
OR EXISTS (SELECT 1 FROM json_tree(r.report, '$.answers') AS part WHERE {_PART})
OR EXISTS (SELECT 1 FROM json_tree(r.report, '$.confirmation') AS part WHERE {_PART})
OR EXISTS (
    SELECT 1 FROM turns WHERE turns.reading = r.id AND (
        instr(folded(turns.question), sought.text)
        OR instr(folded(json_extract(turns.report, '$.answers[0].text')), sought.text)
    )
) FROM sought)
"""
"""Condition on a reading `r`: its name, or one of its texts, holds a text in upper or lower case.

A report is JSON, in which a search for words would find the names of its fields, and no word with
an accent.
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Give a connection what HOLDS_TEXT needs: SQLite's own lower() knows ASCII alone."""
    connection.create_function("folded", 1, _folded, deterministic=True)


def _folded(text: str | None) -> str:
    return (text or "").casefold()
