"""`pulse-edge doctor` and `interpret --dry-run`: what is found, what is refused, and what is kept for later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from click.testing import CliRunner
from PIL import Image

from pulse_edge import PulseModel
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.cli.main import cli
from pulse_edge.common import child_process, folders, paths
from pulse_edge.diagnostics import checks, doctor, golden, self_test
from pulse_edge.errors import DeviceError, KitError
from pulse_edge.inference import llama_cpp
from pulse_edge.inference import model as interpret
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import MANIFEST
from pulse_edge.kit.write import listing, write_manifest, writing
from pulse_edge.machine import cpu, profile, self_test_results
from pulse_edge.machine.memory_plan import Workload
from pulse_edge.report.report import FORCED_KIT, NOT_PROVEN

MINIATURE = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
SPEED = profile.Speed(10.0, 4.0, 8.0, 2.5, 4, 2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cpu, "allowed", lambda: frozenset({0}))


def altered(target: Path, *, offset: float | None) -> Kit:
    """The miniature with its first golden case's logits off by `offset`; None: without golden cases."""
    with writing(target) as work:
        shutil.copytree(MINIATURE, work, dirs_exist_ok=True)
        (work / MANIFEST).unlink()
        cases = json.loads((work / golden.FILE).read_text("utf-8"))["cases"]
        cases[0]["first_logits"][7] += offset or 0.0
        (work / golden.FILE).write_text(json.dumps({"tolerance": 0.03, "cases": cases[:1]}))
        if offset is None:
            (work / golden.FILE).unlink()
        write_manifest(work, replace(open_kit(MINIATURE).manifest, files=listing(work)))
    return open_kit(target)


def by_name(results: list[checks.Check]) -> dict[str, checks.Check]:
    return {check.name: check for check in results}


def test_a_fit_machine_keeps_its_speed_and_the_plan_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = altered(tmp_path / "kit", offset=0.02)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["doctor", "--kit", str(kit.path), "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    results = {check["name"]: check for check in told["checks"]}
    assert told["fit"]
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


def test_what_is_known_of_another_kit_or_machine_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = open_kit(MINIATURE)
    assert profile.store(kit, profile.MachineProfile(SPEED)) is None
    assert profile.recall(kit) == profile.MachineProfile(SPEED)
    assert profile.file(kit).stat().st_mode & 0o077 == 0
    assert profile.recall(replace(kit, sha256="0" * 64)) == profile.MachineProfile()
    monkeypatch.setattr(cpu, "allowed", lambda: frozenset({0, 1}))
    assert profile.recall(kit) == profile.MachineProfile()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"speed": {"load_seconds": 0}}'])
def test_a_damaged_memory_of_the_machine_is_none(content: str) -> None:
    kit = open_kit(MINIATURE)
    profile.store(kit, profile.MachineProfile())
    profile.file(kit).write_text(content)
    assert profile.recall(kit) == profile.MachineProfile()


def test_without_a_measurement_a_dry_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(
            ["interpret", str(PAGE), "--kit", str(MINIATURE), "--dry-run"], standalone_mode=False
        )
    out = capsys.readouterr().out
    assert "720 image tokens; how long it takes is not known yet: run pulse-edge doctor" in out
    assert "memory: at most" in out


def test_a_forecast_adds_up_what_was_measured() -> None:
    assert SPEED.seconds(5, 2880, [(40, 100), (16, 50)]) == pytest.approx(
        5 * 4 + (2880 + 56) / 8 + 150 / 2.5
    )


def test_an_illegal_instruction_ends_a_child_and_not_the_doctor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dying = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"]
    monkeypatch.setattr(child_process, "command", lambda *_: dying)
    check = checks.engine()
    assert check.state == "failed"
    assert "dies of an illegal instruction" in check.text
    assert "GGML_CPU_ALL_VARIANTS" in check.text


@pytest.mark.parametrize(
    ("flags", "state", "words"),
    [
        ({"avx", "avx2", "fma", "f16c"}, "ok", "built for AVX, AVX2"),
        ({"avx", "f16c"}, "failed", "lacks AVX2, FMA"),
        ({"avx", "avx2", "fma", "f16c", "avx512f"}, "ok", "AVX512 of this processor not used"),
        (set(), "ok", "built for AVX, AVX2"),
    ],
    ids=["the same", "older", "newer", "not told"],
)
def test_what_llama_cpp_was_built_for_is_compared_with_the_processor(
    flags: set[str], state: str, words: str
) -> None:
    said: dict[str, Any] = {
        "system": "CPU : AVX = 1 | AVX2 = 1 | FMA = 1 | F16C = 1 | REPACK = 1 | ",
        "cuda": None,
    }
    check = checks.judge_engine(said, frozenset(flags), "i5", "one library")
    assert check.state == state
    assert words in check.text


@pytest.mark.parametrize(
    ("figures", "passed"),
    [((0.04, 0, 0), True), ((0.06, 0, 0), False), ((0, 0.09, 0.09), True), ((0, 0, 0.2), False)],
)
def test_a_case_comes_back_within_the_tolerance(
    figures: tuple[float, float, float], passed: bool
) -> None:
    assert golden.Outcome("?", *figures, 0.05).passed == passed


def test_golden_cases_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    kit.file(golden.FILE).write_text('[{"page": 1}]')
    with pytest.raises(KitError, match=r"golden\.json: its golden cases cannot be read"):
        golden.read(kit)


def test_a_kit_without_golden_cases_has_none(tmp_path: Path) -> None:
    kit = altered(tmp_path / "kit", offset=None)
    assert golden.read(kit)[1] == ()
    assert golden.read(kit)[0] == golden.TOLERANCE
    language = replace(kit.manifest.language, type="Q4_K_M")
    coarse = replace(kit, manifest=replace(kit.manifest, language=language))
    assert golden.read(coarse)[0] == golden.TOLERANCE_QUANTIZED
    check = self_test.golden_check([])
    assert (check.state, "compared with nothing" in check.text) == ("warning", True)


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [({1: 8.0, 2: 4.1, 4: 4.05}, 2), ({4: 3.0, 8: 3.5}, 4), ({2: 5.0, 4: 4.0, 8: 2.0}, 8)],
)
def test_no_more_threads_than_are_worth_while(seconds: dict[int, float], threads: int) -> None:
    assert self_test.best(seconds) == threads


def stat_of(root: Path, *busy: int) -> Path:
    """A root whose processors have worked so many ticks, and waited for a thousand."""
    (root / "proc").mkdir(parents=True, exist_ok=True)
    rows = [f"cpu{n} {ticks} 0 0 1000 7 0 0 0 0 0" for n, ticks in enumerate(busy)]
    (root / "proc/stat").write_text("\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *rows, "intr 5"]))
    return root


def test_the_work_of_the_usable_processors_is_added_up(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    root = stat_of(tmp_path, 100, 300, 5000)
    assert cpu.worked(frozenset({0, 1}), root) == pytest.approx(400 / ticks)
    assert cpu.worked(frozenset({0, 9}), root) is None
    assert cpu.worked(frozenset({0}), tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("work", "share"), [(0.0, 0.0), (1.2, 0.6), (9.0, 1.0), (-1.0, 0.0), (None, None)]
)
def test_the_share_of_other_programs_is_what_this_one_did_not_take(
    monkeypatch: pytest.MonkeyPatch, work: float | None, share: float | None
) -> None:
    steps = iter(
        [(10.0, None if work is None else 5.0), (11.0, None if work is None else 5.0 + work)]
    )
    monkeypatch.setattr(cpu.Others, "_now", lambda _self: next(steps))
    monkeypatch.setattr(cpu.time, "sleep", lambda _seconds: None)
    assert cpu.Others(frozenset({0, 1})).share() == (
        None if share is None else pytest.approx(share)
    )


@pytest.mark.parametrize(
    ("shares", "threads"),
    [
        ([0.05], cpu.Threads(1, 1)),
        ([0.9, 0.9, 0.0], cpu.Threads(1, 1)),
        ([None], cpu.Threads(1, 1)),
        ([0.9] * 3, None),
    ],
    ids=["quiet", "quiet at last", "not told", "busy"],
)
def test_threads_are_compared_in_a_quiet_moment_only(
    monkeypatch: pytest.MonkeyPatch, shares: list[float | None], threads: cpu.Threads | None
) -> None:
    left = list(shares)
    monkeypatch.setattr(cpu, "candidates", lambda: [1, 2])
    monkeypatch.setattr(cpu.Others, "share", lambda _self: left.pop(0))
    monkeypatch.setattr(self_test, "_compare_threads", lambda *_about: cpu.Threads(1, 1))
    anything: Any = None
    assert self_test.fastest(anything, anything) == threads
    assert left == []


def test_a_busy_moment_does_not_change_the_threads_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    monkeypatch.setattr(self_test, "fastest", lambda *_about: None)
    monkeypatch.setattr(cpu, "threads", lambda: cpu.Threads(2, 1))
    for before, expected in ((None, (2, 1)), (SPEED, (4, 2))):
        if before is not None:
            profile.store(kit, profile.MachineProfile(before))
        results = by_name(list(doctor.examine(kit.path)))
        speed = profile.recall(kit).speed
        assert speed is not None
        assert (speed.prefill_threads, speed.decode_threads) == expected
        assert results["threads"].state == "warning"
        assert "Run pulse-edge doctor again when the machine is quiet" in results["threads"].text


@pytest.mark.parametrize(
    ("slower", "state", "words"),
    [(2.5, "ok", "save time"), (4.5, "warning", "without its draft table")],
)
def test_the_cost_of_a_verification_step_is_measured(
    slower: float, state: str, words: str, tiny_kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        scan, language = model.encode(PAGE, admit=False), model.language
        assert self_test._verification_step(model, scan) == []
        language.step_width = 4
        (real,) = self_test._verification_step(model, scan)
        assert real.figures["cost"] > 0
        assert language.has(scan.image_tokens_sha256)
        monkeypatch.setattr(
            self_test.benchmark, "step", lambda _model, _scan, width: slower if width == 4 else 1.0
        )
        (check,) = self_test._verification_step(model, scan)
    assert (check.state, check.figures) == (state, {"width": 4, "cost": slower})
    assert words in check.text


def test_a_broken_driver_ends_on_the_cpu_with_a_notice_and_under_cuda_in_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llama_cpp, "has_cuda", lambda: True)
    monkeypatch.setattr(llama_cpp, "gpus", list)
    with PulseModel.load(MINIATURE, device="auto", workload=Workload(pages=1)) as model:
        assert model.device.startswith("cpu (auto: llama.cpp has CUDA but sees no GPU")
        assert model.fallback is not None
        assert "so the CPU answers" in model.fallback
    with pytest.raises(DeviceError, match=r"sees no GPU.*--device cpu"):
        PulseModel.load(MINIATURE, device="cuda")


def test_a_gpu_that_is_too_small_is_an_error_under_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "has_cuda", lambda: True)
    monkeypatch.setattr(llama_cpp, "gpus", lambda: [llama_cpp.Gpu("GeForce", 200 << 20, 2 << 30)])
    with pytest.raises(DeviceError, match=r"GeForce has 200 MiB free.*no layer"):
        PulseModel.load(MINIATURE, device="cuda")


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


@pytest.mark.parametrize(
    ("tolerance", "rms_tolerance"),
    [(1e9, 0.1), ("inf", 0.1), ("nan", 0.1), (0, 0.1), (-1, 0.1), (0.05, "nan"), (0.05, -1)],
)
def test_a_tolerance_that_proves_nothing_is_refused(
    tmp_path: Path, tolerance: object, rms_tolerance: object
) -> None:
    kit = altered(tmp_path / "kit", offset=0.0)
    stated = json.loads(kit.file(golden.FILE).read_text()) | {
        "tolerance": tolerance,
        "rms_tolerance": rms_tolerance,
    }
    kit.file(golden.FILE).write_text(json.dumps(stated))
    with pytest.raises(KitError, match="prove nothing"):
        golden.read(kit)
