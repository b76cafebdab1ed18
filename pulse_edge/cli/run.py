"""Run a program to its exit code: errors become one line on stderr, signals unwind everything.

0 done, 1 error, 2 wrong usage, 3 page refused, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
With several pages the others are still answered, and the code is that of the worst.
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

from pulse_edge.cli.console import DEBUG, show_traceback
from pulse_edge.common.text import one_line, visible
from pulse_edge.errors import PulseEdgeError

HELP_WIDTH = 100
"""Characters of a line of --help on a wide terminal."""
RAISE_AGAIN_AFTER = 0.05
"""Seconds until a signal that Python lost in a destructor is raised again."""


def _note_debug(ctx: click.Context, _option: click.Parameter, debug: bool) -> None:
    ctx.meta[DEBUG] = debug


class Program(click.Group):
    """The commands of one program, with --debug, which shows where an error came from."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.context_settings.setdefault("max_content_width", HELP_WIDTH)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=_note_debug,
                help="Show the traceback of an error. Stands before the command.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with --debug print the traceback of what it raises."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as e:
            show_traceback(e)
            raise


def run(command: click.Command) -> NoReturn:
    """Run a command line to its exit code; an error ends in one line."""
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
        _exit_now("interrupted", 128 + signals.last)
    except BrokenPipeError:  # the reader of stdout has gone
        code = 1
    except Exception as e:
        print(f"error: {one_line(_message(e))}", file=sys.stderr)
        code = e.exit_code if isinstance(e, PulseEdgeError) else 1
    try:
        sys.stdout.flush()
    except OSError:  # Python's own flush at exit would complain about what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    raise SystemExit(code)


def _open_standard_streams() -> None:
    """Open the standard streams that the caller has closed (`>&-`).

    Otherwise the first file that is opened, be it the audit log, gets the number 1 or 2, and what a
    library prints goes into it. A closed standard output stays unwritable: writing to it is an
    error, as it is for other programs.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # open gives the lowest number that is free
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (for the whole process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _message(error: Exception) -> str:
    if isinstance(error, PulseEdgeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}{error.strerror}. Correct that, or run again with --debug before the command "
            "to see where it happened."
        )
    return (
        f"unexpected {type(error).__name__}: {error}. Run again with --debug before the command "
        "and report what it shows."
    )


class _Signals:
    """SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that no file stays half-written."""

    def __init__(self) -> None:
        self.last: int = signal.SIGINT
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        # A signal that the caller ignores stays ignored: nohup does so.
        self._numbers = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]
        for number in self._numbers:
            signal.signal(number, self._interrupt)
        sys.unraisablehook = self._raise_again

    def _interrupt(self, number: int, _frame: Any) -> None:
        self.last = number
        raise KeyboardInterrupt(number)

    def _raise_again(self, event: sys.UnraisableHookArgs) -> None:
        """Raise a signal again that Python only printed, in a destructor or a callback of C."""
        if isinstance(event.exc_value, KeyboardInterrupt):
            threading.Timer(RAISE_AGAIN_AFTER, _thread.interrupt_main, (self.last,)).start()
        else:
            sys.__unraisablehook__(event)

    def ignore(self) -> None:
        """Ignore further signals: the program is ending."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)


def _exit_now(text: str, code: int) -> NoReturn:
    """End the process at once: a thread of an engine may be in a long call that has no end."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)
