"""The one tree of errors, and the exit code of each.

    PulseEdgeError            exit code 1
    |- UsageError             2   the command line or the call asks for something that does not exist
    |- ScanError              1   the file cannot be read as a page
    |- PageRefused            3   the page was read, and must not be interpreted
    |- PageFailed             1   the program failed on the page
    |- OutputError            1   output cannot be written to its destination
    |- KitError               1   a kit is absent, broken, foreign, or newer than this program
    |- DeviceError            1   the named device cannot be used
    |- MemoryShortage         1   the machine has too little free memory for the kit
    |- EngineError            1   ONNX Runtime or llama.cpp failed, or is not installed properly
    |- ContextError           1   page and question do not fit the model's context
    |- FolderError            1   a folder or file that would be changed is not pulse-edge's own
    |- AuditLogError          1   the audit log cannot be written, or was altered
    |- BatchError             1   a batch's folder belongs to another batch, or is in use
    |- ServeError             1   the local page's port or folder is in use, or its data is damaged
    |- CheckpointError        1   (workstation) the source is no checkpoint that can be converted
    |- FetchError             1   (workstation) a checkpoint could not be brought from the hub
    |- ParityError            1   (workstation) the converted model differs from the original
    `- BenchError             1   (workstation) test data, answers or scores cannot be trusted

Every message names the file, what is wrong, and the next step. Standard library only.
"""

from __future__ import annotations

from typing import ClassVar


class PulseEdgeError(Exception):
    """Base of every error that pulse-edge raises itself; `exit_code` is the command's."""

    exit_code: ClassVar[int] = 1


class UsageError(PulseEdgeError):
    """The call asks for something that does not exist."""

    exit_code = 2


class ScanError(PulseEdgeError):
    """The file cannot be read as a page."""


class PageRefused(PulseEdgeError):
    """The page was read, and must not be interpreted."""

    exit_code = 3


class PageFailed(PulseEdgeError):
    """The program failed on a page with an unexpected exception. The other pages go on."""


def on_page(name: str, error: Exception) -> PulseEdgeError:
    """Return a page's error: a PulseEdgeError unchanged, any other as PageFailed of page `name`."""
    if isinstance(error, PulseEdgeError):
        return error
    if isinstance(error, MemoryError):
        return PageFailed(
            f"{name}: takes more memory than is free. Close other programs, or scan the page at "
            "300 dpi."
        )
    why = " ".join(str(error).split())[:200]
    failure = PageFailed(
        f"{name}: the program failed on this page ({type(error).__name__}: {why}). Export the page "
        "as PNG and try that; "
        "report the fault with what --debug shows."
    )
    failure.__cause__ = error  # for the traceback of --debug
    return failure


class OutputError(PulseEdgeError):
    """Standard output or the folder of the documents refuses data, so no more pages are answered."""


class KitError(PulseEdgeError):
    """A kit is absent, unfinished, altered, foreign, or newer than this program."""


class DeviceError(PulseEdgeError):
    """The named device cannot be used."""


class MemoryShortage(PulseEdgeError):
    """The machine has too little free memory for the kit."""


class EngineError(PulseEdgeError):
    """ONNX Runtime or llama.cpp failed, or is not installed properly."""


class ContextError(PulseEdgeError):
    """Page and question do not fit the model's context."""


class FolderError(PulseEdgeError):
    """A folder or a file that would be changed does not carry pulse-edge's mark."""


class AuditLogError(PulseEdgeError):
    """The audit log cannot be written, or was altered."""


class BatchError(PulseEdgeError):
    """A batch's folder belongs to another batch, is in use, or is damaged."""


class ServeError(PulseEdgeError):
    """The local page's port or folder is in use, or what it stores is damaged."""


class CheckpointError(PulseEdgeError):
    """The source is no checkpoint that can be converted."""


class FetchError(PulseEdgeError):
    """A checkpoint could not be brought from the hub."""


class ParityError(PulseEdgeError):
    """The converted model differs from the original."""


class BenchError(PulseEdgeError):
    """Test data, answers or scores cannot be read, written or trusted."""
