"""What a person sees: answers on stdout, notes and progress bars on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.common.text import duration, one_line, visible
from pulse_edge.errors import OutputError, PulseEdgeError

if TYPE_CHECKING:
    from pulse_edge.inference.decoding import Answering
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.machine.profile import Speed

DEBUG = "pulse_edge.debug"
"""Key of --debug in the meta data of click's context."""
STAGES = {
    "verify": "Verifying the kit",
    "load": "Loading the language model",
    "encode": "Encoding tiles",
    "prefill": "Prefilling image tokens",
    "findings": "Judging findings",
    "pack": "Packing",
    "check": "Checking the bundle",
    "golden": "Comparing golden cases",
}
"""Stage of a progress callback -> text of its bar."""


def say(text: str) -> None:
    """Write to stdout at once, with harmful characters of a model or a file name as escapes.

    Raises BrokenPipeError where the reader has gone, OutputError where stdout is closed or its disk
    is full.
    """
    try:
        sys.stdout.write(visible(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OutputError(
            f"standard output: cannot be written ({e.strerror or e}), so the answer would be lost. "
            "Make room on the disk, or send the output somewhere else, and run again."
        ) from None


def show_traceback(error: BaseException) -> None:
    """With --debug, print on stderr where an error came from."""
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(DEBUG):
        import traceback

        print(visible("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def time_left(task: Any) -> str:
    """Return the time left of a bar: by its own pace, else as the machine profile expects."""
    seconds, expected = task.time_remaining, task.fields["expected"]
    if seconds is None and expected is not None:
        seconds = max(0.0, expected - (task.elapsed or 0.0))
    return "" if seconds is None else duration(seconds)


class Console:
    """Notes and progress on stderr; without a terminal only the notes that must not be missed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._speed: Speed | None = None
        self._terminal = sys.stderr.isatty()

    @contextlib.contextmanager
    def progress(self) -> Iterator[Any]:
        """Give a callback (stage, done, total) that draws bars with the time left."""
        if not self._terminal:
            yield lambda _stage, _done, _total: None
            return
        from rich import console, progress

        class TimeLeft(progress.ProgressColumn):
            def render(self, task: Any) -> Any:
                text = time_left(task)
                return f"{text} left" if text else "-"

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            TimeLeft(),
            console=console.Console(stderr=True),
            transient=True,
        )
        try:
            yield self._step
        finally:
            self.clear_bars()

    def _step(self, stage: str, done: int, total: int) -> None:
        """Draw bars only while a stage runs.

        Rich holds back what others write until their line ends.
        """
        if stage not in self._tasks:
            if not self._tasks:
                self._bar.start()
            expected = self.expected(stage, total)
            self._tasks[stage] = self._bar.add_task(STAGES[stage], total=total, expected=expected)
        self._bar.update(self._tasks[stage], completed=done, total=total)
        if done >= total:
            self._bar.remove_task(self._tasks.pop(stage))
            if not self._tasks:
                self._bar.stop()

    def expect(self, speed: Speed | None) -> None:
        """Set this machine's speed with the kit: the time left of a new stage comes from it."""
        self._speed = speed

    def expected(self, stage: str, total: int) -> float | None:
        """Return the seconds of a whole stage; None without a measured speed."""
        if self._speed is None:
            return None
        speed = self._speed
        seconds = {
            "load": speed.load_seconds,
            "encode": total * speed.tile_seconds,
            "prefill": total / speed.image_tokens_per_second,
        }
        return seconds.get(stage)

    def clear_bars(self) -> None:
        """Remove the bars of stages that were interrupted."""
        while self._tasks:
            self._bar.remove_task(self._tasks.popitem()[1])
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str, *, always: bool = False) -> None:
        """Write a line on stderr, without characters that a terminal would act on."""
        text = visible(text)
        if not (self._terminal or always):
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def loaded(self, model: PulseModel) -> None:
        """Note the kit, the device and the intended use, and warn of what limits the answers."""
        from pulse_edge.report.report import DEMONSTRATION, INTENDED_USE

        manifest = model.kit.manifest
        name = one_line(manifest.id)
        self.note(f"kit {name} ({one_line(str(model.kit.path))}), device {model.device}")
        self.note(INTENDED_USE)
        if manifest.demonstration:
            self.note(f"{DEMONSTRATION}: {name}", always=True)
        if model.fallback:
            self.note(f"warning: {model.fallback}", always=True)
        if model.refused:
            self.note(f"warning: {model.refused} It answers because of --force-kit", always=True)

    def answered(self, answering: Answering, encoded: EncodedPage) -> None:
        """Note the figures of one answer, and warn if it was cut off."""
        from pulse_edge.machine import memory

        seconds = answering.seconds
        speed = answering.tokens / seconds["answer"] if seconds["answer"] else 0.0
        first = seconds.get("first_token", seconds["prefill"])
        encoding = (
            f"encoded in {encoded.seconds['encode']:.1f} s"
            if "encode" in encoded.seconds
            else "encoded earlier"
        )
        self.note(
            f"{encoded.file}: {len(encoded.image_tokens)} image tokens from {encoded.tiles} tiles, "
            f"{encoding}, "
            f"first token after {first:.1f} s, {speed:.1f} tokens/s, "
            f"peak memory {memory.peak() / memory.MIB:,.0f} MiB"
        )
        if not answering.complete:
            text = f"warning: the answer was cut off after {answering.tokens} tokens"
            self.note(text, always=True)

    def judged(self, encoded: EncodedPage) -> None:
        """Warn of what is wrong with a page that is answered nevertheless."""
        if encoded.checked is None:
            return
        quality = encoded.checked.quality
        if quality.forced:
            text = "the page was refused, and is answered because of --force"
            self.note(f"warning: {encoded.file}: {text}", always=True)
        for reason in quality.reasons:
            self.note(f"warning: {encoded.file}: {reason.advice}", always=True)

    def failed(self, file: str, error: PulseEdgeError, as_json: bool) -> int:
        """Say why a page has no answer, and return the exit code."""
        from pulse_edge.report.report import NoAnswer

        file = one_line(file)
        show_traceback(error)
        reason = one_line(str(error))
        message = reason if file in reason else f"{file}: {reason}"
        self.note(f"error: {message}", always=True)
        if as_json:
            say(NoAnswer(file, message, error.exit_code).to_json() + "\n")
        return error.exit_code
