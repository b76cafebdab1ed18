"""The commands. The answer goes to stdout, everything else to stderr, the verdict is the exit code.

0 done, 1 error, 2 wrong usage, 3 page refused, 130 interrupted (143 by SIGTERM, 129 by SIGHUP). With several pages the
others are still answered, and the code is that of the worst.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .errors import PulseEdgeError

if TYPE_CHECKING:
    from .interpret import Answering, EncodedScan, PulseModel
    from .scan import Page

STAGES = {
    "verify": "Verifying the kit",
    "load": "Loading the language model",
    "encode": "Encoding, in tiles",
    "prefill": "Reading the page, in image rows",
}


class _Command(click.Command):
    """Looks at the installation before anything else, but not when asked for help."""

    def invoke(self, ctx: click.Context) -> Any:
        from .vision import installed_runtime

        installed_runtime()
        return super().invoke(ctx)


class _Group(click.Group):
    command_class = _Command
    group_class = type


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pulse-edge", prog_name="pulse-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Read 12-lead ECG pages with a PULSE kit, offline.

    Decision support for clinicians, never a diagnosis.
    """


@cli.command()
@click.argument("scans", nargs=-1, required=True, metavar="SCAN...")
@click.option(
    "--kit", type=click.Path(path_type=Path), help="Kit directory. Default: $PULSE_EDGE_KIT, or the installed."
)
@click.option("-q", "--question", "questions", multiple=True, metavar="TEXT", help="Repeatable. Default: a report.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per page, one a line.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer. Default: the kit's limit.")
@click.option("--threads", type=click.IntRange(1, 512), help="Default: the processors that this process may use.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def interpret(
    scans: tuple[str, ...],
    kit: Path | None,
    questions: tuple[str, ...],
    device: str,
    as_json: bool,
    max_tokens: int | None,
    threads: int | None,
    debug: bool,
) -> None:
    """Answer questions about ECG pages: JPEG, PNG, TIFF, BMP or WebP files, or - for standard input.

    Without -q it asks for a clinical report.
    """
    from . import prompt, scan
    from .interpret import PulseModel

    asked = questions or (prompt.REPORT_QUESTION,)
    for question in asked:
        prompt.fill("{question}", question)
    screen = Screen()
    worst = 0
    with (
        screen.progress() as progress,
        PulseModel.load(kit, device=device, threads=threads, progress=progress) as model,
    ):
        screen.loaded(model)
        for source in scans:
            try:
                pages = scan.read_all(source)
            except PulseEdgeError as e:
                worst = max(worst, screen.failed(source, e, as_json))
                continue
            for page in pages:
                try:
                    _one_page(model, page, asked, max_tokens, as_json, screen, several=len(scans) + len(pages) > 2)
                except PulseEdgeError as e:
                    worst = max(worst, screen.failed(page.name, e, as_json))
    raise SystemExit(worst)


def _one_page(
    model: PulseModel,
    page: Page,
    questions: Sequence[str],
    max_tokens: int | None,
    as_json: bool,
    screen: Screen,
    *,
    several: bool,
) -> None:
    """Encode one page and print its answers; headings only where there are several answers to tell apart."""
    encoded = model.encode(page)
    answered = []
    if not as_json:
        if model.kit.manifest.demonstration:
            from .report import DEMONSTRATION

            _out(f"{DEMONSTRATION}\n")
        if several:
            _out(f"# {encoded.file}\n")
    for question in questions:
        answering = model.ask(encoded, question, max_tokens)
        if as_json:
            answering.answer()
        else:
            if len(questions) > 1:
                _out(f"## {question}\n")
            for text in answering:
                _out(text)
            _out("\n")
        screen.answered(answering, encoded)
        answered.append(answering)
    if as_json:
        _out(model.report(encoded, answered).to_json() + "\n")


@cli.group()
def kit() -> None:
    """Look at kits."""


_KIT = click.argument("path", type=click.Path(path_type=Path), metavar="DIR")


@kit.command()
@_KIT
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def info(path: Path, as_json: bool, debug: bool) -> None:
    """What a kit is, where it comes from, and how it was proven."""
    from . import kit as kits

    opened = kits.open_kit(path)
    if as_json:
        _out((opened.path / kits.MANIFEST).read_text("utf-8"))
        return
    for name, value in _facts(opened.manifest):
        _out(f"{name:<14}{value}\n")


def _facts(m: Any) -> Iterator[tuple[str, str]]:
    yield "kit", m.id + (" (demonstration, not for patients)" if m.demonstration else "")
    yield "source", " ".join(str(m.source[k]) for k in ("name", "revision", "licence") if m.source.get(k))
    yield "made", m.created
    language, vision, packing = m.language, m.vision, m.packing
    yield "language", f"{language.type}, {language.layers} layers, context {language.context_length} tokens"
    side = f"{vision.image_size} x {vision.image_size} pixels"
    yield "vision", f"{vision.type}, tiles of {side}, {vision.patches_per_side**2} rows each"
    yield "packing", f"{packing.aspect_ratio}, {packing.merge}"
    for name, file in m.files.items():
        yield "file", f"{file.bytes:>14,} {name}"
    for what, figures in m.parity.items():
        if isinstance(figures, dict):
            shown = ", ".join(f"{k} {v}" for k, v in figures.items() if not isinstance(v, dict))
            yield "parity", f"{what}: {shown}"
    yield from _accuracy(m.accuracy)


def _accuracy(told: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The verdict, a line a task, and where the report is."""
    if told is None:
        yield "accuracy", "not measured"
        return
    yield "accuracy", str(told.get("verdict", told))
    for row in told.get("table", ()):
        ours, theirs = f"{row['score']} {row['this']}", f"reference {row['reference']}"
        change = f", difference {row['difference']}" if row["difference"] else ""
        yield "", f"{row['task']}: {ours}, {theirs}{change}, {row['questions']} questions"
    for gate in told.get("gates") or ():
        yield (
            "gate",
            f"{gate['gate']} {gate['value']} (limit {gate['limit']}): {'passed' if gate['passed'] else 'NOT PASSED'}",
        )
    if report := told.get("report"):
        yield "report", report


@kit.command()
@_KIT
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def verify(path: Path, debug: bool) -> None:
    """Read every byte of a kit and compare it with the manifest."""
    from . import kit as kits

    opened = kits.open_kit(path)
    screen = Screen()
    total = sum(file.bytes for file in opened.manifest.files.values())
    with screen.progress() as progress:
        done = 0

        def step(piece: int) -> None:
            nonlocal done
            done += piece
            progress("verify", done, total)

        kits.verify(opened, progress=step)
    _out(f"{path}: {len(opened.manifest.files)} files are as they were made\n")


# --- what people see --------------------------------------------------------------------------------------------------


def _out(text: str) -> None:
    """Write to stdout at once. Control characters of a model or a file name do not reach a terminal."""
    if sys.stdout.isatty():
        text = "".join(c for c in text if c.isprintable() or c in "\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()


class Screen:
    """Notes on stderr; without a terminal only what must not be missed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._terminal = sys.stderr.isatty()

    @contextlib.contextmanager
    def progress(self) -> Iterator[Any]:
        """A callback (stage, done, of) that draws bars with the time left."""
        if not self._terminal:
            yield lambda _stage, _done, _of: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._bar:
            yield self._step

    def _step(self, stage: str, done: int, of: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(STAGES[stage], total=of)
        self._bar.update(self._tasks[stage], completed=done, total=of)
        if done >= of:
            self._bar.remove_task(self._tasks.pop(stage))

    def note(self, text: str, *, always: bool = False) -> None:
        """A line on stderr."""
        if not (self._terminal or always):
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def loaded(self, model: PulseModel) -> None:
        """Which kit and device; the intended use."""
        from .report import DEMONSTRATION, INTENDED_USE

        m = model.kit.manifest
        self.note(f"kit {m.id} ({model.kit.path}), device {model.device}")
        self.note(INTENDED_USE)
        if m.demonstration:
            self.note(f"{DEMONSTRATION}: {m.id}", always=True)

    def answered(self, answering: Answering, encoded: EncodedScan) -> None:
        """The line of figures, and the warning of an answer that was cut off."""
        from . import memory

        s = answering.seconds
        speed = answering.tokens / s["answer"] if s["answer"] else 0.0
        first = s.get("first_token", s["prefill"])
        self.note(
            f"{encoded.file}: {len(encoded.rows)} image rows from {encoded.tiles} tiles, encoded in "
            f"{encoded.seconds['encode']:.1f} s, first token after {first:.1f} s, {speed:.1f} tokens/s, "
            f"peak memory {memory.peak() / memory.MIB:,.0f} MiB"
        )
        if not answering.complete:
            self.note(f"warning: the answer was cut off after {answering.tokens} tokens", always=True)

    def failed(self, file: str, error: PulseEdgeError, as_json: bool) -> int:
        """Say why a page has no answer, and return the exit code."""
        if "--debug" in sys.argv:
            import traceback

            traceback.print_exception(error)
        message = str(error) if file in str(error) else f"{file}: {error}"
        self.note(f"error: {message}", always=True)
        if as_json:
            import json

            _out(json.dumps({"file": file, "error": message, "exit_code": error.exit_code}, ensure_ascii=False) + "\n")
        return error.exit_code


def main() -> None:
    """Entry point."""
    run(cli)


def run(command: click.Command) -> NoReturn:
    """Run a command line to its exit code; errors become one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    signals = _Signals()
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (KeyboardInterrupt, click.Abort):
        signals.ignore()
        _leave("interrupted", 128 + signals.last)
    except BrokenPipeError:
        # The reader of stdout has left; Python's own flush at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as e:
        if "--debug" in sys.argv:
            raise
        print(f"error: {_told(e)}", file=sys.stderr)
        code = e.exit_code if isinstance(e, PulseEdgeError) else 1
    raise SystemExit(code)


def _told(error: Exception) -> str:
    if isinstance(error, PulseEdgeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. Mend that, or run again with --debug to see where it happened."
    return f"unexpected {type(error).__name__}: {error}. Run again with --debug and report it."


class _Signals:
    """SIGTERM and SIGHUP unwind everything as Ctrl-C does, so that nothing half-written is left."""

    def __init__(self) -> None:
        self.last: int = signal.SIGINT
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        present = [getattr(signal, name) for name in names if hasattr(signal, name)]
        self._numbers = [n for n in present if signal.getsignal(n) != signal.SIG_IGN]  # nohup stays in force
        for number in self._numbers:
            signal.signal(number, self._end)

    def _end(self, number: int, _frame: Any) -> None:
        self.last = number
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """What comes now is too late to change anything."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)


def _leave(text: str, code: int) -> NoReturn:
    """End now: an engine's thread may still be inside a long call that cannot be stopped."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
