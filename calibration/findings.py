"""A kit and known pages -> how its log odds become probabilities, when it abstains, and what that is worth: one JSON file.

Of the calibration pages of a split each statement gets its scale, offset and range (`platt`); the test pages say what they
are worth. About a page only those statements are asked that are known of it (`truths`), all behind one image prefix.

TARGET.partial has a line a page: killed at any moment, the same command goes on behind it. What is done with the answers
depends on TARGET alone: called again, it asks nothing that is in there, and fits anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from calibration import ecgbench, into_kit, platt
from calibration.compare import draws, row_mean, spread
from calibration.ecgbench import Bench, Problem, Split
from calibration.evaluate import refuse_calibration_ids
from calibration.files import lock, refuse_existing, write_json
from calibration.platt import Asked
from calibration.results import identity
from calibration.truths import Known, known_pages
from pulse_edge.errors import BenchError, ContextError, PageRefused, ScanError, UsageError
from pulse_edge.inference.model import PulseModel, versions, yes_or_no
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import Calibration
from pulse_edge.report.findings import BY_KEY, STATEMENTS

Figures = dict[str, Any]
Line = dict[str, Any]
Say = Callable[[str], None]
VERSION = 1
INSIDE = "findings.json"
"""How the file is called in a kit; there without its lines."""
SIDES = ("calibration", "test")
SHOWN_SECONDS = 10
SHARE = 0.5
"""Of the pages that calibrate where no split is given."""


@dataclass(frozen=True)
class Plan:
    """What to ask, and how careful to be."""

    bench: Path
    split: Path | None = None  # None: half of the pages calibrate
    limit: int | None = None  # pages of either side at most
    risk: float = (
        0.1  # the largest share of errors among its verdicts of either kind; see platt.band
    )
    fitted: Path | None = (
        None  # a file of this command whose calibration is measured, instead of fitting one
    )
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Fitted:
    """A calibration that was fitted on other data, to be measured."""

    statements: dict[str, Calibration]
    pages: dict[str, Figures]
    """By statement: `with` and `without` the finding."""
    source: Figures
    """`data`, `pages`, `content`, `risk` and `confidence` of what it was fitted on."""
    pictures: frozenset[str]
    """sha256 of each of its pages."""


@dataclass(frozen=True)
class Job:
    """A page to ask about."""

    known: Known
    side: str


def findings(
    kit: Path,
    target: Path,
    plan: Plan,
    attach: bool = False,
    force: bool = False,
    say: Say = lambda _: None,
) -> Figures:
    """Ask, fit and measure; the content of `target`. With `attach` the kit is replaced by one that is calibrated.

    BenchError where there is nothing to ask or another run's file is in the way, KitError for a kit that cannot be used.
    """
    if not 0 < plan.risk < 0.5:
        raise UsageError(f"a risk of {plan.risk:g}: expected a share between 0 and 0.5")
    if attach and plan.fitted is not None:
        raise UsageError("--attach and --fitted contradict one another: attach where it is fitted")
    opened = open_kit(kit)
    fitted = None if plan.fitted is None else _fitted(plan.fitted, opened)
    bench = ecgbench.open_bench(plan.bench)
    problems: list[Problem] = []
    split = _split(bench, plan, problems.append)
    jobs = _jobs(bench, split, plan, problems.append)
    held_out = [sample for job in jobs if job.side == "test" for sample in job.known.samples]
    refuse_calibration_ids(bench, {"kit": opened}, held_out)
    header = _header(opened, bench, split)
    done = {} if force else _finished(target, header)
    for problem in problems:
        say(f"left out: {problem}")
    with _partial(target, header, force) as (more, file):
        done |= more
        _ask(
            opened,
            bench,
            [job for job in jobs if job.known.image not in done],
            done,
            file,
            plan,
            say,
        )
        lines = [done[job.known.image] for job in jobs if job.known.image in done]
        _refuse_fitted_pages(plan.fitted, fitted, lines)
        made = _conclude(header, lines, plan.risk, fitted)
        write_json(target, made)
        _beside(target).unlink(missing_ok=True)
    if attach:
        put_into_kit(opened, made)
    return made


# --- which pages ------------------------------------------------------------------------------------------------------


def _split(bench: Bench, plan: Plan, note: ecgbench.Note) -> Split:
    """Which pages calibrate and which test; all of them test what was fitted on others."""
    if plan.split is not None:
        return ecgbench.load_split(plan.split)
    made = ecgbench.split(
        (s for task in bench.tasks for s in bench.samples(task, note)), "pulse-edge findings", SHARE
    )
    if plan.fitted is None:
        return made
    every = {
        task: tuple(sorted((*ids, *made.calibration[task]))) for task, ids in made.test.items()
    }
    return replace(made, share=0.0, calibration={}, test=every)


def _fitted(path: Path, kit: Kit) -> Fitted:
    """The calibration of another file. BenchError where it is another kit's, or was not fitted there either."""
    made = load(path)
    if made["kit"]["identity"] != identity(kit.manifest):
        raise BenchError(f"{path}: is of another kit, {made['kit']['id']}; fit {kit.path} first")
    if "fitted_on" in made:
        raise BenchError(
            f"{path}: measures what was fitted on {made['fitted_on']['data']}; name the file of that"
        )
    source = {key: made[key] for key in ("data", "content", "risk", "confidence")}
    told = {key: Calibration(**s["calibration"]) for key, s in made["statements"].items()}
    pictures = frozenset(line["picture"] for line in made["lines"] if line["side"] == "calibration")
    pages = {key: s["calibration_pages"] for key, s in made["statements"].items()}
    return Fitted(told, pages, {**source, "pages": made["pages"]["calibration"]}, pictures)


def _refuse_fitted_pages(path: Path | None, fitted: Fitted | None, lines: Sequence[Line]) -> None:
    both = (
        []
        if fitted is None
        else [line["image"] for line in lines if line["picture"] in fitted.pictures]
    )
    if both:
        raise BenchError(
            f"{path}: was fitted on {len(both)} of these pages, {both[0]} first; measure on other pages"
        )


def _jobs(bench: Bench, split: Split, plan: Plan, note: ecgbench.Note) -> list[Job]:
    """Pages of either side, in an order that depends on their names alone, so that a limit takes of every task."""
    wanted = SIDES if plan.fitted is None else SIDES[1:]
    sides = {
        side: {(t, i) for t, ids in getattr(split, side).items() for i in ids} for side in wanted
    }
    found: dict[str, list[Known]] = {side: [] for side in SIDES}
    for page in _of_both_kinds(list(known_pages(bench, note))):
        of = {(s.task, s.id) for s in page.samples}
        where = [side for side in wanted if of & sides[side]]
        if len(where) == 1:
            found[where[0]].append(page)
    for side in wanted:
        if not found[side]:
            raise BenchError(
                f"{bench.path}: has no {side} page of which a statement is known; give another split"
            )
        found[side].sort(key=lambda page: hashlib.sha256(page.image.encode()).digest())
    return [Job(page, side) for side in wanted for page in found[side][: plan.limit]]


def _of_both_kinds(pages: Sequence[Known]) -> Iterator[Known]:
    """Without what is true of none of the pages or of all: nothing can be learned by asking it."""
    told = {(key, there) for page in pages for key, there in page.truths.items()}
    both = {key for key, _ in told if {(key, True), (key, False)} <= told}
    for page in pages:
        if kept := {key: there for key, there in page.truths.items() if key in both}:
            yield replace(page, truths=kept)


def _pictures(
    bench: Bench, jobs: Sequence[Job], note: ecgbench.Note
) -> Iterator[tuple[Job, bytes]]:
    """Each job's picture, read with its first question, a task at a time."""
    first: dict[tuple[str, str], Job] = {
        (j.known.samples[0].task, j.known.samples[0].id): j for j in jobs
    }
    for task in dict.fromkeys(task for task, _ in first):
        for sample in bench.samples(task, note, only={name for t, name in first if t == task}):
            yield first[task, sample.id], sample.picture or b""


# --- asking -----------------------------------------------------------------------------------------------------------


def _ask(
    kit: Kit,
    bench: Bench,
    jobs: Sequence[Job],
    done: dict[str, Line],
    file: IO[str],
    plan: Plan,
    say: Say,
) -> None:
    """A line for each page, on the disk's way as soon as it is known."""
    if not jobs:
        return
    begun = shown = time.monotonic()
    with PulseModel.load(kit, device=plan.device, threads=plan.threads) as model:
        say(f"{kit.manifest.id}: {len(jobs)} pages, on {model.device}")
        for n, (job, picture) in enumerate(
            _pictures(bench, jobs, lambda p: say(f"left out: {p}")), 1
        ):
            line = _line(model, job, picture)
            if "left_out" in line:
                say(f"left out: {job.known.image}: {line['left_out']}")
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            done[job.known.image] = line
            now = time.monotonic()
            if now - shown > SHOWN_SECONDS or n == len(jobs):
                shown, each = now, (now - begun) / n
                say(
                    f"{n} of {len(jobs)} pages, {each:.1f} s each, about {each * (len(jobs) - n) / 60:.0f} min left"
                )


def _line(model: PulseModel, job: Job, picture: bytes) -> Line:
    """What a page's statements are answered with; for a page that the kit refuses, why."""
    page = job.known
    line: Line = {
        "image": page.image,
        "side": job.side,
        "samples": [[s.task, s.id] for s in page.samples],
        "picture": hashlib.sha256(picture).hexdigest(),
        "patient": page.patient,
    }
    try:
        encoded = model.encode(picture, admit=False)
        answers = {key: yes_or_no(model, encoded, BY_KEY[key].question) for key in page.truths}
    except (ScanError, PageRefused, ContextError) as error:
        return {**line, "left_out": str(error)}
    log_odds = {key: round(a.log_odds, 5) for key, a in answers.items()}
    return {
        **line,
        "gold": page.truths,
        "log_odds": log_odds,
        "greedy": {key: a.greedy for key, a in answers.items()},
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _header(kit: Kit, bench: Bench, split: Split) -> Line:
    """What must agree for two runs to go together."""
    asked = [(s.key, s.question) for s in STATEMENTS]
    return {
        "version": VERSION,
        "kit": {
            "id": kit.manifest.id,
            "identity": identity(kit.manifest),
            "demonstration": kit.manifest.demonstration,
        },
        "data": bench.path.resolve().name,
        "split": {"key": split.key, "share": split.share, "content": split.content},
        "questions": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
    }


def _finished(target: Path, header: Line) -> dict[str, Line]:
    """The lines of a run that came to its end; BenchError where the file is another run's, or something else."""
    if not target.exists():
        return {}
    made = load(target)
    if any(made.get(key) != value for key, value in header.items()):
        refuse_existing(target)
    return {line["image"]: line for line in made["lines"]}


def load(path: Path) -> Figures:
    """A file of `calibration findings`. BenchError where it is none."""
    try:
        made = json.loads(path.read_text("utf-8"))
        if (
            made["version"] != VERSION
            or not isinstance(made["lines"], list)
            or not made["statements"]
        ):
            raise ValueError("another version")
        return dict(made)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{path}: is no file of `calibration findings` ({error!r}); choose another name"
        ) from error


def _beside(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


@contextmanager
def _partial(target: Path, header: Line, force: bool) -> Iterator[tuple[dict[str, Line], IO[str]]]:
    """The pages that an interrupted run left, and the file to write on; for this process alone."""
    path = _beside(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    with file:
        lock(file, path)
        if force:
            file.truncate(0)
        file.seek(0)
        whole = file.read()
        whole = whole[: whole.rfind("\n") + 1]
        file.truncate(
            len(whole.encode())
        )  # a line without its end was being written when the run was killed
        try:
            lines = [json.loads(text) for text in whole.splitlines()]
        except ValueError as error:
            raise BenchError(f"{path}: is damaged ({error}); remove it to begin anew") from error
        if not lines:
            file.write(json.dumps(header) + "\n")
            file.flush()
        elif lines[0] != header:
            raise BenchError(
                f"{path}: is what another run left (other kit, data or split); remove it to begin anew"
            )
        yield {line["image"]: line for line in lines[1:]}, file


def put_into_kit(kit: Kit, made: Figures) -> None:
    """Replace a kit by one that carries its calibration: in the manifest, and as `findings.json` without the pages."""
    told = {key: Calibration(**fitted["calibration"]) for key, fitted in made["statements"].items()}
    text = (
        json.dumps({k: v for k, v in made.items() if k != "lines"}, indent=1, ensure_ascii=False)
        + "\n"
    )
    into_kit.put(kit.path, {INSIDE: text.encode()}, INSIDE, findings=told)


# --- figures ----------------------------------------------------------------------------------------------------------


def _conclude(header: Line, lines: Sequence[Line], risk: float, other: Fitted | None) -> Figures:
    """Everything that the file says, of what is fitted here or of an `other` calibration."""
    sides = {
        side: [line for line in lines if line["side"] == side and "gold" in line] for side in SIDES
    }
    if not all(some for side, some in sides.items() if side == "test" or other is None):
        raise BenchError("no page of one side could be asked about; see what was left out, and why")
    fitted = (
        other.statements
        if other
        else {s.key: _fit(s.key, sides["calibration"], risk) for s in STATEMENTS}
    )
    asked, w = table(sides["test"], fitted), draws([_group(line) for line in sides["test"]])
    statements = {}
    for k, s in enumerate(STATEMENTS):
        figures = _of_statement(asked.column(k), w)
        auc = figures["auc"]["value"] if "auc" in figures else None
        known = [line["gold"][s.key] for line in sides["calibration"] if s.key in line["gold"]]
        pages = (
            other.pages[s.key]
            if other
            else {"with": sum(known), "without": len(known) - sum(known)}
        )
        statements[s.key] = {
            "name": s.name,
            "calibration": asdict(
                replace(fitted[s.key], auc=None if auc is None else round(auc, 4))
            ),
            "calibration_pages": pages,
            **figures,
        }
    taken = sorted(
        (t, i, line["picture"]) for line in sides["calibration"] for t, i in line["samples"]
    )
    ids: dict[str, list[str]] = {}
    for task, name, _ in taken:
        ids.setdefault(task, []).append(name)
    return {
        **header,
        "risk": other.source["risk"] if other else risk,
        "confidence": other.source["confidence"] if other else platt.CONFIDENCE,
        **({"fitted_on": other.source} if other else {}),
        "pages": {side: len(some) for side, some in sides.items()},
        "calibrated_on": ids,
        "content": hashlib.sha256(json.dumps(taken).encode()).hexdigest(),
        "left_out": {line["image"]: line["left_out"] for line in lines if "left_out" in line},
        "versions": versions(),
        "all": _of_all(asked, fitted, w),
        "statements": statements,
        "lines": list(lines),
    }


def _group(line: Line) -> str:
    """What a draw of the bootstrap takes or leaves as a whole."""
    return f"patient {line['patient']}" if line["patient"] is not None else f"page {line['image']}"


def _fit(key: str, lines: Sequence[Line], risk: float) -> Calibration:
    told = [line for line in lines if key in line["gold"]]
    log_odds = np.array([line["log_odds"][key] for line in told], float)
    gold = np.array([line["gold"][key] for line in told], bool)
    return platt.calibrate(log_odds, gold, [_group(line) for line in told], risk)


def table(lines: Sequence[Line], fitted: dict[str, Calibration]) -> Asked:
    """Pages by statements, in the order of STATEMENTS."""
    keys = [s.key for s in STATEMENTS]
    told = np.array([[key in line["gold"] for key in keys] for line in lines], bool)
    gold = np.array([[line["gold"].get(key, False) for key in keys] for line in lines], bool)
    log_odds = np.array([[line["log_odds"].get(key, 0.0) for key in keys] for line in lines], float)
    greedy = [[line["greedy"].get(key) for key in keys] for line in lines]
    said = np.where(
        [[one is None for one in row] for row in greedy],
        ~gold,
        np.array(greedy) == True,  # noqa: E712 (None is not equal either)
    )
    scale, offset, low, high = (
        np.array([getattr(fitted[key], name) for key in keys])
        for name in ("scale", "offset", "uncertain_from", "uncertain_to")
    )
    after = platt.logistic(scale * log_odds + offset)
    return Asked(told, gold, said, log_odds, after, after > high, after < low)


def _of_statement(asked: Asked, w: platt.Floats) -> Figures:
    """One statement on the test pages."""
    pages = {
        "with": int((asked.gold & asked.told).sum()),
        "without": int((~asked.gold & asked.told).sum()),
    }
    out: Figures = {"test_pages": pages}
    if both := platt.auc_both(asked, w):
        out |= {
            "auc": spread(both[0]),
            "auc_of_labels": spread(both[1]),
            "auc_difference": spread(both[0] - both[1]),
        }
    if asked.told.any():
        out |= _errors(asked, w)
    return out


def _errors(asked: Asked, w: platt.Floats) -> Figures:
    out = {
        "ece_before": spread(platt.calibration_error(asked.before, asked, w)),
        "ece_after": spread(platt.calibration_error(asked.after, asked, w)),
    }
    return out | {name: spread(values) for name, values in platt.verdicts(asked, w).items()}


def _of_all(asked: Asked, fitted: dict[str, Calibration], w: platt.Floats) -> Figures:
    """Over all statements: mean AUC of those that the test pages can measure, the rest over all pages and statements.

    Calibration errors count the statements that were fitted.
    """
    found = [platt.auc_both(asked.column(k), w) for k in range(len(STATEMENTS))]
    measured = [both for both in found if both]
    out: Figures = {"measured": len(measured)}
    if measured:
        by_chance, by_label = (row_mean(np.stack(some, 1)) for some in zip(*measured, strict=True))
        out |= {
            "auc": spread(by_chance),
            "auc_of_labels": spread(by_label),
            "auc_difference": spread(by_chance - by_label),
        }
    fit = np.array(
        [fitted[s.key].reason not in (platt.NOT_TOLD, platt.TOO_FEW) for s in STATEMENTS]
    )
    out |= {name: spread(values) for name, values in platt.verdicts(asked, w).items()}
    if (some := replace(asked, told=asked.told & fit)).told.any():
        for name, p in (("before", asked.before), ("after", asked.after)):
            out[f"ece_{name}"] = spread(platt.calibration_error(p, some, w))
            out[f"bins_{name}"] = _bins(p, some, w)
    return out


def _bins(p: platt.Floats, asked: Asked, w: platt.Floats) -> list[Figures]:
    """For the reliability picture: mean probability and share of truths of each bin."""
    count, chance, true = platt.bins(p, asked, w)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = true / count
    return [
        {
            "pairs": int(count[0, b]),
            "probability": float(chance[0, b] / count[0, b]),
            "share": spread(share[:, b]),
        }
        for b in range(platt.BINS)
        if count[0, b]
    ]


def in_words(made: Figures) -> Iterator[str]:
    """What came out, for people."""
    every, statements = made["all"], made["statements"]
    judged = [key for key, s in statements.items() if not s["calibration"]["reason"]]
    yield f"{len(judged)} of {len(statements)} statements are judged: {', '.join(judged) or 'none'}"
    if "auc" in every:
        yield (
            f"mean AUC of {every['measured']} statements on {made['pages']['test']} test pages: "
            f"{_ranged(every['auc'])} from probabilities, {_ranged(every['auc_of_labels'])} from greedy labels"
        )
    if "ece_before" in every:
        yield f"calibration error {_ranged(every['ece_before'])} before, {_ranged(every['ece_after'])} after"
    yield (
        f"a verdict on {_ranged(every['coverage'])} of what is known, {_ranged(every['risk'])} of them wrong "
        f"(without abstaining {_ranged(every['risk_always'])}; at most {made['risk']:g} was asked for)"
    )
    yield (
        f"of what the pages have {_ranged(every['missed'])} is called absent, of what they have not "
        f"{_ranged(every['alarmed'])} present"
    )


def _ranged(figure: Figures) -> str:
    low, high = figure["interval"]
    return (
        "not known"
        if figure["value"] is None or low is None
        else f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
    )
