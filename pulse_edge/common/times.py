"""Moments as text: UTC for programs, local time for people. Standard library only."""

from __future__ import annotations

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """One moment in both forms, ISO 8601."""

    utc: str
    """UTC, ending in Z."""
    local: str
    """Local time of this machine to the second, with its offset from UTC."""


def now(precision: str = "milliseconds") -> Moment:
    """Return the present moment; `precision` of UTC as `datetime.isoformat` takes it."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    utc = moment.isoformat(timespec=precision).replace("+00:00", "Z")
    return Moment(utc, moment.astimezone().isoformat(timespec="seconds"))


def for_people(utc: str, local: str = "") -> str:
    """Return UTC and, in brackets, local time with its offset.

    Without `local` it is the local time of this machine.

    A text that is no time is returned as it is.
    """
    try:
        if local:
            moment = datetime.datetime.fromisoformat(local)
        else:
            with_offset = utc.removesuffix("Z") + "+00:00"
            moment = datetime.datetime.fromisoformat(with_offset).astimezone()
    except ValueError:
        return utc
    return f"{utc} ({moment.strftime('%Y-%m-%d %H:%M:%S %z')})"
