"""Why a request of a program has no result: an HTTP status, a type, and the program's message.

In: errors of this program, or a reading that has no report. Out: `RequestError`, as JSON in the
form of `/api` or in that of OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulse_edge.common.text import visible
from pulse_edge.errors import PageRefused, PulseEdgeError, UsageError
from pulse_edge.web import responses
from pulse_edge.web.child import error_of

if TYPE_CHECKING:
    from pulse_edge.web.service import Reading


@dataclass(eq=False)  # not frozen: Python writes to exceptions that pass a context manager
class RequestError(Exception):
    """A request that has no result."""

    kind: str
    """Of responses.STATUS."""
    message: str
    """What is wrong, and what to do next."""
    exit_code: int = 1
    """Exit code of the command that would have failed with it."""
    parameter: str | None = None
    """Field of the request that is wrong, where there is one."""
    code: str | None = None
    """Code for OpenAI's clients; None: the type is the code."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return responses.STATUS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Return the body in the form of `/api`."""
        return responses.error_json(self.message, self.kind, self.exit_code)

    def to_openai_json(self) -> dict[str, Any]:
        """Return the body in the form of OpenAI's API."""
        code = self.code or self.kind
        return responses.openai_error_json(self.message, self.status, code, self.parameter)


def usage(message: str, parameter: str | None = None, code: str | None = None) -> RequestError:
    """Return the error of a request that asks for something that does not exist."""
    return RequestError("usage_error", visible(message), 2, parameter, code)


def of_error(error: PulseEdgeError, parameter: str | None = None) -> RequestError:
    """Return the error of a request that failed with an error of this program."""
    return RequestError(responses.kind_of(error), visible(str(error)), error.exit_code, parameter)


def of_event(event: Mapping[str, Any]) -> RequestError:
    """Return the error of a page for which a worker has no result."""
    return of_error(error_of(event))


def of_reading(reading: Reading) -> RequestError:
    """Return the error of a reading that was refused or failed.

    A page without an admission result could not be read as a page at all.
    """
    if reading.state == "removed":
        return RequestError("not_found", "The page was removed before it was read.")
    message = visible(reading.error or f"{reading.name}: the reading was stopped.")
    if reading.exit_code == PageRefused.exit_code:
        return RequestError("page_refused", message, reading.exit_code)
    if reading.exit_code == UsageError.exit_code:
        return RequestError("usage_error", message, reading.exit_code)
    kind = "page_unreadable" if reading.admission is None else "reading_failed"
    return RequestError(kind, message, max(1, reading.exit_code))


def not_ready(about: dict[str, Any]) -> RequestError | None:
    """Return the error of a model that could not be loaded; None where it is loading or ready."""
    model = about.get("model") or {}
    if model.get("state") != "failed":
        return None
    reason = model.get("reason") or "The reason is on the console of pulse-edge serve."
    return RequestError("model_not_ready", visible(f"the model could not be loaded: {reason}"))
