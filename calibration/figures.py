"""The figures of an accuracy report, as report.json has them (see docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.bootstrap import NO_ESTIMATE, Estimate
from calibration.findings.file import FindingsFile
from calibration.results import KitRecord, RunSettings


@dataclass(frozen=True)
class Score(Estimate):
    """A score, with its difference to the reference kit's for every other kit."""

    difference: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class DiagnosisFigures:
    """How well one diagnosis is recognised."""

    pages: int
    """Pages that have it."""
    sensitivity: Score
    specificity: Score


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Kullback-Leibler divergence of the next token from the reference's, in nats."""

    tokens: int
    mean: Estimate
    quantiles: Mapping[str, float]
    """By level, such as "0.99"."""


@dataclass(frozen=True, kw_only=True)
class ForcedFigures:
    """Figures of teacher forcing: on the right answers and on the reference kit's answers."""

    gold_perplexity: Estimate
    kld: Divergence | None = None
    """None for the reference itself."""
    same_top: Estimate | None = None
    """Share of tokens with the same most likely token."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How answers differ from the reference kit's."""

    lost: tuple[str, ...]
    """Ids of questions whose answer turned from right to wrong."""
    gained: tuple[str, ...]
    texts_changed: int
    mcnemar_p: float


@dataclass(frozen=True, kw_only=True)
class TaskFigures(ForcedFigures):
    """One kit on one task."""

    questions: int
    primary: str
    """The score that stands for the task."""
    right: int
    unread: int
    refused: int
    cut_off: int
    scores: Mapping[str, Score]
    diagnoses: Mapping[str, DiagnosisFigures]
    changes: Changes | None = None
    """None for the reference."""

    @property
    def difference(self) -> Estimate:
        """Of the primary score to the reference's."""
        return self.scores[self.primary].difference or NO_ESTIMATE

    @property
    def lost(self) -> tuple[str, ...]:
        """Ids of answers that turned from right to wrong."""
        return self.changes.lost if self.changes else ()

    @property
    def gained(self) -> tuple[str, ...]:
        """Ids of answers that turned from wrong to right."""
        return self.changes.gained if self.changes else ()


@dataclass(frozen=True, kw_only=True)
class KitFigures(KitRecord, ForcedFigures):
    """One kit on all tasks."""

    tasks: Mapping[str, TaskFigures]
    score: Score
    """Mean of the tasks' primary scores."""
    questions: int
    first_token_seconds: float | None
    """Median time from the page to the first token of its first answer."""
    tokens_per_second: float | None

    @property
    def lost(self) -> int:
        """Answers that turned from right to wrong."""
        return sum(len(task.lost) for task in self.tasks.values())

    @property
    def gained(self) -> int:
        """Answers that turned from wrong to right."""
        return sum(len(task.gained) for task in self.tasks.values())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All kits of a folder of results, the reference first."""

    reference: str
    run: RunSettings
    kits: Mapping[str, KitFigures]
    incomplete: tuple[str, ...]
    """Sentences about questions that some kit has not answered yet."""

    @property
    def reference_kit(self) -> KitFigures:
        """Figures of the reference."""
        return self.kits[self.reference]

    @property
    def others(self) -> list[str]:
        """Names of the kits that are compared with the reference."""
        return [name for name in self.kits if name != self.reference]


@dataclass(frozen=True)
class GateResult:
    """What a gate of a recipe says of a kit."""

    gate: str
    what: str
    value: float | None
    """None: not measured, which does not pass."""
    limit: float
    passed: bool


@dataclass(frozen=True)
class ChangedAnswer:
    """A kit's answer that turned: `way` is "lost" or "gained"."""

    way: str
    text: str | tuple[str, ...]


@dataclass(frozen=True)
class Flip:
    """A question whose answer turned in some kit."""

    task: str
    id: str
    image: str
    question: str | tuple[str, ...]
    gold: tuple[str, ...]
    reference: str | tuple[str, ...]
    answers: Mapping[str, ChangedAnswer]


@dataclass(frozen=True, kw_only=True)
class ReportFigures(Comparison):
    """Everything in report.json."""

    findings: Mapping[str, FindingsFile]
    """Calibration of findings by `KIT on DATA`, without the answers page by page."""
    gates: Mapping[str, Sequence[GateResult]]
    recipe: str | None
    verdicts: Mapping[str, str]
    flips: tuple[Flip, ...]
    limits: tuple[str, ...]
    """Sentences about what the figures do not show."""

    @property
    def failed_gates(self) -> list[str]:
        """The gates that did not pass, as `kit: gate`."""
        return [
            f"{name}: {result.gate}"
            for name, results in self.gates.items()
            for result in results
            if not result.passed
        ]
