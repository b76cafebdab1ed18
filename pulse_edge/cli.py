"""The commands. The answer goes to stdout, everything else to stderr, the verdict is the exit code.

0 done, 1 error, 2 wrong usage, 3 page refused, 130 interrupted (143 by SIGTERM, 129 by SIGHUP). With several pages the
others are still answered, and the code is that of the worst.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import cli_ask, cli_batch, cli_kit, cli_log
from .cli_options import ReadyCommand, Wanted, admitting, documents
from .errors import PulseEdgeError

if TYPE_CHECKING:
    from .interpret import Answering, CheckedPage, EncodedScan, PulseModel
    from .log import Recorder
    from .scan import Page

STAGES = {
    "verify": "Verifying the kit",
    "load": "Loading the language model",
    "encode": "Encoding, in tiles",
    "prefill": "Reading the page, in image rows",
    "findings": "Asking for findings",
    "pack": "Packing",
    "check": "Checking the stick",
}


class _Group(click.Group):
    command_class = ReadyCommand
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
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: one object per page, one a line.")
@click.option(
    "--json-schema", type=click.Path(path_type=Path), metavar="FILE", help="Each answer is JSON of this JSON Schema."
)
@documents
@click.option("--patient-id", metavar="ID", help="Whom FHIR is to name. It is written nowhere else.")
@click.option("--patient-system", metavar="URI", help="Numbering that the patient's id is from.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for the formats' files, a few for each page."
)
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer. Default: the kit's limit.")
@click.option("--threads", type=click.IntRange(1, 512), help="Default: the processors that this process may use.")
@admitting
@click.option(
    "--keep",
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
    forms: tuple[str, ...],
    with_findings: bool | None,
    patient_id: str | None,
    patient_system: str | None,
    max_tokens: int | None,
    threads: int | None,
    no_rectify: bool,
    force: bool,
    keep: int | None,
    debug: bool,
) -> None:
    """Answer questions about ECG pages: pictures, PDF, HEIC or DICOM files, or - for standard input.

    Without -q it asks for a clinical report.
    """
    from . import grammar, log, scan
    from .errors import LogError
    from .interpret import PulseModel

    wanted = Wanted.of(questions, max_tokens, ("json", *forms) if as_json else forms, out, patient_id, patient_system)
    settings: dict[str, Any] = {"max_tokens": max_tokens, "threads": threads}
    settings |= {"straighten": not no_rectify, "force": force}
    if json_schema is not None:
        wanted = dataclasses.replace(wanted, grammar=grammar.load(json_schema))
        settings["json_schema_sha256"] = log.sha256(json_schema.read_text("utf-8"))
    screen = Screen()
    record = log.Recorder(log.Log(note=screen.note), settings, keep)
    record.log.ready()
    worst = 0
    with (
        screen.progress() as progress,
        PulseModel.load(kit, device=device, threads=threads, progress=progress) as model,
    ):
        screen.loaded(model)
        wanted = wanted.for_kit(model, with_findings)
        for source in scans:
            try:
                pages = scan.read_all(source)
            except PulseEdgeError as e:
                worst = max(worst, screen.failed(source, e, wanted.shown == "json"))
                continue
            for page in pages:
                several = len(scans) + len(pages) > 2
                try:
                    encoded = model.encode(page, straighten=not no_rectify, force=force)
                    screen.judged(encoded)
                    _one_page(model, page, encoded, wanted, screen, record, several=several)
                except LogError:
                    raise  # what cannot be put on record must not be answered
                except PulseEdgeError as e:
                    worst = max(worst, screen.failed(page.name, e, wanted.shown == "json"))
    raise SystemExit(worst)


def _one_page(
    model: PulseModel,
    page: Page,
    encoded: EncodedScan,
    wanted: Wanted,
    screen: Screen,
    record: Recorder,
    *,
    several: bool,
) -> None:
    """Answer about one page, and print or write it; headings only where there are several answers to tell apart."""
    from . import outputs
    from .report import findings_lines

    streams = wanted.shown == "text"
    answered: list[Answering] = []
    for question in wanted.questions:
        answering = model.ask(encoded, question, wanted.max_tokens, grammar=wanted.grammar)
        if streams:
            _out(heading(model, encoded, question, len(wanted.questions), named=several and not answered))
        with recorded(record, model, encoded, answering, page):
            for text in answering:
                if streams:
                    _out(text)
            if streams:
                _out("\n")
        screen.answered(answering, encoded)
        answered.append(answering)
    picture = encoded.picture(page)
    report = model.report(encoded, answered, model.findings(encoded) if wanted.findings else ())
    if wanted.findings:
        record.findings(dataclasses.asdict(report))
    if wanted.out is not None:
        for path in outputs.write(wanted.out, outputs.stem(report), wanted.forms, report, picture, wanted.patient):
            _out(f"{path}\n")
    elif not streams:
        _out(outputs.render(wanted.shown, report, picture, wanted.patient).decode("utf-8"))
    elif lines := findings_lines(report):
        _out("\n".join([*filter(None, [report.notice]), *lines]) + "\n")


def heading(model: PulseModel, encoded: EncodedScan, question: str, of: int, *, named: bool) -> str:
    """What stands before an answer: what must be read first, and the file and question where there are several."""
    lines = model.notices(encoded)
    lines += [f"# {encoded.file}"] if named else []
    lines += [f"## {question}"] if of > 1 else []
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def recorded(
    record: Recorder, model: PulseModel, encoded: EncodedScan, answering: Answering, page: Page
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


@cli.command()
@click.argument("scans", nargs=-1, required=True, metavar="SCAN...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per page, one a line.")
@click.option(
    "--save-page",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write there what the model would see, and copies with what was found drawn over them.",
)
@click.option("--no-rectify", is_flag=True, help="Leave the page's pixels as they are.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check(scans: tuple[str, ...], as_json: bool, save_page: Path | None, no_rectify: bool, debug: bool) -> None:
    """Say whether pages are fit to be read, without a model: good, usable, or refused and why."""
    from . import interpret, scan

    screen, worst = Screen(), 0
    for source in scans:
        try:
            pages = scan.read_all(source)
        except PulseEdgeError as e:
            worst = max(worst, screen.failed(source, e, as_json))
            continue
        for page in pages:
            checked = interpret.check(page, straighten=not no_rectify)
            worst = max(worst, 3 * (checked.quality.verdict == "refused"))
            if save_page is not None:
                _save_page(checked, save_page)
            _out(_checked_text(checked, as_json))
    raise SystemExit(worst)


def _checked_text(checked: CheckedPage, as_json: bool) -> str:
    """A line of JSON, or a few lines for people."""
    from .interpret import facts

    said = facts(checked)
    if as_json:
        import json

        return json.dumps(said, ensure_ascii=False) + "\n"
    scale = said["grid"]["pixels_per_mm"]
    row = f"{said['verdict']:<8} {said['layout'] or '-':<8} {said['leads']:>2} leads"
    row += f"  {f'{scale:.1f} px/mm' if scale else 'no grid':<11}  {checked.page.name}\n"
    for reason in said["reasons"]:
        value = f"{reason['check']} {reason['value']:g} {reason['unit']} (limit {reason['threshold']:g})"
        row += f"         {value}: {reason['advice']}\n"
    return row


def _save_page(checked: CheckedPage, folder: Path) -> None:
    """NAME.png as the model would see it, NAME.found.png with rows and verdict, NAME.sheet.png with the outline."""
    from . import quality
    from .errors import UsageError

    name = checked.page.name.replace("#", "-")
    stem = folder / (Path(name).name if name != "-" else "stdin")
    grid = checked.flat.grid
    pictures = {".png": checked.flat.image}
    pictures[".found.png"] = quality.overlay(
        checked.flat.image, checked.quality, grid.across if grid else None, grid.down if grid else None
    )
    if checked.flat.sheet.corners is not None:
        pictures[".sheet.png"] = quality.sheet_overlay(checked.page.image, checked.flat.sheet.corners)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending, picture in pictures.items():
            picture.save(f"{stem}{ending}", compress_level=1)
    except OSError as e:
        raise UsageError(f"{folder}: cannot be written to ({e.strerror or e}). Name another folder.") from None


@cli.group()
def kit() -> None:
    """Look at kits, and pack them for machines without a network."""


for _command in (cli_kit.keygen, cli_kit.pack, cli_kit.rollback):
    kit.add_command(_command)
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
    yield "findings", _calibrated(m.findings)


def _calibrated(told: dict[str, Any] | None) -> str:
    """Which statements the kit says something of."""
    if told is None:
        return "not calibrated"
    says = [
        f"{key} (AUC {'not known' if c.auc is None else f'{c.auc:.2f}'})" for key, c in told.items() if not c.reason
    ]
    never = [key for key, c in told.items() if c.reason]
    return f"judges {', '.join(says) or 'nothing'}; does not judge {', '.join(never) or 'nothing'}"


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
@click.option("--key", type=click.Path(path_type=Path), help="Of a stick: the public key that must have signed it.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def verify(path: Path, key: Path | None, debug: bool) -> None:
    """Read every byte of a kit or a stick and compare it with the manifest, and a stick's with its signature."""
    from . import kit as kits

    screen = Screen()
    if (path / "stick.json").exists():
        from . import stick

        with screen.progress() as progress:
            said = stick.verify(path, key, progress)
        _out(f"{said}\n")
        return
    opened = kits.open_kit(path)
    total = sum(file.bytes for file in opened.manifest.files.values())
    with screen.progress() as progress:
        done = 0

        def step(piece: int) -> None:
            nonlocal done
            done += piece
            progress("verify", done, total)

        kits.verify(opened, progress=step)
    _out(f"{path}: {len(opened.manifest.files)} files are as they were made\n")


cli.add_command(cli_ask.ask)
cli.add_command(cli_batch.batch)
cli.add_command(cli_log.log)


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
            self._tasks[stage] = self._bar.add_task(STAGES[stage], total=of)
        self._bar.update(self._tasks[stage], completed=done, total=of)
        if done >= of:
            self._bar.remove_task(self._tasks.pop(stage))
            if not self._tasks:
                self._bar.stop()

    def rest(self) -> None:
        """Take away the bars of what was broken off."""
        while self._tasks:
            self._bar.remove_task(self._tasks.popitem()[1])
        if self._bar is not None:
            self._bar.stop()

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

    def judged(self, encoded: EncodedScan) -> None:
        """What is wrong with a page that is answered all the same."""
        if encoded.checked is None:
            return
        judged = encoded.checked.quality
        if judged.forced:
            self.note(f"warning: {encoded.file}: the page was refused, and is answered because of --force", always=True)
        for reason in judged.reasons:
            self.note(
                f"warning: {encoded.file}: {reason.check} is {reason.value:g} {reason.unit}. {reason.advice}",
                always=True,
            )

    def failed(self, file: str, error: PulseEdgeError, as_json: bool) -> int:
        """Say why a page has no answer, and return the exit code."""
        from .report import one_line

        file = one_line(file)
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
        raise KeyboardInterrupt(number)

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
