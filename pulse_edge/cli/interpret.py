"""`pulse-edge interpret`: answer questions about pages, one page after the other."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli import options
from pulse_edge.cli.console import Console, say
from pulse_edge.cli.options import PATH, ReadyCommand
from pulse_edge.common.text import json_text
from pulse_edge.errors import AuditLogError, OutputError

if TYPE_CHECKING:
    from pulse_edge.cli.page_queue import PageQueue
    from pulse_edge.cli.session import Session
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page.reader import Page
    from pulse_edge.report.report import Report


@click.command(cls=ReadyCommand)
@click.argument("files", nargs=-1, required=True, metavar="PAGE...")
@options.questions
@options.findings
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one line of JSON per page: short for --format json.",
)
@options.formats
@click.option(
    "-o",
    "--out",
    type=PATH,
    metavar="DIR",
    show_default="standard output",
    help="Folder for the report files.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace report files of the same name instead of numbering new ones.",
)
@click.option(
    "--json-schema",
    type=PATH,
    metavar="FILE",
    help="Make each answer JSON that satisfies this JSON Schema.",
)
@click.option(
    "--patient-id",
    metavar="ID",
    help="Patient whom the FHIR output names; the id is stored nowhere else.",
)
@click.option("--patient-system", metavar="URI", help="Numbering that the patient's id comes from.")
@options.max_tokens
@options.model
@options.page
@options.measurement
@options.retain
@click.option("--dry-run", is_flag=True, help="Estimate time and memory without answering.")
def interpret(files: tuple[str, ...], dry_run: bool, **values: Any) -> None:
    """Answer questions about ECG pages.

    PAGE is a picture, a PDF, HEIC or DICOM file, or - for standard input.
    """
    from pulse_edge.machine import profile
    from pulse_edge.page import decoder_client

    decoder_client.start()  # its process starts while this one loads libraries
    from pulse_edge.cli.page_queue import PageQueue
    from pulse_edge.cli.session import Session

    request, console = options.request(values), Console()
    session = Session(request, console)
    _check_answer_length(session)
    queue = PageQueue(files, session)
    workload = _workload(session, queue.count())
    console.expect(profile.recall(session.kit).speed)
    if dry_run:
        _estimate(session, queue, workload)
        raise SystemExit(queue.exit_code)
    session.answer_log.log.ready()
    if workload.pages == 0:
        raise SystemExit(queue.exit_code)
    with session.load(workload) as model:
        if request.answer.grammar:
            model.check_grammar(request.answer.grammar, request.answer.max_tokens)
        interpreter = _Interpreter(session, model, several=queue.several)
        for page, encoded in queue.encoded(model):
            try:
                interpreter.page(page, encoded)
            except (AuditLogError, OutputError, BrokenPipeError):
                raise  # an answer that cannot be logged or written must not be given
            except Exception as e:
                queue.failed(page.name, e)
    queue.summarize()
    raise SystemExit(queue.exit_code)


def _check_answer_length(session: Session) -> None:
    answer = session.request.answer
    if answer.grammar:
        answer.grammar.require(answer.max_tokens or session.kit.manifest.prompt.max_tokens)


def _workload(session: Session, pages: int) -> Workload:
    from pulse_edge.inference import token_pruning
    from pulse_edge.machine.memory_plan import Workload

    return Workload(
        pages=pages,
        tokens=session.request.text_tokens(session.kit.manifest),
        image_tokens=token_pruning.limit(session.request.page.image_tokens),
    )


def _estimate(session: Session, queue: PageQueue, workload: Workload) -> None:
    """Say the time that each page would take, and the memory.

    Raises MemoryShortage as loading would.
    """
    from pulse_edge.diagnostics import estimate
    from pulse_edge.inference import vision_encoder
    from pulse_edge.machine import memory_plan, profile

    request = session.request
    plan = memory_plan.make(
        session.kit,
        workload,
        exact_int8=vision_encoder.needs_exact_sums(session.kit.manifest.vision.type),
        limit=request.model.memory,
    )
    speed = profile.recall(session.kit).speed
    as_json = request.output.printed == "json"
    for page in queue.pages():
        try:
            estimated = estimate.estimate(
                page,
                session.kit.manifest,
                speed,
                request.answer.questions,
                request.answer.max_tokens,
                image_tokens=request.page.image_tokens,
                straighten=request.page.rectify,
                force=request.page.force,
            )
        except Exception as e:
            queue.failed(page.name, e)
            continue
        figures = {"peak_memory": plan.peak, "memory": plan.parts, "free": plan.budget}
        as_object = dataclasses.asdict(estimated) | figures
        say((json_text(as_object) if as_json else estimate.describe(estimated)) + "\n")
    if not as_json:
        say(estimate.describe_memory(plan) + "\n")


class _Interpreter:
    """Answers about one page after the other, and prints or writes the report."""

    def __init__(self, session: Session, model: PulseModel, *, several: bool) -> None:
        """`several` pages get headings with their names."""
        self._session, self._model, self._several = session, model, several
        self._answer, self._output = session.request.answer, session.request.output
        # A person at a terminal watches the answer come; a file gets contradictions above it.
        self._holds = session.request.measurement.enabled and not sys.stdout.isatty()
        self._held: list[str] = []

    def page(self, page: Page, encoded: EncodedPage) -> None:
        """Answer all questions about a page. Raises AuditLogError, OutputError."""
        answers: list[Answering] = []
        self._held.clear()
        try:
            for question in self._answer.questions:
                answers.append(self._ask(page, encoded, question, first=not answers))
        except BaseException:
            say("".join(self._held))
            raise
        findings = self._session.findings(self._model, encoded)
        report = self._model.report(encoded, answers, findings)
        if findings:
            self._session.answer_log.findings(dataclasses.asdict(report))
        self._write(report, page, encoded)

    def _ask(self, page: Page, encoded: EncodedPage, question: str, *, first: bool) -> Answering:
        grammar = self._answer.grammar
        answering = self._model.ask(
            encoded, question, self._answer.max_tokens, grammar=grammar.text if grammar else None
        )
        self._say(self._heading(encoded, question, first=first))
        with self._session.logged(self._model, encoded, answering, page):
            for text in answering:
                self._say(text)
            self._say("\n")
        self._session.console.answered(answering, encoded)
        return answering

    def _say(self, text: str) -> None:
        """Print a piece of the text report, or hold it back for the contradictions above it."""
        if self._output.printed != "text":
            return
        if self._holds:
            self._held.append(text)
        else:
            say(text)

    def _heading(self, encoded: EncodedPage, question: str, *, first: bool) -> str:
        """Name page and question only where there are several.

        A program that reads JSON gets no verdict line.
        """
        from pulse_edge.cli.session import heading

        return heading(
            self._model,
            encoded,
            question=question if len(self._answer.questions) > 1 else None,
            page_verdict=first and self._answer.grammar is None,
            file=first and self._several,
        )

    def _write(self, report: Report, page: Page, encoded: EncodedPage) -> None:
        from pulse_edge.report import writers
        from pulse_edge.report.text import check_summary, contradiction_lines, findings_lines

        output, picture = self._output, encoded.picture(page)
        signal = None if encoded.measured is None else encoded.measured.signal
        if output.folder is not None:
            target = writers.Target(output.folder, writers.stem(report), output.overwrite)
            written = writers.write(target, output.formats, report, picture, output.patient, signal)
            say("".join(f"{path}\n" for path in written))
        elif output.printed != "text":
            say(
                writers.render(output.printed, report, picture, output.patient, signal).decode(
                    "utf-8"
                )
            )
        else:
            use = [report.intended_use] if self._answer.grammar is None else []
            above = contradiction_lines(report)
            below = [*findings_lines(report), *check_summary(report), *use]
            if self._holds:
                below = below[len(above) :]
                self._held.insert(1, "".join(f"{line}\n" for line in above))
                say("".join(self._held))
            say("".join(f"{line}\n" for line in below))
