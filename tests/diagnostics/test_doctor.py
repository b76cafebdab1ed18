"""`pulse-edge doctor`: which kits it refuses on this machine, and what it stores."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT
from click.testing import CliRunner
from golden_kits import MINIATURE, altered, by_name
from PIL import Image

from pulse_edge import PulseModel
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli.main import cli
from pulse_edge.common import folders, paths
from pulse_edge.diagnostics import doctor
from pulse_edge.errors import KitError
from pulse_edge.inference import model as interpret
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.write import write_manifest
from pulse_edge.machine import cpu, profile, self_test_results
from pulse_edge.machine.memory_plan import Workload
from pulse_edge.report.report import FORCED_KIT, NOT_PROVEN

pytestmark = pytest.mark.usefixtures("one_core_and_own_cache")
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
SPEED = profile.Speed(10.0, 4.0, 8.0, 2.5, 4, 2)


def test_doctor_stores_the_speed_and_the_plan_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = altered(tmp_path / "kit", offset=0.02)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["doctor", "--kit", str(kit.path), "--json"], standalone_mode=False)
    output = json.loads(capsys.readouterr().out)
    results = {check["name"]: check for check in output["checks"]}
    assert output["fit"]
    assert results["golden cases"]["figures"]["cases"][0]["first_logits"] == pytest.approx(
        0.02, abs=0.01
    )
    assert results["peak"]["figures"]["planned"] > 0
    speed = profile.recall(kit).speed
    assert speed is not None
    assert interpret.threads_for(speed) == cpu.Threads(1, 1)
    with pytest.raises(SystemExit, match="0"):
        cli.main(
            ["interpret", str(PAGE), "--kit", str(kit.path), "--dry-run", "--json"],
            standalone_mode=False,
        )
    cast = json.loads(capsys.readouterr().out)
    assert (cast["tiles"], cast["image_tokens"]) == (5, 720)
    assert cast["first_words"] >= speed.load_seconds + 5 * speed.tile_seconds
    assert cast["peak_memory"] >= sum(
        cast["memory"][part] for part in ("program", "weights", "kv_cache")
    )


def test_a_kit_whose_golden_cases_do_not_come_back_is_refused_until_forced(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=0.1)
    results = by_name(list(doctor.examine(kit.path)))
    assert results["golden cases"].state == "failed"
    assert "1 of 1 did not come back" in results["golden cases"].text
    with pytest.raises(KitError, match=r"did not come back.*or answer with --force-kit"):
        PulseModel.load(kit, device="cpu")
    with PulseModel.load(kit, device="cpu", workload=Workload(pages=1), force=True) as model:
        report = model.interpret(PAGE, max_tokens=2)
    assert FORCED_KIT in report.notice.splitlines()
    assert "1 of 1 did not come back" in str(report.kit.refused)
    assert not report.kit.proven
    assert self_test_results.store(kit, None) == []
    PulseModel.load(kit, device="cpu", workload=Workload(pages=1)).close()


def test_a_refusal_outlives_the_cache_and_holds_on_fewer_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = altered(tmp_path / "kit", offset=0.1)
    by_name(list(doctor.examine(kit.path)))
    shutil.rmtree(paths.user_cache())
    monkeypatch.setattr(cpu, "allowed", lambda: frozenset({0}))
    with pytest.raises(KitError, match="did not come back"):
        PulseModel.load(kit, device="cpu")


def test_a_kit_is_not_proven_here_until_its_golden_cases_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    with PulseModel.load(kit, device="cpu", workload=Workload(pages=1)) as model:
        report = model.interpret(PAGE, max_tokens=2)
    assert NOT_PROVEN in report.notice.splitlines()
    assert report.kit.proven is False
    by_name(list(doctor.examine(kit.path)))
    with PulseModel.load(kit, device="cpu", workload=Workload(pages=1)) as model:
        report = model.interpret(PAGE, max_tokens=2)
    assert NOT_PROVEN not in report.notice
    assert report.kit.proven is True
    # Another version of an engine computes other numbers: the proof does not carry over.
    monkeypatch.setattr(profile, "version", lambda _name: "0")
    assert self_test_results.recall(kit) is None


def test_a_kit_without_golden_cases_is_never_called_proven(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    (kit.path / "golden.json").unlink()
    files = {name: file for name, file in kit.manifest.files.items() if name != "golden.json"}
    write_manifest(kit.path, replace(kit.manifest, files=files))
    assert by_name(list(doctor.examine(kit.path)))["golden cases"].state == "warning"
    assert self_test_results.recall(open_kit(kit.path)) is None


def test_a_refusal_with_the_installation_holds_for_every_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = open_kit(MINIATURE)
    monkeypatch.setattr(
        self_test_results, "folders", lambda: [tmp_path / "admin", tmp_path / "installation"]
    )
    assert self_test_results.store(kit, "it was wrong.") == []
    monkeypatch.setattr(
        self_test_results, "folders", lambda: [tmp_path / "nurse", tmp_path / "installation"]
    )
    result = self_test_results.recall(kit)
    assert result is not None
    assert result.refused == "it was wrong."


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kit": 1}', "[" * 10000])
def test_a_damaged_self_test_result_proves_nothing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_EDGE_STATE", str(tmp_path))
    kit = open_kit(MINIATURE)
    assert self_test_results.store(kit, None) == []
    (path,) = (p for p in (tmp_path / "self-tests").iterdir() if p.name != folders.MARKER)
    assert self_test_results.recall(kit) is not None
    path.write_text(content)
    assert self_test_results.recall(kit) is None


def test_forcing_a_page_does_not_force_a_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_EDGE_AUDIT_LOG", str(tmp_path / "log"))
    kit = open_kit(MINIATURE)
    Image.new("RGB", (800, 600), "white").save(tmp_path / "blank.png")
    monkeypatch.setenv("PULSE_EDGE_STATE", str(tmp_path / "state"))
    self_test_results.store(kit, "pulse-edge doctor refused it here: it was wrong.")
    command = [
        "interpret",
        str(tmp_path / "blank.png"),
        "--kit",
        str(MINIATURE),
        "--max-tokens",
        "2",
        "--json",
    ]
    command += ["--threads", "1", "--no-findings"]

    def answers(*options: str) -> int:
        return CliRunner().invoke(cli, [*command, *options]).exit_code

    assert answers("--force") == 1
    assert answers("--force-kit") == 3
    assert answers("--force", "--force-kit") == 0
    (entry,) = AuditLog().entries()
    assert (
        entry.fields["settings"]["page"]["force"],
        entry.fields["settings"]["model"]["force_kit"],
    ) == (
        True,
        True,
    )
    assert entry.fields["kit"]["refused"].endswith("it was wrong.")
