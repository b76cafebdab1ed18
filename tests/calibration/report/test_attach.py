"""The report inside a kit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from given_results import CHOICE_TASK, two_kits

from calibration import into_kit
from calibration.report.write import Options, report
from calibration.results import identity
from pulse_edge.errors import KitError
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.verify import verify


@pytest.fixture
def measured(tiny_kit: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A kit, and results that hold its answers."""
    kit = Path(shutil.copytree(tiny_kit, tmp_path / "kit"))
    folder = two_kits(tmp_path, "AAB", "AAA")
    for file in (folder / "q4" / "kit.json", folder / "q4" / CHOICE_TASK / "step-final.jsonl"):
        own = identity(open_kit(kit).manifest)
        text = file.read_text().replace('"identity": "q4"', f'"identity": "{own}"')
        file.write_text(text.replace('"kit": "q4"', f'"kit": "{own}"'))
    return kit, folder


def test_a_kit_carries_its_report_and_is_still_whole(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    kit, folder = measured
    for _ in range(2):
        report(folder, tmp_path / "report", Options(attach=kit))
        opened = open_kit(kit)
        verify(opened)
        assert opened.manifest.accuracy is not None
        assert opened.manifest.accuracy["table"][0]["this"] == "100.0 [100.0, 100.0]"
        assert (kit / opened.manifest.accuracy["report"]).read_bytes() == (
            tmp_path / "report" / "report.html"
        ).read_bytes()


def test_kit_info_shows_verdict_and_table(measured: tuple[Path, Path], tmp_path: Path) -> None:
    from pulse_edge.cli.main import cli as pulse_edge

    kit, folder = measured
    report(folder, tmp_path / "report", Options(attach=kit))
    done = CliRunner().invoke(pulse_edge, ["kit", "info", str(kit)])
    assert done.exit_code == 0, done.output
    assert "No task is worse by more than chance" in done.stdout
    assert f"{CHOICE_TASK}: accuracy 100.0 [100.0, 100.0], reference 66.7" in done.stdout
    assert "accuracy/report.html" in done.stdout


def test_an_interrupted_attaching_leaves_the_old_kit(
    measured: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, folder = measured
    before = (kit / "manifest.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(into_kit, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(folder, tmp_path / "report", Options(attach=kit))
    assert (kit / "manifest.json").read_bytes() == before
    assert [p.name for p in kit.parent.iterdir() if "unfinished" in p.name] == []
    verify(open_kit(kit))


def test_a_report_of_other_kits_is_not_attached(tiny_kit: Path, tmp_path: Path) -> None:
    folder = two_kits(tmp_path, "A", "A")
    with pytest.raises(KitError, match="has no answers of this kit"):
        report(folder, tmp_path / "report", Options(attach=tiny_kit))
    assert not (tmp_path / "report").exists()
