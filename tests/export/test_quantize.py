"""`export quantize`: reproducible kits, types under a budget, gates, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from checkout import ROOT
from click.testing import CliRunner
from gguf import GGMLQuantizationType as Type

from calibration.collect import Plan, collect
from calibration.synthesize import Plan as Pages
from calibration.synthesize import synthesize
from export import choose, ggml, llm_logits, vision
from export.__main__ import cli
from export.choose import Matrix
from export.models import Recipe, load_recipes
from export.quantize import Options, encoder, quantize
from pulse_edge.common.files import file_sha256
from pulse_edge.common.paths import EXAMPLE_PAGE
from pulse_edge.errors import CheckpointError, EngineError, KitError, ParityError, UsageError
from pulse_edge.kit.kit import base_of, open_kit
from pulse_edge.kit.write import listing, write_manifest, writing


@pytest.fixture(scope="module")
def stats(tiny_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    synthesize(folder / "pages", Pages(pages=2, seed=5, tasks=("ptb-test",)))
    collect(tiny_kit, folder / "stats.gguf", Plan(folder / "pages", samples=2))
    return folder / "stats.gguf"


@pytest.fixture(scope="module")
def smaller(tiny_kit: Path, stats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kit = tmp_path_factory.mktemp("kits") / "smaller"
    quantize(tiny_kit, kit, Options(llm="Q4_K_M", vision="w8", stats=stats, threads=1))
    return kit


def contents(kit: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in kit.iterdir()}


# --- the kit --------------------------------------------------------------------------------------


def test_the_same_settings_give_the_same_bytes_on_any_number_of_threads(
    tiny_kit: Path, stats: Path, smaller: Path, tmp_path: Path
) -> None:
    quantize(
        tiny_kit, tmp_path / "other", Options(llm="Q4_K_M", vision="w8", stats=stats, threads=2)
    )
    assert contents(tmp_path / "other") == contents(smaller)


def test_the_manifest_states_how_the_kit_was_quantized(
    tiny_kit: Path, stats: Path, smaller: Path
) -> None:
    base, m = open_kit(tiny_kit).manifest, open_kit(smaller).manifest
    assert m.quantization is not None
    assert m.quantization.base == base_of(base) == base_of(m)
    assert m.quantization.settings["llm"] == "Q4_K_M"
    assert m.quantization.statistics_sha256 == file_sha256(stats)
    assert len(m.quantization.calibration["ptb-test"]) == 2
    assert m.quantization.tensors["blk.0.attn_q.weight"] == "Q4_K"
    assert (
        m.quantization.tensors["blk.0.ffn_down.weight"] == "F16"
    )  # 688 columns are no multiple of 32
    assert (m.language.type, m.vision.type) == ("Q4_K_M", "w8")
    assert m.id.endswith("(Q4_K_M, w8)")


def test_its_proof_is_in_the_manifest(smaller: Path) -> None:
    figures = open_kit(smaller).manifest.parity
    assert 0 < figures["language"]["mean_kld"] <= figures["language"]["kld_required"]
    assert figures["language"]["pages"] == figures["vision"]["pages"] == 3
    assert 0.999 < figures["vision"]["cosine_mean"] <= 1


def test_a_finished_kit_answers(smaller: Path) -> None:
    from pulse_edge import PulseModel

    with PulseModel.load(smaller, device="cpu") as model:
        assert (
            model.interpret(EXAMPLE_PAGE, "Is the rhythm regular?", max_tokens=3).answers[0].tokens
            <= 3
        )


def test_quantized_keys_are_of_the_kit_and_in_its_proof(tiny_kit: Path, tmp_path: Path) -> None:
    from pulse_edge import PulseModel

    texts, divergences, cells = [], [], []
    for keys in ("f16", "q8_0"):
        quantize(tiny_kit, tmp_path / keys, Options(llm="F16", key_cache_type=keys))  # type: ignore[arg-type]
        manifest = open_kit(tmp_path / keys).manifest
        divergences.append(manifest.parity["language"]["mean_kld"])
        assert (
            manifest.language.key_cache_type
            == manifest.quantization.settings["key_cache_type"]
            == keys
        )  # type: ignore[union-attr]
        for threads in (1, 2):
            with PulseModel.load(tmp_path / keys, device="cpu", threads=threads) as model:
                texts.append(
                    model.interpret(EXAMPLE_PAGE, "Is the rhythm regular?", max_tokens=24)
                    .answers[0]
                    .text
                )
        cells.append(model.plan.parts["kv_cache"])
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert divergences[0] == 0 < divergences[1]
    assert cells[1] == cells[0] * (2 + 34 / 32) / 4
    assert manifest.id.endswith(", q8_0 keys)")


LOGITS = """
import hashlib, sys
from pulse_edge import PulseModel
with PulseModel.load(sys.argv[1], device="cpu", threads=1) as model:
    page = model.encode(sys.argv[2])
    logits = model.prefill(page, model.turns("Is the rhythm regular?", ()))
    print(hashlib.sha256(logits.tobytes()).hexdigest())
"""


def test_no_variable_of_the_environment_changes_the_logits(tiny_kit: Path, tmp_path: Path) -> None:
    quantize(tiny_kit, tmp_path / "kit", Options(llm="Q4_K_M", key_cache_type="q8_0"))
    switches = {
        "GGML_CPU_TILED_MM": "0",
        "GGML_CPU_DISABLE_FUSION": "1",
        "LLAMA_ATTN_ROT_DISABLE": "1",
    }
    command = [sys.executable, "-c", LOGITS, str(tmp_path / "kit"), str(EXAMPLE_PAGE)]
    env = {k: v for k, v in os.environ.items() if k not in switches}
    plain, switched = (
        subprocess.check_output(command, env=env | more, cwd=ROOT) for more in ({}, switches)
    )
    assert plain == switched


def test_a_kit_fills_the_size_that_was_asked_for(
    tiny_kit: Path, stats: Path, tmp_path: Path
) -> None:
    size = sum(p.stat().st_size for p in tiny_kit.iterdir()) - 3_000_000
    quantize(tiny_kit, tmp_path / "kit", Options(size=size, stats=stats, sensitivity=False))
    taken = sum(p.stat().st_size for p in (tmp_path / "kit").iterdir())
    assert size - 200_000 < taken <= size


def test_a_base_whose_weights_have_a_second_hard_link_is_read(
    tiny_kit: Path, tmp_path: Path
) -> None:
    kit = Path(shutil.copytree(tiny_kit, tmp_path / "kit"))
    os.link(kit / "vision.onnx.data", tmp_path / "second")
    vision.requantize(kit / "vision.onnx", tmp_path / "vision.onnx", "w8", {})
    assert (tmp_path / "vision.onnx.data").stat().st_size > 0


def test_sensitivity_changes_the_choice(tiny_kit: Path, stats: Path, tmp_path: Path) -> None:
    types = []
    for sensitivity in (False, None):
        kit = tmp_path / str(sensitivity)
        quantize(tiny_kit, kit, Options(bpw=7, stats=stats, sensitivity=sensitivity))
        manifest = open_kit(kit).manifest
        assert manifest.parity["language"]["bits_per_weight"] <= 7
        assert manifest.quantization.settings["sensitivity"] is (sensitivity is None)  # type: ignore[union-attr]
        types.append(manifest.quantization.tensors)  # type: ignore[union-attr]
    assert types[0] != types[1]


def test_the_command_takes_a_recipe(tiny_kit: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["quantize", str(tiny_kit), "-o", str(tmp_path / "kit"), "--recipe", "q8"]
    )
    assert done.exit_code == 0, done.output
    manifest = open_kit(tmp_path / "kit").manifest
    assert manifest.quantization is not None
    assert manifest.quantization.settings["recipe"] == "q8"
    assert manifest.language.type == "Q8_0"
    assert manifest.vision.type == "fp16"


# --- types ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer and eight rows a matrix: llama.cpp's quantization does not look at
    more than names."""
    path, random = tmp_path_factory.mktemp("gguf") / "one.gguf", np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    layer = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for name in ("token_embd", "output", *(f"blk.0.{part}" for part in layer)):
        writer.add_tensor(f"{name}.weight", random.standard_normal((8, 256)).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", sorted(ggml.file_types()))
def test_every_type_of_llama_cpp_can_be_written(kind: str, one_layer: Path, tmp_path: Path) -> None:
    importance = {t.name: np.ones(256, np.float32) for t in gguf.GGUFReader(one_layer).tensors}
    ggml.quantize(one_layer, tmp_path / "out.gguf", kind, importance=importance, threads=2)
    assert (tmp_path / "out.gguf").is_file()


def test_a_matrix_is_rounded_as_in_the_file(tiny_kit: Path, tmp_path: Path) -> None:
    name = "blk.1.attn_q.weight"
    source = {t.name: t for t in gguf.GGUFReader(tiny_kit / "llm.gguf").tensors}[name]
    importance = np.linspace(0.1, 3, 256, dtype=np.float32)
    for kind in (Type.Q4_K, Type.IQ4_XS, Type.Q8_0):
        path = tmp_path / f"{kind.name}.gguf"
        ggml.quantize(
            tiny_kit / "llm.gguf",
            path,
            "Q4_K_M",
            importance={name: importance},
            types={name: kind},
            threads=1,
        )
        tensor = {t.name: t for t in gguf.GGUFReader(path).tensors}[name]
        assert tensor.tensor_type == kind
        again = ggml.rounded(source.data.astype(np.float32), kind, importance)
        assert np.allclose(again, gguf.quants.dequantize(tensor.data, kind), atol=1e-7)


def test_importance_moves_the_error_to_columns_that_matter_less() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 256), np.float32)
    importance = np.where(np.arange(256) % 2, 10.0, 0.1).astype(np.float32)
    plain, aware = (ggml.rounded(matrix, Type.Q3_K, w) - matrix for w in (None, importance))
    assert np.square(aware[:, 1::2]).sum() < np.square(plain[:, 1::2]).sum()


def test_the_choice_is_the_best_of_all() -> None:
    random = np.random.default_rng(1)
    kinds = (Type.Q2_K, Type.Q4_K, Type.Q8_0)
    matrices = []
    for i in range(5):
        size, harm = np.sort(random.integers(1, 60, 3)), np.sort(random.random(3))[::-1]
        sizes, harms = (dict(zip(kinds, (x.item() for x in v), strict=True)) for v in (size, harm))
        matrices.append(Matrix(str(i), sizes, harms))
    for budget in (90, 150, 200):
        everything = itertools.product(kinds, repeat=5)
        fitting = [
            c
            for c in everything
            if sum(m.bytes[k] for m, k in zip(matrices, c, strict=True)) <= budget
        ]
        best = min(sum(m.harm[k] for m, k in zip(matrices, c, strict=True)) for c in fitting)
        chosen = choose.choose(matrices, budget)
        assert sum(m.bytes[chosen[m.name]] for m in matrices) <= budget
        assert sum(m.harm[chosen[m.name]] for m in matrices) == pytest.approx(best)


# --- gates ----------------------------------------------------------------------------------------


def test_an_encoder_that_fails_its_gate_stays_as_it_was_and_the_kit_says_so(
    tiny_kit: Path, tmp_path: Path
) -> None:
    strict = Recipe("strict", "", llm="Q8_0", vision="int8", cosine=0.9999999)
    steps: list[str] = []
    quantize(tiny_kit, tmp_path / "kit", Options(recipe=strict), steps.append)
    manifest = open_kit(tmp_path / "kit").manifest
    assert manifest.vision.type == "fp32"
    assert (tmp_path / "kit" / "vision.onnx.data").read_bytes() == (
        tiny_kit / "vision.onnx.data"
    ).read_bytes()
    assert manifest.quantization is not None
    assert "int8" in manifest.quantization.notes[0]
    assert manifest.quantization.notes[0] in steps


def test_an_encoder_whose_image_tokens_depend_on_rounding_stays_as_it_was(
    tiny_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "ROUNDING", 0.05)  # as if processors rounded to four or five bits
    steps: list[str] = []
    loose = Recipe("loose", "", llm="Q8_0", vision="int8", cosine=0.5)
    quantize(tiny_kit, tmp_path / "kit", Options(recipe=loose), steps.append)
    manifest = open_kit(tmp_path / "kit").manifest
    assert manifest.vision.type == "fp32"
    assert manifest.quantization is not None
    assert "between processors, required 0.999; kept as fp32" in manifest.quantization.notes[0]


@pytest.mark.parametrize("kind", ["fp16", "w8", "int8", "int8-static"])
def test_every_encoder_type_comes_close(
    kind: str, tiny_kit: Path, stats: Path, tmp_path: Path
) -> None:
    loose = Recipe("loose", "", llm="Q8_0", cosine=0.9)
    quantize(tiny_kit, tmp_path / "kit", Options(recipe=loose, vision=kind, stats=stats))
    manifest = open_kit(tmp_path / "kit").manifest
    assert manifest.vision.type == kind
    weights = [(kit / "vision.onnx.data").stat().st_size for kit in (tiny_kit, tmp_path / "kit")]
    assert weights[1] < 0.6 * weights[0]
    figures = manifest.parity["vision"]
    assert figures["cosine_min"] <= figures["cosine_mean"] <= 1
    assert figures["rounding_cosine_required"] <= figures["rounding_cosine_mean"] <= 1
    if not kind.startswith("int8"):
        assert figures["rounding_cosine_min"] > 0.999999


def test_a_failed_proof_leaves_no_kit(tiny_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="No kit was written"):
        quantize(
            tiny_kit,
            tmp_path / "out" / "kit",
            Options(recipe=Recipe("x", "", llm="Q2_K", kld=1e-9)),
        )
    assert list((tmp_path / "out").iterdir()) == []


# --- refusals -------------------------------------------------------------------------------------


def test_stats_of_another_model_are_refused(tiny_kit: Path, stats: Path, tmp_path: Path) -> None:
    manifest = open_kit(tiny_kit).manifest
    other = tmp_path / "other"
    with writing(other) as work:
        for name in manifest.files:
            (work / name).write_bytes((tiny_kit / name).read_bytes())
        with (work / "llm.gguf").open("r+b") as f:
            f.seek(-1, 2)
            f.write(b"\1")
        write_manifest(work, replace(manifest, files=listing(work)))
    with pytest.raises(CheckpointError, match="collected with another model"):
        quantize(other, tmp_path / "kit", Options(stats=stats))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(llm="Q4_K_M", bpw=4.5), "contradict"),
        (Options(llm="Q9"), "no such type"),
        (Options(vision="int4"), "expected one of"),
        (Options(size=1000, sensitivity=False), "smallest kit"),
        (Options(bpw=1.0, sensitivity=False), "too few"),
        (Options(bpw=4.5, sensitivity=True), "give --stats"),
        (Options(bpw=4.5), "give --stats.*--no-sensitivity"),
        (Options(recipe=Recipe("x", "", size=10**7)), "give --stats"),
        (Options(sensitivity=True), "instead of --llm"),
        (Options(vision="int8-static"), "needs the ranges"),
        (Options(key_cache_type="q4_0"), "--key-cache-type q4_0: expected one of f16, q8_0"),  # type: ignore[arg-type]
    ],
)
def test_contradicting_or_impossible_options_are_refused(
    options: Options, reason: str, tiny_kit: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason):
        quantize(tiny_kit, tmp_path / "out" / "kit", options)
    assert not list(tmp_path.glob("out/*"))


def test_a_measurement_of_days_needs_an_explicit_option(
    tiny_kit: Path, stats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_logits, "WINDOW_BYTES", 1000)
    with pytest.raises(
        UsageError, match=r"takes \d+ runs of this model over \d pages each.*--no-sensitivity"
    ):
        quantize(tiny_kit, tmp_path / "kit", Options(bpw=7, stats=stats))
    assert not (tmp_path / "kit").exists()


def test_a_quantized_kit_is_no_base(smaller: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="quantized already"):
        quantize(smaller, tmp_path / "kit", Options())


def test_a_file_that_is_no_stats_is_refused(tiny_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a file of `calibration collect`"):
        quantize(tiny_kit, tmp_path / "kit", Options(stats=tiny_kit / "llm.gguf"))


def test_a_type_that_needs_importance_says_so(one_layer: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="imatrix"):
        ggml.quantize(one_layer, tmp_path / "out.gguf", "IQ2_XXS", threads=1)


# --- recipes --------------------------------------------------------------------------------------


def test_the_recipes_name_types_that_exist() -> None:
    recipes = load_recipes()
    assert {"q8", "q5", "q4", "fit-8gb-laptop"} <= recipes.keys()
    for recipe in recipes.values():
        assert recipe.llm is None or recipe.llm in ggml.file_types()


def test_a_mistaken_recipe_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "recipes:\n  q4:\n    description: both\n    llm: Q4_K_M\n    bpw: '4'\n    kid: 0.1\n"
    )
    with pytest.raises(CheckpointError) as caught:
        load_recipes(path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:5: q4: bpw is '4'")
    assert lines[1].startswith(f"{path}:6: q4: unknown key 'kid'. Did you mean kld?")


def test_the_manifest_is_json_that_names_every_calibration_id(smaller: Path) -> None:
    raw = json.loads((smaller / "manifest.json").read_text())
    assert all(
        name.startswith("ptb-test-") for name in raw["quantization"]["calibration"]["ptb-test"]
    )
