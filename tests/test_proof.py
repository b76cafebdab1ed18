"""The proof notices faults that were put into the converter on purpose, and passes what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import LAYOUTS, MUTATIONS, Mutation, mutated, source

from export import convert
from pulse_edge.errors import ParityError


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, convert.Options]]:
    """Layout -> checkpoint, its right kit, and the options that made it."""
    folder, out = tmp_path_factory.mktemp("right"), {}
    for layout in LAYOUTS:
        path, options = source(folder, layout)
        convert.convert(path, folder / f"{layout}-kit", options)
        out[layout] = path, folder / f"{layout}-kit", options
    return out


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_mutation_is_noticed(
    mutation: Mutation,
    right: dict[str, tuple[Path, Path, convert.Options]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, kit, options = right[mutation.layout]
    with pytest.raises(ParityError, match=mutation.notices):
        mutated(mutation, folder, kit, options, tmp_path / "out" / "kit", monkeypatch)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_harness_of_the_mutations_passes_a_right_kit(
    layout: str,
    right: dict[str, tuple[Path, Path, convert.Options]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, kit, options = right[layout]
    none = Mutation("none", lambda _patch, _folder: None, "", layout=layout)
    mutated(none, folder, kit, options, tmp_path / "kit", monkeypatch)
    assert (tmp_path / "kit" / "manifest.json").is_file()
