"""Image tokens that are left out: which, where the others stand, and what stays the same."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibrations import calibration
from click.testing import CliRunner
from llama_cpp_tools import plain_llama
from PIL import Image

import pulse_edge
from pulse_edge import PulseModel
from pulse_edge.cli.main import cli
from pulse_edge.errors import KitError, UsageError
from pulse_edge.inference import cache as rowcache
from pulse_edge.inference import language_model, statements, tiling, token_pruning, vision_encoder
from pulse_edge.inference.decoding import generate
from pulse_edge.inference.model import EngineOptions
from pulse_edge.kit.kit import open_kit
from pulse_edge.machine.memory_plan import Workload
from pulse_edge.report import writers

PAGE = Path(pulse_edge.__file__).parent / "assets" / "example_page.png"
KIT = PAGE.parent / "kits" / "miniature"
QUESTIONS = ("Is the rhythm regular?", "What is the rate?")


def flags(text: str) -> token_pruning.Flags:
    return np.array([c == "x" for c in text])


@pytest.mark.parametrize(
    ("padding", "remaining"),
    [
        ("..xxxxx..", [0, 1, 2, 3, 7, 8]),
        ("..xxxx..", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("xxxxxxx.", [0, 1, 7]),
        (".xxxxxxx", [0, 1, 2]),
        ("xxxxxx", [0, 1]),
    ],
)
def test_the_first_image_tokens_of_a_pruned_run_stay(
    padding: str, remaining: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_pruning, "SHORTEST_RUN", 5)
    monkeypatch.setattr(token_pruning, "RUN_HEAD", 2)
    importance = np.ones(len(padding), np.float32)
    assert (
        token_pruning.positions("no-padding", flags(padding), importance, 2).tolist() == remaining
    )
    assert token_pruning.positions("all", flags(padding), importance, 2).tolist() == list(
        range(len(padding))
    )


def test_the_least_important_lines_are_pruned_first() -> None:
    rng = np.random.default_rng(3)
    importance = rng.uniform(0.5, 1, 300).astype(np.float32)
    importance[120:144] = rng.uniform(0, 0.1, 24)
    padding = np.zeros(300, bool)
    padding[20:32] = True
    padding[144:156] = True
    remaining = {
        *range(24),
        *range(32, 124),
        *range(156, 300),
    }  # two lines of padding, two of 12 patches; of each run four stay
    assert set(token_pruning.positions("260", padding, importance, 12).tolist()) == remaining
    for most in (299, 250, 200, 160):
        for line in (1, 12, 24, 31):  # a last line may be short
            remaining = token_pruning.positions(str(most), padding, importance, line)
            assert 0 < len(remaining) <= most
            assert (np.diff(remaining) > 0).all()
            assert (
                token_pruning.positions(f"{most}:attention", padding, importance, line).tolist()
                == remaining.tolist()
            )


def test_image_tokens_like_their_neighbour_have_low_importance() -> None:
    image_tokens = np.array([[1, 0], [2, 0], [0, 3], [0, -3], [0, 0]], np.float32)
    assert token_pruning.dissimilarity(image_tokens).tolist() == [2, 0, 1, 2, 1]


def test_an_unknown_choice_of_image_tokens_is_refused() -> None:
    good = {
        "all": None,
        "no-padding": None,
        "160": "attention",
        "600:attention": "attention",
        "600:similarity": "similarity",
    }
    assert {text: token_pruning.ranking(token_pruning.parse(text)) for text in good} == good
    for text in (
        "159",
        "-1",
        "none",
        "",
        "1e3",
        "600:",
        "600:likes",
        ":similarity",
        "٦٠٠",
        "600 ",
        "no-padding:similarity",
    ):
        with pytest.raises(UsageError, match="no-padding"):
            token_pruning.parse(text)


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad"])
@pytest.mark.parametrize("size", [(1000, 600), (600, 1000), (1000, 1000), (900, 210)])
def test_padding_is_where_no_pixel_of_the_page_reaches(size: tuple[int, int], merge: str) -> None:
    """Features that say how a patch differs between two pages, which is nowhere zero but in the
    padding."""
    side, across = 56, 4
    how = {"size": side, "aspect_ratio": "anyres", "pinpoints": [(112, 56), (56, 112), (112, 112)]}
    cuts = [
        tiling.cut(Image.new("RGB", size, colour), mean=(0.5,) * 3, std=(0.5,) * 3, **how)  # type: ignore[arg-type]
        for colour in ("white", "red")
    ]
    changed = (
        np.abs(cuts[0] - cuts[1]).max(1).reshape(-1, across, side // across, across, side // across)
    )
    features = changed.max((2, 4)).reshape(len(changed), across**2, 1).astype(np.float32)
    newline = np.ones(1, np.float32) if merge == "spatial_unpad" else None
    packed = tiling.pack(features, page_size=size, merge=merge, newline=newline, **how)  # type: ignore[arg-type]
    result = tiling.padding(size, patches=across**2, merge=merge, newline=newline, **how)  # type: ignore[arg-type]
    assert result.tolist() == (packed[:, 0] == 0).tolist()
    assert not result[: across**2].any()  # the overview is squeezed
    if merge == "flat":
        assert result.any() == (size != (1000, 1000))


def test_padding_of_a_page_on_a_square_of_the_mean_colour_is_found_too() -> None:
    how = {"size": 56, "aspect_ratio": "pad", "pinpoints": (), "merge": "flat", "newline": None}
    result = tiling.padding((800, 400), patches=16, **how).reshape(4, 4)  # type: ignore[arg-type]
    assert result[[0, 3]].all() or not result.any(axis=1)[[1, 2]].any()
    assert not result[[1, 2]].any()


@pytest.mark.parametrize("keys", ["f16", "q8_0"])
def test_pruned_image_tokens_keep_the_positions_of_torch(
    keys: str, tiny_checkpoint: Path, tiny_kit: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    reference = LlamaForCausalLM.from_pretrained(
        plain_llama(tiny_checkpoint, tmp_path / "plain"), dtype=torch.float32
    )
    image_tokens = np.random.default_rng(0).standard_normal((60, 256)).astype(np.float32) * 0.02
    positions = np.array(
        [*range(3, 20), *range(300, 341), 400, 401, 410]
    )  # from the first on, and behind the last
    m = open_kit(tiny_kit).manifest.language
    with closing(
        language_model.LanguageModel(
            tiny_kit / m.file, language_model.Settings(context=256, threads=1, key_cache_type=keys)
        )
    ) as language:
        before, after = (
            language.tokenize("USER: ", first=True),
            language.tokenize("Is it?", first=False),
        )

        def ours(positions: np.ndarray | None) -> np.ndarray:
            language.clear()
            language.prefill("one", "USER: ", image_tokens, positions=positions)
            assert language.position == len(before) + (60 if positions is None else 410)
            assert language.cells == len(before) + 60
            return language.feed_tokens(after)

        together, apart = ours(None), ours(positions)
        language.prefill("one", "USER: ", image_tokens, positions=positions)
        assert np.array_equal(language.feed_tokens(after), apart)
    embed = reference.get_input_embeddings()
    inputs = torch.cat(
        [embed(torch.tensor(before)), torch.from_numpy(image_tokens), embed(torch.tensor(after))]
    )[None]
    behind = 410 + np.arange(len(after))
    at = torch.tensor([*range(len(before)), *(len(before) + p for p in (*positions[:-1], *behind))])
    with torch.no_grad():
        right = reference(inputs_embeds=inputs, position_ids=at[None]).logits[0, -1].numpy()
    assert np.abs(apart - right).max() < 0.02 * np.abs(together - right).max()


def test_a_second_question_has_the_numbers_of_a_fresh_context() -> None:
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        scan, whole = model.encode(PAGE, image_tokens="no-padding"), model.encode(PAGE)
        assert scan.positions is not None
        assert len(scan.image_tokens) < len(whole.image_tokens)
        assert scan.image_tokens.tobytes() == whole.image_tokens[scan.positions[:-1]].tobytes()
        assert scan.image_tokens_sha256 != whole.image_tokens_sha256
        first = model.prefill(scan, model.turns(QUESTIONS[0], ()))
        second = model.prefill(scan, model.turns(QUESTIONS[1], ()))
        other = model.prefill(whole, model.turns(QUESTIONS[1], ()))
        again = model.prefill(scan, model.turns(QUESTIONS[1], ()))
        model.language.clear()
        fresh = model.prefill(scan, model.turns(QUESTIONS[0], ()))
    assert np.array_equal(second, again)
    assert np.array_equal(first, fresh)
    assert not np.array_equal(second, other)


def test_pruning_shortens_the_context_and_positions_end_with_the_trained_ones() -> None:
    answers = []
    for use in (None, Workload(pages=1, tokens=300, image_tokens=200)):
        with PulseModel.load(KIT, device="cpu", threads=1, workload=use) as model:
            scan = model.encode(PAGE, image_tokens="200")
            language = model.language
            answers.append(model.ask(scan, QUESTIONS[0], 40).answer().text)
            assert language.context == (4096 if use is None else 512)
            language.trained_context = language._prefix[1] + 40  # the question's tokens among them
            logits = model.prefill(scan, model.turns(QUESTIONS[0], ()))
            pieces = list(generate(language, logits, 100))
            assert language.position <= language.trained_context
            assert 0 < len(pieces) < 40
    assert answers[0] == answers[1]


def test_pruned_prefix_survives_cache_round_trip(tmp_path: Path) -> None:
    def model() -> PulseModel:
        cache = rowcache.PrefixCache(tmp_path, 1 << 30)
        return PulseModel.load(
            KIT, device="cpu", threads=1, engine=EngineOptions(prefix_cache=cache)
        )

    with model() as first, model() as second:
        scan = first.encode(PAGE, image_tokens="200")
        read = first.prefill(scan, first.turns(QUESTIONS[0], ()))
        second.language.feed_embeddings = lambda *_: pytest.fail("read again")  # type: ignore[method-assign,assignment]
        assert np.array_equal(read, second.prefill(scan, second.turns(QUESTIONS[0], ())))
        assert (second.language.position, second.language.cells) == (
            first.language.position,
            first.language.cells,
        )
        assert second.language.cells < second.language.position


def test_cached_image_tokens_serve_every_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = rowcache.ImageTokenCache(tmp_path)
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        thinned = model.encode(PAGE, cache=cache, image_tokens="no-padding")
        monkeypatch.setattr(model.encoder, "encode", lambda *_: pytest.fail("encoded again"))
        whole, again = (
            model.encode(PAGE, cache=cache),
            model.encode(PAGE, cache=cache, image_tokens="no-padding"),
        )
    assert len(whole.image_tokens) > len(thinned.image_tokens)
    assert again.image_tokens.tobytes() == thinned.image_tokens.tobytes()
    assert cache.info()[0] == 1


def test_importance_is_the_attention_of_cls_in_the_last_used_layer(
    tiny_checkpoint: Path, tiny_kit: Path
) -> None:
    import torch

    from export.checkpoint import Checkpoint
    from export.config import read_config
    from export.vision import Encoder

    config = read_config(tiny_checkpoint / "config.json", tower_dir=None)
    tower = Encoder(Checkpoint(tiny_checkpoint, config, tower_dir=None)).tower
    pixels = (
        np.random.default_rng(0)
        .standard_normal((3, 3, *2 * (tower.config.image_size,)))
        .astype(np.float32)
    )
    m = open_kit(tiny_kit).manifest.vision
    encoder = vision_encoder.VisionEncoder(tiny_kit / m.file, device="cpu", threads=1)
    features, attention = encoder.attend(pixels)
    with torch.no_grad():
        right = (
            tower(torch.from_numpy(pixels), output_attentions=True)
            .attentions[-1][:, :, 0, 1:]
            .mean(1)
            .numpy()
        )
    assert right.std() > 1e-4
    assert np.abs(attention - right).max() < 1e-4
    assert np.array_equal(features, encoder.encode(pixels))


def test_attention_is_cached_with_the_image_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = rowcache.ImageTokenCache(tmp_path)
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        whole = model.encode(PAGE, cache=cache)
        first = model.encode(
            PAGE, cache=cache, image_tokens="200"
        )  # the image tokens alone are not enough
        monkeypatch.setattr(model.encoder, "attend", lambda *_: pytest.fail("encoded again"))
        again, other = (
            model.encode(PAGE, cache=cache, image_tokens=choice)
            for choice in ("200", "200:similarity")
        )
        read = model.prefill(again, model.turns(QUESTIONS[0], ()))
        assert model.language.cells < 200 + 60 < len(whole.image_tokens) < model.language.position
    assert np.isfinite(read).all()
    assert "cached" in again.seconds
    assert (
        again.image_tokens.tobytes()
        == first.image_tokens.tobytes()
        == whole.image_tokens[first.positions[:-1]].tobytes()
    )
    assert len(first.image_tokens) <= 200
    assert again.image_tokens_sha256 != other.image_tokens_sha256


def test_a_kit_without_attention_output_is_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(KIT / "vision.onnx")
    model.graph.output.pop()
    onnx.save(model, tmp_path / "old.onnx")
    encoder = vision_encoder.VisionEncoder(tmp_path / "old.onnx", device="cpu", threads=1)
    with pytest.raises(KitError, match="similarity"):
        encoder.attend(np.zeros((1, 3, 336, 336), np.float32))


def test_every_format_says_which_image_tokens_were_read() -> None:
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        answers = {}
        for choice in ("all", "no-padding"):
            scan = model.encode(PAGE, image_tokens=choice)
            answering = model.ask(scan, QUESTIONS[0], 2)
            answering.answer()
            answers[choice] = model.report(scan, [answering])
    picture, calibrations = Image.new("RGB", (50, 50)), answers["no-padding"].image_tokens_read
    assert calibrations.startswith("no-padding: ")
    for form in ("text", "json", "html", "fhir"):
        assert calibrations in writers.render(form, answers["no-padding"], picture).decode()
        assert "no-padding" not in writers.render(form, answers["all"], picture).decode()


def test_a_calibration_holds_for_all_image_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "yes_or_no", lambda *_: statements.YesOrNo(-1.0, False))
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        calibrations = {"PVC": calibration(1, 2.0)}
        model.kit = replace(model.kit, manifest=replace(model.kit.manifest, findings=calibrations))
        for choice, verdict in (("all", "present"), ("no-padding", None)):
            scan = model.encode(PAGE, image_tokens=choice)
            result = {f.statement: f for f in model.findings(scan)}["PVC"]
            assert (result.verdict, result.calibrated) == (verdict, choice == "all")
            assert ("NOT ALL OF THE PAGE WAS READ" in "\n".join(model.notices(scan))) == (
                choice != "all"
            )


def test_a_page_without_padding_is_read_whole() -> None:
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        square = Image.open(PAGE).convert("RGB").resize((700, 700))
        scans = [
            model.encode(square, admit=False, image_tokens=choice)
            for choice in ("all", "no-padding", "9999:similarity")
        ]
    assert {scan.image_tokens_read for scan in scans} == {"all"}
    assert len({scan.image_tokens_sha256 for scan in scans}) == 1


def test_commands_prune_and_log_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_EDGE_AUDIT_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PULSE_EDGE_CACHE", str(tmp_path / "rows"))

    def run(*arguments: object, rc: int = 0) -> str:
        monkeypatch.setattr(
            "sys.argv", ["pulse-edge", *map(str, arguments)]
        )  # a batch starts itself again as a worker
        done = CliRunner().invoke(cli, [*map(str, arguments)])
        code = getattr(done.exception, "exit_code", done.exit_code)
        assert code == rc, done.output
        return done.stdout

    ask = ("interpret", PAGE, "--kit", KIT, "--json", "--max-tokens", 4, "--threads", 1)
    reports = [json.loads(run(*ask, "--image-tokens", choice)) for choice in ("all", "no-padding")]
    assert reports[1]["image_tokens"] < reports[0]["image_tokens"]
    run(*ask, "--image-tokens", "none", rc=2)
    estimates = [
        json.loads(run(*ask, "--image-tokens", choice, "--dry-run").splitlines()[0])
        for choice in ("all", "no-padding")
    ]
    assert [estimate["image_tokens"] for estimate in estimates] == [
        report["image_tokens"] for report in reports
    ]
    out = tmp_path / "out"
    run(
        "batch",
        PAGE,
        "-o",
        out,
        "--kit",
        KIT,
        "--max-tokens",
        4,
        "--threads",
        1,
        "--image-tokens",
        "no-padding",
    )
    assert reports[1]["image_tokens_read"] in (out / "results.csv").read_text("utf-8")
    entries = [
        json.loads(line.split(" ", 1)[1])
        for line in (tmp_path / "log" / "entries.log").read_text().splitlines()
    ]
    assert [entry["settings"]["page"]["image_tokens"] for entry in entries] == [
        "all",
        "no-padding",
        "no-padding",
    ]
