"""The way through: scan -> tiles -> features -> image rows -> text -> Report. Every caller uses it."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import findings, llm, memory, prompt, quality, rectify, scan, tiles, vision
from . import kit as kits
from .errors import DeviceError, PageRefused, UsageError
from .kit import Kit
from .report import DEMONSTRATION, FORCED, Answer, Finding, KitMark, Mark, Report

Float = npt.NDArray[np.float32]
NARROWEST = 64
"""Pixels of a page's shorter side: twelve leads cannot be told apart below ten times that."""
Turns = Sequence[tuple[str, str]]
"""Earlier questions about the same page, each with the answer that was given."""
Progress = Callable[[str, int, int], None]
"""Gets the stage (`verify` bytes, `load` per mille, `encode` tiles, `prefill` rows, `findings` questions), how
much is done, and of how much."""


def _silent(_stage: str, _done: int, _of: int) -> None:
    pass


@dataclass(frozen=True)
class EncodedScan:
    """A page, ready for questions."""

    file: str
    page_sha256: str
    rows: Float
    """(T, d) float32, what the language model sees in the image's place."""
    tiles: int
    rows_sha256: str
    seconds: dict[str, float]
    """Wall time of `read`, `check` and `encode`."""
    checked: CheckedPage | None = None

    def picture(self, page: scan.Page) -> Image.Image:
        """What the model was shown of the page that this was made of."""
        return page.image if self.checked is None else self.checked.flat.image


@dataclass(frozen=True)
class CheckedPage:
    """A page as the model may see it, and what was found on it."""

    page: scan.Page
    """As read."""
    flat: rectify.Flat
    quality: quality.Quality
    seconds: float


def check(page: scan.Page, *, straighten: bool = True) -> CheckedPage:
    """Flatten a page and judge it; without `straighten` its pixels stay as they are. Nothing is refused here."""
    start = time.perf_counter()
    flat = rectify.flatten(page.image) if straighten else rectify.as_is(page.image)
    grid = flat.grid
    judged = quality.judge(
        flat.image,
        across=grid.across if grid else None,
        down=grid.down if grid else None,
        grid_strength=grid.strength if grid else 0.0,
        layouts=flat.layout,
        upright=flat.upright,
        light=flat.light,
        frame=flat.frame,
    )
    return CheckedPage(page, flat, judged, time.perf_counter() - start)


def _admitted(page: scan.Page, straighten: bool, force: bool) -> CheckedPage:
    """The page, checked. Raises PageRefused unless it is fit, or forced, which is noted."""
    width, height = page.image.size
    if min(width, height) < NARROWEST:
        raise PageRefused(
            f"{page.name}: the page is {width} x {height} pixels: too narrow to be an ECG page. Take the picture again, "
            "with the whole sheet in view."
        )
    checked = check(page, straighten=straighten)
    if not force:
        refuse(checked)
    elif checked.quality.verdict == quality.REFUSED:
        return replace(checked, quality=replace(checked.quality, forced=True))
    return checked


def refuse(checked: CheckedPage) -> None:
    """Raise PageRefused for a page that was judged unfit, with what is wrong and how to take it again."""
    if checked.quality.verdict == quality.REFUSED:
        why = next(r for r in checked.quality.reasons if r.refuses)
        raise PageRefused(
            f"{checked.page.name}: {why.check} is {why.value:g} {why.unit}, and {why.threshold:g} is the limit. {why.advice}"
        )


class Answering(Iterator[str]):
    """An answer as it is made: iterate for its text; the other fields are final when the iteration has ended."""

    def __init__(
        self, model: PulseModel, encoded: EncodedScan, question: str, max_tokens: int, history: Turns = ()
    ) -> None:
        self.question = question
        self.text = ""
        self.ids: list[int] = []
        """The generated tokens, without the end."""
        self.complete = False
        self.seconds: dict[str, float] = {}
        """`prefill` and `answer`, and `first_token` since the question was asked."""
        self._parts = self._run(model, encoded, model.turns(question, history), max_tokens)

    @property
    def tokens(self) -> int:
        """How many were generated so far."""
        return len(self.ids)

    def __next__(self) -> str:
        return next(self._parts)

    def _run(self, model: PulseModel, encoded: EncodedScan, turns: list[str], max_tokens: int) -> Iterator[str]:
        language = model.language
        turn = model.take_turn()
        start = time.perf_counter()
        logits = model.reach(encoded, turns)
        prefilled = time.perf_counter()
        self.seconds["prefill"] = prefilled - start
        pieces = language.generate(logits, max_tokens)
        held = ""  # white space at either end is not part of an answer
        while True:
            model.check_turn(turn)
            try:
                piece = next(pieces)
            except StopIteration as end:
                self.complete = end.value
                break
            self.ids.append(piece.token)
            self.seconds.setdefault("first_token", time.perf_counter() - start)
            text = held + piece.text if self.text else (held + piece.text).lstrip()
            held = text[len(text.rstrip()) :]
            if shown := text.rstrip():
                self.text += shown
                yield shown
        self.seconds["answer"] = time.perf_counter() - prefilled

    def answer(self) -> Answer:
        """The whole answer; runs what is left."""
        for _ in self:
            pass
        return self.so_far()

    def so_far(self) -> Answer:
        """What has been said until now."""
        return Answer(self.question, self.text, self.tokens, self.complete)


class PulseModel:
    """A loaded kit. Use as a context manager, or `close` it. One thread, one answer at a time."""

    def __init__(
        self, kit: Kit, encoder: vision.VisionEncoder, language: llm.LanguageModel, device: str, progress: Progress
    ) -> None:
        """For `load`, which is how to get one."""
        self.kit = kit
        self.encoder = encoder
        self.language = language
        self.device = device
        self.progress = progress
        self.seconds: dict[str, float] = {}
        name = kit.manifest.packing.newline_file
        self._newline = None if name is None else np.fromfile(kit.file(name), "<f4")
        self._turn = 0

    @classmethod
    def load(
        cls,
        kit: Path | str | Kit | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        flash_attention: bool = False,
        observer: llm.Observer | None = None,
        progress: Progress = _silent,
    ) -> PulseModel:
        """Open, verify and load a kit (None: as `kit.find` says) on `auto`, `cpu` or `cuda`.

        Raises KitError, MemoryShortage, DeviceError, EngineError, UsageError.
        """
        start = time.perf_counter()
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device {device!r}: expected auto, cpu or cuda.")
        threads = threads or default_threads()
        vision.installed_runtime()
        opened = kit if isinstance(kit, Kit) else kits.find(None if kit is None else Path(kit))
        _verify(opened, progress)
        encoder, device, why = _encoder(opened, device, threads)
        m = opened.manifest
        if device == "cpu":
            memory.require(str(opened.path), **_bytes(opened))
        language = llm.LanguageModel(
            opened.file(m.language.file),
            context=m.language.context_length,
            threads=threads,
            device=device,
            flash_attention=flash_attention,
            observer=observer,
            progress=lambda fraction: progress("load", int(1000 * fraction), 1000),
        )
        model = cls(opened, encoder, language, f"{device} ({why}, {threads} threads)" if why else device, progress)
        model.seconds["load"] = time.perf_counter() - start
        return model

    def encode(
        self,
        source: str | Path | bytes | Image.Image | scan.Page,
        *,
        straighten: bool = True,
        force: bool = False,
        gate: bool = True,
    ) -> EncodedScan:
        """Read a page, flatten and judge it, and encode it, once for all its questions. Raises ScanError, PageRefused.

        `straighten` False leaves its pixels alone; `force` encodes what was refused, and the report says so. Without
        `gate` the page goes in as it is and unjudged: for measurements on pages that are known.
        """
        start = time.perf_counter()
        page = source if isinstance(source, scan.Page) else scan.read(source)
        read = time.perf_counter()
        checked = _admitted(page, straighten, force) if gate else None
        ready, image = time.perf_counter(), checked.flat.image if checked else page.image
        spec, packing = self.kit.manifest.vision, self.kit.manifest.packing
        how: dict[str, Any] = {
            "size": spec.image_size,
            "aspect_ratio": packing.aspect_ratio,
            "pinpoints": packing.grid_pinpoints,
        }
        pixels = tiles.cut(image, mean=spec.mean, std=spec.std, **how)
        features = self.encoder.encode(pixels, lambda done, of: self.progress("encode", done, of))
        rows = tiles.pack(features, page_size=image.size, merge=packing.merge, newline=self._newline, **how)
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        seconds = {"read": read - start, "check": ready - read, "encode": time.perf_counter() - ready}
        return EncodedScan(page.name, page.sha256, rows, len(pixels), digest, seconds, checked)

    def ask(self, encoded: EncodedScan, question: str, max_tokens: int | None = None, history: Turns = ()) -> Answering:
        """The answer to a question about an encoded page, as an iterator over its text.

        The page's rows stay in the context, so a second question on it only costs its own words. An answer that is
        still running is ended by the next question: going on with it raises UsageError.
        """
        limit = self.kit.manifest.prompt.max_tokens if max_tokens is None else max_tokens
        return Answering(self, encoded, question, limit, history)

    def score(
        self, encoded: EncodedScan, question: str, answers: Iterable[Sequence[int]], history: Turns = ()
    ) -> Iterator[Float]:
        """Teacher forcing: for each answer of n token ids the logits (n, vocabulary) ahead of each of its tokens.

        The question is read once for all answers. `language.tokenize(text, first=False)` makes ids of a text, and
        `language.end` is the end of an answer. Like an answer that is asked for, it is ended by the next question.
        """
        turns, turn = self.turns(question, history), self.take_turn()
        logits = self.reach(encoded, turns)
        for ids in answers:
            self.check_turn(turn)
            yield self.language.force(logits, ids)

    def findings(self, encoded: EncodedScan) -> tuple[Finding, ...]:
        """What the kit thinks of every statement of `findings.STATEMENTS`, each asked in the words of ECGBench."""
        log_odds = {}
        for n, statement in enumerate(findings.STATEMENTS):
            self.progress("findings", n, len(findings.STATEMENTS))
            log_odds[statement.key] = yes_log_odds(self, encoded, statement.question)
        self.progress("findings", len(findings.STATEMENTS), len(findings.STATEMENTS))
        return findings.judge(log_odds, self.kit.manifest.findings)

    def contradictions(self, encoded: EncodedScan, found: Sequence[Finding], texts: Sequence[str]) -> tuple[Mark, ...]:
        """Contradictions of findings and texts; what is present is asked again in other words."""
        present = [findings.BY_KEY[f.statement] for f in found if f.verdict == "present"]
        second = {s.key: yes_log_odds(self, encoded, s.plain) for s in present}
        return findings.contradictions(found, texts, second)

    def turns(self, question: str, history: Turns) -> list[str]:
        """The texts behind the image; see `prompt.conversation`."""
        spoken = self.kit.manifest.prompt
        return prompt.conversation(spoken.template, spoken.after, question, history)

    def reach(self, encoded: EncodedScan, turns: Sequence[str]) -> Float:
        """Fill the context with the page and the texts behind it; logits (vocabulary,) of the answer's first token."""
        language, before = self.language, self.kit.manifest.prompt.before
        language.prefill(encoded.rows_sha256, before, encoded.rows, lambda d, n: self.progress("prefill", d, n))
        ids: list[int] = []
        for text in turns:
            ids += [language.end] if ids else []
            ids += language.tokenize(text, first=False)
        return language.feed_tokens(ids)

    def interpret(
        self,
        source: str | Path | bytes | Image.Image | scan.Page,
        question: str | Sequence[str] = prompt.REPORT_QUESTION,
        max_tokens: int | None = None,
        *,
        with_findings: bool = False,
    ) -> Report:
        """Read, encode, and answer one question or several about one page, `with_findings` if wanted."""
        encoded = self.encode(source)
        questions = [question] if isinstance(question, str) else question
        answered = []
        for q in questions:
            answering = self.ask(encoded, q, max_tokens)
            answering.answer()
            answered.append(answering)
        return self.report(encoded, answered, self.findings(encoded) if with_findings else ())

    def report(self, encoded: EncodedScan, answered: Sequence[Answering], found: Sequence[Finding] = ()) -> Report:
        """The record of one page's answers, as far as they have come, and findings, whose contradictions it marks."""
        marks = self.contradictions(encoded, found, [a.text for a in answered]) if found else ()
        seconds = self.seconds | encoded.seconds
        for part in ("prefill", "answer"):
            seconds[part] = sum(a.seconds.get(part, 0.0) for a in answered)
        m = self.kit.manifest
        return Report(
            notice="\n".join(self.notices(encoded)),
            file=encoded.file,
            page_sha256=encoded.page_sha256,
            answers=tuple(a.so_far() for a in answered),
            kit=KitMark(m.id, self.kit.sha256, m.demonstration, self.warning()),
            device=self.device,
            versions=versions(),
            seconds={k: round(v, 3) for k, v in seconds.items()},
            rows=len(encoded.rows),
            quality=None if encoded.checked is None else facts(encoded.checked),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            findings=tuple(found),
            marks=marks,
        )

    def notices(self, encoded: EncodedScan) -> list[str]:
        """What must be read before any answer about this page."""
        forced = encoded.checked is not None and encoded.checked.quality.forced
        notices = [DEMONSTRATION] if self.kit.manifest.demonstration else []
        notices += [warning] if (warning := self.warning()) else []
        return [*notices, FORCED] if forced else notices

    def warning(self) -> str | None:
        """What every answer must say about the stick that brought the kit or the program."""
        return kits.warning(self.kit)

    def take_turn(self) -> int:
        """The number of a new answer; all older ones end."""
        self._turn += 1
        return self._turn

    def check_turn(self, turn: int) -> None:
        """Raise UsageError if another answer was started since `turn` was taken."""
        if turn != self._turn:
            raise UsageError("another question was asked before this answer ended. Finish one answer at a time.")

    def close(self) -> None:
        """Free both engines."""
        self.encoder.close()
        self.language.close()

    def __enter__(self) -> PulseModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def facts(checked: CheckedPage) -> dict[str, Any]:
    """What `check --json` prints about a page, and the report keeps."""
    flat, judged = checked.flat, checked.quality
    corners, skew = flat.sheet.corners, flat.sheet.skew_degrees
    return {
        "file": checked.page.name.removesuffix(f"#{checked.page.number}"),
        "page": checked.page.number,
        "verdict": judged.verdict,
        "forced": judged.forced,
        "reasons": [
            {"check": r.check, "value": r.value, "unit": r.unit, "threshold": r.threshold, "advice": r.advice}
            for r in judged.reasons
        ],
        "sheet": {
            "corners": corners and [[round(x, 1), round(y, 1)] for x, y in corners],
            "rotation": flat.sheet.rotation,
            "skew_degrees": skew if skew is None else round(skew, 2),
        },
        "grid": {"pixels_per_mm": flat.grid and round(flat.grid.pixels_per_mm, 3)},
        "layout": judged.layout,
        "leads": judged.leads,
        "changed": flat.changed,
        "facts": judged.facts,
        "seconds": round(checked.seconds, 3),
    }


def yes_log_odds(model: PulseModel, encoded: EncodedScan, question: str) -> float:
    """Log odds of an answer that begins with yes against one that begins with no.

    Either is as probable as its spellings together; a spelling of several tokens as their product.
    """
    ids = [model.language.tokenize(word, first=False) for word in (*findings.YES, *findings.NO)]
    scored = [
        _log_probability(logits, word) for logits, word in zip(model.score(encoded, question, ids), ids, strict=True)
    ]
    yes, no = scored[: len(findings.YES)], scored[len(findings.YES) :]
    return float(np.logaddexp.reduce(yes) - np.logaddexp.reduce(no))


def _log_probability(logits: Float, ids: Sequence[int]) -> float:
    """Of the tokens `ids`, given the logits (n, vocabulary) ahead of each."""
    wide = logits.astype(np.float64)
    chosen = wide[np.arange(len(ids)), list(ids)]
    return float((chosen - np.logaddexp.reduce(wide, axis=1)).sum())


def versions() -> dict[str, str]:
    """Of everything that can change an answer."""
    own = {name: version(name) for name in ("pulse-edge", "numpy", "pillow", "opencv-python-headless")}
    return own | {
        "python": platform.python_version(),
        "llama-cpp-python": llm.version(),
        vision.installed_runtime(): vision.version(),
    }


def default_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _verify(opened: Kit, progress: Progress) -> None:
    total = sum(file.bytes for file in opened.manifest.files.values())
    done = 0

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("verify", done, total)

    kits.verify(opened, remembered=True, progress=step)


def _encoder(opened: Kit, device: str, threads: int) -> tuple[vision.VisionEncoder, str, str]:
    """The encoder, the device that both halves will use, and why `auto` took it."""
    path = opened.file(opened.manifest.vision.file)
    if device != "auto":
        return vision.VisionEncoder(path, device=device, threads=threads), device, ""
    try:
        if reason := llm.cuda_missing():
            raise DeviceError(reason)
        return vision.VisionEncoder(path, device="cuda", threads=threads), "cuda", "auto: CUDA works for both halves"
    except DeviceError as e:
        why = f"auto: {str(e).removeprefix('cuda: ').split('. ')[0].split(';')[0]}"
        return vision.VisionEncoder(path, device="cpu", threads=threads), "cpu", why


def _bytes(opened: Kit) -> dict[str, int]:
    """What `memory.require` needs to know of a kit: bytes of its parts when loaded."""
    m = opened.manifest
    encoder = sum(f.bytes for name, f in m.files.items() if name.startswith(m.vision.file))
    cache = 2 * 2 * m.language.layers * m.language.key_value_length * m.language.context_length
    # An fp16 encoder computes in float32 on a CPU.
    unpacked = encoder * (2 if m.vision.type == "fp16" else 1)
    return {"language": m.files[m.language.file].bytes, "key_values": cache, "encoder": unpacked}
