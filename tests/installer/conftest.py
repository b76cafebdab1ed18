from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_bundle
from installations import KEY, OTHER, run


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`one` and `two` are versions with kit a, `broken` cannot read pages, `more` brings another
    kit, `foreign` a key.
    """
    folder = tmp_path_factory.mktemp("bundles")
    a, b = (
        small_bundle.kit(folder / "a", "kit a", seed=1),
        small_bundle.kit(folder / "b", "kit b", seed=2),
    )
    one, two = small_bundle.program(folder, "1.0"), small_bundle.program(folder, "2.0")
    broken = small_bundle.program(folder, "3.0", broken=True)
    return {
        "one": small_bundle.make(folder / "one", a, wheel=one, key=KEY, piece_bytes=3000),
        "two": small_bundle.make(folder / "two", a, wheel=two, key=KEY),
        "broken": small_bundle.make(folder / "broken", a, wheel=broken, key=KEY),
        "more": small_bundle.make(folder / "more", b, wheel=two, key=KEY),
        "foreign": small_bundle.make(folder / "foreign", b, wheel=two, key=OTHER),
        "delta": small_bundle.make(
            folder / "delta", a, b, wheel=one, key=KEY, since=folder / "one/bundle.json"
        ),
    }


@pytest.fixture(scope="session")
def first(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("first") / "home"
    done = run(bundles["one"], home)
    assert (done.returncode, done.stdout) == (
        0,
        f"installed. Read a page: {home}/pulse-edge interpret scan.jpg\n",
    )
    return home


@pytest.fixture
def home(first: Path, tmp_path: Path) -> Path:
    """A copy of a finished installation of `one`; its virtual environment is good enough for its
    launcher.
    """
    return Path(shutil.copytree(first, tmp_path / "home", symlinks=True))
