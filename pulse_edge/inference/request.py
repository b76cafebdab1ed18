"""The options of one run, frozen and checked.

Commands, Python programs, batches and the audit log share them.

In: values as a person gives them; each class checks its own and raises UsageError. Out: `Request`,
whose `settings` are what the audit log stores. Imports no engine, so that a command line is parsed
at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pulse_edge.errors import UsageError
from pulse_edge.kit import prompt
from pulse_edge.report import findings

if TYPE_CHECKING:
    from pulse_edge.inference.json_grammar import Grammar
    from pulse_edge.kit.manifest import Manifest
    from pulse_edge.report.fhir import Patient

DEVICES = ("auto", "cpu", "cuda")
FORMATS = ("text", "json", "html", "pdf", "fhir")
FILES_ONLY = ("html", "pdf")
"""Formats that are never printed."""
TEMPLATE_TOKENS = 16
"""Tokens that the tokenizer may add around the texts of a conversation."""


@dataclass(frozen=True)
class ModelOptions:
    """Which kit answers, and what it may use of the machine."""

    kit: Path | None = None
    """Kit folder, or the name of an installed kit; None: the one that `kit use` chose."""
    device: str = "auto"
    """One of DEVICES."""
    threads: int | None = None
    """Processor threads; None: as `doctor` measured, else the physical cores."""
    memory: int | None = None
    """Bytes of memory that may be used; None: what is free."""
    force_kit: bool = False
    """Answer with a kit that `doctor` refused on this machine."""
    speculation: bool = True
    """Decode speculatively where the kit has a draft table: faster, with the same answers."""
    cache: bool = True
    """Store the image tokens of each page, so that it is encoded once."""
    kv_cache_size: int | None = None
    """Bytes on disk for the KV caches of pages; None: they are not stored."""

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"device {self.device!r}: expected auto, cpu or cuda.")


@dataclass(frozen=True)
class PageOptions:
    """How a page is prepared and admitted."""

    rectify: bool = True
    """Straighten and crop the page; False leaves its pixels as they are."""
    force: bool = False
    """Answer about a page that was refused; the report says so."""
    image_tokens: str = "all"
    """Image tokens that the language model reads: `all`, `no-padding`, or a number as
    `--image-tokens` takes it."""


@dataclass(frozen=True)
class MeasurementOptions:
    """Whether the trace is measured next to the model, and what is known of the patient."""

    enabled: bool = True
    """Measure the trace, and check the model's statements against it."""
    age_years: float | None = None
    """Patient's age, for limits of children; None: adult limits."""
    sex: Literal["male", "female"] | None = None
    """Patient's sex, for limits that depend on it; None: the limits of either."""


@dataclass(frozen=True)
class AnswerOptions:
    """What is asked about each page, and the form of an answer."""

    questions: tuple[str, ...] = (prompt.REPORT_QUESTION,)
    """Questions, each answered on its own."""
    max_tokens: int | None = None
    """Longest answer in tokens; None: the kit's limit."""
    findings: bool | None = None
    """Judge the fixed list of findings too; None: if the kit is calibrated for it."""
    grammar: Grammar | None = None
    """Compiled JSON Schema that every answer satisfies; None: free text."""

    def __post_init__(self) -> None:
        for question in self.questions:
            prompt.fill("{question}", question)


@dataclass(frozen=True)
class OutputOptions:
    """Where reports go, in which formats, and what the audit log retains."""

    formats: tuple[str, ...] = ("text",)
    """Of FORMATS; several need a folder."""
    folder: Path | None = None
    """Folder for the files; None: standard output."""
    overwrite: bool = False
    """Replace files of earlier reports; False gives new ones a number."""
    patient: Patient | None = None
    """Whom FHIR output names."""
    retain_days: int | None = None
    """Days that the audit log retains texts and pictures; None: it holds hashes alone."""

    def __post_init__(self) -> None:
        if self.folder is None and (len(self.formats) > 1 or self.formats[0] in FILES_ONLY):
            raise UsageError(
                f"--format {' and '.join(self.formats)}: needs a folder for the files. Name one "
                "with -o."
            )
        if self.patient is not None and "fhir" not in self.formats:
            raise UsageError(
                "--patient-id and --patient-system: are for --format fhir. Add it, and the id."
            )

    @property
    def printed(self) -> str:
        """The format on standard output; empty where files are written."""
        return self.formats[0] if self.folder is None else ""


@dataclass(frozen=True)
class Request:
    """Everything that one run is asked to do."""

    model: ModelOptions = field(default_factory=ModelOptions)
    page: PageOptions = field(default_factory=PageOptions)
    answer: AnswerOptions = field(default_factory=AnswerOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    measurement: MeasurementOptions = field(default_factory=MeasurementOptions)

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the options that can change an answer, by group, as JSON values.

        The audit log stores them.

        Questions, paths and the patient's id, age and sex are left out: the log holds nothing about
        a person. Whether age and sex were given is there, because the checks' limits depend on it.
        """
        model, answer = self.model, self.answer
        return {
            "model": {
                "device": model.device,
                "threads": model.threads,
                "force_kit": model.force_kit,
            },
            "page": dataclasses.asdict(self.page),
            "measurement": {
                "enabled": self.measurement.enabled,
                "age_given": self.measurement.age_years is not None,
                "sex_given": self.measurement.sex is not None,
            },
            "answer": {
                "max_tokens": answer.max_tokens,
                "findings": answer.findings,
                "json_schema_sha256": answer.grammar and answer.grammar.source_sha256,
            },
        }

    def batch_settings(self, kit_sha256: str) -> dict[str, Any]:
        """What all pages of one batch share: a batch goes on only with the same values."""
        groups = self.settings()
        del groups["model"]["device"], groups["model"]["threads"]  # another machine may go on
        del groups["answer"]["json_schema_sha256"]
        named = {
            f"{group}.{name}": v for group, values in groups.items() for name, v in values.items()
        }
        texts = {"questions": list(self.answer.questions), "formats": list(self.output.formats)}
        person = {"age_years": self.measurement.age_years, "sex": self.measurement.sex}
        return {"kit": kit_sha256, **texts, **named, **person}

    def wants_findings(self, manifest: Manifest) -> bool:
        """Whether the findings are judged: as asked for, else if the kit is calibrated for them."""
        choice = self.answer.findings
        return manifest.findings is not None if choice is None else choice

    def text_tokens(self, manifest: Manifest) -> int:
        """Return an upper bound of the context's tokens besides the image tokens.

        No token is shorter than a byte.
        """
        texts = [*self.answer.questions]
        if self.wants_findings(manifest):
            texts += [text for s in findings.STATEMENTS for text in (s.question, s.plain)]
        spec = manifest.prompt
        limit = spec.max_tokens if self.answer.max_tokens is None else self.answer.max_tokens
        longest = max(len(text.encode()) for text in texts)
        around = len(spec.before.encode()) + len(spec.after.encode())
        return around + longest + limit + TEMPLATE_TOKENS
