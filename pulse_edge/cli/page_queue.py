"""The pages of the files that a command names, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pulse_edge.errors import PulseEdgeError, on_page
from pulse_edge.page import reader

if TYPE_CHECKING:
    from pulse_edge.cli.session import Session
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.page.reader import Document, Page, UnreadablePage


class PageQueue:
    """Reads pages, and counts those that get no answer: the worst decides the exit code."""

    def __init__(self, files: tuple[str, ...], session: Session) -> None:
        self._files, self._session = files, session
        self._as_json = session.request.output.printed == "json"
        self._opened: Document | list[Page] | None = None
        self._pages = self._failures = 0
        self.exit_code = 0
        self.several = len(files) > 1
        """Whether there is more than one page."""

    def failed(self, name: str, error: Exception) -> None:
        """Say why a page has no answer."""
        self._failures += 1
        code = self._session.console.failed(name, on_page(name, error), self._as_json)
        self.exit_code = max(self.exit_code, code)

    def summarize(self) -> None:
        """Note how many of several pages have no answer."""
        if self._pages > 1 and self._failures:
            text = f"{self._failures} of {self._pages} pages were not answered"
            self._session.console.note(text, always=True)

    def count(self) -> int:
        """Return the number of pages.

        A single file is opened for that; of several files each counts as one page.
        """
        if len(self._files) > 1:
            return len(self._files)
        document = self._open(self._files[0])
        self.several = document is not None and len(document) > 1
        if document is not None and self.several:
            self._opened = document
        else:  # a single page is read at once: if that fails, the model need not be loaded
            self._opened = list(self._readable(document or ()))
        return len(self._opened)

    def pages(self) -> Iterator[Page]:
        """Read the pages of one file after the other."""
        if isinstance(self._opened, list):
            yield from self._opened
            return
        for file in self._files:
            document = self._opened or self._open(file)
            if document is not None:
                yield from self._readable(document)
                document.close()

    def encoded(self, model: PulseModel) -> Iterator[tuple[Page, EncodedPage]]:
        """Encode the pages one by one.

        All are encoded first where the encoder has to make room for the language model.
        """
        pages = self._encoded(model)
        yield from list(pages) if model.plan.encoder_first else pages

    def _encoded(self, model: PulseModel) -> Iterator[tuple[Page, EncodedPage]]:
        for page in self.pages():
            try:
                encoded = self._session.encode(model, page)
            except Exception as e:
                self.failed(page.name, e)
                continue
            self._session.console.judged(encoded)
            yield page, encoded

    def _open(self, file: str) -> Document | None:
        try:
            return reader.Document(file)
        except PulseEdgeError as e:
            self._pages += 1
            self.failed(file, e)
            return None

    def _readable(self, pages: Iterable[Page | UnreadablePage]) -> Iterator[Page]:
        for page in pages:
            self._pages += 1
            if isinstance(page, reader.UnreadablePage):
                self.failed(page.name, page.error)
            else:
                yield page
