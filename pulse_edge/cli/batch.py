"""`pulse-edge batch`: answer questions about many pages, for example overnight."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import DEBUG, Console, say
from pulse_edge.cli.options import PATH, ReadyCommand
from pulse_edge.common.text import counted, duration
from pulse_edge.errors import BatchError
from pulse_edge.inference.request import FORMATS

if TYPE_CHECKING:
    from pulse_edge.batch.store import Store
    from pulse_edge.batch.supervisor import Start
    from pulse_edge.batch.work import Work
    from pulse_edge.cli.session import Session
    from pulse_edge.errors import PulseEdgeError
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.request import Request
    from pulse_edge.page.reader import Page
    from pulse_edge.report.report import Report

POLL_SECONDS = 2.0
"""Time between two looks at a watched folder."""
WORDS = "pulse_edge.batch.words"
"""Key of the command's own words in the meta data of click's context."""


class _SupervisedCommand(ReadyCommand):
    """A command that notes its words, with which its worker process is started."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)


@click.command(cls=_SupervisedCommand)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o",
    "--out",
    type=PATH,
    metavar="DIR",
    required=True,
    help="Folder for the batch and its results.",
)
@options.questions
@options.findings
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    show_default="none",
    help="Format of a report file for each page in DIR/pages; may be repeated.",
)
@options.max_tokens
@options.model
@options.page
@options.measurement
@options.retain
@click.option("--retry", is_flag=True, help="Read pages again that failed before.")
@click.option(
    "--watch", is_flag=True, help="Continue with files that are added to the folders, until Ctrl-C."
)
@click.option("--worker", type=click.Choice(["first", "again"]), hidden=True)
def batch(
    sources: tuple[str, ...],
    retry: bool,
    watch: bool,
    worker: Start | None,
    **values: Any,
) -> None:
    """Answer questions about many pages.

    SOURCE is a folder, a quoted pattern, a list of files (.txt, one path a line), or a page.

    After an interruption, the same command continues with the page that was being read. The results
    are in DIR/results.csv and DIR/results.jsonl, pages with contradictions first.
    """
    from pulse_edge.batch import store, supervisor

    out: Path = values["out"]
    if worker is None:
        meta = click.get_current_context().meta
        words, debug = meta[WORDS], ["--debug"] * bool(meta.get(DEBUG))

        def worker_words(start: Start) -> list[str]:
            return [*debug, "batch", "--worker", start, *words]

        raise SystemExit(supervisor.run(worker_words, lambda: store.finished_pages(out)))
    supervisor.follow_supervisor()
    request = options.request(values, default_formats=())
    raise SystemExit(
        _work(request, sources, retry=retry, watch=watch, after_crash=worker == "again")
    )


def _work(
    request: Request, sources: Sequence[str], *, retry: bool, watch: bool, after_crash: bool
) -> int:
    """Read every page on the work list, and return the exit code."""
    from pulse_edge.page import decoder_client

    decoder_client.start()  # its process starts while this one loads libraries
    from pulse_edge.batch import source_files
    from pulse_edge.batch.store import Store
    from pulse_edge.cli.session import Session

    console = Console()
    session = Session(request, console)
    session.answer_log.log.ready()
    folder = request.output.folder
    assert folder is not None  # -o is required
    with Store(folder, request.batch_settings(session.kit.sha256)) as store:
        if after_crash and not store.note_crash():
            raise BatchError(
                "the program crashed while it read no page. Run pulse-edge doctor to see what is "
                "wrong."
            )
        if not watch:
            store.add(source_files.files(sources, folder))
        if retry and not after_crash:
            store.retry()
        if watch or store.next() is not None:
            with session.load() as model:
                work = _work_on_pages(session, model, ProgressNotes(store, console.note))
                _read_all(store, work, sources if watch else ())
        return _export(store)


def _work_on_pages(session: Session, model: PulseModel, notes: ProgressNotes) -> Work:
    from pulse_edge.batch.work import Work

    answerer = _Answerer(session, model)
    return Work(answerer.answer, answerer.log, answerer.write_documents, notes)


def _read_all(store: Store, work: Work, watched: Sequence[str]) -> None:
    """Read everything on the work list, and then whatever is added to the watched folders."""
    from pulse_edge.batch import source_files
    from pulse_edge.batch import work as batch_work

    settled = source_files.Settled()
    batch_work.run(store, work)
    while watched:
        files = source_files.files(watched, store.folder, may_be_empty=True)
        if store.add(settled(files)):
            batch_work.run(store, work)
            store.export()
        time.sleep(POLL_SECONDS)


def _export(store: Store) -> int:
    from pulse_edge.batch import results

    store.export()
    counts, pages = store.counts(), store.failed_pages()
    read = counted(counts.done, "file was read", "files were read")
    without = f", {counted(pages, 'page has', 'pages have')} no answer" if pages else ""
    table = store.folder / results.TABLE
    say(f"{store.folder}: {read}{without}, {counts.failed} could not be; see {table}\n")
    return store.exit_code()


class _Answerer:
    """Answers one page after the other with a loaded model."""

    def __init__(self, session: Session, model: PulseModel) -> None:
        self._session, self._model = session, model

    def answer(self, page: Page) -> Report:
        session, model = self._session, self._model
        encoded = session.encode(model, page)
        self._picture = encoded.picture(page)
        limit = session.request.answer.max_tokens
        answers = [model.ask(encoded, text, limit) for text in session.request.answer.questions]
        for answering in answers:
            answering.answer()
        return model.report(encoded, answers, session.findings(model, encoded))

    def log(self, report: Report, page: Page) -> None:
        fields = dataclasses.asdict(report)
        self._session.answer_log(fields, page.png)
        self._session.answer_log.findings(fields)

    def write_documents(self, report: Report, page: Page, name: str) -> None:
        from pulse_edge.report import writers

        output = self._session.request.output
        if output.folder is not None and output.formats:
            stem = f"{name}-{writers.stem(report)}"
            target = writers.Target(output.folder / "pages", stem, overwrite=True)
            writers.write(target, output.formats, report, self._picture)


class ProgressNotes:
    """Notes a line about each page.

    The line has its result, the number of remaining files, and their time at this pace.
    """

    def __init__(self, store: Store, note: Callable[..., None]) -> None:
        self._store = store
        self._note = note
        self._start = time.monotonic()
        self._pages = 0

    def __call__(self, name: str, report: Report | None, error: PulseEdgeError | None) -> None:
        self._pages += 1
        waiting = self._store.counts().waiting
        seconds = (time.monotonic() - self._start) / self._pages * waiting
        text = f"error: {error}" if error else _answered(report)
        files = counted(waiting, "file", "files")
        self._note(f"{name}: {text} ({files} left, {duration(seconds)})", always=True)


def _answered(report: Report | None) -> str:
    quality = report.quality if report else None
    advice = [reason["advice"] for reason in (quality or {}).get("reasons", ())]
    return f"answered, with doubts: {' '.join(advice)}" if advice else "answered"
