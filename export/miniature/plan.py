"""The plan of the miniature's training: its stages, their lengths and learning rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulse_edge.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """One part of the plan."""

    name: str  # tower, language, real or words
    steps: int
    batch: int
    passes: int  # repetitions of each block of lessons
    block: int
    muon: float  # learning rate of matrices inside layers
    adam: float  # learning rate of everything else
    tower: float  # factor on both for the tower; 0 trains the language model only
    turns: int  # questions about each page; 0 leaves the language model alone
    fall: float = 0.25  # share of the steps, at the end, in which the rates fall to zero
    warm: int = 100
    # Share of the patches without a trace that the tower reads; with all of them they take half of
    # its time.
    blank: float = 1.0


PLAN = (
    Stage(
        "tower",
        steps=9000,
        batch=8,
        passes=3,
        block=512,
        muon=1e-3,
        adam=5e-4,
        tower=1.0,
        turns=0,
        fall=0.8,
        blank=0.15,
    ),
    Stage(
        "language",
        steps=4000,
        batch=4,
        passes=2,
        block=256,
        muon=2e-3,
        adam=1e-3,
        tower=0.25,
        turns=8,
        fall=0.6,
    ),
    Stage(
        "real",
        steps=500,
        batch=4,
        passes=2,
        block=256,
        muon=4e-4,
        adam=2e-4,
        tower=0.3,
        turns=8,
        fall=1.0,
    ),
    Stage(
        "words",
        steps=900,
        batch=4,
        passes=2,
        block=256,
        muon=1e-3,
        adam=5e-4,
        tower=0.0,
        turns=12,
        fall=0.8,
    ),
)


@dataclass
class Progress:
    """How far a training has come."""

    stage: int = 0
    step: int = 0  # within the stage
    pages: int = 0
    minutes: float = 0.0


def planned(plan: tuple[Stage, ...], steps: tuple[str, ...]) -> tuple[Stage, ...]:
    """Return the plan with other lengths, given as STAGE=N; 0 skips a stage. Raises UsageError."""
    lengths = {}
    for wish in steps:
        name, _, number = wish.partition("=")
        if name not in {s.name for s in plan} or not number.isdecimal():
            names = ", ".join(s.name for s in plan)
            raise UsageError(
                f"--steps {wish}: give STAGE=N with a stage of {names}, and 0 to leave it out."
            )
        lengths[name] = int(number)
    return tuple(replace(s, steps=lengths.get(s.name, s.steps)) for s in plan)
