"""Make a draft table: reference answers of calibration samples -> a kit with speculative decoding.

The table (`pulse_edge.inference.speculative`) makes answers faster and changes none of them, so a
kit's accuracy and its test ids stay what they are.
"""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

from calibration import ecgbench, splits
from calibration.files import link
from pulse_edge.common.files import file_sha256
from pulse_edge.errors import BenchError
from pulse_edge.inference import speculative
from pulse_edge.inference.language_model import LanguageModel, Settings
from pulse_edge.kit.kit import open_kit
from pulse_edge.kit.manifest import File
from pulse_edge.kit.verify import verify
from pulse_edge.kit.write import refuse_target, write_manifest, writing

FILE = "draft_table.json"
_CONTEXT = 256
"""Context length of a model that only tokenizes."""


def add(kit: Path, target: Path, bench: Path, split: Path | None, force: bool = False) -> int:
    """Write the kit `target`: `kit` with the draft table of the split's calibration answers.

    Returns the number of contexts in the table. Raises KitError, and BenchError where there is no
    answer to learn from.
    """
    opened = open_kit(kit)
    verify(opened, remembered=True)
    refuse_target(target, force=force)
    m = opened.manifest
    with closing(
        LanguageModel(opened.file(m.language.file), Settings(context=_CONTEXT, threads=1))
    ) as language:
        answers = [
            [*language.tokenize(answer, first=False), language.end]
            for answer in reference_answers(bench, split)
        ]
    table = speculative.build(answers, m.language.vocabulary)
    others = {name: file for name, file in m.files.items() if name != m.draft_table_file}
    with writing(target, force=force) as work:
        for name in others:
            link(opened.file(name), work / name)
        speculative.write(work / FILE, table, m.language.vocabulary)
        size, digest = (work / FILE).stat().st_size, file_sha256(work / FILE)
        files = {**others, FILE: File(size, digest)}
        write_manifest(work, dataclasses.replace(m, files=files, draft_table_file=FILE))
    return len(table)


def reference_answers(path: Path, split: Path | None) -> list[str]:
    """Right answers of the split's calibration ids, or of all samples.

    BenchError where there is none.
    """
    bench = ecgbench.open_bench(path)
    allowed = splits.load(split).calibration if split else None
    answers: list[str] = []
    for task in bench.tasks:
        only = None if allowed is None else frozenset(allowed.get(task, ()))
        samples = bench.samples(task, lambda _: None, pictures=False, only=only)
        answers += [answer for sample in samples for _, answer in sample.turns]
    if not answers:
        raise BenchError(
            f"{path}: has none of the split's calibration ids; give the data that was divided"
        )
    return answers
