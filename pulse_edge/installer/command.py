"""The command line of the installer.

    python3 install.pyz [--to DIR] [--user-only] [--key FILE] [--accept WORD]...
    python3 install.pyz [--to DIR] --rollback
    python3 install.pyz [--to DIR] --uninstall [--remove-cache] [--remove-audit-log]

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

from .bundle import INSTALLER, open_bundle, read_small
from .home import EVERYBODYS_HOME, Home, default_home
from .install import Request, install
from .minisign import read_public_key
from .refusal import Refused, visible
from .remove import rollback, uninstall
from .user_data import UserFolder, remove_user_folder, user_folders

_WORDS = ("unsigned", "older", "little-memory")


class _ProgressBar:
    """Prints percent and remaining time on a terminal."""

    def __init__(self) -> None:
        self._stage, self._start = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if stage != self._stage:
            self._stage, self._start = stage, time.monotonic()
        seconds = (time.monotonic() - self._start) * (total - done) / max(done, 1)
        percent = 100 * done // max(total, 1)
        end = "\n" if done >= total else ""
        print(
            f"\r{stage} {percent:3d} %, {seconds:5.0f} s left ",
            end=end,
            file=sys.stderr,
            flush=True,
        )


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)


def _ask(question: str) -> bool:
    """Return whether the person says yes; no answer is a no."""
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline() if sys.stdin else ""
    except (OSError, ValueError):
        answer = ""
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().casefold() in ("yes", "y")


def _accepted_word(text: str) -> str:
    """Check a word of --accept: a mistyped one must not be ignored."""
    if text in _WORDS:
        return text
    if re.fullmatch("[0-9A-Fa-f]{16}", text):
        return text.upper()
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither {', '.join(_WORDS)} nor the id of a key (16 digits)"
    )


def _folder(text: str) -> Path:
    """Check a folder named on the command line. `--to "$UNSET"` does not mean the current one."""
    try:
        if text:
            return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{text!a} is no folder: {e}") from None
    raise argparse.ArgumentTypeError("no folder is named")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=INSTALLER, description="Install pulse-edge from this bundle, without a network."
    )
    option = parser.add_argument
    option(
        "--to",
        type=_folder,
        metavar="DIR",
        help="folder of the installation. Default: /opt/pulse-edge for an administrator, else a "
        "folder of this user's",
    )
    option(
        "--user-only",
        action="store_true",
        help="install for this user, even as an administrator",
    )
    option(
        "--key",
        type=Path,
        metavar="FILE",
        help="minisign public key that must have signed the bundle. Default: the keys that are "
        "trusted here",
    )
    option(
        "--accept",
        action="append",
        default=[],
        type=_accepted_word,
        metavar="WORD",
        help="go on in spite of a refusal: the id of a key that is not trusted here yet, unsigned, "
        "older, or little-memory; may be repeated",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--rollback", action="store_true", help="go back to the version that was in use before"
    )
    action.add_argument(
        "--uninstall", action="store_true", help="remove everything that was installed"
    )
    option(
        "--remove-cache",
        action="store_true",
        help="with --uninstall: remove this user's caches and self-test results too",
    )
    option(
        "--remove-audit-log",
        action="store_true",
        help="with --uninstall: remove this user's audit log and the local page's uploads too",
    )
    options = parser.parse_args()
    if (options.remove_cache or options.remove_audit_log) and not options.uninstall:
        parser.error("--remove-cache and --remove-audit-log go with --uninstall")
    return options


def remove_all(home: Home, *, cache: bool, audit_log: bool) -> None:
    """Uninstall, and say what stays. Caches and audit log of this user are removed if the person
    agrees.
    """
    if home.mark() is not None or not (cache or audit_log):
        others = uninstall(home)
        print(f"{home.path}: uninstalled")
        for path in others:
            _say(f"left: {path} (not made by the installer)")
    for folder in user_folders():
        agreed = audit_log if folder.is_record else cache
        if folder.kind is not None and not agreed and sys.stdin and sys.stdin.isatty():
            agreed = _ask(f"{folder}: remove it too? yes or no:")
        _remove_or_report(folder, agreed=agreed)
    if home.path == EVERYBODYS_HOME:
        _say(
            "Others who have used it have a cache and an audit log of their own in their home "
            "folders."
        )


def _remove_or_report(folder: UserFolder, *, agreed: bool) -> None:
    """Remove a folder of this user if that was agreed, and say what stays."""
    if not agreed:
        option = "--remove-audit-log" if folder.is_record else "--remove-cache"
        advice = f"--uninstall {option} removes it"
        if folder.kind is None:
            advice = "Remove it yourself if it is not needed any more"
        _say(f"left: {folder}. {advice}")
        return
    remaining = remove_user_folder(folder)
    if not remaining:
        print(f"removed: {folder}")
        return
    names = ", ".join(map(str, remaining))
    _say(f"left: {names} (without a mark of pulse-edge, or not written by it)")


def _quoted(path: Path) -> str:
    """Return the path of a command as a shell takes it."""
    return f'& "{path}"' if sys.platform == "win32" and " " in str(path) else shlex.quote(str(path))


def _bundle_folder() -> Path:
    """Return the folder of the archive that this module lies in. Raises Refused outside of an
    archive.
    """
    archive = next((p for p in Path(__file__).resolve().parents if p.is_file()), None)
    if archive is None:
        raise Refused(f"{__file__}: lies in no bundle. Run the {INSTALLER} of a bundle.")
    return archive.parent


def _carry_out(options: argparse.Namespace, home: Home) -> None:
    """Do what the command line asks for. Raises Refused or OSError."""
    if options.rollback:
        print(f"in use now: {rollback(home)}")
    elif options.uninstall:
        remove_all(home, cache=options.remove_cache, audit_log=options.remove_audit_log)
    else:
        key = None
        if options.key is not None:
            text = read_small(options.key).decode("utf-8", "replace")
            key = read_public_key(text, str(options.key))
        request = Request(home.path, key, tuple(options.accept))
        install(open_bundle(_bundle_folder()), request, _ProgressBar(), _say, _ask)
        print(f"installed. Read a page: {_quoted(home.launcher())} interpret scan.jpg")


def main() -> int:
    """Run the command line and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of any bytes can be printed
    options = _arguments()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    # Everybody may read an installation and only its owner may change it, whatever the shell says.
    os.umask(0o022)
    home = Home(options.to or default_home(user_only=options.user_only).expanduser().resolve())
    try:
        _carry_out(options, home)
    except Refused as e:
        print(*(f"error: {line}" for line in e.lines), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted. Run {INSTALLER} again: it goes on from here.", file=sys.stderr)
        return 130
    except OSError as e:
        print(
            f"error: {e.filename or home.path}: {e.strerror}. Repair that, and run {INSTALLER} "
            "again.",
            file=sys.stderr,
        )
        return 1
    return 0
