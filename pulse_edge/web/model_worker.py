"""The model worker, `python -m pulse_edge.web.model_worker`: loads the kit once and answers one job
after the other.

In: lines of JSON (see worker_pipe.py): `read` a page, `ask` about one, `stop` a job. Out: events
with the stage, the amount done and the time left, pieces of text, and at the end a report or an
error.
"""

from __future__ import annotations

import _thread
import dataclasses
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_edge.errors import ContextError, PulseEdgeError, UsageError, on_page
from pulse_edge.web import page_options
from pulse_edge.web.pace import Pace
from pulse_edge.web.worker_pipe import Pipe, error_fields

if TYPE_CHECKING:
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.inference.session import ModelSession

ORDINARY_PAGE = (2200, 1700)
"""Pixels of an A4 page at 200 dpi, for the estimate before the first page is encoded."""


class _Stops:
    """Whether the running job is to stop. `stop` messages arrive in another thread."""

    def __init__(self) -> None:
        self._job: int | None = None
        self._stopping = False
        signal.signal(signal.SIGINT, self._interrupt)

    def message(self, message: Mapping[str, Any]) -> bool:
        """Take a `stop` message; any other is not for us."""
        if message.get("do") != "stop":
            return False
        if message["job"] == self._job:
            self._stopping = True
            _thread.interrupt_main()  # as Ctrl-C: llama.cpp returns as soon as it can
        return True

    def _interrupt(self, _number: int, _frame: Any) -> None:
        if self._stopping and self._job is not None:
            self._stopping = False
            raise KeyboardInterrupt

    def begin(self, job: int) -> None:
        """From here on the job can be stopped."""
        self._stopping, self._job = False, job

    def end(self) -> None:
        """The job is over: a stop that arrives now comes too late."""
        self._job = None


class _Worker:
    """A loaded model, the page that it read last, and the pipe to the server."""

    def __init__(self, settings: Mapping[str, Any], pipe: Pipe, stops: _Stops) -> None:
        """Find the kit. Raises KitError, FolderError."""
        from pulse_edge.inference.session import ModelSession

        self._pipe, self._stops = pipe, stops
        self._session = ModelSession(page_options.from_json(settings))
        self._pace = self._first_pace()
        self._job: int | None = None
        self._page: tuple[tuple[Any, ...], EncodedPage] | None = None

    def _first_pace(self) -> Pace:
        from pulse_edge.diagnostics.estimate import geometry
        from pulse_edge.machine import profile
        from pulse_edge.report.findings import STATEMENTS

        session = self._session
        tiles, tokens = geometry(
            session.kit.manifest, ORDINARY_PAGE, session.request.page.image_tokens
        )
        speed = profile.recall(session.kit).speed
        findings = 2 * len(STATEMENTS) if session.wants_findings else 0
        return Pace(speed, tiles, tokens, len(session.request.answer.questions), findings)

    def run(self) -> None:
        """Load the model and answer until the server ends."""
        with self._session.open_model(self._progress) as model:
            self._pipe.send({"event": "ready", **self._about(model)})
            while True:
                job = self._pipe.next()
                self._job = job["job"]
                self._pipe.send(self._end_event(model, job) | {"job": self._job})
                self._job = None

    def _about(self, model: PulseModel) -> dict[str, Any]:
        manifest = model.kit.manifest
        return {
            "kit": manifest.id,
            "kit_sha256": model.kit.sha256,
            "kit_path": str(model.kit.path),
            "demonstration": manifest.demonstration,
            "proven": model.proven,
            "refused": model.refused,
            "fallback": model.fallback,
            "calibrated": manifest.findings is not None,
            "device": model.device,
            "page_seconds": self._pace.page(),
        }

    def _progress(self, stage: str, done: int, total: int) -> None:
        left = self._pace.left(stage, done, total)
        progress = {"stage": stage, "done": done, "total": total, "seconds_left": left}
        if stage == "load" and left is not None:
            progress["load_seconds_left"] = left - (self._pace.page() or 0.0)
        self._pipe.send({"event": "progress", "job": self._job, **progress})

    def _end_event(self, model: PulseModel, job: Mapping[str, Any]) -> dict[str, Any]:
        """Do a job; return its last event."""
        answering: list[Answering] = []
        encoded: list[EncodedPage] = []
        session = self._session_of(job)
        try:
            self._stops.begin(job["job"])
            try:
                report = self._answer(model, session, job, answering, encoded)
            finally:
                self._stops.end()
        except KeyboardInterrupt:
            if any(one.text for one in answering):
                report = dataclasses.asdict(model.report(encoded[0], answering))
                return {"event": "done", "report": report, "ended": "broken off"}
            return {"event": "stopped"}
        except ContextError as e:
            longer = UsageError(
                f"{job['name']}: {e} Begin a new conversation, or ask in less words."
            )
            error = longer if job.get("history") else e
            return {"event": "failed", **error_fields(error)}
        except Exception as e:
            return {"event": "failed", **error_fields(on_page(job["name"], e))}
        seconds = self._pace.page()
        return {"event": "done", "report": report, "ended": "whole", "page_seconds": seconds}

    def _session_of(self, job: Mapping[str, Any]) -> ModelSession:
        """Return the session with the job's own request."""
        import copy

        session = copy.copy(self._session)
        session.request = page_options.from_json(job["request"])
        session.wants_findings = session.request.wants_findings(session.kit.manifest)
        return session

    def _answer(
        self,
        model: PulseModel,
        session: ModelSession,
        job: Mapping[str, Any],
        answering: list[Answering],
        encoded: list[EncodedPage],
    ) -> dict[str, Any]:
        """Answer a job and return the report; the lists show a stopped job how far it came."""
        is_question = job["do"] == "ask"
        questions: Sequence[str] = (
            [job["question"]] if is_question else session.request.answer.questions
        )
        judged = self._pace.findings if session.wants_findings and not is_question else 0
        self._pace.begin(questions=len(questions), findings=judged)
        encoded.append(self._encoded(model, session, job))
        page, limit = encoded[0], session.request.answer.max_tokens
        grammar = None if is_question else session.request.answer.grammar
        if grammar is not None:
            model.check_grammar(grammar, limit)
        rules = None if grammar is None else grammar.text
        history = [(question, answer) for question, answer in job.get("history", ())]
        for question in questions:
            answering.append(model.ask(page, question, limit, history, grammar=rules))
            self._speak(answering, model.notices(page))
        findings = () if is_question else session.findings(model, page)
        report = dataclasses.asdict(model.report(page, answering, findings))
        tokens = [one.tokens for one in answering]
        self._pace.answered(page.tiles, len(page.image_tokens), tokens)
        return report

    def _speak(self, answering: Sequence[Answering], notices: Sequence[str]) -> None:
        """Run the last answer and send its text, after what must be read before it."""
        current = answering[-1]
        self._pipe.send({"event": "answer", "job": self._job, "notices": notices})
        for text in current:
            self._pipe.send({"event": "text", "job": self._job, "text": text})
            tokens = sum(one.tokens for one in answering)
            self._progress("answer", tokens, max(self._pace.expected_tokens(), tokens))

    def _encoded(
        self, model: PulseModel, session: ModelSession, job: Mapping[str, Any]
    ) -> EncodedPage:
        """Return the job's page; the last one is remembered, because questions follow a page."""
        from pulse_edge.web.page_worker import read_page

        key = job["file"], job["page"], str(job["request"])
        if self._page is not None and self._page[0] == key:
            return self._page[1]
        self._page = None
        page = read_page(Path(job["file"]), job["name"], job["page"])
        self._page = key, session.encode(model, page)
        return self._page[1]


def main() -> None:
    """Load the kit and answer until the server ends."""
    from pulse_edge.page import decoder_client

    stops: list[_Stops] = []
    pipe = Pipe(lambda message: bool(stops) and stops[0].message(message))
    settings = pipe.next()
    stops.append(_Stops())
    decoder_client.start()  # its process starts while this one loads libraries
    try:
        _Worker(settings, pipe, stops[0]).run()
    except PulseEdgeError as e:
        pipe.send({"event": "unusable", **error_fields(e)})


if __name__ == "__main__":
    main()
