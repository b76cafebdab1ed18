"""A recipe's gates: limits that a kit's figures must keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calibration.figures import GateResult, KitFigures
from pulse_edge.errors import UsageError

RECIPES = Path(__file__).resolve().parent.parent.parent / "models.yaml"
GATES: Mapping[str, tuple[str, int]] = {
    "mean_kld": ("mean KLD in nats", 1),
    "kld_99": ("99 % quantile of KLD in nats", 1),
    "same_top": ("share of tokens with the same top token", -1),
    "score_loss": ("loss of the mean score, 0 to 1", 1),
    "worst_task_loss": ("largest loss of a task's score, 0 to 1", 1),
    "significant_losses": ("tasks whose loss is more than chance at 95 %", 1),
    "lost_answers": ("share of answers that turned from right to wrong", 1),
    "bytes": ("bytes of the kit", 1),
    "peak_bytes": ("peak bytes of memory", 1),
    "first_token_seconds": ("seconds to the first token", 1),
}
"""Each gate's figure, and whether its limit is the largest (1) or the smallest (-1) that passes."""


def load_gates(path: Path, recipe: str) -> dict[str, float]:
    """A recipe's gates: its `kld`, the largest mean, and the entries of its `gates`.

    UsageError where there are none, or an unknown one.
    """
    import yaml

    try:
        recipes = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("recipes") or {}
        if recipe not in recipes:
            raise UsageError(
                f"{path}: has no recipe {recipe}; there are {', '.join(recipes) or 'none'}"
            )
        entry = recipes[recipe]
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
            f"{path}: recipe {recipe} has unknown gates {', '.join(unknown)}; "
            f"known are {', '.join(GATES)}"
        )
    return gates


def check(kit: KitFigures, gates: Mapping[str, float]) -> list[GateResult]:
    """The result of each gate; one whose figure was not measured does not pass."""
    values = gate_values(kit)
    results = []
    for gate, limit in gates.items():
        what, sign = GATES[gate]
        value = values[gate]
        passed = value is not None and sign * value <= sign * limit
        results.append(GateResult(gate, what, value, limit, passed))
    return results


def gate_values(kit: KitFigures) -> dict[str, float | None]:
    """The figure of each gate; None where it was not measured."""
    differences = [task.difference for task in kit.tasks.values()]
    losses = [-d.value for d in differences if d.value is not None]
    loss = kit.score.difference.value if kit.score.difference else None
    return {
        "mean_kld": kit.kld.mean.value if kit.kld else None,
        "kld_99": kit.kld.quantiles["0.99"] if kit.kld else None,
        "same_top": kit.same_top.value if kit.same_top else None,
        "score_loss": None if loss is None else -loss,
        "worst_task_loss": max(losses, default=None),
        "significant_losses": sum(d.below_zero for d in differences),
        "lost_answers": kit.lost / kit.questions,
        "bytes": kit.total_bytes,
        "peak_bytes": kit.peak_bytes,
        "first_token_seconds": kit.first_token_seconds,
    }
