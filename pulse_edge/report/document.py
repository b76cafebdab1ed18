"""A report and its page -> one A4 page for people: HTML, and PDF by Typst. Both print in grey, and fetch nothing.

Texts of the model and names of files are data in both: escaped in HTML, JSON strings in Typst's template `report.typ`.
The PDF is tagged and meets PDF/UA-1 and PDF/A-2a, unless it holds a character for which no font is there.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pulse_edge.common import paths
from pulse_edge.errors import EngineError, UsageError
from pulse_edge.report.report import (
    Report,
    by_reason,
    by_urgency,
    one_line,
    page_lines,
    printable,
    without_verdict,
)

TITLE = "12-lead ECG page, read by software"
ALT = "The ECG page as it was read. It must be looked at by a clinician; this text does not replace the picture."
NOTHING = "Nothing on the list is called present."
NO_VERDICTS = "No verdicts: this kit is not calibrated for any statement of the list. Their order stands below."
URGENCY = {1: "act now", 2: "soon", 3: "note", 4: "none"}
MAX_SIDE = 1800
"""Pixels of the picture's longer side: 250 dpi across an A4 page."""

_CSS = """
* { box-sizing: border-box; }
body { font: 11pt/1.35 Georgia, serif; color: #000; background: #fff; max-width: 46em; margin: 1.5em auto; padding: 0 1em;
  overflow-wrap: break-word; }
h1 { font-size: 1.3em; margin: .6em 0 .3em; } h2 { font-size: 1.05em; margin: .9em 0 .3em; } p { margin: .3em 0; }
img { width: 100%; max-height: 60vh; object-fit: contain; border: 1px solid #777; } figure { margin: .5em 0; }
.notice, .contradictions { border: 2px solid #000; padding: .4em .7em; }
.notice { font-weight: bold; text-align: center; white-space: pre-line; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .15em .5em;
  border-bottom: 1px solid #777; } th { white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
.answer { white-space: pre-wrap; } footer { font-size: .85em; }
.sign { display: flex; gap: 2em; margin-top: 3em; } .sign div { flex: 1; border-top: 1px solid #000; }
@page { size: A4; margin: 12mm; } @media print { body { font-size: 8pt; line-height: 1.2; margin: 0; max-width: none; padding: 0; }
  img { max-height: 65mm; } h2 { margin: .6em 0 .2em; } ul { margin: .2em 0; } .sign { margin-top: 2em; } }
"""


def to_html(report: Report, page: Image.Image) -> bytes:
    """One file that needs nothing else; nothing in it can run."""
    return "".join(_html(report, page)).encode("utf-8")


def _html(report: Report, page: Image.Image) -> Iterator[str]:
    said = _content(report)
    picture = base64.b64encode(_jpeg(page)).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(TITLE)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head>\n<body><main>\n'
    )
    if report.notice:
        yield f'<p class="notice" role="note">{_safe(report.notice)}</p>\n'
    yield f"<h1>{_safe(TITLE)}</h1>\n<p><strong>{_safe(report.intended_use)}</strong></p>\n"
    yield f'<figure><img alt="{_safe(ALT)}" src="data:image/jpeg;base64,{picture}">\n'
    yield f"<figcaption>{_safe(said['caption'])}</figcaption></figure>\n"
    if said["contradictions"]:
        yield f'<section class="contradictions"><h2>Contradictions: look here first</h2>{_list(said["contradictions"])}</section>\n'
    if said["quality"]:
        yield f"<h2>The page as a picture</h2>{_list(said['quality'])}\n"
    if report.findings:
        head = ("Urgency", "Verdict", "Probability", "Statement", "SCP-ECG, SNOMED CT")
        yield "<h2>Findings, by urgency</h2>\n"
        yield _table(head, said["findings"]) if said["findings"] else f"<p>{said['nothing']}</p>\n"
        yield f"<p><strong>Absent:</strong> {_safe(said['absent'])}</p>\n" if said["absent"] else ""
    for answer in said["answers"]:
        yield f'<h2>{_safe(answer["question"])}</h2>\n<p class="answer">{_safe(answer["text"])}</p>\n'
    if said["unknown"]:
        yield f"<h2>What the model does not know</h2>{_list(said['unknown'])}\n"
    yield f"</main><footer><h2>Where this comes from</h2>\n{_table(('What', 'Which'), said['facts'])}"
    signs = "".join(
        f"<div>{what}</div>" for what in ("ECG read by (name)", "Signature", "Date and time")
    )
    yield f'<div class="sign">{signs}</div></footer></body></html>\n'


def to_pdf(report: Report, page: Image.Image) -> bytes:
    """One A4 page; a report that does not fit goes on to a second one rather than lose a word."""
    require_pdf()
    import typst

    template = (paths.ASSETS / "report.typ").read_bytes()
    data = _content(report)
    with tempfile.TemporaryDirectory(
        prefix="pulse-edge-"
    ) as root:  # 0700: a page shows a patient's heart
        source = Path(root, "report.typ")
        source.write_bytes(template)
        Path(root, "page.jpg").write_bytes(_jpeg(page))
        texts = {"data": json.dumps(_breakable(data))}
        # The fonts that Typst carries, then the system's too, then without the promise that every character is shown.
        tries: tuple[tuple[Any, bool], ...] = (
            (["a-2a", "ua-1"], True),
            (["a-2a", "ua-1"], False),
            (None, False),
        )
        for standards, own in tries:
            try:
                return typst.compile(
                    str(source),
                    root=root,
                    sys_inputs=texts,
                    pdf_standards=standards,
                    ignore_system_fonts=own,
                )
            except typst.TypstError as e:
                why = e.message
    raise EngineError(f"{report.file}: no PDF could be made ({why}). Choose --format html.")


def require_pdf() -> None:
    """Raise UsageError if the library that makes PDFs is not installed."""
    from importlib.util import find_spec

    if find_spec("typst") is None:
        raise UsageError(
            "PDF reports need a library: pip install 'pulse-edge[report]', or choose --format html."
        )


# --- what is said, whatever the format --------------------------------------------------------------------------------


def _content(report: Report) -> dict[str, Any]:
    """Every text of the document, made harmless."""
    findings = by_urgency(report)
    shown = [f for f in findings if f.verdict != "absent"]
    return {
        "title": TITLE,
        "alt": ALT,
        "program": f"pulse-edge {report.versions.get('pulse-edge', '')}".strip(),
        "notice": report.notice,
        "intended_use": report.intended_use,
        "caption": f"The page as it was read: {one_line(report.file)}",
        "contradictions": [printable(c.text) for c in report.contradictions],
        "quality": quality_lines(report),
        "findings": [
            (
                URGENCY[f.urgency],
                f.verdict,
                f"{f.probability:.0%}",
                f.name,
                ", ".join(f.codes.values()),
            )
            for f in shown
        ],
        "nothing": NOTHING if findings else NO_VERDICTS,
        "asked": bool(report.findings),
        "absent": ", ".join(f.name for f in findings if f.verdict == "absent"),
        "answers": [
            {"question": printable(a.question), "text": printable(a.text)} for a in report.answers
        ],
        "unknown": unknown_lines(report),
        "facts": _facts(report),
    }


def quality_lines(report: Report) -> list[str]:
    """Verdict on the picture, and what is wrong with it; empty where it was not judged."""
    quality = report.quality
    if not quality:
        return []
    scale, turned = quality["grid"]["pixels_per_mm"], quality["sheet"]["rotation"]
    line = f"Scale: {f'{scale:.1f} pixels/mm' if scale else 'not known, no grid'}, turned by {turned} degrees"
    line += ", straightened." if quality["changed"] else ", pixels as they came."
    verdict, *reasons = page_lines(quality)
    return [
        one_line(text) for text in (f"{verdict} {line}", *(r.removeprefix("- ") for r in reasons))
    ]


def unknown_lines(report: Report) -> list[str]:
    """What the reader must not take for known."""
    uncertain = by_reason(f for f in report.findings if f.verdict == "uncertain")
    lines = [f"No verdict, {reason}: {names}." for reason, names in uncertain.items()]
    lines += without_verdict(report)
    for answer in report.answers:
        if not answer.complete:
            lines.append(
                f"An answer was cut off after {answer.tokens} tokens: {printable(answer.question)[:80]}"
            )
    return [*lines, "The text is what the model says. It is not checked against the trace."]


def _facts(report: Report) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [
        ("Kit", one_line(report.kit.id) + (" (demonstration)" if report.kit.demonstration else "")),
        ("Kit SHA-256", report.kit.sha256),
        ("Page SHA-256", report.page_sha256),
        ("Read", f"{report.created or 'time unknown'}, on {one_line(report.device)}"),
        ("Versions", versions or "unknown"),
    ]


def _jpeg(page: Image.Image) -> bytes:
    """The picture, small enough to send."""
    small = page.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def _safe(text: str) -> str:
    return html.escape(printable(text), quote=True)


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_safe(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in head)
    rest = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{first}</tr></thead><tbody>{rest}</tbody></table>\n"


def _breakable(value: Any) -> Any:
    """Printable texts, with zero-width spaces in words longer than a hash, which would run out of the page."""
    if isinstance(value, str):
        return re.sub(
            r"\S{65,}", lambda word: re.sub(r"(.{40})", "\\1\u200b", word[0]), printable(value)
        )
    if isinstance(value, dict):
        return {key: _breakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_breakable(item) for item in value]
    return value
