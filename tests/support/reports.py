"""Reports that no model made."""

from __future__ import annotations

from dataclasses import replace

from pulse_edge.report.findings import judge
from pulse_edge.report.report import DEMONSTRATION, Answer, Finding, KitSummary, Report

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;]]> \x1b[2J\x1b]0;gone\x07 \u202egnp\u202c "
    '#panic("no") $x$ *bold* `raw` @ref <label> \\ "quotes" \'one\' =1+1 \x00 \x85 \udfff \U0001f4a9 \uffff'
)
"""Markup, commands and characters that must stay text."""


def finding(key: str, probability: float | None, verdict: str | None, reason: str = "") -> Finding:
    about = (key, f"statement {key}", "rhythm", 2, {"scp": key}, 1, 0.5)
    return Finding(*about, probability, probability is not None, verdict, reason)  # type: ignore[arg-type]


def report(
    text: str = "Sinus rhythm.",
    *,
    question: str = "What?",
    demonstration: bool = True,
    **more: object,
) -> Report:
    result = Report(
        DEMONSTRATION if demonstration else "",
        "page.png",
        "1" * 64,
        (Answer(question, text, 3, True),),
        KitSummary("kit", "0" * 64, demonstration),
        "cpu",
        {"pulse-edge": "0.1.0"},
        {},
        80,
        created="2026-01-02T03:04:05Z",
    )
    return replace(result, **more)  # type: ignore[arg-type]


def uncalibrated(**log_odds: float) -> tuple[Finding, ...]:
    """Findings of the statements named, without calibration; `_1AVB` stands for 1AVB."""
    return judge({key.lstrip("_"): value for key, value in log_odds.items()}, None)
