"""`pulse-edge interpret`: questions about pages, one after the other. Registered by cli.py."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli import cache as cli_cache
from pulse_edge.cli.console import Screen, say
from pulse_edge.cli.options import ReadyCommand, Wanted, documents, pruning, reading
from pulse_edge.common.text import json_text
from pulse_edge.errors import AuditLogError, OutputError, PulseEdgeError, on_page
from pulse_edge.report.report import findings_lines, page_lines

if TYPE_CHECKING:
    from pulse_edge.audit_log.log import AnswerLogger
    from pulse_edge.inference.cache import ImageTokenCache
    from pulse_edge.inference.model import Answering, EncodedPage, PulseModel
    from pulse_edge.kit.kit import Kit
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page.reader import Document, Page, UnreadablePage


@click.command(cls=ReadyCommand)
@click.argument("scans", nargs=-1, required=True, metavar="SCAN...")
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
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The same as --format json: one object per page, one a line.",
)
@click.option(
    "--json-schema",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Each answer is JSON of this JSON Schema.",
)
@documents
@click.option(
    "--patient-id", metavar="ID", help="Whom FHIR is to name. It is written nowhere else."
)
@click.option("--patient-system", metavar="URI", help="Numbering that the patient's id is from.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the formats' files, a few for each page.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace files of -o. Default: give new ones another name."
)
@reading
@click.option("--dry-run", is_flag=True, help="Only say what it would take, in time and memory.")
@click.option(
    "--retain",
    type=click.IntRange(1, 36500),
    metavar="DAYS",
    help="Keep texts and picture in the log so long. Default: no.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def interpret(
    scans: tuple[str, ...],
    kit: Path | None,
    questions: tuple[str, ...],
    device: str,
    as_json: bool,
    json_schema: Path | None,
    out: Path | None,
    overwrite: bool,
    forms: tuple[str, ...],
    with_findings: bool | None,
    patient_id: str | None,
    patient_system: str | None,
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
    dry_run: bool,
    retain: int | None,
    debug: bool,
) -> None:
    """Answer questions about ECG pages: pictures, PDF, HEIC or DICOM files, or - for standard input.

    Without -q it asks for a clinical report.
    """
    from pulse_edge.audit_log import log
    from pulse_edge.inference import json_grammar, token_pruning
    from pulse_edge.kit import locate
    from pulse_edge.machine import profile
    from pulse_edge.page import decoder_client

    decoder_client.start()  # while the libraries are loaded
    from pulse_edge.inference.model import EngineOptions, PulseModel
    from pulse_edge.machine.memory_plan import Workload

    wanted = Wanted.of(
        questions,
        max_tokens,
        ("json", *forms) if as_json else forms,
        out,
        patient_id,
        patient_system,
    )
    wanted = dataclasses.replace(wanted, overwrite=overwrite)
    settings: dict[str, Any] = {"max_tokens": max_tokens, "threads": threads}
    settings |= {
        "straighten": not no_rectify,
        "force": force,
        "force_kit": force_kit,
        **pruning(image_tokens),
    }
    if json_schema is not None:
        compiled = json_grammar.load(json_schema)
        wanted = dataclasses.replace(wanted, grammar=compiled)
        settings["json_schema_sha256"] = compiled.source_sha256
    screen = Screen()
    opened = locate.find(kit)
    wanted = wanted.for_kit(opened.manifest, with_findings)
    if wanted.grammar:
        wanted.grammar.require(max_tokens or opened.manifest.prompt.max_tokens)
    admit = {"straighten": not no_rectify, "force": force}
    desk = _Desk(
        scans, screen, as_json=wanted.shown == "json", admit=admit, image_tokens=image_tokens
    )
    use = Workload(
        pages=desk.count(),
        tokens=wanted.tokens(opened.manifest),
        image_tokens=token_pruning.limit(image_tokens),
    )
    screen.expect(profile.recall(opened).speed)
    if dry_run:
        desk.forecast(opened, wanted, use, limit)
        raise SystemExit(desk.worst)
    record = log.AnswerLogger(log.AuditLog(note=screen.note), settings, retain)
    record.log.ready()
    if use.pages == 0:
        raise SystemExit(desk.worst)
    desk.cache = cli_cache.opened() if cache else None
    with (
        screen.progress() as progress,
        PulseModel.load(
            opened,
            device=device,
            threads=threads,
            limit=limit,
            workload=use,
            force=force_kit,
            progress=progress,
            engine=EngineOptions(speculation, cli_cache.prefixes(kv_cache_size, cache=cache)),
        ) as model,
    ):
        if wanted.grammar:
            model.check_grammar(wanted.grammar, max_tokens)
        screen.loaded(model)
        for page, encoded in desk.encoded(model):
            try:
                _one_page(model, page, encoded, wanted, screen, record, several=desk.several)
            except (AuditLogError, OutputError, BrokenPipeError):
                raise  # what cannot be put on record must not be answered
            except Exception as e:
                desk.failed(page.name, e)
    desk.summary()
    raise SystemExit(desk.worst)


class _Desk:
    """The pages of the files that were named. What cannot be read is told, and counts for the exit code."""

    def __init__(
        self,
        scans: tuple[str, ...],
        screen: Screen,
        *,
        as_json: bool,
        admit: dict[str, bool],
        image_tokens: str,
    ) -> None:
        self._scans, self._screen, self._as_json = scans, screen, as_json
        self._admit, self._rows = admit, image_tokens
        self._alone: Document | list[Page] | None = None
        self.cache: ImageTokenCache | None = None
        self.worst = 0
        self._pages = self._failed = 0
        self.several = len(scans) > 1

    def failed(self, name: str, error: Exception) -> None:
        """Say why there is no answer."""
        self._failed += 1
        self.worst = max(self.worst, self._screen.failed(name, on_page(name, error), self._as_json))

    def summary(self) -> None:
        """Of several pages: how many have no answer."""
        if self._pages > 1 and self._failed:
            self._screen.note(
                f"{self._failed} of {self._pages} pages were not answered", always=True
            )

    def count(self) -> int:
        """How many pages there are; one file is opened for that now, of several each counts as one."""
        if len(self._scans) > 1:
            return len(self._scans)
        document = self._open(self._scans[0])
        self.several = document is not None and len(document) > 1
        # An only page is read at once: if it cannot be, nothing has to be loaded.
        self._alone = (
            document
            if document is not None and self.several
            else list(self._readable(document or ()))
        )
        return len(self._alone)

    def _open(self, source: str) -> Document | None:
        from pulse_edge.page import reader

        try:
            return reader.Document(source)
        except PulseEdgeError as e:
            self._pages += 1
            self.failed(source, e)
            return None

    def _readable(self, pages: Iterable[Page | UnreadablePage]) -> Iterator[Page]:
        """The pages but those that cannot be read, of which it says so."""
        from pulse_edge.page.reader import UnreadablePage

        for page in pages:
            self._pages += 1
            if isinstance(page, UnreadablePage):
                self.failed(page.name, page.error)
            else:
                yield page

    def pages(self) -> Iterator[Page]:
        """One file after the other, one page after the other."""
        if isinstance(self._alone, list):
            yield from self._alone
            return
        for source in self._scans:
            document = self._alone or self._open(source)
            if document is not None:
                yield from self._readable(document)
                document.close()

    def encoded(self, model: PulseModel) -> Iterator[tuple[Page, EncodedPage]]:
        """Each page with its image_tokens; all of them at once where the encoder has to make room for the language model."""
        found = self._encoded(model)
        yield from list(found) if model.plan.encoder_first else found

    def _encoded(self, model: PulseModel) -> Iterator[tuple[Page, EncodedPage]]:
        for page in self.pages():
            try:
                encoded = model.encode(
                    page, cache=self.cache, image_tokens=self._rows, **self._admit
                )
            except Exception as e:
                self.failed(page.name, e)
                continue
            self._screen.judged(encoded)
            yield page, encoded

    def forecast(self, opened: Kit, wanted: Wanted, use: Workload, limit: int | None) -> None:
        """What each page would take, and the memory. Raises MemoryShortage as loading would."""
        from pulse_edge.diagnostics import estimate
        from pulse_edge.inference import vision_encoder
        from pulse_edge.machine import memory_plan, profile

        made, speed = (
            memory_plan.make(
                opened,
                use,
                exact_int8=vision_encoder.needs_exact_sums(opened.manifest.vision.type),
                limit=limit,
            ),
            profile.recall(opened).speed,
        )
        for page in self.pages():
            try:
                cast = estimate.estimate(
                    page,
                    opened.manifest,
                    speed,
                    wanted.questions,
                    wanted.max_tokens,
                    image_tokens=self._rows,
                    **self._admit,
                )
            except Exception as e:
                self.failed(page.name, e)
                continue
            said = {
                **dataclasses.asdict(cast),
                "peak_memory": made.peak,
                "memory": made.parts,
                "free": made.budget,
            }
            say(json_text(said) + "\n" if self._as_json else estimate.describe(cast) + "\n")
        if not self._as_json:
            say(estimate.describe_memory(made) + "\n")


def _one_page(
    model: PulseModel,
    page: Page,
    encoded: EncodedPage,
    wanted: Wanted,
    screen: Screen,
    record: AnswerLogger,
    *,
    several: bool,
) -> None:
    """Answer about one page, and print or write it; headings only where there are several answers to tell apart."""
    from pulse_edge.report import writers

    streams = wanted.shown == "text"
    answered: list[Answering] = []
    for question in wanted.questions:
        grammar = wanted.grammar.text if wanted.grammar else None
        answering = model.ask(encoded, question, wanted.max_tokens, grammar=grammar)
        if streams:
            first = (
                not answered and wanted.grammar is None
            )  # a program reads JSON: no line between notice and object
            say(
                heading(
                    model,
                    encoded,
                    question,
                    len(wanted.questions),
                    first=first,
                    named=several and not answered,
                )
            )
        with recorded(record, model, encoded, answering, page):
            for text in answering:
                if streams:
                    say(text)
            if streams:
                say("\n")
        screen.answered(answering, encoded)
        answered.append(answering)
    picture = encoded.picture(page)
    report = model.report(encoded, answered, model.findings(encoded) if wanted.findings else ())
    if wanted.findings:
        record.findings(dataclasses.asdict(report))
    if wanted.out is not None:
        name, forms, replaced = writers.stem(report), wanted.forms, wanted.overwrite
        for path in writers.write(
            wanted.out, name, forms, report, picture, wanted.patient, overwrite=replaced
        ):
            say(f"{path}\n")
    elif not streams:
        say(writers.render(wanted.shown, report, picture, wanted.patient).decode("utf-8"))
    elif lines := [
        *findings_lines(report),
        *([report.intended_use] if wanted.grammar is None else []),
    ]:
        say("\n".join(lines) + "\n")


def heading(
    model: PulseModel,
    encoded: EncodedPage,
    question: str,
    of: int,
    *,
    first: bool = True,
    named: bool = False,
) -> str:
    """What stands before an answer: notices, and before a page's `first` one the verdict on the page.

    `named` adds the file's name, and one question `of` several the question.
    """
    from pulse_edge.page import admission

    lines = model.notices(encoded)
    lines += [f"# {encoded.file}"] if named else []
    if first:
        lines += page_lines(None if encoded.checked is None else admission.facts(encoded.checked))
    lines += [f"## {question}"] if of > 1 else []
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def recorded(
    record: AnswerLogger, model: PulseModel, encoded: EncodedPage, answering: Answering, page: Page
) -> Iterator[None]:
    """Around an answer that somebody sees: it goes on record also where it was broken off."""

    def write(ended: str) -> None:
        record(dataclasses.asdict(model.report(encoded, [answering])), page.png, ended)

    try:
        yield
    except BaseException:
        if answering.text:
            write("broken off")
        raise
    write("whole")
