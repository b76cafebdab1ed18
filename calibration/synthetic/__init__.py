"""A seeded source of 12-lead ECGs whose labels and measurements are known exactly, and of synthetic
pages of them.

    findings -> beats -> signals -> Recording -> pages -> Page        style says how a page looks
                         real    -> Recording                         the same pages from recorded signals
                                    Recording -> sentences -> questions    questions and answers about it

`recording_at(seed, index)` and `page_at(seed, index)` give the same bytes on any number of
processes. Numpy, OpenCV and Pillow only.
"""

from __future__ import annotations

from calibration.synthetic.findings import (
    CODE15,
    CPSC,
    FINDINGS,
    LEADS,
    PTBXL,
    Labels,
    draw_findings,
    labels_of,
)
from calibration.synthetic.pages import Page, Trace, draw, page_at
from calibration.synthetic.question import Question
from calibration.synthetic.questions import TASKS, vocabulary_corpus
from calibration.synthetic.recording import Beat, Measurements, Recording
from calibration.synthetic.signals import recording_at, synthesize
from calibration.synthetic.style import LAYOUTS, PageStyle, random_style

__all__ = [
    "CODE15",
    "CPSC",
    "FINDINGS",
    "LAYOUTS",
    "LEADS",
    "PTBXL",
    "TASKS",
    "Beat",
    "Labels",
    "Measurements",
    "Page",
    "PageStyle",
    "Question",
    "Recording",
    "Trace",
    "draw",
    "draw_findings",
    "labels_of",
    "page_at",
    "random_style",
    "recording_at",
    "synthesize",
    "vocabulary_corpus",
]
