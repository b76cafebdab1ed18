"""What is measured on a traced signal: each value with its uncertainty, or the reason why there is
none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One number taken from the trace."""

    key: str
    """Such as `rate`, `pr`, `qrs`, `qt`, `qtc_fridericia`, `qrs_axis`, `st_j60.V2`."""
    name: str
    """In words, such as `ventricular rate`."""
    value: float | None
    """None: not measurable."""
    unit: str
    """`bpm`, `ms`, `degrees`, `mV`, or empty for a count or a yes (1.0) and a no (0.0)."""
    uncertainty: float | None
    """Half the width of the interval that holds the truth in 95 of 100 cases, in the same unit."""
    leads: tuple[str, ...]
    """The leads that gave the value."""
    reason: str = ""
    """Why it is not measurable; else empty."""
    doubt: str = ""
    """What the value rests on without proof, such as an assumed paper speed; else empty."""
