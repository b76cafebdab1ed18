"""The way of one page: scan -> tiles -> image tokens -> answers and findings -> Report. Every
caller uses `PulseModel`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from PIL import Image

from pulse_edge.common.arrays import Float
from pulse_edge.errors import KitError, MemoryShortage, UsageError
from pulse_edge.inference import (
    decoding,
    language_model,
    llama_cpp,
    reporting,
    speculative,
    statements,
    token_pruning,
    trace_checks,
    vision_encoder,
)
from pulse_edge.inference.cache import ImageTokenCache, PrefixCache
from pulse_edge.inference.decoding import Answering
from pulse_edge.inference.device import DeviceSelection, select_device, threads_for
from pulse_edge.inference.json_grammar import Grammar
from pulse_edge.inference.page_encoder import EncodedPage, PageEncoder, Progress
from pulse_edge.inference.prefill import prefill_page, prefix_key
from pulse_edge.inference.request import MeasurementOptions
from pulse_edge.kit import gguf_header, locate, prompt
from pulse_edge.kit.kit import Kit
from pulse_edge.kit.manifest import Calibration
from pulse_edge.kit.verify import verify
from pulse_edge.machine import cpu, memory, profile, self_test_results
from pulse_edge.machine.memory_plan import Workload
from pulse_edge.measurement import admission
from pulse_edge.page import reader
from pulse_edge.report.report import Contradiction, Finding, KitSummary, Report

Turns = Sequence[tuple[str, str]]
"""Earlier questions about the same page, each with the answer that was given."""
Source = str | Path | bytes | Image.Image | reader.Page


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


MEASURE = MeasurementOptions()
"""Admitted pages are measured, with adult limits."""


@dataclass(frozen=True)
class EngineOptions:
    """How the language model works; the default is what every kit is measured with."""

    speculation: bool = True
    """Decode speculatively where the kit has a draft table. False decodes single tokens, with the
    same answers."""
    prefix_cache: PrefixCache | None = None
    """Stores the KV cache of prefilled pages on disk; None: it is not stored."""
    flash_attention: bool = False
    """Changes the last digits of results with the number of threads; for measurements."""
    observer: llama_cpp.Observer | None = None
    """Sees the results of the compute graph's nodes."""


class PulseModel:
    """A loaded kit. Use it as a context manager, or `close` it. One thread, one answer at a
    time."""

    def __init__(
        self,
        kit: Kit,
        encoder: vision_encoder.VisionEncoder,
        selection: DeviceSelection,
        progress: Progress,
        engine: EngineOptions,
    ) -> None:
        """For `load`, which is the way to get one."""
        self.kit = kit
        self.encoder = encoder
        self.plan = selection.plan
        self.device = selection.text()
        self.fallback = selection.fallback
        """Fault that kept `auto` from a GPU that this build could use; None: there is no fault."""
        self.refused: str | None = None
        """Why `doctor` refused this kit on this machine, if it was forced to answer all the same.
        """
        self.proven = False
        """Whether the kit passed its last self-test on this machine, with the device that answers
        now."""
        self.progress = progress
        self._load_seconds = 0.0
        self._selection = selection
        self._engine = engine
        self._language: language_model.LanguageModel | None = None
        self._pages = PageEncoder(kit, encoder, selection.device, progress)
        self.drafter: speculative.Drafter | None = None
        """Proposes draft tokens; None: decoding is not speculative, and gives the same answers."""
        if engine.speculation and (table := kit.manifest.draft_table_file) is not None:
            self.drafter = speculative.Drafter(
                speculative.read(kit.file(table), kit.manifest.language.vocabulary)
            )
        self.prefixes = engine.prefix_cache
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
        """Open, verify and load a kit (None: as `locate.find` says) on `auto`, `cpu` or `cuda`.

        `threads` None: what `pulse-edge doctor` measured here, else the physical cores. `limit`:
        bytes of memory that it may take. `workload` says what is going to be asked (default:
        anything). With its `pages` the language model is loaded at the first question, and where
        the plan says so after closing the encoder. `force` also loads a kit that `doctor` refused
        on this machine, and every answer says so.

        Raises KitError, MemoryShortage (before anything is loaded), DeviceError, EngineError,
        UsageError.
        """
        start = time.perf_counter()
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device {device!r}: expected auto, cpu or cuda.")
        vision_encoder.installed_runtime()
        opened = kit if isinstance(kit, Kit) else locate.find(None if kit is None else Path(kit))
        speed, tested = profile.recall(opened).speed, self_test_results.recall(opened)
        if tested is not None and tested.refused and not force:
            raise KitError(
                f"{opened.path}: {tested.refused} Run pulse-edge doctor again, or answer with "
                "--force-kit."
            )
        verify(
            opened,
            remembered=True,
            progress=lambda done, total: progress("verify", done, total),
        )
        gguf_header.check_against(
            opened.file(opened.manifest.language.file), opened.manifest.language
        )
        running = cpu.Threads(threads, threads) if threads else threads_for(speed)
        workload = workload or Workload()
        selection, encoder = select_device(opened, device, running, workload, limit)
        model = cls(opened, encoder, selection, progress, engine or EngineOptions())
        if tested is not None:
            model.refused = tested.refused
            model.proven = tested.refused is None and selection.device == "cpu"
        model._load_seconds = time.perf_counter() - start
        model._wait_for_engines(workload)
        return model

    def _wait_for_engines(self, workload: Workload) -> None:
        """Wait for the engines that the workload needs at once: a single page is read and judged
        meanwhile."""
        try:
            if workload.pages != 1:
                self._pages.wait()
            if workload.pages is None:
                _ = self.language
        except BaseException:
            self.close()
            raise

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of `load`, both engines together."""
        return {"load": self._load_seconds + self._pages.wait_seconds}

    @property
    def language(self) -> language_model.LanguageModel:
        """The language model. It is loaded at its first use; if the plan says so, the encoder is
        closed before."""
        if self._language is None:
            start = time.perf_counter()
            if self.plan.encoder_first:
                self.encoder.close()
                memory.give_back()
            selection, manifest = self._selection, self.kit.manifest
            settings = language_model.Settings(
                context=self.plan.context,
                threads=selection.threads.prefill,
                decode_threads=selection.threads.decode,
                device=selection.device,
                gpu_layers=self.plan.gpu_layers,
                batch=self.plan.batch,
                mapped=not self.plan.repack,
                repack=self.plan.repack,
                key_cache_type=manifest.language.key_cache_type,
                flash_attention=self._engine.flash_attention,
                # The kit decides, whether or not drafts are used: another width can give other
                # bits.
                step_width=1 if manifest.draft_table_file is None else decoding.STEP_WIDTH,
            )
            self._language = language_model.LanguageModel(
                self.kit.file(manifest.language.file),
                settings,
                observer=self._engine.observer,
                progress=lambda fraction: self.progress("load", int(1000 * fraction), 1000),
            )
            self._load_seconds += time.perf_counter() - start
        return self._language

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

    def encode(
        self,
        source: Source,
        *,
        straighten: bool = True,
        force: bool = False,
        admit: bool = True,
        cache: ImageTokenCache | None = None,
        image_tokens: str = token_pruning.ALL,
        measurement: MeasurementOptions = MEASURE,
    ) -> EncodedPage:
        """Read, flatten, judge and encode a page once for all its questions. Raises ScanError,
        PageRefused.

        `straighten` False leaves its pixels as they are; `force` encodes a refused page, and the
        report says so. Without `admit` the page is encoded without any check, for measurements on
        known pages. `cache` supplies and stores image tokens. `image_tokens` says which of them the
        language model reads: see `token_pruning`.
        `measurement`: whether the trace of an admitted page is measured, and for whom.
        """
        if self.plan.encoder_first and self._language is not None:
            raise MemoryShortage(
                f"{self.kit.path}: the encoder was closed to make room for the language model. "
                "Encode "
                "every page before the first question, or allow more memory."
            )
        start = time.perf_counter()
        page = source if isinstance(source, reader.Page) else reader.read(source)
        read = time.perf_counter()
        traced = admission.admit(page, straighten, force) if admit else None
        judged = time.perf_counter()
        measured = trace_checks.measured(traced, measurement)
        seconds = {"read": read - start, "check": judged - read}
        if measured is not None:
            seconds["measure"] = time.perf_counter() - judged
        checked = None if traced is None else traced.checked
        encoded = self._pages.encode(page, checked, seconds, cache, image_tokens)
        return replace(encoded, measured=measured)

    def ask(
        self,
        encoded: EncodedPage,
        question: str,
        max_tokens: int | None = None,
        history: Turns = (),
        *,
        grammar: str | None = None,
    ) -> Answering:
        """Return the answer to a question about an encoded page, as an iterator over its text.

        The page's image tokens stay in the context, so a second question about it only costs its
        own words. The next question ends an answer that is still running: going on with it raises
        UsageError. With a `grammar` (see `json_grammar.grammar`) the answer is JSON of one schema;
        UsageError where that is cut off.
        """
        limit = self.kit.manifest.prompt.max_tokens if max_tokens is None else max_tokens
        turns = self.turns(question, history)

        def begin() -> decoding.Turn:
            language, number = self.language, self._take_turn()
            return decoding.Turn(
                prefill=lambda: self.prefill(encoded, turns),
                prompt_tokens=lambda: language.cells,
                generate=lambda logits: decoding.generate(
                    language, logits, limit, self.drafter, grammar
                ),
                check=lambda: self._check_turn(number),
            )

        return Answering(begin, encoded.file, question, prose=grammar is None)

    def check_grammar(self, grammar: Grammar, max_tokens: int | None = None) -> None:
        """Raise UsageError where answers of this kit could not be whole JSON of the grammar; reads
        no weights.

        `max_tokens` None: the kit's limit, as in `ask`.
        """
        manifest = self.kit.manifest
        limit = min(max_tokens or manifest.prompt.max_tokens, manifest.language.context_length)
        grammar.require(limit)
        path = self.kit.file(manifest.language.file)
        tokens = llama_cpp.count_tokens(path, grammar.text, grammar.shortest)
        if tokens > limit:
            raise UsageError(
                f"the schema's shortest answer has {tokens:,} tokens, and an answer may have "
                f"{limit:,}. "
                f"Raise --max-tokens, or {grammar.shorten}."
            )

    def score(
        self,
        encoded: EncodedPage,
        question: str,
        answers: Iterable[Sequence[int]],
        history: Turns = (),
    ) -> Iterator[Float]:
        """Teacher forcing: yield for each answer of n token ids the logits (n, vocabulary) ahead of
        each of its tokens.

        The question is prefilled once for all answers. `language.tokenize(text, first=False)` makes
        ids of a text, and `language.end` is the end of an answer. The next question ends it, as it
        ends an answer of `ask`.
        """
        turns, number = self.turns(question, history), self._take_turn()
        logits = self.prefill(encoded, turns)
        for ids in answers:
            self._check_turn(number)
            yield self.language.forced_logits(logits, ids)

    def findings(self, encoded: EncodedPage) -> tuple[Finding, ...]:
        """Judge every statement of the fixed list, each asked in the words of ECGBench."""
        return statements.judge(
            self,
            encoded,
            self._calibration(encoded),
            lambda done, total: self.progress("findings", done, total),
        )

    def contradictions(
        self, encoded: EncodedPage, judged: Sequence[Finding], texts: Sequence[str]
    ) -> tuple[Contradiction, ...]:
        """Return the contradictions among findings and answers."""
        return statements.contradictions(self, encoded, judged, texts, self._calibration(encoded))

    def _calibration(self, encoded: EncodedPage) -> dict[str, Calibration] | None:
        """The kit's calibration, which holds for all image tokens of a page only."""
        if encoded.image_tokens_read != token_pruning.ALL:
            return None
        return self.kit.manifest.findings

    def forget_drafts(self) -> None:
        """Forget what earlier answers taught the drafter; measurements start from the kit's table
        alone."""
        if self.drafter is not None:
            self.drafter = self.drafter.fresh()

    def turns(self, question: str, history: Turns) -> list[str]:
        """Return the texts behind the image; see `prompt.conversation`."""
        template = self.kit.manifest.prompt
        return prompt.conversation(template.template, template.after, question, history)

    def prefill(self, encoded: EncodedPage, turns: Sequence[str]) -> Float:
        """Fill the context with the page and the texts behind it; return the logits (vocabulary,)
        of the next token."""
        language = self.language
        cache, settings = self.prefixes, [self.device, self.plan.context]
        flash = self._engine.flash_attention
        prefill_page(
            language,
            self.kit.manifest.prompt.before,
            encoded,
            cache,
            "" if cache is None else prefix_key(self.kit, encoded, [*settings, flash]),
            lambda done, total: self.progress("prefill", done, total),
        )
        ids: list[int] = []
        for text in turns:
            ids += [language.end] if ids else []
            ids += language.tokenize(text, first=False)
        if self.drafter is not None:
            self.drafter.begin(ids)
        return language.feed_tokens(ids)

    def _take_turn(self) -> int:
        """The number of a new answer; all older ones end."""
        self._turn += 1
        return self._turn

    def _check_turn(self, number: int) -> None:
        """Raise UsageError if another answer was started since the turn was taken."""
        if number != self._turn:
            raise UsageError(
                "another question was asked before this answer ended. Finish one answer at a time."
            )

    def interpret(
        self,
        source: Source,
        question: str | Sequence[str] = prompt.REPORT_QUESTION,
        max_tokens: int | None = None,
        *,
        with_findings: bool = False,
    ) -> Report:
        """Read and encode a page, answer one question or several about it, and judge the findings
        on request."""
        encoded = self.encode(source)
        answers = []
        for one in [question] if isinstance(question, str) else question:
            answers.append(self.ask(encoded, one, max_tokens))
            answers[-1].answer()
        return self.report(encoded, answers, self.findings(encoded) if with_findings else ())

    def report(
        self, encoded: EncodedPage, answers: Sequence[Answering], judged: Sequence[Finding] = ()
    ) -> Report:
        """Return the report of one page: its answers as far as they have come, findings, and
        contradictions."""
        texts = [answer.text for answer in answers if answer.prose]
        return reporting.build(
            self._summary(),
            self.device,
            self.seconds,
            encoded,
            answers,
            judged,
            self.contradictions(encoded, judged, texts),
        )

    def notices(self, encoded: EncodedPage) -> list[str]:
        """Return what must be read before any answer about this page."""
        return reporting.notices(self._summary(), encoded)

    def _summary(self) -> KitSummary:
        m, warning = self.kit.manifest, locate.bundle_warning(self.kit)
        return KitSummary(
            m.id, self.kit.sha256, m.demonstration, warning, self.refused, self.proven
        )
