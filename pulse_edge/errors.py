"""The one tree of errors.

    PulseEdgeError            exit code 1
    |- UsageError             2   the command line or the call asks for something that does not exist
    |- ScanError              1   the file cannot be read as a page
    |- PageRefused            3   the page was read, and must not be interpreted
    |- PageFailed             1   the program failed on the page
    |- OutputError            1   what was asked for cannot be written to where it should go
    |- KitError               1   a kit is absent, broken, foreign, or newer than this program
    |- DeviceError            1   the device that was asked for cannot be used
    |- MemoryShortage         1   the machine has too little free memory for the kit
    |- EngineError            1   ONNX Runtime or llama.cpp failed, or is not installed properly
    |- ContextError           1   page and question do not fit the model's context
    |- FolderError            1   a folder or file that pulse-edge would change is not its own
    |- AuditLogError               1   the record of answers cannot be written, or is not as it was written
    |- BatchError             1   a batch's folder belongs to another batch, or somebody else is working on it
    |- CheckpointError        1   (workstation) the source is not a checkpoint that can be converted
    |- FetchError             1   (workstation) a checkpoint could not be brought from the hub
    |- ParityError            1   (workstation) the converted model does not agree with the original
    `- BenchError             1   (workstation) test data, answers or scores cannot be read, written or trusted

Every message names the file, what is wrong, and the next step. Standard library only.
"""

from __future__ import annotations

from typing import ClassVar


class PulseEdgeError(Exception):
    """Base of everything that pulse-edge raises on purpose; `exit_code` is the command's verdict."""

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
    """The program failed on a page in a way that nobody foresaw. The other pages go on."""


def on_page(name: str, error: Exception) -> PulseEdgeError:
    """The error to record for a page called `name`: the project's own as it is, any other as PageFailed."""
    if isinstance(error, PulseEdgeError):
        return error
    if isinstance(error, MemoryError):
        return PageFailed(
            f"{name}: takes more memory than is free. Close other programs, or scan the page at 300 dpi."
        )
    why = " ".join(str(error).split())[:200]
    failure = PageFailed(
        f"{name}: the program failed on this page ({type(error).__name__}: {why}). Export the page as PNG and try that; "
        "report the fault with what --debug shows."
    )
    failure.__cause__ = error  # for the traceback of --debug
    return failure


class OutputError(PulseEdgeError):
    """Standard output or the folder of the documents takes nothing: no page's fault, so nothing more is answered."""


class KitError(PulseEdgeError):
    """A kit is absent, unfinished, altered, foreign, or newer than this program."""


class DeviceError(PulseEdgeError):
    """The device that was asked for cannot be used."""


class MemoryShortage(PulseEdgeError):
    """The machine has too little free memory for the kit."""


class EngineError(PulseEdgeError):
    """ONNX Runtime or llama.cpp failed, or is not installed properly."""


class ContextError(PulseEdgeError):
    """Page and question do not fit the model's context."""


class FolderError(PulseEdgeError):
    """A folder or a file that would have to be changed does not carry pulse-edge's mark."""


class AuditLogError(PulseEdgeError):
    """The record of answers cannot be written, or is not as it was written."""


class BatchError(PulseEdgeError):
    """A batch's folder cannot be used: another batch's, in use, or damaged."""


class CheckpointError(PulseEdgeError):
    """The source is not a checkpoint that can be converted."""


class FetchError(PulseEdgeError):
    """A checkpoint could not be brought from the hub."""


class ParityError(PulseEdgeError):
    """The converted model does not agree with the original."""


class BenchError(PulseEdgeError):
    """Test data, answers or scores cannot be read, written or trusted."""
