"""The proof notices faults that were put into the converter on purpose, and passes what is
right."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation_table import MUTATIONS
from mutations import LAYOUTS, Mutation, mutated, noisy, source
from quantizer_mutations import QUANTIZER, Requantized

from export import convert, quantize
from pulse_edge.errors import ParityError


@pytest.fixture(scope="module")
def right(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, Path, convert.Options]]:
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


@pytest.mark.parametrize("fault", QUANTIZER, ids=lambda f: f.name)
def test_a_fault_of_the_quantizer_is_noticed(
    fault: Requantized,
    right: dict[str, tuple[Path, Path, convert.Options]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, kit, _ = right["unpad"]
    fault.apply(monkeypatch)
    with pytest.raises(ParityError, match=fault.notices):
        quantize.quantize(
            kit, tmp_path / "out" / "kit", quantize.Options(llm="Q8_0", vision="w8", threads=1)
        )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M"])
def test_golden_cases_notice_one_percent_of_noise(
    kind: str, right: dict[str, tuple[Path, Path, convert.Options]], tmp_path: Path
) -> None:
    from pulse_edge import PulseModel
    from pulse_edge.diagnostics import golden
    from pulse_edge.kit.kit import open_kit

    kit = tmp_path / "kit"
    quantize.quantize(right["flat"][1], kit, quantize.Options(llm=kind, threads=1))
    assert "golden.json" in open_kit(kit).manifest.files  # though no page was named

    def outcomes() -> list[golden.Outcome]:
        with PulseModel.load(kit, device="cpu", threads=1) as model:
            return golden.check(
                model, lambda path: model.encode(path, force=True), lambda _done, _of: None
            )

    assert len(outcomes()) == 3
    assert all(outcome.passed for outcome in outcomes())
    noisy(kit)
    assert not any(outcome.passed for outcome in outcomes())
