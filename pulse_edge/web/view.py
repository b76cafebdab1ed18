"""What the page shows of a reading, in the order in which it shows it.

In: a `Reading` of the service, whose parts are JSON. Out: `ReadingView`, which the templates lay
out. No text is translated or escaped here: `templates/` does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_edge.common.text import duration
from pulse_edge.report.report import UNCALIBRATED
from pulse_edge.web import words
from pulse_edge.web.overread_form import OverreadForm, overread_form
from pulse_edge.web.readings import Reading, Turn

Json = Mapping[str, Any]

ENDED = frozenset({"done", "stopped", "failed"})
"""States of a question whose answer cannot change any more."""


@dataclass(frozen=True)
class Advice:
    """One thing that is wrong with the picture, and what to do about it."""

    fact: str
    """A format string with `value` and `threshold`, or the sentence itself."""
    action: str
    """What to do; empty where the fact says it too."""
    values: Mapping[str, float]
    """Values for the format string."""
    translated: bool
    """Whether the page's catalogue has the sentences; else they are English."""


@dataclass(frozen=True)
class Piece:
    """A piece of the model's text, and the verdict on it."""

    text: str
    verdict: str
    """`supported`, `contradicted`, `not measurable`, or empty where nothing is compared."""
    sentence: str = ""
    """What the trace shows instead."""


@dataclass(frozen=True)
class Row:
    """A measurement next to the model's words about it."""

    key: str
    name: str
    """Name of the measurement, to be translated; `lead` follows it."""
    lead: str
    number: str
    """Value without its unit, such as `170`; empty where `phrase` says it."""
    unit: str
    uncertainty: str
    phrase: str
    """Words to be translated instead of a number."""
    reason: str
    """Why it could not be measured; English."""
    doubt: str
    limits: str
    """Published limits, such as `120-200`; empty without."""
    outside: str
    """`above`, `below`, or empty."""
    checks: tuple[Json, ...]
    """Checks of the model's words that rest on this measurement alone."""

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return bool(self.number or self.phrase)


@dataclass(frozen=True)
class TurnView:
    """A question of the conversation and its answer."""

    turn: Turn
    question: str
    pieces: tuple[Piece, ...]
    contradictions: tuple[str, ...]
    error: str
    """Why there is no answer; English."""

    @property
    def open(self) -> bool:
        """Whether the answer can still be stopped."""
        return self.turn.state not in ENDED


@dataclass(frozen=True)
class Scale:
    """What calipers need: the picture's scale, speed and gain."""

    across: float
    """Pixels of the flat page per millimetre, from left to right."""
    down: float
    """The same from top to bottom."""
    speed: float
    """Millimetres per second."""
    gain: float
    """Millimetres per millivolt."""
    assumed: bool
    """Whether speed or gain were assumed because the page does not show them."""


@dataclass(frozen=True)
class ReadingView:
    """Everything that the page of one reading shows."""

    reading: Reading
    notice: tuple[str, ...]
    contradictions: tuple[str, ...]
    advice: tuple[Advice, ...]
    rows: tuple[Row, ...]
    tiles: tuple[Row, ...]
    reasons: tuple[str, ...]
    """Why leads are missing, a sentence each; English."""
    statements: tuple[tuple[str, tuple[Json, ...]], ...]
    """Verdict -> checks that rest on more than one measurement or on a finding, the contradicted
    first."""
    urgencies: tuple[tuple[int, tuple[Json, ...]], ...]
    """Urgency -> calibrated findings that are not judged absent."""
    absent: tuple[Json, ...]
    ranked: tuple[Json, ...]
    """Findings without calibration, the likeliest first."""
    unjudged: tuple[Json, ...]
    """Findings that the kit is known to judge badly."""
    answers: tuple[tuple[str, tuple[Piece, ...], bool], ...]
    """Question, pieces of its answer, and whether the answer is complete."""
    turns: tuple[TurnView, ...]
    scale: Scale | None
    overread: OverreadForm | None
    """What a reader decides about; None without a report."""
    reader_verdicts: Json
    """Statement -> the reader's verdict, where the reader did not agree with the software."""
    text_decisions: Mapping[int, str]
    """Number of an answer from 0 -> `changed` or `rejected`, where the reader did not agree."""
    edited_texts: tuple[str, ...]
    """The texts as the reader changed them."""
    provenance: tuple[tuple[str, str], ...]

    @property
    def active(self) -> bool:
        """Whether the page changes on its own."""
        busy = self.reading.state in ("checking", "waiting", "reading")
        return busy or any(turn.open for turn in self.turns)

    @property
    def levels(self) -> tuple[Row, ...]:
        """The ST levels away from the baseline, one a lead."""
        return tuple(row for row in self.rows if row.lead)


def reading_view(reading: Reading) -> ReadingView:
    """Return what the page of a reading shows."""
    report = reading.report or {}
    checks = [*(report.get("checks") or reading.checks or ())]
    measured = reading.measurements or {}
    findings = sorted(report.get("findings", ()), key=by_urgency_order)
    judged = [f for f in findings if f["verdict"] is not None]
    others = [f for f in findings if f["verdict"] is None]
    rows = _rows(report.get("measurements") or measured.get("measurements", ()), measured, checks)
    confirmation = reading.confirmation or {}
    texts = confirmation.get("texts", ())
    in_rows = {id(check) for row in rows for check in row.checks}
    return ReadingView(
        reading=reading,
        notice=tuple(report["notice"].splitlines()) if report else tuple(reading.notices),
        contradictions=tuple(c["text"] for c in report.get("contradictions", ())),
        advice=tuple(map(_advice, (reading.admission or {}).get("reasons", ()))),
        rows=rows,
        tiles=tuple(row for key in words.TILES for row in rows if row.key == key),
        reasons=tuple(measured.get("reasons", ())),
        statements=_by_verdict(check for check in checks if id(check) not in in_rows),
        urgencies=_by_urgency([f for f in judged if f["verdict"] != "absent"]),
        absent=tuple(f for f in judged if f["verdict"] == "absent"),
        ranked=tuple(sorted((f for f in others if _only_ranked(f)), key=lambda f: int(f["rank"]))),
        unjudged=tuple(f for f in others if not _only_ranked(f)),
        answers=_answers(report, checks),
        turns=tuple(map(_turn, reading.turns)),
        scale=_scale(reading.admission, measured),
        overread=overread_form(report, reading.confirmation) if report else None,
        reader_verdicts=reader_verdicts(confirmation),
        text_decisions={t["answer"]: t["decision"] for t in texts if t["decision"] != "agreed"},
        edited_texts=tuple(t["text"] for t in texts if t.get("text")),
        provenance=_provenance(report),
    )


def reader_verdicts(confirmation: Json) -> Json:
    """Return the reader's verdicts by statement, where the reader did not agree."""
    reviews = confirmation.get("findings", ())
    return {r["statement"]: r["verdict"] for r in reviews if r["decision"] != "agreed"}


# --- picture --------------------------------------------------------------------------------------


def _advice(reason: Json) -> Advice:
    """Return the advice for one reason.

    It stays English where the catalogue's sentences are not the ones that the check gave, as for
    the remarks on a recording.
    """
    english = words.ADVICE.get(reason["check"], ("", ""))
    values = {"value": float(reason["value"]), "threshold": float(reason["threshold"] or 0)}
    sentence = " ".join(english).format(**values).replace("in 1 places", "in 1 place")
    if sentence != reason["advice"]:
        return Advice(reason["advice"], "", {}, False)
    return Advice(*english, values, True)


def _scale(admission: Json | None, measured: Json) -> Scale | None:
    """Return the scale of calipers; None where the page has no grid or was not measured."""
    grid = (admission or {}).get("grid") or {}
    across, down = grid.get("across"), grid.get("down")
    speed, gain = (measured.get(f"millimetres_per_{unit}") for unit in ("second", "millivolt"))
    if not (across and down and speed and gain):
        return None
    certain = measured.get("speed_certain", False) and measured.get("gain_certain", False)
    return Scale(across, down, speed, gain, not certain)


# --- measurements ---------------------------------------------------------------------------------


def _rows(measurements: Iterable[Json], measured: Json, checks: Sequence[Json]) -> tuple[Row, ...]:
    """Return the rows of the table: the named measurements, then the ST levels that matter."""
    by_key = {m["key"]: m for m in measurements}
    limits = {m["key"]: m.get("limits") or () for m in measured.get("measurements", ())}
    levels = [
        key
        for key, m in by_key.items()
        if key.startswith(words.ST_LEVEL) and abs(m["value"] or 0.0) >= words.ST_SHOWN
    ]
    return tuple(
        _row(by_key[key], limits.get(key, ()), _checks_of(key, checks))
        for key in (*words.MEASUREMENTS, *levels)
        if key in by_key
    )


def _checks_of(key: str, checks: Iterable[Json]) -> tuple[Json, ...]:
    return tuple(
        check
        for check in checks
        if not check["finding"] and [m["key"] for m in check["used"]] == [key]
    )


def _row(measurement: Json, limits: Sequence[Json], checks: tuple[Json, ...]) -> Row:
    key, value = measurement["key"], measurement["value"]
    name, lead = words.MEASUREMENTS.get(key, ""), ""
    if key.startswith(words.ST_LEVEL):
        name, lead = words.ST_NAME, key.removeprefix(words.ST_LEVEL)
    number = phrase = uncertainty = ""
    if value is not None:
        digits = 2 if measurement["unit"] == "mV" else 0
        sign = "+" if lead else ""
        if key in words.PHRASES:
            phrase = words.PHRASES[key][bool(value)]
        else:
            number = f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")
        if measurement["uncertainty"] is not None:
            uncertainty = f"{measurement['uncertainty']:.{digits}f}"
    shown, outside = _limits(value, limits)
    return Row(
        key,
        name,
        lead,
        number,
        words.UNITS.get(measurement["unit"], str(measurement["unit"])),
        uncertainty,
        phrase,
        measurement.get("reason") or "",
        measurement.get("doubt") or "",
        shown,
        outside,
        checks,
    )


def _limits(value: float | None, limits: Sequence[Json]) -> tuple[str, str]:
    """Return the first published limits as text, and the side on which the value lies outside."""
    for limit in limits:
        low, high = limit["low"], limit["high"]
        if low is None and high is None:
            continue
        text = f"{low:g}\N{EN DASH}{high:g}" if None not in (low, high) else ""
        text = text or (f"\N{LESS-THAN OR EQUAL TO} {high:g}" if low is None else "")
        text = text or f"\N{GREATER-THAN OR EQUAL TO} {low:g}"
        if value is None:
            return text, ""
        outside = "above" if high is not None and value > high else ""
        return text, "below" if low is not None and value < low else outside
    return "", ""


def _by_verdict(checks: Iterable[Json]) -> tuple[tuple[str, tuple[Json, ...]], ...]:
    """Return the checks by verdict, the contradicted first, each sentence once."""
    groups: dict[str, dict[str, Json]] = {verdict: {} for verdict in words.CHECK_VERDICTS}
    for check in checks:
        groups[check["verdict"]].setdefault(check["sentence"], check)
    return tuple((verdict, tuple(group.values())) for verdict, group in groups.items() if group)


# --- findings -------------------------------------------------------------------------------------


def by_urgency_order(finding: Json) -> tuple[int, float]:
    """Return the key that sorts findings: the most urgent first, then the most probable."""
    return int(finding["urgency"]), -float(finding["probability"] or 0.0)


def _only_ranked(finding: Json) -> bool:
    return bool(finding["reason"] == UNCALIBRATED)


def _by_urgency(findings: Iterable[Json]) -> tuple[tuple[int, tuple[Json, ...]], ...]:
    groups: dict[int, list[Json]] = {}
    for finding in findings:
        groups.setdefault(int(finding["urgency"]), []).append(finding)
    return tuple((urgency, tuple(group)) for urgency, group in sorted(groups.items()))


# --- text -----------------------------------------------------------------------------------------


def _answers(
    report: Json, checks: Sequence[Json]
) -> tuple[tuple[str, tuple[Piece, ...], bool], ...]:
    return tuple(
        (
            answer["question"],
            pieces(answer["text"], [c for c in checks if c.get("answer", 0) == number]),
            bool(answer["complete"]),
        )
        for number, answer in enumerate(report.get("answers", ()))
    )


def pieces(text: str, checks: Iterable[Json]) -> tuple[Piece, ...]:
    """Cut a text where a checked statement begins and ends; overlapping statements: the first."""
    result, position = [], 0
    spans = [c for c in checks if c["start"] is not None and c["end"] is not None]
    for check in sorted(spans, key=lambda c: (int(c["start"]), -int(c["end"]))):
        start, end = int(check["start"]), int(check["end"])
        if not position <= start < end <= len(text):
            continue
        result.append(Piece(text[position:start], ""))
        result.append(Piece(text[start:end], check["verdict"], check["sentence"]))
        position = end
    result.append(Piece(text[position:], ""))
    return tuple(piece for piece in result if piece.text)


def _turn(turn: Turn) -> TurnView:
    return TurnView(
        turn=turn,
        question=turn.question,
        pieces=pieces(turn.text, turn.checks),
        contradictions=tuple(c["text"] for c in turn.contradictions),
        error=turn.error or "",
    )


def _provenance(report: Json) -> tuple[tuple[str, str], ...]:
    """Return names and values that trace the report; the names are to be translated."""
    if not report:
        return ()
    seconds = sum(report["seconds"].values())
    values = {
        "kit": report["kit"]["id"],
        "kit_sha256": report["kit"]["sha256"],
        "page_sha256": report["page_sha256"],
        "device": report["device"],
        "seconds": duration(seconds),
        "versions": ", ".join(f"{name} {v}" for name, v in report["versions"].items()),
    }
    return tuple((words.PROVENANCE[key], str(v)) for key, v in values.items())
