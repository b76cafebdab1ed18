"""Lock files: read strictly, and those of the checkout fit every kind of laptop."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from checkout import ROOT
from packaging.requirements import Requirement

from pulse_edge.deploy.locks import Pin, lock_file, read_lock
from pulse_edge.deploy.targets import PLATFORMS, PYTHONS, Target
from pulse_edge.deploy.wheels import normalized
from pulse_edge.errors import KitError

LOCKS = ROOT / "locks"
TARGETS = [Target(*parts, "cpu") for parts in itertools.product(PLATFORMS, PYTHONS)]


def test_a_lock_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(
        f"# comment\nPillow_HEIF==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
    )
    pin = Pin("pillow-heif", "1.0", frozenset(["a" * 64, "b" * 64]))
    assert read_lock(path) == {"pillow-heif": pin}


@pytest.mark.parametrize(
    "text",
    [
        "numpy==1.0\n",
        "numpy>=1.0 --hash=sha256:" + "a" * 64,
        "numpy==1.0 --hash=sha256:" + "a" * 63,
        "numpy==1.0 --hash=md5:" + "a" * 32,
        "--index-url https://example.org/\n",
        f"numpy==1.0 ; python_version < '3.12' --hash=sha256:{'a' * 64}",
        f"numpy==1.0 --hash=sha256:{'a' * 64}\nNumPy==1.0 --hash=sha256:{'a' * 64}\n",
    ],
    ids=["no hash", "no version", "short hash", "MD5", "index", "marker", "twice"],
)
def test_a_lock_file_that_leaves_something_open_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.txt").write_text(text)
    with pytest.raises(KitError, match=r"lock\.txt: .* Make it again with `make locks`"):
        read_lock(tmp_path / "lock.txt")


def test_a_target_without_a_lock_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"missing, so the packages of this target are not locked"):
        read_lock(tmp_path / "lock.txt")


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_dependency_of_the_program_is_locked(target: Target) -> None:
    try:
        import tomllib
    except ImportError:
        pytest.skip("Python 3.10 cannot read TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = read_lock(lock_file(LOCKS, target))
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], "pip"]
    lines += [line for part in ("cpu", "pdf", "heic", "dicom", "report") for line in extras[part]]
    for requirement in map(Requirement, lines):
        pin = lock[normalized(requirement.name)]
        assert requirement.specifier.contains(pin.version)


def test_the_lock_files_agree_with_the_constraints() -> None:
    text = (ROOT / "constraints.txt").read_text()
    constraints = [
        Requirement(line) for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]
    for target in TARGETS:
        lock = read_lock(lock_file(LOCKS, target))
        for constraint in constraints:
            pin = lock.get(normalized(constraint.name))
            applies = constraint.marker is None or constraint.marker.evaluate(target.markers)
            if pin is not None and applies:
                assert constraint.specifier.contains(pin.version), (str(target), pin.name)


def test_no_lock_file_names_a_registry() -> None:
    for path in LOCKS.glob("*.txt"):
        assert "://" not in path.read_text()
