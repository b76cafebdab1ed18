"""What a run opens from its request: kit, audit log, caches and model. Nothing is loaded before
`open_model`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pulse_edge.audit_log.answer_logger import AnswerLogger
from pulse_edge.audit_log.log import AuditLog
from pulse_edge.inference import cache
from pulse_edge.inference.model import EngineOptions, PulseModel
from pulse_edge.kit import locate

if TYPE_CHECKING:
    from pulse_edge.inference.cache import ImageTokenCache
    from pulse_edge.inference.page_encoder import EncodedPage, Progress
    from pulse_edge.inference.request import Request
    from pulse_edge.machine.memory_plan import Workload
    from pulse_edge.page.reader import Page
    from pulse_edge.report.report import Finding


class ModelSession:
    """One run with one request."""

    def __init__(self, request: Request, note: Callable[[str], None] = lambda _text: None) -> None:
        """Find the kit. Raises KitError. `note` gets a line where the audit log makes it wait."""
        self.request = request
        self.kit = locate.find(request.model.kit)
        self.wants_findings = request.wants_findings(self.kit.manifest)
        log = AuditLog(note=note)
        self.answer_log = AnswerLogger(log, request.settings(), request.output.retain_days)

    @functools.cached_property
    def image_token_cache(self) -> ImageTokenCache | None:
        """Image tokens of earlier pages.

        Raises FolderError where the folder is not this user's cache.
        """
        return cache.user_image_tokens() if self.request.model.cache else None

    def open_model(self, progress: Progress, workload: Workload | None = None) -> PulseModel:
        """Load the model. Raises what `PulseModel.load` raises."""
        options = self.request.model
        size = None if self.image_token_cache is None else options.kv_cache_size
        prefix_cache = None if size is None else cache.user_kv_caches(size)
        return PulseModel.load(
            self.kit,
            device=options.device,
            threads=options.threads,
            limit=options.memory,
            workload=workload,
            force=options.force_kit,
            progress=progress,
            engine=EngineOptions(options.speculation, prefix_cache),
        )

    def encode(self, model: PulseModel, page: Page) -> EncodedPage:
        """Admit and encode a page as the request says. Raises ScanError, PageRefused."""
        options = self.request.page
        return model.encode(
            page,
            straighten=options.rectify,
            force=options.force,
            cache=self.image_token_cache,
            image_tokens=options.image_tokens,
            measurement=self.request.measurement,
        )

    def findings(self, model: PulseModel, encoded: EncodedPage) -> Sequence[Finding]:
        """Judge the fixed list if the request asks for it; else none."""
        return model.findings(encoded) if self.wants_findings else ()
