"""What commands that read pages have in common: the options that say what is made of the answers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pulse_edge.inference.json_grammar import Grammar
    from pulse_edge.kit.manifest import Manifest
    from pulse_edge.report.fhir import Patient

Command = TypeVar("Command", bound=Callable[..., Any])


class ReadyCommand(click.Command):
    """Looks at the installation before anything else, but not when asked for help."""

    def invoke(self, ctx: click.Context) -> Any:
        from pulse_edge.inference.vision_encoder import installed_runtime

        installed_runtime()
        return super().invoke(ctx)


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    from pulse_edge.machine import memory

    return None if text is None else memory.parse(text)


def memory_limit(command: Command) -> Command:
    """--memory: bytes, as `limit`."""

    told = "Take no more than this, e.g. 8GiB. Default: what is free."
    return click.option("--memory", "limit", metavar="SIZE", callback=_bytes, help=told)(command)


def documents(command: Command) -> Command:
    """--format and --findings."""
    forms = click.option(
        "--format",
        "forms",
        type=click.Choice(["text", "json", "html", "pdf", "fhir"]),
        multiple=True,
        help="Repeatable with -o. Default: text.",
    )
    findings = click.option(
        "--findings/--no-findings",
        "with_findings",
        default=None,
        help="Ask for a fixed list of findings too. Default: if the kit is calibrated for it.",
    )
    return forms(findings(command))


def _admitting(command: Command) -> Command:
    """--no-rectify, --force and --force-kit."""
    raw = click.option("--no-rectify", is_flag=True, help="Leave the page's pixels as they are.")
    force = click.option(
        "--force", is_flag=True, help="Answer about a page that was refused; the report says so."
    )
    kit = click.option(
        "--force-kit",
        is_flag=True,
        help="Answer with a kit that doctor refused here; the report says so.",
    )
    return raw(force(kit(command)))


_cached = click.option(
    "--cache/--no-cache",
    default=True,
    help="Keep what pages were encoded to, for the next time. Default: yes.",
)


_kept_kv = click.option(
    "--kv-cache-size",
    "kv_cache_size",
    metavar="SIZE",
    callback=_bytes,
    help="Keep what the model read of pages on disk, in at most so much, e.g. 8GiB. Default: no.",
)


def _pruned(command: Command) -> Command:
    """--image-tokens: a choice as `thin` has it."""

    def parsed(_context: click.Context, _option: click.Parameter, text: str) -> str:
        if text == "all":
            return text  # without NumPy
        from pulse_edge.inference import token_pruning

        return token_pruning.parse(text)

    told = "Image image_tokens that the model reads: all, no-padding, or N: at most so many, those that the encoder attends to "
    told += "(N:similarity: those unlike their neighbours). Other than all can change an answer. Default: all."
    return click.option(
        "--image-tokens", default="all", metavar="all|no-padding|N", callback=parsed, help=told
    )(command)


def pruning(image_tokens: str) -> dict[str, str]:
    """The setting for the record; what is as usual is not named."""
    return {} if image_tokens == "all" else {"image_tokens": image_tokens}


_speculated = click.option(
    "--speculation/--no-speculation",
    default=True,
    help="Guess what an answer says next and check several tokens at once: faster, the same answer. Default: yes.",
)


def reading(command: Command) -> Command:
    """How pages are read and answered: what `interpret`, `ask` and `batch` share."""
    longest = click.option(
        "--max-tokens", type=click.IntRange(1), help="Longest answer. Default: the kit's limit."
    )
    told = "Default: the processors that this process may use."
    threads = click.option("--threads", type=click.IntRange(1, 512), help=told)
    for option in reversed(
        (longest, threads, memory_limit, _admitting, _pruned, _cached, _kept_kv, _speculated)
    ):
        command = option(command)
    return command


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked about each page, and what is made of the answers."""

    questions: tuple[str, ...]
    max_tokens: int | None
    forms: tuple[str, ...]
    out: Path | None
    patient: Patient | None
    findings: bool = False
    grammar: Grammar | None = None
    """Of the JSON that each answer is to be; None: as the model likes."""
    overwrite: bool = False
    """Whether files of earlier answers are replaced."""

    @classmethod
    def of(
        cls,
        questions: tuple[str, ...],
        max_tokens: int | None,
        forms: tuple[str, ...],
        out: Path | None,
        patient_id: str | None = None,
        patient_system: str | None = None,
    ) -> Wanted:
        """From the command line. Raises UsageError before anything long begins."""
        from pulse_edge.errors import UsageError
        from pulse_edge.kit import prompt
        from pulse_edge.report import document
        from pulse_edge.report.fhir import Patient

        questions = questions or (prompt.REPORT_QUESTION,)
        for question in questions:
            prompt.fill("{question}", question)
        forms = tuple(dict.fromkeys(forms)) or ("text",)
        if out is None and (len(forms) > 1 or forms[0] in ("html", "pdf")):
            raise UsageError(
                f"--format {' and '.join(forms)}: needs a folder for the files. Name one with -o."
            )
        if out is not None and os.path.lexists(out) and not out.is_dir():
            raise UsageError(
                f"-o {out}: exists and is no folder. Name a folder, or one that does not exist yet."
            )
        if "pdf" in forms:
            document.require_pdf()
        named = patient_id is not None or patient_system is not None
        if named and (patient_id is None or "fhir" not in forms):
            raise UsageError(
                "--patient-id and --patient-system: are for --format fhir. Add it, and the id."
            )
        patient = None if patient_id is None else Patient(patient_id, patient_system)
        return cls(questions, max_tokens, forms, out, patient)

    def for_kit(self, manifest: Manifest, with_findings: bool | None) -> Wanted:
        """With findings as asked for, else if the kit is calibrated for them."""
        calibrated = manifest.findings is not None
        return dataclasses.replace(
            self, findings=calibrated if with_findings is None else with_findings
        )

    def tokens(self, manifest: Manifest) -> int:
        """What stands beside the image image_tokens in the context, at most: no token is shorter than a byte."""
        from pulse_edge.report import findings

        asked = [*self.questions]
        asked += (
            [q for s in findings.STATEMENTS for q in (s.question, s.plain)] if self.findings else []
        )
        spoken = manifest.prompt
        limit = spoken.max_tokens if self.max_tokens is None else self.max_tokens
        longest = max(len(question.encode()) for question in asked)
        return len(spoken.before.encode()) + len(spoken.after.encode()) + longest + limit + 16

    @property
    def shown(self) -> str:
        """The format that goes to standard output; empty with -o."""
        return self.forms[0] if self.out is None else ""
