"""Options that commands share, and the one function that makes a `Request` of what was typed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pulse_edge.errors import UsageError
from pulse_edge.inference.request import (
    DEVICES,
    FORMATS,
    AnswerOptions,
    MeasurementOptions,
    ModelOptions,
    OutputOptions,
    PageOptions,
    Request,
)
from pulse_edge.kit import prompt

if TYPE_CHECKING:
    from pulse_edge.inference.json_grammar import Grammar
    from pulse_edge.report.fhir import Patient

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


class ReadyCommand(click.Command):
    """A command that checks the installed ONNX Runtime first, except when it is asked for help."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises EngineError where ONNX Runtime is missing or installed twice."""
        from pulse_edge.inference.vision_encoder import installed_runtime

        installed_runtime()
        return super().invoke(ctx)


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options, which `--help` lists in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# --- which kit, and what it may use ---------------------------------------------------------------


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from pulse_edge.machine import memory

    return memory.parse(text)


kit = click.option(
    "--kit",
    type=PATH,
    metavar="KIT",
    show_default="$PULSE_EDGE_KIT, else the kit that `kit use` chose",
    help="Kit that answers: its folder, or the name of an installed kit.",
)
device = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Device that runs the language model and the vision encoder.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(1, 512),
    metavar="N",
    show_default="as doctor measured, else the physical cores",
    help="Processor threads to use.",
)
memory = click.option(
    "--memory",
    metavar="SIZE",
    callback=_bytes,
    show_default="the free memory",
    help="Highest memory use, for example 8GiB.",
)
force_kit = click.option(
    "--force-kit",
    is_flag=True,
    help="Answer with a kit that doctor refused on this machine; the report says so.",
)
speculation = click.option(
    "--speculation/--no-speculation",
    default=True,
    show_default=True,
    help="Decode speculatively: faster, with the same answers.",
)
cache = click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Store the image tokens of each page, so that it is encoded only once.",
)
kv_cache_size = click.option(
    "--kv-cache-size",
    metavar="SIZE",
    callback=_bytes,
    show_default="no KV caches are stored",
    help="Store the KV caches of pages too, in at most SIZE bytes on disk, for example 8GiB.",
)
model = combined(kit, device, threads, memory, force_kit, speculation, cache, kv_cache_size)


# --- how a page is prepared -----------------------------------------------------------------------


def _image_tokens(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if text == "all":
        return text  # without loading NumPy
    from pulse_edge.inference import token_pruning

    return token_pruning.parse(text)


no_rectify = click.option(
    "--no-rectify",
    is_flag=True,
    help="Leave the page's pixels as they are: no straightening, no cropping.",
)
force = click.option(
    "--force", is_flag=True, help="Answer about refused pages too; the report says so."
)
image_tokens = click.option(
    "--image-tokens",
    default="all",
    show_default=True,
    metavar="all|no-padding|N",
    callback=_image_tokens,
    help="Image tokens to read: all, all but the padding, or the N with most attention "
    "(N:similarity: the N least alike). Fewer than all can change an answer.",
)
page = combined(no_rectify, force, image_tokens)


# --- what is measured -----------------------------------------------------------------------------

no_measure = click.option(
    "--no-measure",
    is_flag=True,
    help="Give the model's words alone: measure no trace, check no statement.",
)
age = click.option(
    "--age",
    "age_years",
    type=click.FloatRange(0, 130),
    metavar="YEARS",
    show_default="adult limits",
    help="Patient's age, for the limits of children.",
)
sex = click.option(
    "--sex",
    type=click.Choice(["male", "female"]),
    show_default="limits of either sex",
    help="Patient's sex, for limits that depend on it.",
)
measurement = combined(no_measure, age, sex)


# --- what is asked --------------------------------------------------------------------------------

questions = click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    metavar="TEXT",
    show_default="a clinical report",
    help="Question about each page; may be repeated.",
)
max_tokens = click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    show_default="the kit's limit",
    help="Longest answer, in tokens.",
)
findings = click.option(
    "--findings/--no-findings",
    "findings",
    default=None,
    show_default="if the kit is calibrated",
    help="Judge the fixed list of findings too.",
)


# --- where answers go -----------------------------------------------------------------------------

formats = click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    show_default="text",
    help="Format of the reports; may be repeated with -o.",
)
retain = click.option(
    "--retain",
    type=click.IntRange(1, 36500),
    metavar="DAYS",
    show_default="hashes only",
    help="Keep texts and pictures in the audit log for this many days.",
)
audit_log = click.option(
    "--audit-log",
    "folder",
    type=PATH,
    metavar="DIR",
    show_default="$PULSE_EDGE_AUDIT_LOG, else this user's",
    help="Folder of the audit log.",
)


def request(options: Mapping[str, Any], default_formats: tuple[str, ...] = ("text",)) -> Request:
    """Make a request of a command's options by name.

    An option that the command does not have keeps its default.

    Raises UsageError before anything long begins.
    """
    get = options.get
    model_options = ModelOptions(
        kit=get("kit"),
        device=get("device", "auto"),
        threads=get("threads"),
        memory=get("memory"),
        force_kit=get("force_kit", False),
        speculation=get("speculation", True),
        cache=get("cache", True),
        kv_cache_size=get("kv_cache_size"),
    )
    page_options = PageOptions(
        rectify=not get("no_rectify", False),
        force=get("force", False),
        image_tokens=get("image_tokens", "all"),
    )
    answer_options = AnswerOptions(
        questions=tuple(get("questions") or (prompt.REPORT_QUESTION,)),
        max_tokens=get("max_tokens"),
        findings=get("findings"),
        grammar=_grammar(get("json_schema")),
    )
    measurement_options = MeasurementOptions(
        enabled=not get("no_measure", False), age_years=get("age_years"), sex=get("sex")
    )
    output_options = _output(options, default_formats)
    return Request(model_options, page_options, answer_options, output_options, measurement_options)


def _output(options: Mapping[str, Any], default_formats: tuple[str, ...]) -> OutputOptions:
    formats = ("json",) * bool(options.get("as_json")) + tuple(options.get("formats", ()))
    folder: Path | None = options.get("out")
    if folder is not None and os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(
            f"-o {folder}: exists and is no folder. Name a folder, or one that does not exist yet."
        )
    output = OutputOptions(
        formats=tuple(dict.fromkeys(formats)) or default_formats,
        folder=folder,
        overwrite=options.get("overwrite", False),
        patient=_patient(options, formats),
        retain_days=options.get("retain"),
    )
    if "pdf" in output.formats:
        from pulse_edge.report import pdf

        pdf.require_typst()
    return output


def _patient(options: Mapping[str, Any], formats: tuple[str, ...]) -> Patient | None:
    patient_id, system = options.get("patient_id"), options.get("patient_system")
    if patient_id is None and system is None:
        return None
    if patient_id is None or "fhir" not in formats:
        raise UsageError(
            "--patient-id and --patient-system: are for --format fhir. Add it, and the id."
        )
    from pulse_edge.report.fhir import Patient

    return Patient(patient_id, system)


def _grammar(schema: Path | None) -> Grammar | None:
    if schema is None:
        return None
    from pulse_edge.inference import json_grammar

    _refuse_named_pipe(schema)
    return json_grammar.load(schema)


def _refuse_named_pipe(path: Path) -> None:
    """Raise UsageError for a FIFO in the file system, which would block until a writer came.

    A shell's `<(command)` is accepted: it is a pipe without a name, and its writer is running.
    """
    try:
        is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return  # json_grammar.load says what is wrong
    resolved = os.path.realpath(path)
    if is_pipe and os.path.exists(resolved) and not resolved.startswith(("/dev/fd/", "/proc/")):
        raise UsageError(
            f"{path}: is a named pipe, and reading it could wait forever. Name a file with the "
            "JSON Schema."
        )
