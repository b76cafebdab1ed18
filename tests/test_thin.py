"""Image rows that are left out: which, where the others stand, and what stays the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_llama_cpp import plain_llama

import pulse_edge
from pulse_edge import PulseModel, outputs, rowcache, thin, tiles
from pulse_edge.cli import cli
from pulse_edge.errors import UsageError

PAGE = Path(pulse_edge.__file__).parent / "example_page.png"
KIT = PAGE.parent / "kits" / "miniature"
QUESTIONS = ("Is the rhythm regular?", "What is the rate?")


def flags(text: str) -> thin.Flags:
    return np.array([c == "x" for c in text])


@pytest.mark.parametrize(
    ("padding", "kept"),
    [
        ("..xxx..", [0, 1, 4, 5, 6]),
        ("..xx..", [0, 1, 2, 3, 4, 5]),
        ("xxxxx.", [0, 4, 5]),  # the first row stays
        (".xxxxx", [0, 4, 5]),  # and the last, at its own place
        ("xxxxxx", [0, 4, 5]),
    ],
)
def test_of_a_run_of_padding_the_last_row_stays(padding: str, kept: list[int]) -> None:
    rows = np.eye(len(padding), dtype=np.float32)
    assert thin.positions("no-padding", flags(padding), rows).tolist() == kept
    assert thin.positions("all", flags(padding), rows).tolist() == list(range(len(padding)))


def test_at_most_so_many_rows_are_left_and_those_like_their_neighbours_go_first() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((300, 8)).astype(np.float32)
    rows[100:140] = rows[100] + 0.01 * rng.standard_normal((40, 8)).astype(np.float32)
    padding = np.zeros(300, bool)
    padding[20:30] = True
    some = thin.positions(260, padding, rows)
    assert not set(range(20, 29)) & set(some.tolist())
    assert set(range(300)) - set(some.tolist()) <= {*range(20, 29), *range(100, 140)}
    for most in (299, 250, 200, 160):
        kept = thin.positions(most, padding, rows)
        assert 0 < len(kept) <= most
        assert (np.diff(kept) > 0).all()
        assert {0, 298, 299} <= set(kept.tolist()) or 299 in kept
        assert kept[0] == 0


def test_a_choice_that_is_none_is_refused() -> None:
    assert [thin.parse(text) for text in ("all", "no-padding", "160")] == ["all", "no-padding", 160]
    for text in ("159", "-1", "none", "", "1e3"):
        with pytest.raises(UsageError, match="no-padding"):
            thin.parse(text)


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad"])
@pytest.mark.parametrize("size", [(1000, 600), (600, 1000), (1000, 1000), (900, 210)])
def test_padding_is_what_no_pixel_of_the_page_reaches(size: tuple[int, int], merge: str) -> None:
    """Features that say how a patch differs between two pages, which is nowhere zero but in the padding."""
    side, across = 56, 4
    how = {"size": side, "aspect_ratio": "anyres", "pinpoints": [(112, 56), (56, 112), (112, 112)]}
    cuts = [
        tiles.cut(Image.new("RGB", size, colour), mean=(0.5,) * 3, std=(0.5,) * 3, **how)  # type: ignore[arg-type]
        for colour in ("white", "red")
    ]
    changed = np.abs(cuts[0] - cuts[1]).max(1).reshape(-1, across, side // across, across, side // across)
    features = changed.max((2, 4)).reshape(len(changed), across**2, 1).astype(np.float32)
    newline = np.ones(1, np.float32) if merge == "spatial_unpad" else None
    rows = tiles.pack(features, page_size=size, merge=merge, newline=newline, **how)  # type: ignore[arg-type]
    found = tiles.padding(size, patches=across**2, merge=merge, newline=newline, **how)  # type: ignore[arg-type]
    assert found.tolist() == (rows[:, 0] == 0).tolist()
    assert not found[: across**2].any()  # the overview is squeezed
    if merge == "flat":
        assert found.any() == (size != (1000, 1000))


def test_padding_of_a_page_on_a_square_of_the_mean_colour_is_found_too() -> None:
    how = {"size": 56, "aspect_ratio": "pad", "pinpoints": (), "merge": "flat", "newline": None}
    found = tiles.padding((800, 400), patches=16, **how).reshape(4, 4)  # type: ignore[arg-type]
    assert found[[0, 3]].all() or not found.any(axis=1)[[1, 2]].any()
    assert not found[[1, 2]].any()


def test_rows_behind_gaps_stand_where_torch_puts_them(tiny_checkpoint: Path, tiny_kit: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    reference = LlamaForCausalLM.from_pretrained(plain_llama(tiny_checkpoint, tmp_path / "plain"), dtype=torch.float32)
    rows = np.random.default_rng(0).standard_normal((60, 256)).astype(np.float32) * 0.02
    at = np.array([*range(20), *range(300, 340)])
    with PulseModel.load(tiny_kit, device="cpu", threads=1) as model:
        language = model.language
        before, after = language.tokenize("USER: ", first=True), language.tokenize("Is it?", first=False)

        def ours(positions: np.ndarray | None) -> np.ndarray:
            language.clear()
            language.prefill("one", "USER: ", rows, positions=positions)
            assert language.position == len(before) + (60 if positions is None else 340)
            return language.feed_tokens(after)

        apart, together = ours(at), ours(None)
    embed = reference.get_input_embeddings()
    inputs = torch.cat([embed(torch.tensor(before)), torch.from_numpy(rows), embed(torch.tensor(after))])[None]
    places = torch.tensor(
        [*range(len(before)), *(len(before) + at), *(len(before) + 340 + i for i in range(len(after)))]
    )
    with torch.no_grad():
        right = reference(inputs_embeds=inputs, position_ids=places[None]).logits[0, -1].numpy()
    # Not nearer: the row behind the gap looks at the others from where it was read.
    assert np.abs(apart - right).max() < 0.2 * np.abs(together - right).max()


def test_a_second_question_has_the_numbers_of_a_fresh_context() -> None:
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        scan, whole = model.encode(PAGE, rows="no-padding"), model.encode(PAGE)
        assert scan.positions is not None
        assert len(scan.rows) < len(whole.rows)
        assert scan.rows.tobytes() == whole.rows[scan.positions].tobytes()
        assert scan.rows_sha256 != whole.rows_sha256
        first = model.reach(scan, model.turns(QUESTIONS[0], ()))
        second = model.reach(scan, model.turns(QUESTIONS[1], ()))
        other = model.reach(whole, model.turns(QUESTIONS[1], ()))
        again = model.reach(scan, model.turns(QUESTIONS[1], ()))
        model.language.clear()
        fresh = model.reach(scan, model.turns(QUESTIONS[0], ()))
    assert np.array_equal(second, again)
    assert np.array_equal(first, fresh)
    assert not np.array_equal(second, other)


def test_kept_rows_serve_every_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = rowcache.RowCache(tmp_path)
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        thinned = model.encode(PAGE, cache=cache, rows="no-padding")
        monkeypatch.setattr(model.encoder, "encode", lambda *_: pytest.fail("encoded again"))
        whole, again = model.encode(PAGE, cache=cache), model.encode(PAGE, cache=cache, rows="no-padding")
    assert len(whole.rows) > len(thinned.rows)
    assert again.rows.tobytes() == thinned.rows.tobytes()
    assert cache.info()[0] == 1


def test_what_was_left_out_stands_in_every_format() -> None:
    with PulseModel.load(KIT, device="cpu", threads=1) as model:
        answers = {}
        for rows in ("all", "no-padding"):
            scan = model.encode(PAGE, rows=rows)
            answering = model.ask(scan, QUESTIONS[0], 2)
            answering.answer()
            answers[rows] = model.report(scan, [answering])
    picture, told = Image.new("RGB", (50, 50)), answers["no-padding"].rows_read
    assert told.startswith("no-padding: ")
    for form in ("text", "json", "html", "fhir"):
        assert told in outputs.render(form, answers["no-padding"], picture).decode()
        assert "no-padding" not in outputs.render(form, answers["all"], picture).decode()


def test_the_commands_take_it_and_put_it_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_EDGE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PULSE_EDGE_CACHE", str(tmp_path / "rows"))

    def run(*arguments: object, rc: int = 0) -> str:
        done = CliRunner().invoke(cli, [*map(str, arguments)])
        code = getattr(done.exception, "exit_code", done.exit_code)
        assert code == rc, done.output
        return done.stdout

    ask = ("interpret", PAGE, "--kit", KIT, "--json", "--max-tokens", 4, "--threads", 1)
    told = [json.loads(run(*ask, "--rows", rows)) for rows in ("all", "no-padding")]
    assert told[1]["rows"] < told[0]["rows"]
    run(*ask, "--rows", "none", rc=2)
    dry = [json.loads(run(*ask, "--rows", rows, "--dry-run").splitlines()[0]) for rows in ("all", "no-padding")]
    assert [cast["rows"] for cast in dry] == [report["rows"] for report in told]
    out = tmp_path / "out"
    run("batch", PAGE, "-o", out, "--kit", KIT, "--max-tokens", 4, "--threads", 1, "--rows", "no-padding")
    assert told[1]["rows_read"] in (out / "results.csv").read_text("utf-8")
    entries = [json.loads(line.split(" ", 1)[1]) for line in (tmp_path / "log" / "log").read_text().splitlines()]
    assert [entry["settings"].get("rows") for entry in entries] == [None, "no-padding", "no-padding"]
