"""Ask a kit about pages whose truth is known, fit its probabilities, and measure them.

Each statement gets its scale, offset and range of abstention (`platt`) from the calibration pages
of a split; the test pages show what they are worth. A page is asked only the statements whose truth
is known (`truths`), all behind one image prefix.

TARGET.partial has a line a page. A run that was killed at any moment is resumed from it by the same
command. Fitting depends on TARGET alone: called again, the command asks nothing that is in there,
and fits again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from calibration import ecgbench, into_kit
from calibration.bootstrap import Estimate
from calibration.ecgbench import Bench, Problem
from calibration.evaluate import refuse_calibration_ids
from calibration.files import refuse_existing
from calibration.findings import file as findings_file
from calibration.findings.file import FindingsFile, FittedOn, Header, KitId, PageAnswers, SplitId
from calibration.findings.measure import Fitted, conclude
from calibration.findings.pages import Job, Plan, choose, open_split, pictures
from calibration.records import as_json
from calibration.results import identity
from calibration.splits import Split
from pulse_edge.errors import BenchError, ContextError, PageRefused, ScanError, UsageError
from pulse_edge.inference.model import PulseModel
from pulse_edge.inference.reporting import versions
from pulse_edge.inference.statements import yes_or_no
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.report.findings import BY_KEY, STATEMENTS

Say = Callable[[str], None]
INSIDE = "findings.json"
"""Name of the file inside a kit, where it stands without its answers."""
SHOWN_SECONDS = 10
"""Seconds between two lines of progress."""


def findings(
    kit: Path,
    target: Path,
    plan: Plan,
    attach: bool = False,
    force: bool = False,
    say: Say = lambda _: None,
) -> FindingsFile:
    """Ask, fit and measure; the content of `target`. `attach` puts the calibration into the kit.

    BenchError where there is nothing to ask or another run's file is in the way, KitError for a kit
    that cannot be used, UsageError for options that exclude one another.
    """
    if not 0 < plan.risk < 0.5:
        raise UsageError(f"--max-error {plan.risk:g}: expected a share between 0 and 0.5")
    if attach and plan.fitted is not None:
        raise UsageError("--attach and --fitted contradict one another: attach where it is fitted")
    opened = open_kit(kit)
    fitted = None if plan.fitted is None else _fitted(plan.fitted, opened)
    bench = ecgbench.open_bench(plan.bench)
    problems: list[Problem] = []
    split = open_split(bench, plan, problems.append)
    jobs = choose(bench, split, plan, problems.append)
    test_samples = [sample for job in jobs if job.side == "test" for sample in job.page.samples]
    refuse_calibration_ids(bench, {"kit": opened}, test_samples)
    header = _header(opened, bench, split)
    done = {} if force else _finished(target, header)
    for problem in problems:
        say(f"left out: {problem}")
    with findings_file.open_partial(target, header, force) as (more, file):
        done |= more
        asking = Asking(opened, bench, plan, file, say)
        done |= asking.ask([job for job in jobs if job.page.image not in done])
        lines = [done[job.page.image] for job in jobs if job.page.image in done]
        if fitted is not None:
            _refuse_fitted_pages(plan, fitted, lines)
        result = conclude(header, lines, plan.risk, fitted, versions())
        findings_file.save(result, target)
        findings_file.partial_path(target).unlink(missing_ok=True)
    if attach:
        put_into_kit(opened, result)
    return result


def _fitted(path: Path, kit: Kit) -> Fitted:
    """The calibration of another file.

    BenchError where it is another kit's, or not fitted there.
    """
    file = findings_file.load(path)
    if file.kit.identity != identity(kit.manifest):
        raise BenchError(f"{path}: is of another kit, {file.kit.id}; fit {kit.path} first")
    if file.fitted_on is not None:
        raise BenchError(
            f"{path}: measures what was fitted on {file.fitted_on.data}; give the file of that"
        )
    pages = [line for line in file.lines if line.side == "calibration"]
    return Fitted(
        {key: s.calibration for key, s in file.statements.items()},
        {key: s.calibration_pages for key, s in file.statements.items()},
        FittedOn(file.data, file.content, file.risk, file.confidence, file.pages.calibration),
        frozenset(line.picture for line in pages),
    )


def _refuse_fitted_pages(plan: Plan, fitted: Fitted, lines: Sequence[PageAnswers]) -> None:
    both = [line.image for line in lines if line.picture in fitted.pictures]
    if both:
        raise BenchError(
            f"{plan.fitted}: was fitted on {len(both)} of these pages, {both[0]} first; "
            "measure on other pages"
        )


def _header(kit: Kit, bench: Bench, split: Split) -> Header:
    m, questions = kit.manifest, [(s.key, s.question) for s in STATEMENTS]
    return Header(
        version=findings_file.VERSION,
        kit=KitId(m.id, identity(m), m.demonstration),
        data=bench.path.resolve().name,
        split=SplitId(split.key, split.share, split.content),
        questions=hashlib.sha256(json.dumps(questions).encode()).hexdigest(),
    )


def _finished(target: Path, header: Header) -> dict[str, PageAnswers]:
    """The answers of a run that ended, by page; BenchError where the file is another run's."""
    if not target.exists():
        return {}
    file = findings_file.load(target)
    if file.header != header:
        refuse_existing(target)
    return {line.image: line for line in file.lines}


# --- asking -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asking:
    """A run that asks a kit about pages and writes the answers down one by one."""

    kit: Kit
    bench: Bench
    plan: Plan
    file: IO[str]
    say: Say

    def ask(self, jobs: Sequence[Job]) -> dict[str, PageAnswers]:
        """Answers about each page, each in the file as soon as it is known."""
        if not jobs:
            return {}
        done = {}
        begun = shown = time.monotonic()
        plan = self.plan
        with PulseModel.load(self.kit, device=plan.device, threads=plan.threads) as model:
            self.say(f"{self.kit.manifest.id}: {len(jobs)} pages, on {model.device}")
            for n, (job, picture) in enumerate(pictures(self.bench, jobs, self._note), 1):
                line = _answers(model, job, picture)
                if line.left_out:
                    self.say(f"left out: {line.image}: {line.left_out}")
                findings_file.append(self.file, line)
                done[line.image] = line
                now = time.monotonic()
                if now - shown > SHOWN_SECONDS or n == len(jobs):
                    shown, each = now, (now - begun) / n
                    minutes = each * (len(jobs) - n) / 60
                    self.say(
                        f"{n} of {len(jobs)} pages, {each:.1f} s each, about {minutes:.0f} min left"
                    )
        return done

    def _note(self, problem: Problem) -> None:
        self.say(f"left out: {problem}")


def _answers(model: PulseModel, job: Job, picture: bytes) -> PageAnswers:
    """The answers to a page's statements, or why the kit refuses the page."""
    page = job.page
    samples = tuple((s.task, s.id) for s in page.samples)
    digest = hashlib.sha256(picture).hexdigest()
    try:
        encoded = model.encode(picture, admit=False)
        answers = {key: yes_or_no(model, encoded, BY_KEY[key].question) for key in page.truths}
    except (ScanError, PageRefused, ContextError) as error:
        return PageAnswers(
            image=page.image,
            side=job.side,
            samples=samples,
            picture=digest,
            patient=page.patient,
            left_out=str(error),
        )
    return PageAnswers(
        image=page.image,
        side=job.side,
        samples=samples,
        picture=digest,
        patient=page.patient,
        gold=page.truths,
        log_odds={key: round(a.log_odds, 5) for key, a in answers.items()},
        greedy={key: a.greedy for key, a in answers.items()},
    )


# --- afterwards -------------------------------------------------------------------------------


def put_into_kit(kit: Kit, file: FindingsFile) -> None:
    """Put a calibration into a kit: in the manifest, and as `findings.json` without the answers."""
    calibrations = {key: s.calibration for key, s in file.statements.items()}
    text = json.dumps(as_json(file.summary), indent=1, ensure_ascii=False) + "\n"
    into_kit.put(kit.path, {INSIDE: text.encode()}, INSIDE, findings=calibrations)


def in_words(file: FindingsFile) -> Iterator[str]:
    """The result in sentences."""
    every, statements = file.all, file.statements
    judged = [key for key, s in statements.items() if not s.calibration.reason]
    yield (
        f"{len(judged)} of {len(statements)} statements get verdicts: {', '.join(judged) or 'none'}"
    )
    if every.auc is not None:
        yield (
            f"mean AUC of {every.measured} statements on {file.pages.test} test pages: "
            f"{_ranged(every.auc)} from probabilities, "
            f"{_ranged(every.auc_of_labels)} from greedy answers"
        )
    if every.ece_before is not None:
        yield (
            f"calibration error {_ranged(every.ece_before)} before, "
            f"{_ranged(every.ece_after)} after"
        )
    yield (
        f"verdicts on {_ranged(every.coverage)} of all pages and statements, "
        f"{_ranged(every.risk)} of them wrong "
        f"(without abstaining {_ranged(every.risk_always)}; --max-error is {file.risk:g})"
    )
    yield (
        f"{_ranged(every.missed)} of the findings on the pages are called absent, "
        f"{_ranged(every.alarmed)} of those not on the pages are called present"
    )


def _ranged(figure: Estimate | None) -> str:
    if figure is None or figure.value is None or figure.interval[0] is None:
        return "not known"
    low, high = figure.interval
    return f"{figure.value:.3f} [{low:.3f}, {high:.3f}]"
