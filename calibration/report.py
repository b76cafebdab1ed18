"""Results -> report.json, report.md and report.html; what a recipe's gates say of a kit; the report inside the kit.

The reference kit comes first, then every other one with what its weights changed. What is not known is said in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration import compare, into_kit, report_findings
from calibration.files import fresh_folder, refuse_existing
from calibration.results import Results, identity
from pulse_edge.errors import KitError, UsageError
from pulse_edge.kit.kit import open_kit

Figures = dict[str, Any]
JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"
INSIDE = "accuracy"
"""The folder of a kit that holds its report."""
RECIPES = Path(__file__).resolve().parent.parent / "models.yaml"
FEW = 30
"""Pages of a diagnosis below which its figures are called uncertain."""
NAMES: Mapping[str, str] = {
    "f1": "F1",
    "auc": "AUC of labels",
    "auc_of_probabilities": "AUC",
    "hamming_loss": "Hamming loss",
    "exact": "all labels right",
    "accuracy": "accuracy",
    "diagnosis_f1": "F1 of diagnoses",
    "diagnosis_micro_f1": "micro F1",
    "rouge_l": "ROUGE-L",
    "rate_within_5": "rate within 5 bpm",
    "cpsc_f1": "F1 of CPSC's nine",
}


WAYS = ("right → wrong", "wrong → right")


@dataclass(frozen=True)
class Table:
    """Text cells under a title."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def report(
    source: Path,
    target: Path,
    bench: Path | None = None,
    recipe: str | None = None,
    recipes: Path = RECIPES,
    attach: Path | None = None,
    force: bool = False,
    findings: Sequence[Path] = (),
    hidden: Sequence[str] | None = None,
) -> Figures:
    """Write the report of the results in `source` to the folder `target`; its figures, as in report.json.

    `findings` are files of `calibration findings`, of kits among the results, each of other data. Of the tasks that are
    `hidden` no page is shown: patients' recordings stay where they are.
    `bench` is where the pages lie now. `recipe` names the gates, which are held against `attach`'s kit, or against all but
    the reference. BenchError and KitError where something does not belong together; nothing is written then.
    """
    from calibration.report_html import render

    results = Results(source)
    gates = {} if recipe is None else load_gates(recipes, recipe)
    figures = compare.compare(results)
    figures["findings"] = report_findings.load(findings, results)
    if unknown := sorted({*(hidden or ())} - figures["kits"][figures["reference"]]["tasks"].keys()):
        raise UsageError(f"--no-pictures: the results have no task {', '.join(unknown)}")
    chosen = None if attach is None else _name_of(results, attach)
    others = [name for name in figures["kits"] if name != figures["reference"]]
    figures["gates"] = {
        name: check(figures, name, gates) for name in ([chosen] if chosen else others) if gates
    }
    figures["recipe"] = recipe
    figures["verdicts"] = {name: verdict(figures, name) for name in figures["kits"]}
    figures["flips"] = list(_flips(results, figures))
    figures["not_known"] = list(not_known(results, figures))
    if not force and not (target.is_dir() and _is_report(target)):
        refuse_existing(target)
    with fresh_folder(target, force=True, ours=_is_report) as work:
        text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
        (work / JSON).write_text(text + "\n", encoding="utf-8")
        (work / MARKDOWN).write_text(markdown(figures), encoding="utf-8")
        (work / HTML).write_text(
            render(figures, tables(figures), bench, hidden or ()), encoding="utf-8"
        )
    if attach is not None and chosen is not None:
        put_into_kit(attach, chosen, figures, target)
    return figures


def _is_report(folder: Path) -> bool:
    """Whether a folder holds a report and nothing else."""
    if not {path.name for path in folder.iterdir()} <= {JSON, MARKDOWN, HTML}:
        return False
    try:
        made = json.loads((folder / JSON).read_text("utf-8"))
        return isinstance(made, dict) and {"kits", "reference", "verdicts"} <= made.keys()
    except (OSError, ValueError, RecursionError):
        return False


# --- gates ------------------------------------------------------------------------------------------------------------

GATES: Mapping[str, tuple[str, int]] = {
    "mean_kld": ("mean KLD in nats", 1),
    "kld_99": ("99 % quantile of KLD in nats", 1),
    "same_top": ("share of tokens with the same top token", -1),
    "score_loss": ("loss of the mean score, 0 to 1", 1),
    "worst_task_loss": ("largest loss of a task's score, 0 to 1", 1),
    "significant_losses": ("tasks whose loss is more than chance at 95 %", 1),
    "lost_answers": ("share of answers that turned from right to wrong", 1),
    "bytes": ("bytes of the kit", 1),
    "peak_bytes": ("bytes of memory at most", 1),
    "first_token_seconds": ("seconds to the first token", 1),
}
"""What a gate can ask for, and whether its number is the most (1) or the least (-1) that passes."""


def load_gates(path: Path, recipe: str) -> dict[str, float]:
    """A recipe's gates: its `kld`, the largest mean, and what stands under its `gates`.

    UsageError where there are none, or one that is not known.
    """
    import yaml

    try:
        known = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("recipes") or {}
        if recipe not in known:
            raise UsageError(
                f"{path}: has no recipe {recipe}; there are {', '.join(known) or 'none'}"
            )
        entry = known[recipe]
        listed = {
            **({"mean_kld": entry["kld"]} if "kld" in entry else {}),
            **entry.get("gates", {}),
        }
        gates = {str(name): float(value) for name, value in listed.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path}: recipe {recipe} is not understood ({error!r}); correct it"
        ) from error
    if not gates:
        raise UsageError(
            f"{path}: recipe {recipe} has no gates; give it kld, or gates with {', '.join(GATES)}"
        )
    if unknown := sorted(gates.keys() - GATES.keys()):
        raise UsageError(
            f"{path}: recipe {recipe} has unknown gates {', '.join(unknown)}; known are {', '.join(GATES)}"
        )
    return gates


def check(figures: Figures, name: str, gates: Mapping[str, float]) -> list[Figures]:
    """What each gate says of a kit; one whose figure was not measured does not pass."""
    values = gate_values(figures["kits"][name])
    out = []
    for gate, limit in gates.items():
        what, sign = GATES[gate]
        value = values[gate]
        passed = value is not None and sign * value <= sign * limit
        out.append({"gate": gate, "what": what, "value": value, "limit": limit, "passed": passed})
    return out


def gate_values(kit: Figures) -> dict[str, float | None]:
    """The figure of each gate; None where there is none."""
    losses = [_difference(task, task["primary"]) for task in kit["tasks"].values()]
    known = [d for d in losses if d["value"] is not None]
    kld = kit.get("kld")
    lost = sum(len(task.get("lost", ())) for task in kit["tasks"].values())
    loss = kit["score"].get("difference", {}).get("value")
    return {
        "mean_kld": kld["mean"]["value"] if kld else None,
        "kld_99": kld["quantiles"]["0.99"] if kld else None,
        "same_top": kit["same_top"]["value"] if kld else None,
        "score_loss": None if loss is None else -loss,
        "worst_task_loss": max((-d["value"] for d in known), default=None),
        "significant_losses": sum(below_zero(d) for d in known),
        "lost_answers": lost / kit["questions"],
        "bytes": sum(kit["bytes"].values()),
        "peak_bytes": kit.get("peak_bytes"),
        "first_token_seconds": kit["first_token_seconds"],
    }


def _difference(task: Figures, score: str) -> Figures:
    found: Figures = task["scores"][score].get(
        "difference", {"value": None, "interval": [None, None]}
    )
    return found


def below_zero(difference: Figures) -> bool:
    """Whether a difference's whole interval is."""
    high = difference["interval"][1]
    return high is not None and high < 0


# --- words ------------------------------------------------------------------------------------------------------------


def verdict(figures: Figures, name: str) -> str:
    """One paragraph about a kit."""
    kit = figures["kits"][name]
    size = f"{megabytes(kit)} MB"
    if name == figures["reference"]:
        return f"The reference: {size}, mean score {percent(kit['score'])} over {kit['questions']} questions."
    losses = [t for t, r in kit["tasks"].items() if below_zero(_difference(r, r["primary"]))]
    lost, gained = (sum(len(r[k]) for r in kit["tasks"].values()) for k in ("lost", "gained"))
    blinder = [
        f"{diagnosis} ({task})"
        for task, r in kit["tasks"].items()
        for diagnosis, d in r["diagnoses"].items()
        if below_zero(d["sensitivity"]["difference"])
    ]
    worse = (
        f"Worse by more than chance in {', '.join(losses)}."
        if losses
        else "No task is worse by more than chance."
    )
    parts = [
        f"{worse} Mean score {points_ranged(kit['score']['difference'])} against {figures['reference']}."
    ]
    if blinder:
        parts.append(f"Less sensitive by more than chance to {', '.join(blinder)}.")
    parts.append(
        f"{lost} answers turned from right to wrong, {gained} from wrong to right, of {kit['questions']}."
    )
    if "kld" in kit:
        parts.append(
            f"Mean KLD {kit['kld']['mean']['value']:.2g}, {percent(kit['same_top'])} % same top token."
        )
    gates = figures["gates"].get(name)
    if gates is not None:
        failed = [g["gate"] for g in gates if not g["passed"]]
        said = f"not passed: {', '.join(failed)}" if failed else "all passed"
        parts.append(f"Gates of {figures['recipe']}: {said}.")
    return f"{size}. " + " ".join(parts)


def not_known(results: Results, figures: Figures) -> Iterator[str]:
    """What these figures do not tell, a sentence each."""
    first = figures["kits"][figures["reference"]]
    yield from figures["incomplete"]
    for name in figures["kits"]:
        if count := results.unbound(name):
            yield f"{name}: {count} answers do not say which kit gave them; that files have changed places would not be seen."
    for task, r in first["tasks"].items():
        n = r["questions"]
        if n < 2000:
            yield f"{task}: {n} questions carry ±{196 * math.sqrt(0.25 / n):.0f} points at worst."
    for task, r in first["tasks"].items():
        few = [name for name, d in r["diagnoses"].items() if d["pages"] < FEW]
        if few:
            yield f"{task}: on fewer than {FEW} pages each rest the figures of {', '.join(few)}."
    if any(r["primary"] == "diagnosis_f1" for r in first["tasks"].values()):
        yield (
            "Reports and conversations are scored by the diagnoses that their words name, the rate, and ROUGE-L; no "
            "person and no judge model has read them, and words that the list does not have are not seen."
        )
    yield from report_findings.not_known(figures)
    yield from _oddities(figures)
    if count := sum(
        "difference" in s
        for k in figures["kits"].values()
        for r in k["tasks"].values()
        for s in r["scores"].values()
    ):
        yield f"{count} differences of scores are shown with 95 % intervals: about one in twenty lies outside zero by chance."
    machines = {str(kit.get("machine")) for kit in figures["kits"].values()}
    yield f"Seconds and memory are those of {'; '.join(sorted(machines))}, with whatever else ran there."
    left = results.path / "left_out.json"
    if left.exists() and (out := json.loads(left.read_text(encoding="utf-8"))):
        yield f"{len(out)} questions of the data could not be used, the first being {out[0]}."


def _oddities(figures: Figures) -> Iterator[str]:
    """Per kit: what it refused, left unfinished or said unreadably, and what is not known of its making."""
    for name, kit in figures["kits"].items():
        if kit["demonstration"]:
            yield f"{name}: a demonstration kit, not for patients."
        for key, words in (
            ("refused", "were refused, and count as wrong"),
            ("cut_off", "were cut off at the longest length"),
            (
                "unread",
                "name nothing that the scorer looks for, and count as wrong where something should be named",
            ),
        ):
            if count := sum(r[key] for r in kit["tasks"].values()):
                yield f"{name}: {count} of {kit['questions']} answers {words}."
        if kit.get("peak_bytes") is None:
            yield f"{name}: its peak memory could not be measured."


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(figures: Figures) -> list[Table]:
    """Everything but the pages, as text."""
    some = [
        _summary(figures),
        *(_task(figures, task) for task in figures["kits"][figures["reference"]]["tasks"]),
    ]
    some += [*report_findings.tables(figures), _divergence(figures), *_gates(figures)]
    return [table for table in [*some, *_diagnosis_tables(figures)] if table.rows]


def _summary(figures: Figures) -> Table:
    head = (
        "kit",
        "MB",
        "mean score",
        "difference",
        "mean KLD",
        "same top",
        *WAYS,
        "peak MiB",
        "first token s",
        "tokens/s",
    )
    rows = []
    for name, kit in figures["kits"].items():
        lost, gained = (
            str(sum(len(r.get(k, ())) for r in kit["tasks"].values())) for k in ("lost", "gained")
        )
        first = name == figures["reference"]
        rows.append(
            (
                name,
                megabytes(kit),
                ranged(kit["score"]),
                "" if first else points_ranged(kit["score"]["difference"]),
                f"{kit['kld']['mean']['value']:.2g}" if "kld" in kit else "",
                f"{percent(kit['same_top'])} %" if "kld" in kit else "",
                "" if first else lost,
                "" if first else gained,
                "not known"
                if kit.get("peak_bytes") is None
                else f"{kit['peak_bytes'] / 2**20:,.0f}",
                _number(kit["first_token_seconds"], 2),
                _number(kit["tokens_per_second"], 1),
            )
        )
    note = (
        "Scores of 100, the mean over the tasks' first scores; in brackets the 95 % interval; * marks a difference that "
        "is more than chance. KLD in nats a token."
    )
    return Table("All kits", head, tuple(rows), note)


def _task(figures: Figures, task: str) -> Table:
    results = {name: kit["tasks"][task] for name, kit in figures["kits"].items()}
    first = results[figures["reference"]]
    names = list(first["scores"])
    head = (
        "kit",
        *(NAMES[n] for n in names),
        "difference",
        "McNemar p",
        "right → wrong",
        "wrong → right",
        "texts changed",
    )
    rows = []
    for name, r in results.items():
        cells = [name, *(ranged(r["scores"][n]) for n in names)]
        if "mcnemar_p" in r:
            changed = str(r["texts_changed"])
            difference = points_ranged(_difference(r, r["primary"]))
            cells += [
                difference,
                f"{r['mcnemar_p']:.2g}",
                str(len(r["lost"])),
                str(len(r["gained"])),
                changed,
            ]
        rows.append(tuple(cells + [""] * (len(head) - len(cells))))
    note = f"{first['questions']} questions. The difference is that of {NAMES[first['primary']]}; p is of the answers right as a whole."
    return Table(task, head, tuple(rows), note)


def _divergence(figures: Figures) -> Table:
    head = (
        "kit",
        "tokens",
        "mean",
        "median",
        "90 %",
        "95 %",
        "99 %",
        "99.9 %",
        "most",
        "same top",
        "perplexity of the right answers",
    )
    rows = []
    for name, kit in figures["kits"].items():
        cells = [name, *[""] * 9]
        if "kld" in kit:
            kld, mean = kit["kld"], kit["kld"]["mean"]
            low, high = mean["interval"]
            cells = [name, str(kld["tokens"]), f"{mean['value']:.2g} [{low:.2g}, {high:.2g}]"]
            cells += [f"{kld['quantiles'][str(q)]:.2g}" for q in compare.QUANTILES]
            cells.append(f"{ranged(kit['same_top'])} %")
        perplexity = kit["gold_perplexity"]["value"]
        rows.append((*cells, "" if perplexity is None else f"{perplexity:.4g}"))
    note = f"Of the next token's distribution on {figures['reference']}'s own answers, in nats, over all tasks."
    return Table("Divergence from the reference", head, tuple(rows), note)


def _gates(figures: Figures) -> Iterator[Table]:
    for name, gates in figures["gates"].items():
        rows = tuple(
            (
                g["gate"],
                g["what"],
                "not measured" if g["value"] is None else f"{g['value']:.4g}",
                f"{g['limit']:.4g}",
                "passed" if g["passed"] else "NOT PASSED",
            )
            for g in gates
        )
        yield Table(
            f"Gates of {figures['recipe']}: {name}", ("gate", "what", "value", "limit", ""), rows
        )


def _diagnosis_tables(figures: Figures) -> Iterator[Table]:
    first = figures["reference"]
    others = [name for name in figures["kits"] if name != first]
    for task, base in figures["kits"][first]["tasks"].items():
        for what in ("sensitivity", "specificity"):
            rows = []
            for diagnosis, figure in base["diagnoses"].items():
                changes = (
                    figures["kits"][n]["tasks"][task]["diagnoses"][diagnosis][what]["difference"]
                    for n in others
                )
                cells = (points_ranged(change) for change in changes)
                rows.append((diagnosis, str(figure["pages"]), ranged(figure[what]), *cells))
            yield Table(
                f"{task}: {what} of each diagnosis",
                ("diagnosis", "pages", first, *others),
                tuple(rows),
            )


def markdown(figures: Figures) -> str:
    """The report as Markdown, without its pictures."""
    lines = [f"# {title(figures)}", ""]
    lines += [f"- **{name}**: {text}" for name, text in figures["verdicts"].items()]
    for table in tables(figures):
        lines += ["", f"## {table.title}", ""]
        lines += [
            " | ".join(("", *cells, "")).strip()
            for cells in (table.head, ("---",) * len(table.head), *table.rows)
        ]
        lines += ["", table.note] if table.note else []
    lines += ["", "## What is not known", "", *(f"- {text}" for text in figures["not_known"])]
    return "\n".join([*lines, "", f"Made with {made_with(figures)}.", ""])


def title(figures: Figures) -> str:
    """Of the report."""
    others = len(figures["kits"]) - 1
    against = f"{others} kit{'s' * (others > 1)} against" if others else "the reference"
    return f"Accuracy: {against} {figures['kits'][figures['reference']]['id']}"


def made_with(figures: Figures) -> str:
    """Programs, machine, data."""
    kit = figures["kits"][figures["reference"]]
    versions = ", ".join(f"{name} {number}" for name, number in (kit.get("versions") or {}).items())
    return f"{versions}; {kit.get('device')}; {kit.get('machine')}; data {Path(figures['run']['bench']).name}"


def megabytes(kit: Figures) -> str:
    """Size of a kit's models."""
    size: float = sum(kit["bytes"].values()) / 1e6
    return f"{size:,.1f}" if size < 100 else f"{size:,.0f}"


def percent(figure: Figures) -> str:
    """A share as its hundredfold."""
    return "none" if figure["value"] is None else f"{100 * figure['value']:.1f}"


def ranged(figure: Figures) -> str:
    """`74.8 [73.1, 76.4]`."""
    low, high = figure["interval"]
    return percent(figure) + ("" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]")


def points(difference: Figures) -> str:
    """`-0.4`, in points."""
    return "none" if difference["value"] is None else f"{100 * difference['value']:+.1f}"


def points_ranged(difference: Figures) -> str:
    """`-0.4 [-1.2, +0.3]`; a star where zero is outside."""
    low, high = difference["interval"]
    if low is None:
        return points(difference)
    star = " *" if low > 0 or high < 0 else ""
    return f"{points(difference)} [{100 * low:+.1f}, {100 * high:+.1f}]{star}"


def _number(value: float | None, digits: int) -> str:
    return "not known" if value is None else f"{value:.{digits}f}"


# --- flips ------------------------------------------------------------------------------------------------------------


def _flips(results: Results, figures: Figures) -> Iterator[Figures]:
    """Every question whose answer turned in some kit, those that most kits lost first: both answers, and the right one."""
    first = figures["reference"]
    for task in figures["kits"][first]["tasks"]:
        others = {n: k["tasks"][task] for n, k in figures["kits"].items() if n != first}
        ids = dict.fromkeys(
            i for way in ("lost", "gained") for r in others.values() for i in r[way]
        )
        lines = {n: {x["question_id"]: x for x in results.lines(n, task)} for n in (first, *others)}
        turned = [
            (
                one,
                {n: way for n, r in others.items() for way in ("lost", "gained") if one in r[way]},
            )
            for one in ids
        ]
        for one, ways in sorted(turned, key=lambda t: -sum(way == "lost" for way in t[1].values())):
            line = lines[first][one]
            yield {
                "task": task,
                "id": one,
                "image": line["image"],
                "question": line["prompt"],
                "gold": line["gold"],
                "reference": line["text"],
                "answers": {
                    n: {"way": way, "text": lines[n][one]["text"]} for n, way in ways.items()
                },
            }


# --- into the kit -----------------------------------------------------------------------------------------------------


def _name_of(results: Results, path: Path) -> str:
    """The name under which a kit was measured; KitError where it was not."""
    opened = open_kit(path)
    for name in results.kits:
        if results.kit(name)["identity"] == identity(opened.manifest):
            return name
    raise KitError(f"{path}: {results.path} has no answers of this kit; evaluate it first")


def put_into_kit(path: Path, name: str, figures: Figures, written: Path) -> None:
    """Replace a kit by one that carries verdict, short table and report."""
    files = {f"{INSIDE}/{file}": (written / file).read_bytes() for file in (JSON, MARKDOWN, HTML)}
    into_kit.put(path, files, f"{INSIDE}/", accuracy=summary_for_kit(figures, name))


def summary_for_kit(figures: Figures, name: str) -> Figures:
    """What the manifest says of a kit's accuracy."""
    kit, first = figures["kits"][name], figures["reference"]
    rows = []
    for task, r in kit["tasks"].items():
        base = figures["kits"][first]["tasks"][task]["scores"][r["primary"]]
        row = {
            "task": task,
            "score": NAMES[r["primary"]],
            "questions": r["questions"],
            "reference": ranged(base),
        }
        this = ranged(r["scores"][r["primary"]])
        difference = "" if name == first else points_ranged(_difference(r, r["primary"]))
        rows.append({**row, "this": this, "difference": difference})
    return {
        "verdict": figures["verdicts"][name],
        "reference": figures["kits"][first]["id"],
        "table": rows,
        "kld": kit.get("kld"),
        "same_top": kit.get("same_top"),
        "gates": figures["gates"].get(name),
        "report": f"{INSIDE}/{HTML}",
    }


def failed(figures: Figures) -> Sequence[str]:
    """The gates that did not pass, as `kit: gate`."""
    return [
        f"{name}: {g['gate']}"
        for name, gates in figures["gates"].items()
        for g in gates
        if not g["passed"]
    ]
