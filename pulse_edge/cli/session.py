"""What `interpret`, `ask` and `batch` open from a request: kit, audit log, caches and model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pulse_edge.audit_log.answer_logger import AnswerLogger
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli import cache
from pulse_edge.inference.model import EngineOptions, PulseModel
from pulse_edge.kit import locate
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.content import page_lines
from pulse_edge.report.text import measurement_lines

if TYPE_CHECKING:
    from pulse_edge.cli.console import Console
    from pulse_edge.inference.cache import ImageTokenCache
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.inference.request import Request
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page.reader import Page
    from pulse_edge.report.report import Finding


class Session:
    """One run of a command. Nothing is loaded before `load`."""

    def __init__(self, request: Request, console: Console) -> None:
        """Find the kit. Raises KitError."""
        self.request = request
        self.console = console
        self.kit = locate.find(request.model.kit)
        self.wants_findings = request.wants_findings(self.kit.manifest)
        log = AuditLog(note=console.note)
        self.answer_log = AnswerLogger(log, request.settings(), request.output.retain_days)

    @functools.cached_property
    def image_token_cache(self) -> ImageTokenCache | None:
        """Image tokens of earlier pages.

        Raises FolderError where the folder is not this user's cache.
        """
        return cache.image_tokens() if self.request.model.cache else None

    @contextlib.contextmanager
    def load(self, workload: Workload | None = None) -> Iterator[PulseModel]:
        """Load the model with a progress bar, and close it at the end.

        Raises what `PulseModel.load` raises.
        """
        options = self.request.model
        size = None if self.image_token_cache is None else options.kv_cache_size
        prefix_cache = None if size is None else cache.kv_caches(size)
        with (
            self.console.progress() as progress,
            PulseModel.load(
                self.kit,
                device=options.device,
                threads=options.threads,
                limit=options.memory,
                workload=workload,
                force=options.force_kit,
                progress=progress,
                engine=EngineOptions(options.speculation, prefix_cache),
            ) as model,
        ):
            self.console.loaded(model)
            yield model

    def encode(self, model: PulseModel, page: Page) -> EncodedPage:
        """Admit and encode a page as the request says. Raises ScanError, PageRefused."""
        options = self.request.page
        return model.encode(
            page,
            straighten=options.rectify,
            force=options.force,
            cache=self.image_token_cache,
            image_tokens=options.image_tokens,
            measurement=self.request.measurement,
        )

    def findings(self, model: PulseModel, encoded: EncodedPage) -> Sequence[Finding]:
        """Judge the fixed list if the request asks for it; else none."""
        return model.findings(encoded) if self.wants_findings else ()

    @contextlib.contextmanager
    def logged(
        self, model: PulseModel, encoded: EncodedPage, answering: Answering, page: Page
    ) -> Iterator[None]:
        """Log the answer that the block shows, also where the block is interrupted."""

        def append(ended: str) -> None:
            fields = dataclasses.asdict(model.report(encoded, [answering]))
            self.answer_log(fields, page.png, ended)

        try:
            yield
        except BaseException:
            if answering.text:
                append("broken off")
            raise
        append("whole")


def heading(
    model: PulseModel,
    encoded: EncodedPage,
    *,
    question: str | None = None,
    page_verdict: bool = True,
    file: bool = False,
) -> str:
    """Return the lines before an answer.

    They are notices, then on request the file, the verdict on the page, and the question. With the
    verdict stands that no reader has confirmed the answer.
    """
    from pulse_edge.page import admission

    lines: list[Any] = [*model.notices(encoded)]
    lines += [UNCONFIRMED] if page_verdict else []
    lines += [f"# {encoded.file}"] if file else []
    if page_verdict:
        lines += page_lines(None if encoded.checked is None else admission.facts(encoded.checked))
        if encoded.measured is not None:
            lines += measurement_lines(encoded.measured.measurements)
    lines += [] if question is None else [f"## {question}"]
    return "".join(f"{line}\n" for line in lines)
