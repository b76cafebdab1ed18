"""The commands. The answer goes to stdout, everything else to stderr, the verdict is the exit code.

0 done, 1 error, 2 wrong usage, 3 page refused, 130 interrupted (143 by SIGTERM, 129 by SIGHUP). With several pages the
others are still answered, and the code is that of the worst.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import click

from pulse_edge.cli import (
    ask,
    audit,
    batch,
    benchmark,
    bundle,
    cache,
    check,
    doctor,
    interpret,
    kit,
    measure,
)
from pulse_edge.cli.console import show_traceback
from pulse_edge.common.text import one_line, visible
from pulse_edge.errors import PulseEdgeError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pulse-edge", prog_name="pulse-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Read 12-lead ECG pages with a PULSE kit, offline.

    Decision support for clinicians, never a diagnosis.
    """


for _command in (
    interpret.interpret,
    ask.ask,
    batch.batch,
    benchmark.bench,
    bundle.bundle,
    cache.cache,
    check.check,
    doctor.doctor,
    kit.kit,
    measure.measure,
    audit.audit,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point."""
    run(cli)


def run(command: click.Command) -> NoReturn:
    """Run a command line to its exit code; errors become one line."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    signals = _Signals()
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as e:
        shown = io.StringIO()
        e.show(shown)
        print(visible(shown.getvalue()), end="", file=sys.stderr)
        code = e.exit_code
    except (KeyboardInterrupt, click.Abort):
        signals.ignore()
        _leave("interrupted", 128 + signals.last)
    except BrokenPipeError:  # the reader of stdout has left
        code = 1
    except Exception as e:
        show_traceback(e)
        print(f"error: {one_line(_told(e))}", file=sys.stderr)
        code = e.exit_code if isinstance(e, PulseEdgeError) else 1
    try:
        sys.stdout.flush()
    except OSError:  # Python's own flush at exit would complain of what is still waiting
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    raise SystemExit(code)


def _open_standard_streams() -> None:
    """Open what the caller has closed (`>&-`).

    Otherwise the first file that is opened gets the number 1 or 2, be it the audit log, and what a library prints goes into
    it. A closed standard output still takes nothing: writing to it is an error, as it is for other programs.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR
            )  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (for the whole process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


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
        self._numbers = [
            n for n in present if signal.getsignal(n) != signal.SIG_IGN
        ]  # nohup stays in force
        for number in self._numbers:
            signal.signal(number, self._end)
        sys.unraisablehook = self._lost

    def _end(self, number: int, _frame: Any) -> None:
        self.last = number
        raise KeyboardInterrupt(number)

    def _lost(self, what: sys.UnraisableHookArgs) -> None:
        """What is raised in a destructor or a callback of C, Python only prints: then the signal comes once more."""
        if isinstance(what.exc_value, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main, (self.last,)).start()
        else:
            sys.__unraisablehook__(what)

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
