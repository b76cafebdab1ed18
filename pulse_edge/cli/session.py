"""What `interpret`, `ask` and `batch` open from a request: kit, audit log, caches and model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pulse_edge.inference.session import ModelSession
from pulse_edge.report.confirmation import UNCONFIRMED
from pulse_edge.report.content import page_lines
from pulse_edge.report.text import measurement_lines

if TYPE_CHECKING:
    from pulse_edge.cli.console import Console
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.inference.request import Request
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page.reader import Page


class Session(ModelSession):
    """One run of a command. Nothing is loaded before `load`."""

    def __init__(self, request: Request, console: Console) -> None:
        """Find the kit. Raises KitError."""
        super().__init__(request, console.note)
        self.console = console

    @contextlib.contextmanager
    def load(self, workload: Workload | None = None) -> Iterator[PulseModel]:
        """Load the model with a progress bar, and close it at the end.

        Raises what `PulseModel.load` raises.
        """
        with self.console.progress() as progress, self.open_model(progress, workload) as model:
            self.console.loaded(model)
            yield model

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
