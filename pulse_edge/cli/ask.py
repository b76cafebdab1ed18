"""`pulse-edge ask`: a conversation about one page, in the terminal or from standard input."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.options import ReadyCommand, pruning, reading

if TYPE_CHECKING:
    from pulse_edge.audit_log.log import AnswerLogger
    from pulse_edge.cli.console import Screen
    from pulse_edge.inference.model import EncodedPage, PulseModel
    from pulse_edge.page.reader import Page

HELP = (
    "Type a question about the page. /new begins a new conversation, /help shows this, /quit or Ctrl-D ends, Ctrl-C stops "
    "an answer."
)


@click.command(cls=ReadyCommand)
@click.argument("scan", metavar="SCAN")
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    help="Kit directory. Default: $PULSE_EDGE_KIT, or the installed.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@reading
@click.option(
    "--retain",
    type=click.IntRange(1, 36500),
    metavar="DAYS",
    help="Keep texts and picture in the log so long. Default: no.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def ask(
    scan: str,
    kit: Path | None,
    device: str,
    max_tokens: int | None,
    threads: int | None,
    limit: int | None,
    no_rectify: bool,
    force: bool,
    force_kit: bool,
    image_tokens: str,
    cache: bool,
    kv_cache_size: int | None,
    speculation: bool,
    retain: int | None,
    debug: bool,
) -> None:
    """Ask about one page, question after question; each answer knows what was said before.

    The page is read once. Without a terminal each line of standard input is a question. /help lists what else can be
    typed.
    """
    from pulse_edge.audit_log import log
    from pulse_edge.cli import cache as cli_cache
    from pulse_edge.page import decoder_client

    decoder_client.start()  # while the libraries are loaded
    from pulse_edge.cli.console import Screen
    from pulse_edge.errors import UsageError
    from pulse_edge.inference.model import EngineOptions, PulseModel
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page import reader as scans

    if scan == "-":
        raise UsageError(
            "-: the questions come from standard input, so the page cannot. Name a file."
        )
    screen = Screen()
    admit = {"straighten": not no_rectify, "force": force}
    settings = {
        "max_tokens": max_tokens,
        "threads": threads,
        **admit,
        "force_kit": force_kit,
        **pruning(image_tokens),
    }
    record = log.AnswerLogger(log.AuditLog(note=screen.note), settings, retain)
    record.log.ready()
    page = scans.read(scan)
    with (
        screen.progress() as progress,
        PulseModel.load(
            kit,
            device=device,
            threads=threads,
            limit=limit,
            workload=Workload(pages=1),
            force=force_kit,
            progress=progress,
            engine=EngineOptions(speculation, cli_cache.prefixes(kv_cache_size, cache=cache)),
        ) as model,
    ):
        screen.loaded(model)
        encoded = model.encode(
            page, cache=cli_cache.opened() if cache else None, image_tokens=image_tokens, **admit
        )
        screen.judged(encoded)
        screen.note(HELP)
        talk = _Talk(model, page, encoded, max_tokens, screen, record)
        while (question := _question()) is not None:
            talk.say(question)


class _Talk:
    """What was said about a page so far."""

    def __init__(
        self,
        model: PulseModel,
        page: Page,
        encoded: EncodedPage,
        max_tokens: int | None,
        screen: Screen,
        record: AnswerLogger,
    ) -> None:
        self._model, self._page, self._encoded = model, page, encoded
        self._max_tokens, self._screen, self._record = max_tokens, screen, record
        self._turns: list[tuple[str, str]] = []
        self._first = True

    def say(self, question: str) -> None:
        """Answer one question. A stopped answer is no part of the conversation; an error ends neither."""
        from pulse_edge.errors import ContextError, UsageError

        if question == "/new":
            self._turns.clear()
            return
        if question.startswith("/"):
            known = question in ("/help", "/?")
            self._screen.note(
                HELP if known else f"error: {question.split()[0]}: no such command. {HELP}",
                always=True,
            )
            return
        try:
            self._answer(question)
        except KeyboardInterrupt as e:
            if e.args not in ((), (signal.SIGINT,)):
                raise
            self._screen.rest()
            self._screen.note("stopped", always=True)
        except ContextError as e:
            self._screen.note(f"error: {e} Begin a new conversation with /new.", always=True)
        except UsageError as e:
            self._screen.note(f"error: {e}", always=True)

    def _answer(self, question: str) -> None:
        from pulse_edge.cli.console import say
        from pulse_edge.cli.interpret import heading, recorded
        from pulse_edge.report.report import INTENDED_USE

        # An empty answer cannot be repeated to the model as a turn.
        answering = self._model.ask(
            self._encoded, question, self._max_tokens, [t for t in self._turns if t[1]]
        )
        first, self._first = self._first, False
        say(heading(self._model, self._encoded, question, 1, first=first))
        if first:
            say(f"{INTENDED_USE}\n")
        try:
            with recorded(self._record, self._model, self._encoded, answering, self._page):
                for text in answering:
                    say(text)
        finally:
            say("\n")
        for contradiction in self._model.contradictions(self._encoded, (), [answering.text]):
            say(f"CONTRADICTION: {contradiction.text}\n")
        self._screen.answered(answering, self._encoded)
        self._turns.append((question, answering.text))


def _question() -> str | None:
    """The next question; None at the end."""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (its import gives `input` history and editing; nothing is written to a file)
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
