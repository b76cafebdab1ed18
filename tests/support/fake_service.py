"""A stand-in for the local page's service: every reading goes through the states of a script."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from reports import finding, report

from pulse_edge.errors import ScanError
from pulse_edge.measurement.measurements import Measurement
from pulse_edge.report.report import Contradiction
from pulse_edge.web.readings import Progress, Reading
from pulse_edge.web.worker_pipe import error_fields

KIT = "kit (Q8_0, fp16)"
TEXT = "Sinus rhythm. QRS duration 130 ms."
ADMISSION: dict[str, Any] = {
    "file": "page.png",
    "page": 1,
    "verdict": "good",
    "forced": False,
    "reasons": [],
    "sheet": {"corners": None, "rotation": 0, "mirrored": False, "skew_degrees": 0.1},
    "grid": {"pixels_per_mm": 5.9, "across": 5.9, "down": 5.9},
    "layout": "3x4+1",
    "leads": 12,
    "changed": False,
    "recording": None,
    "facts": {"sharpness": 0.3},
    "seconds": 0.6,
}
MEASURED: dict[str, Any] = {
    "file": "page.png",
    "layout": "3x4+1",
    "millimetres_per_second": 25.0,
    "millimetres_per_millivolt": 10.0,
    "speed_certain": True,
    "gain_certain": True,
    "lead_scores": {"I": 0.99},
    "reasons": [],
    "age_years": None,
    "sex": None,
    "measurements": [],
    "beats": [{"seconds": 0.7, "kind": "normal"}],
    "seconds": 0.7,
}
REFUSAL = "page.png: the page is out of focus. Take the picture again."


def report_json(text: str = TEXT, **more: Any) -> dict[str, Any]:
    """A report with one contradiction, as JSON."""
    contradiction = Contradiction(
        "measurement", (), "The text says 130 ms; the trace shows 170 ms (± 24)."
    )
    result = report(
        text,
        contradictions=(contradiction,),
        findings=(finding("AFIB", 0.9, "present"),),
        measurements=(Measurement("qrs", "QRS duration", 170.0, "ms", 24.0, ("I", "II")),),
        quality=ADMISSION,
        **more,
    )
    as_json: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(result)))
    as_json["answers"][0]["prompt_tokens"] = 95
    return as_json


class FakeService:
    """Gives each page the end that its bytes name: b"refused", b"unreadable", b"crashed", b"two"
    pages, b"endless", b"removed", else an answer."""

    def __init__(self, **report_fields: Any) -> None:
        self.report = report_json(**report_fields)
        self.submitted: list[tuple[bytes, str, str, dict[str, Any]]] = []
        self.stopped: list[str] = []
        self.removed: list[str] = []
        self.stopping = self.at_once = False
        self.model: dict[str, Any] = {"state": "ready", "reason": None}
        self.one_shots: list[tuple[str, str, dict[str, Any]]] = []
        self._pages: dict[str, list[Reading]] = {}
        self._scratch = tempfile.TemporaryDirectory()
        self._folder, self._numbers = Path(self._scratch.name), itertools.count()
        self.store = self
        """For the space on the disk."""

    def files(self) -> list[Path]:
        """The uploads that were neither handed on nor removed."""
        return list(self._folder.iterdir())

    # --- what the API calls -----------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        created = "2026-01-02T03:04:05+00:00"
        return {"kit_id": KIT, "kit_created": created, "model": self.model}

    def new_upload(self) -> Path:
        return self._folder / f"upload-{next(self._numbers)}"

    def free_bytes(self) -> int:
        return 1 << 40

    async def submit(
        self,
        upload: Path | bytes,
        name: str,
        *,
        source: str,
        owner: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[str]:
        upload = _bytes(upload)
        self.submitted.append((upload, name, source, options or {}))
        first = len(self._pages)
        ids = [f"id-{first + n}" for n in range(2 if upload == b"two" else 1)]
        for one in ids:
            self._pages[one] = self._states(one, upload, name, source)
        return ids

    async def reading(self, reading_id: str) -> Reading:
        return self._pages[reading_id][-1]

    async def events(self, reading_id: str | None) -> AsyncIterator[Reading]:
        assert reading_id is not None
        for state in self._pages[reading_id]:
            await asyncio.sleep(0)
            yield state
        if not self.stopping:
            await asyncio.Event().wait()

    async def stop(self, reading_id: str) -> None:
        self.stopped.append(reading_id)

    async def remove(self, reading_id: str) -> None:
        del self._pages[reading_id]
        self.removed.append(reading_id)

    async def check(self, upload: Path | bytes, name: str, options: Any) -> Any:
        return self._one_shot("check", _bytes(upload), name, options, ADMISSION)

    async def measure(self, upload: Path | bytes, name: str, options: Any) -> Any:
        return self._one_shot("measure", _bytes(upload), name, options, MEASURED)

    # --- the script -------------------------------------------------------------------------------

    def _one_shot(
        self, command: str, upload: bytes, name: str, options: Any, result: dict[str, Any]
    ) -> Any:
        self.one_shots.append((command, name, options))
        error = ScanError(f"{name}: is no picture. Save it as PNG.")
        if upload == b"unreadable":
            raise error
        page = result | {"file": name}
        failed = {"file": f"{name}#2", **error_fields(error)}
        return {b"two": [page, failed], b"one damaged": [failed]}.get(upload, [page])

    def _states(self, one: str, upload: bytes, name: str, source: str) -> list[Reading]:
        moment = "2026-01-02T03:04:05Z"
        begun = Reading(one, name, moment, source, "checking")
        if upload == b"unreadable":
            error = f"{name}: is no picture. Save it as PNG."
            return [begun, dataclasses.replace(begun, state="failed", error=error, exit_code=1)]
        if upload == b"removed":
            return [begun, Reading(one, "", "", "local", "removed")]
        judged = dataclasses.replace(begun, admission=ADMISSION, measurements=MEASURED)
        if upload == b"refused":
            refused = dataclasses.replace(judged, state="refused", error=REFUSAL, exit_code=3)
            return [begun, refused]
        progress = Progress("encode", 1, 5, 3.0)
        reading = dataclasses.replace(judged, state="reading", progress=progress)
        if upload == b"endless":
            return [begun, reading]
        if upload == b"crashed":
            error = f"{name}: the program failed on this page."
            failed = dataclasses.replace(reading, state="failed", error=error, exit_code=1)
            return [begun, reading, failed]
        reading = dataclasses.replace(reading, notices=("NOT FOR PATIENTS",))
        text = self.report["answers"][-1]["text"]
        pieces = [dataclasses.replace(reading, text=text[:n]) for n in (5, 5, len(text))]
        done = dataclasses.replace(reading, state="done", text=text, report=self.report)
        if self.at_once:
            return [begun, done]
        return [begun, dataclasses.replace(judged, state="waiting", place=2), *pieces, done]


def _bytes(upload: Path | bytes) -> bytes:
    return upload if isinstance(upload, bytes) else upload.read_bytes()
