"""Read and answer every page on a batch's work list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulse_edge.batch.source_files import folder_error
from pulse_edge.common.text import one_line
from pulse_edge.errors import (
    AuditLogError,
    BatchError,
    OutputError,
    PageFailed,
    PulseEdgeError,
    on_page,
)

if TYPE_CHECKING:
    from pulse_edge.batch.store import File, Store
    from pulse_edge.page.reader import Document, Page
    from pulse_edge.report.report import Report

MAX_CRASHES = 2
"""Crashes of the program at one page, after which the page is not read again. The second attempt
runs in a new process."""
_ENDS_EVERYTHING = (AuditLogError, BatchError, OutputError)
"""An answer that cannot be logged, or a result that cannot be stored, must not be given."""


@dataclass(frozen=True)
class Work:
    """How a page becomes a report, and what is done with the report."""

    answer: Callable[[Page], Report]
    """Answers the questions about a page."""
    log: Callable[[Report, Page], None]
    """Appends the answers to the audit log."""
    write_documents: Callable[[Report, Page, str], None]
    """Writes a page's documents, whose names begin with the given text."""
    note: Callable[[str, Report | None, PulseEdgeError | None], None]
    """Gets the name of each finished page or file with its report, or with the error."""


def run(store: Store, work: Work) -> None:
    """Read and answer everything on the work list.

    A page that fails is noted, and the others continue.

    Raises AuditLogError, BatchError and OutputError, which end the batch.
    """
    from pulse_edge.page import reader

    while file := store.next():
        name = one_line(file.path)
        try:
            if error := folder_error(file.path):
                raise error
            with reader.Document(file.path) as document:
                for number in range(1, len(document) + 1):
                    if not store.has(file.id, number):
                        _run_page(store, work, file, document, number)
        except _ENDS_EVERYTHING:
            raise
        except Exception as e:
            failure = on_page(name, e)
            store.finish(file.id, failure)
            work.note(name, None, failure)
        else:
            store.finish(file.id)


def _run_page(store: Store, work: Work, file: File, document: Document, number: int) -> None:
    from pulse_edge.page.reader import UnreadablePage

    name = f"{one_line(file.path)}#{number}" if len(document) > 1 else one_line(file.path)
    last = number == len(document)
    try:
        if (crashes := store.begin(file.id, number)) >= MAX_CRASHES:
            raise PageFailed(
                f"{name}: ended the program {crashes} times. Export the page as PNG and try that."
            )
        page = document.page(number)
        if isinstance(page, UnreadablePage):
            raise page.error
        report = work.answer(page)
        work.log(report, page)
        work.write_documents(report, page, f"{file.id:06}-{number}")
    except _ENDS_EVERYTHING:
        raise
    except Exception as e:
        error = on_page(name, e)
        store.put(file.id, number, None, error, last=last)
        work.note(name, None, error)
        return
    store.put(file.id, number, report, last=last)
    work.note(page.name, report, None)
