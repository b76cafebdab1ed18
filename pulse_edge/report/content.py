"""The content of a report as people read it, the same in every form.

HTML and PDF lay it out section by section.

In: a `Report`. Out: `Content`, whose texts are printable. To add a section, add a function to
SECTIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pulse_edge.common import times
from pulse_edge.common.text import one_line, printable
from pulse_edge.measurement.checks import ORDER
from pulse_edge.measurement.summary import summary_lines
from pulse_edge.report.overread import differences, reviews, text_review
from pulse_edge.report.report import UNCALIBRATED, Answer, Finding, Report

TITLE = "12-lead ECG page, read by software"
ALTERNATIVE_TEXT = (
    "The ECG page as it was read. It must be looked at by a clinician; "
    "this text does not replace the picture."
)
NONE_PRESENT = "No finding of the list is judged present."
NO_VERDICTS = (
    "No verdicts: this kit is not calibrated for any finding of the list. Their order stands below."
)
RANKED = "ranked by the model, not calibrated for this kit: no verdicts and no probabilities"
NOT_CHECKED = "The text is what the model says. It is not checked against the trace."
MEASURED_ON = "Measured on the trace by software, without the model"
URGENCY = {1: "act now", 2: "soon", 3: "note", 4: "none"}
AGREES = "The reader agrees with every verdict and every text of the software."
EDITED = "As the reader edited it:"
AS_WRITTEN = "As the software wrote it, not confirmed:"
REJECTED = "Rejected by the reader. The software wrote:"
UNSIGNED = ("ECG read by (name)", "Signature", "Date and time")
"""Lines for a pen below a report that no reader has confirmed."""
QUESTION_LENGTH = 80
"""Characters of a question that name it in a list."""


@dataclass(frozen=True)
class Block:
    """A paragraph, a list or a table."""

    kind: Literal["paragraph", "answer", "list", "table"]
    """`answer` is a paragraph that keeps its line breaks."""
    text: str = ""
    """Text of a paragraph or an answer."""
    label: str = ""
    """Bold words before the text."""
    items: tuple[str, ...] = ()
    """Items of a list."""
    head: tuple[str, ...] = ()
    """Heads of a table's columns."""
    rows: tuple[tuple[str, ...], ...] = ()
    """Rows of a table."""


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    heading: str
    """Text of the heading."""
    blocks: tuple[Block, ...]
    """Content in order."""
    boxed: bool = False
    """Drawn with a frame, because it must be seen first."""


@dataclass(frozen=True)
class Content:
    """A report as people read it."""

    notice: str
    """Lines to read before any answer."""
    overread: str
    """Unconfirmed, or who confirmed the report and when."""
    intended_use: str
    """What the report is for."""
    program: str
    """Name and version of the program."""
    caption: str
    """Line below the picture of the page."""
    sections: tuple[Section, ...]
    """Sections between the picture and the origin."""
    origin: Section
    """Kit, hashes, time and versions, in small type at the end."""
    signature: tuple[str, str, str]
    """What stands below the three lines for name, signature, date and time."""


def content(report: Report) -> Content:
    """Return the content of a report."""
    return Content(
        notice=report.notice,
        overread=report.overread,
        intended_use=report.intended_use,
        program=f"pulse-edge {report.versions.get('pulse-edge', '')}".strip(),
        caption=f"The page as it was read: {one_line(report.file)}",
        sections=tuple(section for build in SECTIONS for section in build(report)),
        origin=_origin(report),
        signature=_signature(report),
    )


def _signature(report: Report) -> tuple[str, str, str]:
    confirmation = report.confirmation
    if confirmation is None:
        return UNSIGNED
    moment = times.for_people(confirmation.time, confirmation.local_time)
    return f"ECG read by {confirmation.reader}", "Signature", moment


# --- sections -------------------------------------------------------------------------------------


def _overread(report: Report) -> Iterator[Section]:
    confirmation = report.confirmation
    if confirmation is None:
        return
    blocks = []
    if confirmation.conclusion.strip():
        blocks.append(Block("paragraph", label="Conclusion:"))
        blocks.append(Block("answer", printable(confirmation.conclusion)))
    if items := differences(report):
        rows = tuple((one_line(d.name), d.software, d.reader) for d in items)
        blocks.append(Block("table", head=("Finding", "Software", "Reader"), rows=rows))
        notes = tuple(f"{one_line(d.name)}: {printable(d.comment)}" for d in items if d.comment)
        blocks += [Block("list", items=notes)] if notes else []
    elif confirmation.overall == "agreed":
        blocks.append(Block("paragraph", AGREES))
    if confirmation.comment.strip():
        blocks.append(Block("paragraph", printable(confirmation.comment), label="Comment:"))
    if blocks:
        yield Section(f"Overread by {one_line(confirmation.reader)}", tuple(blocks), boxed=True)


def _contradictions(report: Report) -> Iterator[Section]:
    if items := tuple(printable(c.text) for c in report.contradictions):
        block = Block("list", items=items)
        yield Section("Contradictions: look here first", (block,), boxed=True)


def _page_quality(report: Report) -> Iterator[Section]:
    quality = report.quality
    if not quality:
        return
    scale, turned = quality["grid"]["pixels_per_mm"], quality["sheet"]["rotation"]
    scale_text = f"{scale:.1f} pixels/mm" if scale else "not known, no grid"
    pixels = "straightened" if quality["changed"] else "pixels as they came"
    verdict, *reasons = page_lines(quality)
    items = [f"{verdict} Scale: {scale_text}, turned by {turned} degrees, {pixels}."]
    items += [reason.removeprefix("- ") for reason in reasons]
    yield Section("The page as a picture", (Block("list", items=tuple(map(one_line, items))),))


def _measurements(report: Report) -> Iterator[Section]:
    if report.measurements:
        lines = tuple(map(one_line, summary_lines(report.measurements)))
        yield Section(MEASURED_ON, (Block("list", items=lines),))


def _checks(report: Report) -> Iterator[Section]:
    rows = tuple(
        (check.verdict, one_line(check.sentence))
        for verdict in ORDER
        for check in report.checks
        if check.verdict == verdict
    )
    if rows:
        head = ("Verdict", "Statement and trace")
        table = Block("table", head=head, rows=tuple(dict.fromkeys(rows)))
        yield Section("The model's statements against the trace", (table,))


def _findings(report: Report) -> Iterator[Section]:
    if not report.findings:
        return
    judged, reader = by_urgency(report), reviews(report)
    both = bool(reader)
    rows = tuple(
        (
            URGENCY[f.urgency],
            f.verdict or "",
            *((_readers_verdict(report, f),) if both else ()),
            f"{f.probability:.0%}",
            f.name,
            ", ".join(f.codes.values()),
        )
        for f in judged
        if f.verdict != "absent"
    )
    head = ("Urgency", "Software" if both else "Verdict", *(("Reader",) if both else ()))
    head = (*head, "Probability", "Finding", "SCP-ECG, SNOMED CT")
    without = Block("paragraph", NONE_PRESENT if judged else NO_VERDICTS)
    blocks = [Block("table", head=head, rows=rows) if rows else without]
    absent = [f for f in judged if f.verdict == "absent"]
    agreed = [f.name for f in absent if not both or _readers_verdict(report, f) == "absent"]
    if agreed:
        blocks.append(Block("paragraph", ", ".join(agreed), label="Absent:"))
    if differing := [f.name for f in absent if f.name not in agreed]:
        label = "Absent for the software alone:"
        blocks.append(Block("paragraph", ", ".join(differing), label=label))
    yield Section("Findings, by urgency", tuple(blocks))


def _readers_verdict(report: Report, finding: Finding) -> str:
    """Return the reader's verdict on a finding, or `not judged`."""
    review = reviews(report).get(finding.statement)
    return "not judged" if review is None or review.verdict is None else review.verdict


def _answers(report: Report) -> Iterator[Section]:
    for number, answer in enumerate(report.answers):
        yield Section(printable(answer.question), tuple(_versions(report, number, answer)))


def _versions(report: Report, number: int, answer: Answer) -> Iterator[Block]:
    """Yield a text as the reader edited it, and as the software wrote it where they differ."""
    review = text_review(report, number)
    if review is not None and review.decision == "changed":
        yield Block("paragraph", label=EDITED)
        yield Block("answer", printable(review.text))
        yield Block("paragraph", label=AS_WRITTEN)
    elif review is not None and review.decision == "rejected":
        yield Block("paragraph", label=REJECTED)
    yield Block("answer", printable(answer.text))


def _limits(report: Report) -> Iterator[Section]:
    uncertain = by_reason(f for f in report.findings if f.verdict == "uncertain")
    items = [f"No verdict, {reason}: {names}." for reason, names in uncertain.items()]
    items += without_verdict(report)
    for answer in report.answers:
        if not answer.complete:
            question = printable(answer.question)[:QUESTION_LENGTH]
            items.append(f"An answer was cut off after {answer.tokens} tokens: {question}")
    items += [] if report.checks else [NOT_CHECKED]
    if items:
        yield Section("What the model does not know", (Block("list", items=tuple(items)),))


SECTIONS: tuple[Callable[[Report], Iterator[Section]], ...] = (
    _overread,
    _contradictions,
    _page_quality,
    _measurements,
    _findings,
    _answers,
    _checks,
    _limits,
)
"""The sections between picture and origin, in the order of a printed report."""


def _origin(report: Report) -> Section:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    demonstration = " (demonstration)" if report.kit.demonstration else ""
    rows = (
        ("Kit", one_line(report.kit.id) + demonstration),
        ("Kit SHA-256", report.kit.sha256),
        ("Page SHA-256", report.page_sha256),
        ("Read", f"{read_at(report)}, on {one_line(report.device)}"),
        ("Versions", versions or "unknown"),
    )
    return Section("Where this comes from", (Block("table", head=("What", "Which"), rows=rows),))


# --- lines that several forms share ---------------------------------------------------------------


def read_at(report: Report) -> str:
    """Return when the page was read, in UTC and local time."""
    if not report.created:
        return "time unknown"
    return times.for_people(report.created, report.created_local)


def page_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """Return the verdict on the page and its faults, a line each, from `Report.quality`."""
    if quality is None:
        return ["Page: not checked."]
    verdict = "refused, and answered all the same" if quality["forced"] else quality["verdict"]
    layout = f", layout {quality['layout']}" if quality["layout"] else ""
    reasons = [f"- {reason['advice']}" for reason in quality["reasons"]]
    return [f"Page: {verdict}, {quality['leads']} leads{layout}.", *reasons]


def by_urgency(report: Report) -> list[Finding]:
    """Return the findings that have a verdict, the most urgent and most probable first."""
    judged = [f for f in report.findings if f.verdict is not None]
    return sorted(judged, key=lambda f: (f.urgency, -(f.probability or 0.0)))


def by_reason(findings: Iterable[Finding]) -> dict[str, str]:
    """Group findings without a clear verdict: reason -> their names."""
    names: dict[str, list[str]] = {}
    for finding in findings:
        names.setdefault(finding.reason or "uncertain", []).append(finding.name)
    return {reason: ", ".join(of_reason) for reason, of_reason in names.items()}


def without_verdict(report: Report) -> list[str]:
    """Return lines about findings without a verdict.

    The kit's own reasons come first, then the uncalibrated findings by rank.
    """
    others = [f for f in report.findings if f.verdict is None]
    ranked = sorted((f for f in others if f.reason == UNCALIBRATED), key=lambda f: f.rank)
    reasons = by_reason(f for f in others if f.reason != UNCALIBRATED)
    lines = [f"not judged ({reason}): {names}" for reason, names in reasons.items()]
    order = ", ".join(f"{f.rank}. {f.name}" for f in ranked)
    return [*lines, f"{RANKED}: {order}"] if ranked else lines
