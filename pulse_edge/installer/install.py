"""Install a bundle: check it, copy it, prove it, and only then make it the version in use."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import machine, program
from .bundle import (
    INSTALLER,
    SIGNATURE,
    Bundle,
    Target,
    checked_bytes,
    content_faults,
    open_bundle,
    refuse_faults,
    shape_faults,
)
from .copying import carry_over, copy, kits_of
from .default_kit import select, write_default
from .fields import version_order
from .files import Progress, Say, locked, write_atomically
from .home import (
    HOME_KIND,
    INSTALL_RECORD,
    VERSION_KIND,
    Home,
    foreign_names,
    read_mark,
    refuse_place,
    write_mark,
)
from .minisign import PublicKey
from .refusal import Refused
from .remove import remove_mark_if_empty, remove_version
from .shortcut import SERVE_WHEEL, write_shortcut
from .trust import Trust, assess

_LAUNCHER = """#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
export ORT_DISABLE_TELEMETRY=1
exec "$here/versions/$(cat "$here/current")/venv/bin/python" -I -m pulse_edge "$@"
"""
_LAUNCHER_CMD = (
    '@setlocal\r\n@set ORT_DISABLE_TELEMETRY=1\r\n@set /p VERSION=<"%~dp0current"\r\n'
    '@"%~dp0versions\\%VERSION%\\venv\\Scripts\\python.exe" -I -m pulse_edge %*\r\n'
)


@dataclass(frozen=True)
class Request:
    """What the person asks for."""

    to: Path
    """Folder of the installation."""
    key: PublicKey | None = None
    """The only key that may have signed the bundle; None: the keys that are trusted there."""
    accept: tuple[str, ...] = ()
    """Words of --accept: `unsigned`, `older`, `little-memory`, or the id of a key."""


def install(
    bundle: Bundle,
    request: Request,
    progress: Progress,
    say: Say,
    ask: Callable[[str], bool] = lambda _question: False,
) -> Path:
    """Install the program and kits of a bundle, prove them, and make them the version in use;
    return its folder.

    An interrupted run is continued by the next one. Raises Refused; the version that was in use
    then stays in use.
    """
    home = Home(request.to)
    refuse_place(home, bundle)
    target = machine.matching_target(bundle)
    trust = assess(bundle, home.pinned(), key=request.key, accept=request.accept)
    installer = _check_files(bundle, progress)
    if "little-memory" not in request.accept:
        machine.refuse_little_memory(bundle)
    _agree(bundle, trust, request, say, ask)
    existed = home.path.is_dir()
    home.path.mkdir(parents=True, exist_ok=True)
    with locked(home.path):
        refuse_place(home, bundle)  # again: another installer may have been at work
        if "older" not in request.accept:
            _refuse_older(bundle, home)
        if (mark := home.mark()) is None:
            mark = {"id": secrets.token_hex(16)}
            write_mark(
                home.path, HOME_KIND, mark["id"], made_by="others" if existed else "installer"
            )
        folder = home.version(bundle.version)
        if bundle.version not in home.complete():
            _begin(folder, mark["id"])
            try:
                _write_version(bundle, target, trust, home, progress, say)
            except Refused:
                remove_version(folder)
                remove_mark_if_empty(home)
                raise
        before = home.current()
        _switch(bundle, trust, home, installer)
        if any(name.startswith(SERVE_WHEEL) for name in target.wheels):
            write_shortcut(home)
        _remove_old_versions(home, before, bundle.version)
    return folder


def _check_files(bundle: Bundle, progress: Progress) -> bytes:
    """Check that all files are there, and the bytes of all but the kits; return the installer's
    bytes.

    Kits are checked while they are copied, so that gigabytes are read once. Raises Refused.
    """
    refuse_faults(bundle, shape_faults(bundle))
    pieces = {
        piece
        for kit in bundle.kits.values()
        for file in kit.files.values()
        for piece in file.pieces
    }
    others = [name for name in bundle.files if name not in pieces]
    refuse_faults(bundle, content_faults(bundle, others, progress))
    return checked_bytes(bundle, INSTALLER)


def _agree(
    bundle: Bundle, trust: Trust, request: Request, say: Say, ask: Callable[[str], bool]
) -> None:
    """Say who vouches for the bundle. The first key that is to be trusted here needs a yes. Raises
    Refused.
    """
    if trust.warning or trust.key is None:
        say(f"warning: {trust.warning}")
        return
    key_id = trust.key.id
    say(f"signed by key {key_id}")
    if not trust.first or request.key is not None or key_id in request.accept:
        return
    question = (
        "No key is trusted here yet. Compare this number with the one that the bundle's maker "
        "gave you by another way (on paper, by telephone).\nTrust this key from now on, and "
        "install? yes or no:"
    )
    if not ask(question):
        raise Refused(
            f"{bundle.path / SIGNATURE}: by key {key_id}, which is not trusted here yet. Nothing "
            "was installed. Compare the number with the one that its maker gave you; --accept "
            f"{key_id} then installs it without a question."
        )


def _refuse_older(bundle: Bundle, home: Home) -> None:
    """Raise Refused if the version in use is newer: an old bundle, signed long ago, brings old
    faults back.
    """
    name = home.current()
    if name is None or name == bundle.version:
        return
    current = open_bundle(home.version(name))
    ours, theirs = version_order(current.program), version_order(bundle.program)
    if (theirs, bundle.created) >= (ours, current.created):
        return
    raise Refused(
        f"{bundle.path}: has pulse-edge {bundle.program} with kits of {bundle.created:%Y-%m-%d}, "
        f"and in use is the newer {current.program} with kits of {current.created:%Y-%m-%d}. "
        "Nothing was changed. --rollback goes back to the version before; --accept older "
        "installs this one all the same."
    )


def _begin(folder: Path, mark_id: str) -> None:
    """Make and mark a version's folder, or continue with one. Raises Refused for somebody else's
    folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (read_mark(folder, VERSION_KIND) or {}).get("id") == mark_id:
        return
    if folder.is_symlink() or foreign_names(folder):
        raise Refused(
            f"{folder}: was not made by this installation. Nothing was touched. Move it away, and "
            "try again."
        )
    write_mark(folder, VERSION_KIND, mark_id)


def _write_version(
    bundle: Bundle, target: Target, trust: Trust, home: Home, progress: Progress, say: Say
) -> None:
    """Fill the folder of a new version, and prove it. Raises Refused."""
    folder = home.version(bundle.version)
    machine.refuse_little_disk(bundle, target, home)
    copy(bundle, target, home, folder, progress)
    carry_over(bundle, home, folder)
    program.make_environment(bundle, target, folder, say)
    program.prove(folder, bundle.kits, say)
    _complete(bundle, trust, home, say)


def _complete(bundle: Bundle, trust: Trust, home: Home, say: Say) -> None:
    """Choose the default kit, and write the last file of a version, install.json.

    It records what the version is and what answers must say about the program and each kit. A kit
    from an earlier bundle keeps its warning.
    """
    folder = home.version(bundle.version)
    kits = {kit.name: trust.warning for kit in kits_of(folder)}
    before = None
    if (current := home.current()) is not None:
        before = home.version(current)
        earlier = json.loads((before / INSTALL_RECORD).read_text("utf-8"))["kits"]
        kits |= {
            name: trust.warning or warning
            for name, warning in earlier.items()
            if name not in bundle.kits
        }
    if (default := select(bundle, before, kits, say)) is not None:
        write_default(folder, default)
    key = None if trust.key is None else trust.key.id
    about = {"program": bundle.program, "key": key, "warning": trust.warning, "kits": kits}
    write_atomically(folder / INSTALL_RECORD, json.dumps(about, indent=1).encode() + b"\n")


def _switch(bundle: Bundle, trust: Trust, home: Home, installer: bytes) -> None:
    """Make the version that was proven the one in use. `current` is the only pointer, and written
    last.
    """
    keys = home.pinned()
    if trust.key is not None and trust.pinned and trust.key not in keys:
        text = "".join(key.text() for key in [*keys, trust.key])
        write_atomically(home.path / "trusted.pub", text.encode())
    text = _LAUNCHER_CMD if sys.platform == "win32" else _LAUNCHER
    write_atomically(home.launcher(), text.encode(), mode=0o755)
    write_atomically(home.path / INSTALLER, installer)
    write_atomically(home.path / "current", f"{bundle.version}\n".encode())
    link = home.shell_link()
    if link is not None and not os.path.lexists(link):
        with contextlib.suppress(OSError):  # a convenience: the launcher's own path always works
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(home.launcher())


def _remove_old_versions(home: Home, before: str | None, new: str) -> None:
    """Remove all versions but the new one and the one that was in use before it, unfinished ones
    too.
    """
    retained = set(home.complete()) if before in (None, new) else {before, new}
    for folder in home.ours():
        if folder.name not in retained:
            remove_version(folder)
