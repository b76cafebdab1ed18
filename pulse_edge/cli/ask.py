"""`pulse-edge ask`: a conversation about one page, on a terminal or from standard input."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import ReadyCommand
from pulse_edge.errors import ContextError, UsageError

if TYPE_CHECKING:
    from pulse_edge.cli.session import Session
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.page.reader import Page

HELP = (
    "Type a question about the page. /new begins a new conversation, /help shows this, /quit or "
    "Ctrl-D ends, "
    "Ctrl-C stops an answer."
)


@click.command(cls=ReadyCommand)
@click.argument("file", metavar="PAGE")
@options.max_tokens
@options.model
@options.page
@options.measurement
@options.retain
def ask(file: str, **values: Any) -> None:
    """Ask questions about one page.

    Each answer takes the earlier ones into account. The page is encoded once. Without a terminal,
    each line of standard input is a question. Type /help for more.
    """
    from pulse_edge.page import decoder_client

    decoder_client.start()  # its process starts while this one loads libraries
    from pulse_edge.cli.session import Session
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page import reader

    if file == "-":
        raise UsageError(
            "-: standard input holds the questions, so the page cannot come from there. Name a "
            "file."
        )
    request, console = options.request(values), Console()
    session = Session(request, console)
    session.answer_log.log.ready()
    page = reader.read(file)
    with session.load(Workload(pages=1)) as model:
        encoded = session.encode(model, page)
        console.judged(encoded)
        console.note(HELP)
        conversation = _Conversation(session, model, page, encoded)
        while (line := _next_line()) is not None:
            conversation.take(line)


class _Conversation:
    """Questions and answers about one page so far."""

    def __init__(
        self, session: Session, model: PulseModel, page: Page, encoded: EncodedPage
    ) -> None:
        self._session, self._model = session, model
        self._page, self._encoded = page, encoded
        self._turns: list[tuple[str, str]] = []
        self._first = True

    def take(self, line: str) -> None:
        """Answer a question or obey a command.

        A stopped answer is no turn; an error does not end the conversation.
        """
        console = self._session.console
        if line == "/new":
            self._turns.clear()
            return
        if line.startswith("/"):
            error = f"error: {line.split()[0]}: no such command. {HELP}"
            console.note(HELP if line in ("/help", "/?") else error, always=True)
            return
        try:
            self._answer(line)
        except KeyboardInterrupt as e:
            if e.args not in ((), (signal.SIGINT,)):
                raise
            console.clear_bars()
            console.note("stopped", always=True)
        except ContextError as e:
            console.note(f"error: {e} Begin a new conversation with /new.", always=True)
        except UsageError as e:
            console.note(f"error: {e}", always=True)

    def _answer(self, question: str) -> None:
        from pulse_edge.cli.session import heading
        from pulse_edge.report.report import INTENDED_USE

        history = [turn for turn in self._turns if turn[1]]  # an empty answer cannot be a turn
        limit = self._session.request.answer.max_tokens
        answering = self._model.ask(self._encoded, question, limit, history)
        first, self._first = self._first, False
        say(heading(self._model, self._encoded, page_verdict=first))
        if first:
            say(f"{INTENDED_USE}\n")
        try:
            with self._session.logged(self._model, self._encoded, answering, self._page):
                for text in answering:
                    say(text)
        finally:
            say("\n")
        for contradiction in self._model.report(self._encoded, [answering]).contradictions:
            say(f"CONTRADICTION: {contradiction.text}\n")
        self._session.console.answered(answering, self._encoded)
        self._turns.append((question, answering.text))


def _next_line() -> str | None:
    """Return the next question or command; None at the end."""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (gives `input` history and editing; no file is written)
    while True:
        try:
            line = input("> " if terminal and sys.stdout.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt as e:
            if not terminal or e.args not in ((), (signal.SIGINT,)):
                raise
            print("\n" + HELP, file=sys.stderr)
            continue
        if line == "/quit":
            return None
        if line:
            return line
