"""What the local page shows about one uploaded page: frozen, and as JSON. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pulse_edge.errors import UsageError

State = Literal["checking", "refused", "waiting", "reading", "done", "failed", "removed"]
TurnState = Literal["waiting", "running", "done", "stopped", "failed"]
SOURCES = ("local", "phone", "api")
MAX_QUESTION = 4000
"""Characters of a question: far more than fit next to a page in a model's context."""
SHORT_TEXT = 300
"""Characters of an answer in a list of pages."""
_AGES = (0, 130)


@dataclass(frozen=True)
class Progress:
    """How far the work on a page is."""

    stage: str
    """`check`, `wait`, `verify`, `load`, `encode`, `prefill`, `answer`, `findings` or `log`."""
    done: int
    total: int
    """In the unit of the stage: pages before this one, per mille, tiles, image tokens, tokens,
    questions."""
    seconds_left: float | None
    """Until the answer is whole; None: this machine's speed is not known yet."""


@dataclass(frozen=True)
class Turn:
    """One further question about a page, and its answer as far as it has come."""

    number: int
    """From 1."""
    question: str
    text: str
    complete: bool
    """False: cut off at the token limit, stopped, or not at its end yet."""
    state: TurnState
    checks: tuple[dict[str, Any], ...] = ()
    """What the trace says about the answer's statements, as in a report."""
    contradictions: tuple[dict[str, Any], ...] = ()
    """As in a report."""
    error: str | None = None
    fresh: bool = False
    """Begins a new conversation: the turns before it were not part of the prompt."""


@dataclass(frozen=True)
class Reading:
    """One page: what was uploaded, measured and answered."""

    id: str
    """128 random bits, URL-safe."""
    name: str
    """Name of the uploaded file, printable, with `#N` for page N of several."""
    created: str
    """UTC, ISO 8601."""
    source: str
    """Of SOURCES."""
    state: State
    owner: str | None = None
    """Who uploaded it, where that is not the user at the laptop: the id of a paired phone."""
    place: int | None = None
    """Position in the queue, from 1; None: it does not wait."""
    progress: Progress | None = None
    text: str = ""
    """The answer as far as it has come."""
    notices: tuple[str, ...] = ()
    """What must be read before the answer; there from its first word on, and in the report."""
    admission: dict[str, Any] | None = None
    """What `check --json` prints."""
    measurements: dict[str, Any] | None = None
    """What `measure --json` prints; there before the model has answered."""
    report: dict[str, Any] | None = None
    """The report, as `interpret --json` prints it."""
    error: str | None = None
    """Why there is no answer, and the next step."""
    exit_code: int = 0
    """That of the error, else 0."""
    turns: tuple[Turn, ...] = ()
    confirmation: dict[str, Any] | None = None
    """What the reader confirmed; None: not yet."""
    pictures: tuple[str, ...] = ()
    """Kinds of pictures that exist: `page`, `overlay`, `trace`, `thumb`."""
    kept_until: str | None = None
    """Last local day on which upload and pictures are stored; None: until it is confirmed or
    removed."""

    @property
    def checks(self) -> tuple[dict[str, Any], ...]:
        """The report's checks of the model's words against the trace."""
        return tuple(self.report["checks"]) if self.report else ()

    @property
    def settled(self) -> bool:
        """Whether neither worker has anything to do for it."""
        return self.state in ("refused", "done", "failed", "removed") and not any(
            turn.state in ("waiting", "running") for turn in self.turns
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that events and the API send."""
        return dataclasses.asdict(self) | {"checks": list(self.checks)}

    def to_short_json(self) -> dict[str, Any]:
        """Return what a list of pages shows: without measurements, report and long texts."""
        short = dataclasses.replace(
            self, measurements=None, report=None, turns=(), text=self.text[:SHORT_TEXT]
        )
        return short.to_json()


@dataclass(frozen=True)
class PageRequest:
    """What is asked about the pages of one upload."""

    questions: tuple[str, ...] = ()
    """Empty: those of the server, which are a clinical report."""
    findings: bool | None = None
    """Judge the fixed list of findings; None: as the server was started."""
    max_tokens: int | None = None
    age_years: float | None = None
    sex: Literal["male", "female"] | None = None
    no_rectify: bool = False
    """Leave the page's pixels as they are."""
    force: bool = False
    """Read the page though it is refused."""
    image_tokens: str | None = None
    """Image tokens that are read; None: as the server was started."""
    no_measure: bool = False
    """Measure no trace, check no statement."""
    json_schema: Any = None
    """JSON Schema that each answer satisfies; None: free text."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier questions about the page, each with its answer, as a client brings them."""
    priority: bool = field(default=False)
    """Read before the pages that wait, as for a client that holds a connection open."""

    @classmethod
    def of(cls, options: dict[str, Any] | None) -> PageRequest:
        """Check options as a form or a JSON object gives them. Raises UsageError."""
        given = {k: v for k, v in (options or {}).items() if v not in (None, "", [])}
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(given.keys() - names):
            raise UsageError(f"{unknown[0][:40]!r}: no such option. Leave it out.")
        questions = tuple(map(str, given.get("questions", ())))
        for question in questions:
            check_question(question)
        sex = given.get("sex")
        if sex not in (None, "male", "female"):
            raise UsageError("sex: expected male or female. Choose one, or leave it out.")
        return cls(
            questions=questions,
            findings=_flag("findings", given.get("findings")),
            max_tokens=_whole("max_tokens", given.get("max_tokens")),
            age_years=_age(given.get("age_years")),
            sex=sex,
            no_rectify=bool(_flag("no_rectify", given.get("no_rectify"))),
            force=bool(_flag("force", given.get("force"))),
            image_tokens=given.get("image_tokens"),
            no_measure=bool(_flag("no_measure", given.get("no_measure"))),
            json_schema=given.get("json_schema"),
            history=_history(given.get("history", ())),
            priority=bool(given.get("priority", False)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the database stores."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> PageRequest:
        """Return the request of `to_json`."""
        given = stored | {"questions": tuple(stored["questions"])}
        return cls(**given | {"history": _history(stored.get("history", ()))})


def check_question(question: str) -> None:
    """Raise UsageError for a question that cannot be asked."""
    if not question.strip():
        raise UsageError("the question is empty. Type a question about the page.")
    if len(question) > MAX_QUESTION:
        raise UsageError(
            f"the question has {len(question):,} characters; {MAX_QUESTION:,} is the limit. "
            "Shorten it."
        )


def _history(turns: Any) -> tuple[tuple[str, str], ...]:
    return tuple((question, answer) for question, answer in turns)


def _flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise UsageError(f"{name}: expected true or false.")


def _whole(name: str, value: Any) -> int | None:
    try:
        number = None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number is not None and not 1 <= number <= 1 << 20:
        raise UsageError(f"{name}: expected a whole number from 1.")
    return number


def _age(value: Any) -> float | None:
    try:
        age = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        age = float("nan")
    if age is not None and not _AGES[0] <= age <= _AGES[1]:
        raise UsageError(f"age_years: expected a number from {_AGES[0]} to {_AGES[1]}.")
    return age
