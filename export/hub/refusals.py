"""Turn what huggingface_hub and requests raise into a FetchError of one line with the next step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.models import ModelSpec
from pulse_edge.errors import FetchError

if TYPE_CHECKING:
    from requests import HTTPError

AGAIN = "Run the same command again: it resumes."


@contextlib.contextmanager
def fetch_errors(spec: ModelSpec, hub: str, file: str | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub or requests raises into a FetchError of one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as e:  # requests' errors are OSErrors
        about = f"{spec.name}, {file}" if file else spec.name
        raise FetchError(f"{about}: {_reason(e, spec, hub)}") from e


def _reason(error: BaseException, spec: ModelSpec, hub: str) -> str:
    """Say what went wrong, and the next step."""
    from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError
    from requests.exceptions import HTTPError, RequestException

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the library wraps every error in "check your connection"
    if isinstance(error, HTTPError):
        return _http_reason(error, spec, hub)
    if isinstance(
        error, FileMetadataError | ValueError | KeyError | TypeError
    ):  # no JSON, no ETag, or no such address
        return (
            f"{hub} does not answer as a hub does ({_first_line(error)}). Check HF_ENDPOINT, and "
            "any proxy between."
        )
    if isinstance(error, RequestException):
        return (
            f"no connection to {hub}, or it broke off ({_innermost(error)}). {AGAIN} "
            "If all files are there already, HF_HUB_OFFLINE=1 uses them."
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. Put that right. {AGAIN}"
    return f"the transfer broke off ({_first_line(error)}). {AGAIN}"


def _http_reason(error: HTTPError, spec: ModelSpec, hub: str) -> str:
    """Say what an HTTP status of failure means, and the next step."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(error.response, "status_code", None)
    if isinstance(error, RevisionNotFoundError):
        return f"{hub}/{spec.hub} has no commit {spec.revision}. Correct `revision` in models.yaml."
    if isinstance(error, GatedRepoError):
        return (
            f"{hub}/{spec.hub} is gated (HTTP {status}). Accept its terms in a browser, set "
            "HF_TOKEN to a token of that account, and run the same command again."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no repository {spec.hub}, or hides it from you. Correct `hub` in "
            "models.yaml; a private repository needs HF_TOKEN."
        )
    if status in (401, 403):
        return (
            f"{hub} refuses access to {spec.hub} (HTTP {status}). Set HF_TOKEN to a token that may "
            "read it."
        )
    if status == 404:
        return (
            f"{hub} has no such file in {spec.hub} at {spec.revision} (HTTP 404). Ask another hub: "
            "set HF_ENDPOINT."
        )
    return f"{hub} answered with HTTP {status}. Wait a little. {AGAIN}"


def _innermost(error: BaseException) -> str:
    """Return the system's own words at the bottom of a connection error.

    That is "Connection refused" instead of three layers of repr.
    """
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    return getattr(reason, "strerror", None) or _first_line(reason)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
