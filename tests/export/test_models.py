"""models.yaml: what it holds, and that every mistake in such a file is told with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from export.models import MODELS, ModelSpec, find, load_models, load_recipes
from pulse_edge.errors import CheckpointError, UsageError

GOOD = """\
# a comment
tiny:
  hub: someone/tiny
  revision: 0123456789abcdef0123456789abcdef01234567
  licence: MIT
  architecture: LlavaLlamaForCausalLM
  bytes: 1000
  prompt: llava_v1
  description: A miniature.
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "models.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path) -> list[str]:
    """The lines of the error, without the file's path and the closing advice."""
    with pytest.raises(CheckpointError) as caught:
        load_models(path)
    *mistakes, advice = str(caught.value).splitlines()
    assert "comment on its top" in advice
    assert all(mistake.startswith(f"{path}:") for mistake in mistakes)
    return [mistake.removeprefix(f"{path}:") for mistake in mistakes]


# --- the real file --------------------------------------------------------------------------------


def test_the_real_file_pins_pulse_7b():
    model = load_models()["pulse-7b"]
    assert model.name == "pulse-7b"
    assert model.hub == "PULSE-ECG/PULSE-7B"
    assert model.revision == "8134c4b55fb5bd59873285325d5896ab08b4d595"
    assert model.architecture == "LlavaLlamaForCausalLM"
    assert model.bytes == 14_130_000_000
    assert model.prompt == "llava_v1"
    assert model.paper is not None
    assert "2410.19008" in model.paper


def test_the_comment_on_top_explains_every_field():
    top = (
        MODELS.read_text(encoding="utf-8")
        .partition("\npulse-7b:")[0]
        .partition("# The entry `recipes`")[0]
    )
    explained = {
        line.split()[1] for line in top.splitlines() if line.startswith("#   ") and line[4] != " "
    }
    assert explained == {field.name for field in dataclasses.fields(ModelSpec)} - {"name"}


# --- what is accepted -----------------------------------------------------------------------------


def test_optional_fields_may_be_left_out(write):
    model = load_models(write(GOOD))["tiny"]
    assert (model.paper, model.training_data, model.benchmark) == (None, None, None)


def test_models_keep_the_order_of_the_file(write):
    second = GOOD.replace("tiny:", "another:").removeprefix("# a comment\n")
    assert list(load_models(write(GOOD + second))) == ["tiny", "another"]


def test_a_revision_in_capitals_becomes_lower_case(write):
    text = GOOD.replace("0123456789abcdef", "0123456789ABCDEF")
    assert load_models(write(text))["tiny"].revision == "0123456789abcdef0123456789abcdef01234567"


def test_a_revision_of_digits_alone_stays_as_written(write):
    digits = "0123456701234567012345670123456701234567"  # an octal number to YAML 1.1
    text = GOOD.replace("0123456789abcdef0123456789abcdef01234567", digits)
    assert load_models(write(text))["tiny"].revision == digits


def test_quoted_yes_is_text(write):
    assert load_models(write(GOOD.replace("A miniature.", '"yes"')))["tiny"].description == "yes"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  licence: MIT",
            "  license: MIT",
            "5: tiny: unknown key 'license'. Did you mean licence?",
        ),
        (
            "  licence: MIT",
            "  <<: {}",
            "5: tiny: unknown key '<<'. Expected one of hub, revision, licence, ",
        ),
        ("  licence: MIT", "  licence:", "5: tiny: licence is empty, expected text"),
        (
            "  licence: MIT",
            "  licence: [MIT]",
            "5: tiny: licence is a list or a mapping, expected a single value",
        ),
        (
            "  licence: MIT",
            "  licence: no",
            "5: tiny: licence is no, which YAML reads as bool, expected text: put it ",
        ),
        (
            "  licence: MIT",
            "  licence: 2.0",
            "5: tiny: licence is 2.0, which YAML reads as float, expected text: ",
        ),
        (
            "  licence: MIT",
            "  on: MIT",
            "5: tiny: a key is on, which YAML reads as bool, expected text: put it in ",
        ),
        (
            "  licence: MIT",
            "  [a]: MIT",
            "5: tiny: a key is a list or a mapping, expected a single value",
        ),
        ("licence: MIT", "hub: a/b", "5: tiny: key 'hub' stands twice, first on line 3"),
        (
            "someone/tiny",
            "tiny",
            "3: tiny: hub is 'tiny', expected a repository on the hub, owner/name",
        ),
        (
            "someone/tiny",
            "a/b/c",
            "3: tiny: hub is 'a/b/c', expected a repository on the hub, owner/name",
        ),
        (
            "someone/tiny",
            "a/../b",
            "3: tiny: hub is 'a/../b', expected a repository on the hub, owner/name",
        ),
        (
            "someone/tiny",
            "a/b--c",
            "3: tiny: hub is 'a/b--c', expected a repository on the hub, owner/name",
        ),
        (
            "0123456789abcdef0123456789abcdef01234567",
            "main",
            "4: tiny: revision is 'main', expected a full commit ",
        ),
        (
            "0123456789abcdef0123456789abcdef01234567",
            "0123456",
            "4: tiny: revision is '0123456', expected a full ",
        ),
        (
            "LlavaLlamaForCausalLM",
            "Llava Llama",
            "6: tiny: architecture is 'Llava Llama', expected the name of a ",
        ),
        (
            "1000",
            "1_000",
            "7: tiny: bytes is '1_000', expected a number of bytes in plain decimal digits",
        ),
        (
            "1000",
            "010",
            "7: tiny: bytes is '010', expected a number of bytes in plain decimal digits",
        ),
        (
            "1000",
            "14.13 GB",
            "7: tiny: bytes is '14.13 GB', expected a number of bytes in plain decimal digits",
        ),
        (
            "1000",
            '"1000"',
            "7: tiny: bytes is '1000', expected a number of bytes in plain decimal digits, without "
            "",
        ),
        (
            "1000",
            "-5",
            "7: tiny: bytes is '-5', expected a number of bytes in plain decimal digits",
        ),
        ("llava_v1", "vicuna", "8: tiny: prompt is 'vicuna', expected llava_v1"),
        (
            "tiny:",
            "Tiny model:",
            "2: 'Tiny model' cannot name a model, expected lower-case letters, digits, ",
        ),
        (
            "tiny:",
            "no:",
            "2: the file: a key is no, which YAML reads as bool, expected text: put it in quotes",
        ),
        ("  licence: MIT", "\tlicence: MIT", "5: not YAML: "),
        ("  licence: MIT", "  licence: *MIT", "5: not YAML: found undefined alias"),
        ("  licence: MIT", "  licence: M\x07T", "5: character "),
    ],
)
def test_a_mistake_is_named_with_its_line(write, old: str, new: str, expected: str):
    assert old in GOOD
    mistakes = refusal(write(GOOD.replace(old, new)))
    assert [mistake for mistake in mistakes if mistake.startswith(expected)], mistakes


def test_missing_keys_are_listed_together_at_the_model(write):
    assert refusal(write("\ntiny:\n  hub: someone/tiny\n  bytes: 1000\n")) == [
        "2: tiny: lacks revision, licence, architecture, prompt, description"
    ]


def test_all_mistakes_of_a_file_are_listed_in_the_order_of_their_lines(write):
    text = GOOD.replace("MIT", "yes").replace("1000", "0x10") + "other: 7\n"
    lines = [int(mistake.partition(":")[0]) for mistake in refusal(write(text))]
    assert lines == [5, 7, 10]


def test_a_model_that_stands_twice_is_refused(write):
    assert refusal(write(GOOD + GOOD)) == ["11: the file: key 'tiny' stands twice, first on line 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the file is empty, expected a mapping of names to models"),
        ("# only a comment\n", "1: the file is empty, expected a mapping of names to models"),
        ("- tiny\n", "1: the file is not a mapping, expected lines of 'key: value'"),
        ("{}\n", "1: no model at all, expected at least one"),
        ("tiny:\n", "1: tiny is not a mapping, expected lines of 'key: value'"),
        (GOOD.encode() + b"  paper: \xff\n", "10: not UTF-8 text"),
    ],
)
def test_a_file_without_models_is_refused(write, text: str | bytes, expected: str):
    assert refusal(write(text)) == [expected]


def test_two_documents_are_refused(write):
    assert refusal(write(GOOD + "---\n" + GOOD)) == ["10: not YAML: but found another document"]


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nowhere\.yaml: No such file"):
        load_models(tmp_path / "nowhere.yaml")


# --- by name --------------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name():
    assert find("pulse-7b", load_models()).hub == "PULSE-ECG/PULSE-7B"


def test_an_unknown_name_gets_those_that_come_close():
    with pytest.raises(UsageError, match=r"no model 'PULSE7B'\. Did you mean pulse-7b\?"):
        find("PULSE7B", load_models())


def test_an_unknown_name_gets_the_list_of_names():
    with pytest.raises(UsageError, match=r"no model 'xyz'\. It has: pulse-7b\."):
        find("xyz", load_models())


# --- recipes --------------------------------------------------------------------------------------

RECIPE = GOOD + "recipes:\n  q4:\n    description: Small.\n    llm: Q4_K_M\n    gates: "


def test_a_recipe_can_hold_gates_of_the_report(write):
    assert load_recipes(write(RECIPE + "{same_top: 0.9, bytes: 5000000000}\n"))["q4"].gates == {
        "same_top": 0.9,
        "bytes": 5e9,
    }


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        ("3", "is not a mapping"),
        ("{}", "is not a mapping"),
        ("{same_top: high}", "has same_top, which is 'high', expected a number"),
        ("{same_top: 1, same_top: 2}", "has same_top twice"),
    ],
)
def test_gates_without_numbers_are_refused(write, gates: str, why: str):
    with pytest.raises(CheckpointError, match=rf"q4: gates {why}"):
        load_recipes(write(RECIPE + gates + "\n"))
