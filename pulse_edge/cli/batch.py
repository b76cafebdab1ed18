"""`pulse-edge batch`: many pages, over night."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli.options import ReadyCommand, Wanted, documents, pruning, reading
from pulse_edge.common.text import counted
from pulse_edge.errors import BatchError

if TYPE_CHECKING:
    from pulse_edge.audit_log.log import AnswerLogger
    from pulse_edge.batch.work_list import Store, Work
    from pulse_edge.errors import PulseEdgeError
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.page.reader import Page
    from pulse_edge.report.report import Report

POLL = 2.0
"""Seconds between two looks at a folder."""


@click.command(cls=ReadyCommand)
@click.argument("sources", nargs=-1, required=True, metavar="DIR|GLOB|LIST...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the batch and its results.",
)
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    help="Kit directory. Default: $PULSE_EDGE_KIT, or the installed.",
)
@click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    metavar="TEXT",
    help="Repeatable. Default: a report.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@documents
@reading
@click.option("--retry", is_flag=True, help="Try again what failed before.")
@click.option("--watch", is_flag=True, help="Go on with what comes into the folder, until Ctrl-C.")
@click.option(
    "--retain",
    type=click.IntRange(1, 36500),
    metavar="DAYS",
    help="Keep texts and picture in the log so long. Default: no.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def batch(
    sources: tuple[str, ...],
    out: Path,
    kit: Path | None,
    questions: tuple[str, ...],
    device: str,
    forms: tuple[str, ...],
    with_findings: bool | None,
    max_tokens: int | None,
    threads: int | None,
    limit: int | None,
    no_rectify: bool,
    force: bool,
    force_kit: bool,
    retry: bool,
    watch: bool,
    image_tokens: str,
    cache: bool,
    kv_cache_size: int | None,
    speculation: bool,
    retain: int | None,
    debug: bool,
) -> None:
    """Answer questions about many pages: folders, quoted patterns, lists (.txt, a path a line) or files.

    Run the same command again after a power cut: it goes on with the page that it had begun. Results are in
    OUT/results.csv and OUT/results.jsonl, pages with contradictions first; what --format names is in OUT/pages.
    """
    from pulse_edge.audit_log import log
    from pulse_edge.batch import supervisor
    from pulse_edge.batch import work_list as batches
    from pulse_edge.cli import cache as cli_cache
    from pulse_edge.kit import locate
    from pulse_edge.page import decoder_client

    if not supervisor.is_worker():
        raise SystemExit(supervisor.run(sys.argv[1:], lambda: batches.finished(out)))
    decoder_client.start()  # while the libraries are loaded
    from pulse_edge.cli.console import Screen, say
    from pulse_edge.inference.model import EngineOptions, PulseModel

    wanted = Wanted.of(questions, max_tokens, forms, out)
    screen = Screen()
    admit = {"straighten": not no_rectify, "force": force}
    asked = {
        "max_tokens": max_tokens,
        "threads": threads,
        **admit,
        "force_kit": force_kit,
        **pruning(image_tokens),
    }
    record = log.AnswerLogger(log.AuditLog(note=screen.note), asked, retain)
    record.log.ready()
    opened = locate.find(kit)
    settings = {
        "kit": opened.sha256,
        "questions": wanted.questions,
        "max-tokens": max_tokens,
        "format": forms,
        **admit,
    }
    settings |= {"findings": with_findings, "force-kit": force_kit, **pruning(image_tokens)}
    with batches.Store(out, settings) as store:
        if supervisor.after_crash() and not store.crashed():
            raise BatchError(
                "the program crashed while it read no page. Run pulse-edge doctor to see what is wrong."
            )
        if not watch:
            store.add(batches.files(sources, out))
        if retry and not supervisor.after_crash():
            store.retry()
        if watch or store.next() is not None:
            with (
                screen.progress() as progress,
                PulseModel.load(
                    opened,
                    device=device,
                    threads=threads,
                    limit=limit,
                    force=force_kit,
                    progress=progress,
                    engine=EngineOptions(
                        speculation, cli_cache.prefixes(kv_cache_size, cache=cache)
                    ),
                ) as model,
            ):
                screen.loaded(model)
                how = {
                    **admit,
                    "image_tokens": image_tokens,
                    "cache": cli_cache.opened() if cache else None,
                }
                desk = _Desk(
                    model, wanted.for_kit(opened.manifest, with_findings), record, forms, how
                )
                work = batches.Work(
                    desk.answer, desk.record, desk.documents, _Teller(store, screen.note)
                )
                _go_through(store, work, sources if watch else ())
        store.export()
        counts, pages = store.counts(), store.failed_pages()
        done = counted(counts.done, "file was read", "files were read")
        without = f", {counted(pages, 'page has', 'pages have')} no answer" if pages else ""
        say(
            f"{out}: {done}{without}, {counts.failed} could not be; see {out / batches.RESULTS[1]}\n"
        )
        raise SystemExit(store.exit_code())


def _go_through(store: Store, work: Work, watched: Sequence[str]) -> None:
    """Everything on the list, and then what comes into the watched folders, for ever."""
    from pulse_edge.batch import work_list as batches

    settled = batches.Settled()
    batches.run(store, work)
    while watched:
        if store.add(settled(batches.files(watched, store.folder, may_be_empty=True))):
            batches.run(store, work)
            store.export()
        time.sleep(POLL)


class _Desk:
    """What is done with each page."""

    def __init__(
        self,
        model: PulseModel,
        wanted: Wanted,
        record: AnswerLogger,
        forms: tuple[str, ...],
        how: Mapping[str, Any],
    ) -> None:
        """`how`: keywords of PulseModel.encode."""
        self._model, self._wanted, self._record = model, wanted, record
        self._forms, self._how = forms, how

    def answer(self, page: Page) -> Report:
        wanted, model = self._wanted, self._model
        encoded = model.encode(page, **self._how)
        self._picture = encoded.picture(page)
        answered = [
            model.ask(encoded, question, wanted.max_tokens) for question in wanted.questions
        ]
        for answering in answered:
            answering.answer()
        return model.report(encoded, answered, model.findings(encoded) if wanted.findings else ())

    def record(self, report: Report, page: Page) -> None:
        fields = dataclasses.asdict(report)
        self._record(fields, page.png)
        self._record.findings(fields)

    def documents(self, report: Report, page: Page, name: str) -> None:
        from pulse_edge.report import writers

        folder = self._wanted.out
        if folder is not None:
            writers.write(
                folder / "pages",
                f"{name}-{writers.stem(report)}",
                self._forms,
                report,
                self._picture,
                overwrite=True,
            )


class _Teller:
    """A line on stderr for each page: how it went, how many are left, and how long they will take at this pace."""

    def __init__(self, store: Store, note: Callable[..., None]) -> None:
        self._store = store
        self._note = note
        self._start = time.monotonic()
        self._pages = 0

    def __call__(self, name: str, report: Report | None, error: PulseEdgeError | None) -> None:
        from pulse_edge.common.text import duration

        self._pages += 1
        waiting = self._store.counts().waiting
        left = (time.monotonic() - self._start) / self._pages * waiting
        reasons = [r["advice"] for r in (report.quality or {}).get("reasons", ())] if report else []
        how = (
            f"error: {error}"
            if error
            else f"answered, with doubts: {' '.join(reasons)}"
            if reasons
            else "answered"
        )
        self._note(
            f"{name}: {how} ({counted(waiting, 'file', 'files')} left, {duration(left)})",
            always=True,
        )
