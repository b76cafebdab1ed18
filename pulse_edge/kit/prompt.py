"""The conversation around the image: a question in, the texts on either side of the image tokens
out.

Source: `llava_v1` in LLaVA's conversation templates, which PULSE was trained and is evaluated with;
two spaces between turns never occur, the separator is one space.
"""

from __future__ import annotations

from collections.abc import Sequence

from pulse_edge.errors import UsageError

REPORT_QUESTION = "Please write a clinical report based on this ECG image."
"""The question of PULSE's report task (ECGBench, ptb-test-report)."""

TEMPLATES = {
    "llava_v1": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, "
        "detailed, and polite answers to the human's questions. USER: ",
        "\n{question} ASSISTANT:",
    ),
}
"""Name -> (before the image, after it)."""

FOLLOWING = {"llava_v1": "USER: {question} ASSISTANT:"}
"""Name -> a later turn of a conversation. The model's end token stands between an answer and the
next turn."""

IMAGE_MARK = "<image>"


def fill(after: str, question: str) -> str:
    """Return the text behind the image.

    Raises UsageError for an empty question, one that asks for a second image, or one that is no
    Unicode text.
    """
    question = question.strip()
    if not question:
        raise UsageError("the question is empty. Leave -q out to ask for a clinical report.")
    if IMAGE_MARK in question:
        raise UsageError(
            f"the question contains {IMAGE_MARK}, which stands for the page itself. Leave it out."
        )
    try:
        question.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8 come as lone surrogates
        raise UsageError(
            "the question holds characters that are not valid UTF-8. Type it again."
        ) from None
    return after.replace("{question}", question)


def conversation(
    template: str, after: str, question: str, history: Sequence[tuple[str, str]]
) -> list[str]:
    """Return the texts behind the image, turn by turn; the model's end token goes between them, the
    last awaits its answer.

    `history` holds the earlier turns, (question, answer). Raises UsageError as `fill`, and for an
    unknown template.
    """
    if history and template not in FOLLOWING:
        raise UsageError(f"template {template} has no second turn. Ask each question on its own.")
    texts: list[str] = []
    for turn, answer in (*history, (question, None)):
        text = fill(FOLLOWING[template] if texts else after, turn)
        texts.append(text if answer is None else f"{text} {answer}")
    return texts
