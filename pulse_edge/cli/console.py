"""What people see: text on stdout, notes and progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pulse_edge.common.text import duration, one_line, visible
from pulse_edge.errors import OutputError, PulseEdgeError

if TYPE_CHECKING:
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.machine.profile import Speed

STAGES = {
    "verify": "Verifying the kit",
    "load": "Loading the language model",
    "encode": "Encoding, in tiles",
    "prefill": "Reading the page, in image tokens",
    "findings": "Asking for findings",
    "pack": "Packing",
    "check": "Checking the bundle",
    "golden": "Comparing golden cases",
}


def say(text: str) -> None:
    """Write to stdout at once. Harmful characters of a model or a file name are escapes, whoever reads it.

    Raises BrokenPipeError where the reader has left, OutputError where stdout is closed or its disk is full.
    """
    try:
        sys.stdout.write(visible(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OutputError(
            f"standard output: cannot be written ({e.strerror or e}), so the answer would be lost. Make room on the disk, "
            "or send the output somewhere else, and run again."
        ) from None


def show_traceback(error: BaseException) -> None:
    """With --debug, where an error came from; on stderr."""
    if "--debug" in sys.argv:
        import traceback

        print(visible("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def time_left(task: Any) -> str:
    """Of a bar: by its own pace once there is one, else by what the machine is known for; empty where neither is there."""
    left, expected = task.time_remaining, task.fields["expected"]
    if left is None and expected is not None:
        left = max(0.0, expected - (task.elapsed or 0.0))
    return "" if left is None else duration(left)


class Screen:
    """Notes on stderr; without a terminal only what must not be missed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._speed: Speed | None = None
        self._terminal = sys.stderr.isatty()

    @contextlib.contextmanager
    def progress(self) -> Iterator[Any]:
        """A callback (stage, done, of) that draws bars with the time left."""
        if not self._terminal:
            yield lambda _stage, _done, _of: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
        )

        class Left(ProgressColumn):
            def render(self, task: Any) -> Any:
                return f"{told} left" if (told := time_left(task)) else "-"

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        try:
            yield self._step
        finally:
            self.rest()

    def _step(self, stage: str, done: int, of: int) -> None:
        """Bars are drawn while there is one: rich holds back what others write until their line ends."""
        if stage not in self._tasks:
            if not self._tasks:
                self._bar.start()
            self._tasks[stage] = self._bar.add_task(
                STAGES[stage], total=of, expected=self.expected(stage, of)
            )
        self._bar.update(self._tasks[stage], completed=done, total=of)
        if done >= of:
            self._bar.remove_task(self._tasks.pop(stage))
            if not self._tasks:
                self._bar.stop()

    def expect(self, speed: Speed | None) -> None:
        """This machine's speed with the kit, for the time left before a stage has shown its own."""
        self._speed = speed

    def expected(self, stage: str, of: int) -> float | None:
        """Seconds of a whole stage; None where nothing is known."""
        if self._speed is None:
            return None
        s = self._speed
        whole = {
            "load": s.load_seconds,
            "encode": of * s.tile_seconds,
            "prefill": of / s.image_tokens_per_second,
        }
        return whole.get(stage)

    def rest(self) -> None:
        """Take away the bars of what was broken off."""
        while self._tasks:
            self._bar.remove_task(self._tasks.popitem()[1])
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str, *, always: bool = False) -> None:
        """A line on stderr, without what a terminal would act on."""
        text = visible(text)
        if not (self._terminal or always):
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def loaded(self, model: PulseModel) -> None:
        """Which kit and device; the intended use."""
        from pulse_edge.report.report import DEMONSTRATION, INTENDED_USE

        m = model.kit.manifest
        name = one_line(m.id)
        self.note(f"kit {name} ({one_line(str(model.kit.path))}), device {model.device}")
        self.note(INTENDED_USE)
        if m.demonstration:
            self.note(f"{DEMONSTRATION}: {name}", always=True)
        if model.fallback:
            self.note(f"warning: {model.fallback}", always=True)
        if model.refused:
            self.note(f"warning: {model.refused} It answers because of --force-kit", always=True)

    def answered(self, answering: Answering, encoded: EncodedPage) -> None:
        """The line of figures, and the warning of an answer that was cut off."""
        from pulse_edge.machine import memory

        s = answering.seconds
        speed = answering.tokens / s["answer"] if s["answer"] else 0.0
        first = s.get("first_token", s["prefill"])
        took = (
            f"encoded in {encoded.seconds['encode']:.1f} s"
            if "encode" in encoded.seconds
            else "encoded before"
        )
        self.note(
            f"{encoded.file}: {len(encoded.image_tokens)} image tokens from {encoded.tiles} tiles, {took}, "
            f"first token after {first:.1f} s, {speed:.1f} tokens/s, "
            f"peak memory {memory.peak() / memory.MIB:,.0f} MiB"
        )
        if not answering.complete:
            self.note(
                f"warning: the answer was cut off after {answering.tokens} tokens", always=True
            )

    def judged(self, encoded: EncodedPage) -> None:
        """What is wrong with a page that is answered all the same."""
        if encoded.checked is None:
            return
        judged = encoded.checked.quality
        if judged.forced:
            self.note(
                f"warning: {encoded.file}: the page was refused, and is answered because of --force",
                always=True,
            )
        for reason in judged.reasons:
            self.note(f"warning: {encoded.file}: {reason.advice}", always=True)

    def failed(self, file: str, error: PulseEdgeError, as_json: bool) -> int:
        """Say why a page has no answer, and return the exit code."""
        from pulse_edge.report.report import NoAnswer

        file = one_line(file)
        show_traceback(error)
        why = one_line(str(error))
        message = why if file in why else f"{file}: {why}"
        self.note(f"error: {message}", always=True)
        if as_json:
            say(NoAnswer(file, message, error.exit_code).to_json() + "\n")
        return error.exit_code
