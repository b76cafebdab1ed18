"""The way through: scan -> tiles -> features -> image tokens -> text -> Report. Every caller uses it."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_edge.common import times
from pulse_edge.errors import KitError, MemoryShortage, UsageError
from pulse_edge.inference import cache as rowcache
from pulse_edge.inference import (
    language_model,
    speculative,
    token_pruning,
    trace_checks,
    vision_encoder,
)
from pulse_edge.inference import tiling as tiles
from pulse_edge.inference.device import DeviceSelection, select_device, threads_for
from pulse_edge.inference.json_grammar import Grammar
from pulse_edge.inference.request import MeasurementOptions
from pulse_edge.kit import gguf_header, locate, prompt
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.manifest import Calibration
from pulse_edge.kit.verify import verify
from pulse_edge.machine import cpu, memory, profile, self_test_results
from pulse_edge.machine.memory_plan import Workload
from pulse_edge.measurement.page import PageMeasurement
from pulse_edge.measurement.summary import selected
from pulse_edge.page import admission, reader
from pulse_edge.report import contradictions, findings
from pulse_edge.report.report import (
    DEMONSTRATION,
    FORCED,
    FORCED_KIT,
    NOT_ALL_READ,
    NOT_PROVEN,
    Answer,
    Contradiction,
    Finding,
    KitSummary,
    Report,
)

Float = npt.NDArray[np.float32]
Turns = Sequence[tuple[str, str]]
"""Earlier questions about the same page, each with the answer that was given."""
Progress = Callable[[str, int, int], None]
"""Gets the stage (`verify` bytes, `load` per mille, `encode` tiles, `prefill` rows, `findings` questions), how
much is done, and of how much."""


def _silent(_stage: str, _done: int, _of: int) -> None:
    pass


@dataclass(frozen=True)
class EngineOptions:
    """How the language model works; the default is what every kit is measured with."""

    speculation: bool = True
    """Decode speculatively where the kit has a draft table. False decodes single tokens, with the same answers."""
    prefix_cache: rowcache.PrefixCache | None = None
    """Stores the KV cache of prefilled pages on disk; None: it is not stored."""
    flash_attention: bool = False
    """Changes the last digits of results with the number of threads; for measurements."""
    observer: language_model.Observer | None = None
    """Sees the results of the compute graph's nodes."""


MEASURE = MeasurementOptions()
"""Pages that are admitted are measured, with adult limits."""


@dataclass(frozen=True)
class EncodedPage:
    """A page, ready for questions."""

    file: str
    page_sha256: str
    image_tokens: Float
    """(T, d) float32, what the language model sees in the image's place."""
    tiles: int
    image_tokens_sha256: str
    seconds: dict[str, float]
    """Wall time of `read`, `check` and `encode`; `cached` in place of `encode` where the rows were kept from before."""
    checked: admission.CheckedPage | None = None
    positions: npt.NDArray[np.int64] | None = None
    """(T + 1,) of the rows, and of what follows them, where some were left out; None: one after the other."""
    image_tokens_read: str = token_pruning.ALL
    """Which of the page's rows these are, for the record."""
    measured: PageMeasurement | None = None
    """What was measured on the trace; None where it was not."""

    def picture(self, page: reader.Page) -> Image.Image:
        """What the model was shown of the page that this was made of."""
        return page.image if self.checked is None else self.checked.flat.image


class Answering(Iterator[str]):
    """An answer as it is made: iterate for its text; the other fields are final when the iteration has ended."""

    def __init__(
        self,
        model: PulseModel,
        encoded: EncodedPage,
        question: str,
        max_tokens: int,
        history: Turns = (),
        grammar: str | None = None,
    ) -> None:
        self.question = question
        self.prose = grammar is None
        """False: JSON of a schema, whose words are keys and not statements."""
        self.text = ""
        self.ids: list[int] = []
        """The generated tokens, without the end."""
        self.complete = False
        self.seconds: dict[str, float] = {}
        """`prefill` and `answer`, and `first_token` since the question was asked."""
        self._parts = self._run(model, encoded, model.turns(question, history), max_tokens, grammar)

    @property
    def tokens(self) -> int:
        """How many were generated so far."""
        return len(self.ids)

    def __next__(self) -> str:
        return next(self._parts)

    def _run(
        self,
        model: PulseModel,
        encoded: EncodedPage,
        turns: list[str],
        max_tokens: int,
        grammar: str | None,
    ) -> Iterator[str]:
        language = model.language
        turn = model.take_turn()
        start = time.perf_counter()
        logits = model.reach(encoded, turns)
        prefilled = time.perf_counter()
        self.seconds["prefill"] = prefilled - start
        pieces = language.generate(logits, max_tokens, model.drafter, grammar)
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
        if grammar is not None and not self.complete:
            raise UsageError(
                f"{encoded.file}: the JSON was not at its end after {self.tokens} tokens. Raise --max-tokens, or lower "
                "maxLength and maxItems in the schema."
            )

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
        self,
        kit: Kit,
        encoder: vision_encoder.VisionEncoder,
        how: DeviceSelection,
        progress: Progress,
        engine: EngineOptions,
    ) -> None:
        """For `load`, which is how to get one."""
        self.kit = kit
        self.encoder = encoder
        self.plan = how.plan
        self.device = how.text()
        self.fallback = how.fallback
        """Why `auto` did not take a GPU that is there, or should be; None: nothing is wrong."""
        self.refused: str | None = None
        """Why `doctor` refused this kit on this machine, where it was forced to answer all the same."""
        self.proven = False
        """Whether the kit's golden cases came back here when `doctor` ran last, on the device that answers now."""
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._how = how
        self._language: language_model.LanguageModel | None = None
        name = kit.manifest.packing.newline_file
        self._newline = None if name is None else np.fromfile(kit.file(name), "<f4")
        self.drafter: speculative.Drafter | None = None
        """Proposes draft tokens; None: decoding is not speculative, and gives the same answers."""
        if engine.speculation and (table := kit.manifest.draft_table_file) is not None:
            self.drafter = speculative.Drafter(
                speculative.read(kit.file(table), kit.manifest.language.vocabulary)
            )
        self.prefixes = engine.prefix_cache
        self._engine = engine
        self._turn = 0

    @classmethod
    def load(
        cls,
        kit: Path | str | Kit | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        limit: int | None = None,
        workload: Workload | None = None,
        force: bool = False,
        progress: Progress = _silent,
        engine: EngineOptions | None = None,
    ) -> PulseModel:
        """Open, verify and load a kit (None: as `kit.find` says) on `auto`, `cpu` or `cuda`.

        `threads` None: what `pulse-edge doctor` measured here, else the physical cores. `limit`: bytes of memory that
        it may take. `workload` says what is going to be asked (default: anything); with its `pages` the language model is
        loaded at the first question, and where the plan says so after closing the encoder. `force` also loads a kit
        that `doctor` refused on this machine, and every answer says so.

        Raises KitError, MemoryShortage (before anything is loaded), DeviceError, EngineError, UsageError.
        """
        start = time.perf_counter()
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device {device!r}: expected auto, cpu or cuda.")
        vision_encoder.installed_runtime()
        opened = kit if isinstance(kit, Kit) else locate.find(None if kit is None else Path(kit))
        known, tested = profile.recall(opened), self_test_results.recall(opened)
        if tested is not None and tested.refused and not force:
            raise KitError(
                f"{opened.path}: {tested.refused} Run pulse-edge doctor again, or answer with --force-kit."
            )
        _verify(opened, progress)
        gguf_header.check_against(
            opened.file(opened.manifest.language.file), opened.manifest.language
        )
        running = cpu.Threads(threads, threads) if threads else threads_for(known.speed)
        how, encoder = select_device(opened, device, running, workload or Workload(), limit)
        model = cls(
            opened,
            encoder,
            how,
            progress,
            engine or EngineOptions(),
        )
        if tested is not None:
            model.refused, model.proven = (
                tested.refused,
                tested.refused is None and how.device == "cpu",
            )
        model.seconds["load"] = time.perf_counter() - start
        try:
            if (
                workload is None or workload.pages != 1
            ):  # a single page is read and judged meanwhile
                model._wait_for_encoder()
            if workload is None or workload.pages is None:
                _ = model.language
        except BaseException:
            model.close()
            raise
        return model

    @property
    def language(self) -> language_model.LanguageModel:
        """The language model; loaded when first wanted, and the encoder closed before if the plan says so."""
        if self._language is None:
            start = time.perf_counter()
            if self.plan.encoder_first:
                self.encoder.close()
                memory.give_back()
            how = self._how
            self._language = language_model.LanguageModel(
                self.kit.file(self.kit.manifest.language.file),
                context=self.plan.context,
                threads=how.threads.prefill,
                decode_threads=how.threads.decode,
                device=how.device,
                gpu_layers=self.plan.gpu_layers,
                batch=self.plan.batch,
                mapped=not self.plan.repack,
                repack=self.plan.repack,
                key_cache_type=self.kit.manifest.language.key_cache_type,
                flash_attention=self._engine.flash_attention,
                # Of the kit and not of the moment: another width can give other bits.
                width=1 if self.kit.manifest.draft_table_file is None else language_model.WIDTH,
                observer=self._engine.observer,
                progress=lambda fraction: self.progress("load", int(1000 * fraction), 1000),
            )
            self.seconds["load"] = self.seconds.get("load", 0.0) + time.perf_counter() - start
        return self._language

    def encode(
        self,
        source: str | Path | bytes | Image.Image | reader.Page,
        *,
        straighten: bool = True,
        force: bool = False,
        admit: bool = True,
        cache: rowcache.ImageTokenCache | None = None,
        image_tokens: str = token_pruning.ALL,
        measurement: MeasurementOptions = MEASURE,
    ) -> EncodedPage:
        """Read a page, flatten and judge it, and encode it, once for all its questions. Raises ScanError, PageRefused.

        `straighten` False leaves its pixels alone; `force` encodes what was refused, and the report says so. Without
        `admit` the page goes in as it is and unjudged: for measurements on pages that are known. Rows that `cache` has are
        not encoded again; others go there. `rows` are those that the language model reads: see `thin`.
        """
        if self.plan.encoder_first and self._language is not None:
            raise MemoryShortage(
                f"{self.kit.path}: the encoder was closed to make room for the language model. Encode every page before "
                "the first question, or allow more memory."
            )
        start = time.perf_counter()
        page = source if isinstance(source, reader.Page) else reader.read(source)
        read = time.perf_counter()
        checked = admission.admit(page, straighten, force) if admit else None
        measured = trace_checks.measured(checked, measurement)
        memory.give_back()  # what judging took, before the encoder takes its own
        judged, image = time.perf_counter(), checked.flat.image if checked else page.image
        spec = self.kit.manifest.vision
        pixels = tiles.cut(image, mean=spec.mean, std=spec.std, **self._tiling())
        by = token_pruning.importance(image_tokens)
        whole, worth, waited = self._rows(
            pixels, image.size, cache, attention=by == token_pruning.ATTENTION
        )
        took = time.perf_counter() - judged - (waited or 0.0)
        seconds = {
            "read": read - start,
            "check": judged - read,
            "cached" if waited is None else "encode": took,
        }
        digest = hashlib.sha256(whole.tobytes())
        if by == token_pruning.SIMILARITY:
            worth = token_pruning.unlikeness(whole)
        at = token_pruning.positions(
            image_tokens, self._padding(image.size), worth, spec.patches_per_side
        )
        if len(at) == len(whole):
            return EncodedPage(
                page.name,
                page.sha256,
                whole,
                len(pixels),
                digest.hexdigest(),
                seconds,
                checked,
                measured=measured,
            )
        digest.update(at.astype("<i8").tobytes())
        told = f"{image_tokens}: {len(at)} of {len(whole)}"
        places = np.append(at, len(whole))
        return EncodedPage(
            page.name,
            page.sha256,
            whole[at],
            len(pixels),
            digest.hexdigest(),
            seconds,
            checked,
            places,
            told,
            measured,
        )

    def _wait_for_encoder(self) -> float:
        """Seconds that it was not ready yet; part of loading."""
        start = time.perf_counter()
        self.encoder.ready()
        waited = time.perf_counter() - start
        self.seconds["load"] = self.seconds.get("load", 0.0) + waited
        return waited

    def _tiling(self) -> dict[str, Any]:
        packing = self.kit.manifest.packing
        size = self.kit.manifest.vision.image_size
        return {
            "size": size,
            "aspect_ratio": packing.aspect_ratio,
            "pinpoints": packing.grid_pinpoints,
        }

    def _rows(
        self,
        pixels: Float,
        page_size: tuple[int, int],
        cache: rowcache.ImageTokenCache | None,
        *,
        attention: bool,
    ) -> tuple[Float, Float, float | None]:
        """Image tokens (T, d) of a page's tiles (n, 3, S, S), what they got of `attention` (T,), and the wait for the encoder.

        Zeros where the attention is not asked for; None in place of seconds where the cache had all of it.
        """
        key = "" if cache is None else rowcache.key_of(pixels, self._rows_from(page_size))
        kept = None if cache is None else cache.get(key)
        seen = cache.get(f"{key}-attention") if cache is not None and attention else None
        if kept is not None and (seen is not None or not attention):
            return kept, np.zeros(len(kept), np.float32) if seen is None else seen, None
        waited, merge = self._wait_for_encoder(), self.kit.manifest.packing.merge

        def told(done: int, of: int) -> None:
            self.progress("encode", done, of)

        if attention:
            features, each = self.encoder.attend(pixels, told)
        else:
            features = self.encoder.encode(pixels, told)
            each = np.zeros(features.shape[:2], np.float32)
        expected = (
            self.kit.manifest.vision.patches_per_side**2,
            self.kit.manifest.language.embedding_length,
        )
        if features.shape[1:] != expected:
            raise KitError(
                f"{self.kit.path}: its encoder gives {features.shape[1]} x {features.shape[2]} numbers a tile, and the "
                f"manifest says {expected[0]} x {expected[1]}. Copy the kit again, or convert the checkpoint again."
            )
        how: dict[str, Any] = {"page_size": page_size, "merge": merge, **self._tiling()}
        whole = tiles.pack(features, newline=self._newline, **how)
        newline = None if self._newline is None else np.zeros(1, np.float32)
        worth = tiles.pack(each[..., None], newline=newline, **how)[:, 0]
        if cache is not None:
            cache.put(key, whole)
            if attention:
                cache.put(f"{key}-attention", worth)
        return whole, worth, waited

    def _padding(self, page_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which image tokens (T,) of a page see only padding."""
        spec, merge = self.kit.manifest.vision, self.kit.manifest.packing.merge
        how: dict[str, Any] = {"merge": merge, "newline": self._newline, **self._tiling()}
        return tiles.padding(page_size, patches=spec.patches_per_side**2, **how)

    def _rows_from(self, page_size: tuple[int, int]) -> dict[str, Any]:
        """Everything but the pixels that image tokens depend on: weights, packing, engine, machine."""
        m = self.kit.manifest
        newline = m.packing.newline_file and m.files[m.packing.newline_file].sha256
        engine = [
            vision_encoder.installed_runtime(),
            vision_encoder.version(),
            vision_encoder.EXACT,
            self.device.split()[0],
            platform.node(),
        ]
        tiling = [m.packing.merge, newline, self._tiling(), page_size]
        # The whole kit: an encoder's weights may lie in files of any name, and a cache must not mix two kits.
        return {"kit": self.kit.sha256, "packing": tiling, "engine": engine}

    def ask(
        self,
        encoded: EncodedPage,
        question: str,
        max_tokens: int | None = None,
        history: Turns = (),
        *,
        grammar: str | None = None,
    ) -> Answering:
        """The answer to a question about an encoded page, as an iterator over its text.

        The page's rows stay in the context, so a second question on it only costs its own words. An answer that is
        still running is ended by the next question: going on with it raises UsageError. With a `grammar` (see
        `grammar.grammar`) it is JSON of one schema; UsageError where that is cut off.
        """
        limit = self.kit.manifest.prompt.max_tokens if max_tokens is None else max_tokens
        return Answering(self, encoded, question, limit, history, grammar)

    def check_grammar(self, grammar: Grammar, max_tokens: int | None = None) -> None:
        """Raise UsageError where answers of this kit could not be whole JSON of the grammar; reads no weights.

        `max_tokens` None: the kit's limit, as in `ask`.
        """
        manifest = self.kit.manifest
        limit = min(max_tokens or manifest.prompt.max_tokens, manifest.language.context_length)
        grammar.require(limit)
        tokens = language_model.rehearse(
            self.kit.file(manifest.language.file), grammar.text, grammar.shortest
        )
        if tokens > limit:
            raise UsageError(
                f"the schema's shortest answer has {tokens:,} tokens, and an answer may have {limit:,}. Raise "
                f"--max-tokens, or {grammar.shorten}."
            )

    def score(
        self,
        encoded: EncodedPage,
        question: str,
        answers: Iterable[Sequence[int]],
        history: Turns = (),
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

    def findings(self, encoded: EncodedPage) -> tuple[Finding, ...]:
        """What the kit thinks of every statement of `findings.STATEMENTS`, each asked in the words of ECGBench."""
        log_odds = {}
        for n, statement in enumerate(findings.STATEMENTS):
            self.progress("findings", n, len(findings.STATEMENTS))
            log_odds[statement.key] = yes_or_no(self, encoded, statement.question).log_odds
        self.progress("findings", len(findings.STATEMENTS), len(findings.STATEMENTS))
        return findings.judge(log_odds, self._calibration(encoded))

    def _calibration(self, encoded: EncodedPage) -> dict[str, Calibration] | None:
        """The kit's own, which was made with all rows of its pages."""
        return (
            self.kit.manifest.findings if encoded.image_tokens_read == token_pruning.ALL else None
        )

    def contradictions(
        self, encoded: EncodedPage, found: Sequence[Finding], texts: Sequence[str]
    ) -> tuple[Contradiction, ...]:
        """Contradictions of findings and texts; what is present is asked again in other words."""
        present = [findings.BY_KEY[f.statement] for f in found if f.answer is True]
        how = self._calibration(encoded) or {}
        second = {
            s.key: findings.rescaled(yes_or_no(self, encoded, s.plain).log_odds, how.get(s.key))
            for s in present
        }
        return contradictions.contradictions(found, texts, second)

    def forget_drafts(self) -> None:
        """Forget what earlier answers taught the drafter; measurements start from the kit's table alone."""
        if self.drafter is not None:
            self.drafter = self.drafter.fresh()

    def turns(self, question: str, history: Turns) -> list[str]:
        """The texts behind the image; see `prompt.conversation`."""
        spoken = self.kit.manifest.prompt
        return prompt.conversation(spoken.template, spoken.after, question, history)

    def reach(self, encoded: EncodedPage, turns: Sequence[str]) -> Float:
        """Fill the context with the page and the texts behind it; logits (vocabulary,) of the answer's first token."""
        language = self.language
        self._read(encoded)
        ids: list[int] = []
        for text in turns:
            ids += [language.end] if ids else []
            ids += language.tokenize(text, first=False)
        if self.drafter is not None:
            self.drafter.begin(ids)
        return language.feed_tokens(ids)

    def _read(self, encoded: EncodedPage) -> None:
        """Fill the context with the page, from the disk where it is kept there."""
        language, key, kept = self.language, encoded.image_tokens_sha256, self.prefixes
        name = "" if kept is None else self._prefix_of(encoded)
        if kept is not None and not language.has(key):
            kept.load(name, lambda path: language.load(path, key))
        computed = language.prefill(
            key,
            self.kit.manifest.prompt.before,
            encoded.image_tokens,
            lambda d, n: self.progress("prefill", d, n),
            positions=encoded.positions,
        )
        if kept is not None and computed:
            kept.save(name, language.size, language.save)

    def _prefix_of(self, encoded: EncodedPage) -> str:
        """Hash of everything that keys and values of a page depend on; the device's text names layout, batch and threads."""
        how = [self.device, self.plan.context, self._engine.flash_attention]
        build = [language_model.version(), language_model.system(), profile.key()]
        about = [
            self.kit.sha256,
            self.kit.manifest.prompt.before,
            encoded.image_tokens_sha256,
            how,
            build,
        ]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def interpret(
        self,
        source: str | Path | bytes | Image.Image | reader.Page,
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

    def report(
        self, encoded: EncodedPage, answered: Sequence[Answering], found: Sequence[Finding] = ()
    ) -> Report:
        """The record of one page's answers, as far as they have come, and findings, whose contradictions it marks."""
        seconds = self.seconds | encoded.seconds
        for part in ("prefill", "answer"):
            seconds[part] = sum(a.seconds.get(part, 0.0) for a in answered)
        m, moment = self.kit.manifest, times.now("seconds")
        checks = trace_checks.checks_of(
            encoded.measured, [(a.question, a.text) for a in answered if a.prose], found
        )
        among_words = self.contradictions(encoded, found, [a.text for a in answered if a.prose])
        return Report(
            notice="\n".join(self.notices(encoded)),
            file=encoded.file,
            page_sha256=encoded.page_sha256,
            answers=tuple(a.so_far() for a in answered),
            kit=KitSummary(
                m.id, self.kit.sha256, m.demonstration, self.warning(), self.refused, self.proven
            ),
            device=self.device,
            versions=versions(),
            seconds={k: round(v, 3) for k, v in seconds.items()},
            image_tokens=len(encoded.image_tokens),
            image_tokens_read=encoded.image_tokens_read,
            quality=None if encoded.checked is None else admission.facts(encoded.checked),
            created=moment.utc,
            created_local=moment.local,
            findings=tuple(found),
            contradictions=(*contradictions.with_trace(checks), *among_words),
            measurements=selected(encoded.measured.measurements) if encoded.measured else (),
            checks=checks,
        )

    def notices(self, encoded: EncodedPage) -> list[str]:
        """What must be read before any answer about this page."""
        forced = encoded.checked is not None and encoded.checked.quality.forced
        notices = [DEMONSTRATION] if self.kit.manifest.demonstration else []
        notices += [warning] if (warning := self.warning()) else []
        notices += [FORCED_KIT] if self.refused else [] if self.proven else [NOT_PROVEN]
        notices += (
            [f"{NOT_ALL_READ} {encoded.image_tokens_read}"]
            if encoded.image_tokens_read != token_pruning.ALL
            else []
        )
        return [*notices, FORCED] if forced else notices

    def warning(self) -> str | None:
        """What every answer must say about the bundle that brought the kit or the program."""
        return locate.bundle_warning(self.kit)

    def take_turn(self) -> int:
        """The number of a new answer; all older ones end."""
        self._turn += 1
        return self._turn

    def check_turn(self, turn: int) -> None:
        """Raise UsageError if another answer was started since `turn` was taken."""
        if turn != self._turn:
            raise UsageError(
                "another question was asked before this answer ended. Finish one answer at a time."
            )

    def close(self) -> None:
        """Free both engines."""
        self.encoder.close()
        if self._language is not None:
            self._language.close()

    def __enter__(self) -> PulseModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class YesOrNo:
    """What the language model thinks of a question that is to be answered with yes or no."""

    log_odds: float
    """Of an answer that begins with yes against one that begins with no."""
    greedy: bool | None
    """Whether the greedy answer begins with yes; None: with neither."""


def yes_or_no(model: PulseModel, encoded: EncodedPage, question: str) -> YesOrNo:
    """Ask for the probabilities of both words; no word is generated.

    Either is as probable as its spellings together; a spelling of several tokens as their product.
    """
    ids = [model.language.tokenize(word, first=False) for word in (*findings.YES, *findings.NO)]
    ahead = list(model.score(encoded, question, ids))
    scored = [_log_probability(logits, word) for logits, word in zip(ahead, ids, strict=True)]
    greedy = [logits.argmax(1).tolist() == word for logits, word in zip(ahead, ids, strict=True)]
    n = len(findings.YES)
    log_odds = float(np.logaddexp.reduce(scored[:n]) - np.logaddexp.reduce(scored[n:]))
    return YesOrNo(log_odds, any(greedy[:n]) if any(greedy) else None)


def _log_probability(logits: Float, ids: Sequence[int]) -> float:
    """Of the tokens `ids`, given the logits (n, vocabulary) ahead of each."""
    wide = logits.astype(np.float64)
    chosen = wide[np.arange(len(ids)), list(ids)]
    return float((chosen - np.logaddexp.reduce(wide, axis=1)).sum())


def versions() -> dict[str, str]:
    """Of everything that can change an answer."""
    own = {
        name: version(name) for name in ("pulse-edge", "numpy", "pillow", "opencv-python-headless")
    }
    return own | {
        "python": platform.python_version(),
        "llama-cpp-python": language_model.version(),
        vision_encoder.installed_runtime(): vision_encoder.version(),
    }


def _verify(opened: Kit, progress: Progress) -> None:
    total = sum(file.bytes for file in opened.manifest.files.values())
    done = 0

    def step(piece: int) -> None:
        nonlocal done
        done += piece
        progress("verify", done, total)

    verify(opened, remembered=True, progress=step)
