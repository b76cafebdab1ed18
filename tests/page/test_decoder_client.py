"""Files are decoded in a process of their own, with bounds for each page; the program outlives
whatever happens there."""

from __future__ import annotations

import io
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
from checkout import ROOT
from documents import RED_BOX, pdf
from picture_files import blocks, chunk, encoded, several
from PIL import Image
from progressive import progressive

from pulse_edge.errors import PageRefused, ScanError
from pulse_edge.page import decoder_client, reader

posix = pytest.mark.skipif(
    os.name != "posix", reason="bounds of processor time and memory need POSIX"
)
pydicom = pytest.importorskip("pydicom")


@pytest.fixture(autouse=True)
def fresh() -> None:
    decoder_client.stop()


def empty_items(count: int) -> bytes:
    """A DICOM recording after a sequence of very many empty items."""
    start = recordings.file(
        recordings.Group(dict.fromkeys(recordings.LEADS, np.zeros(5000)), 500.0)
    )
    at = start.index(b"\x08\x00\x16\x00")  # SOP Class UID, which the sequence stands in front of
    head = struct.pack("<HH2sHI", 0x0008, 0x0014, b"SQ", 0, 0xFFFFFFFF)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    return start[:at] + head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + start[at:]


def used() -> float:
    """Processor seconds of the children that have ended."""
    return sum(os.times()[2:4])


@posix
@pytest.mark.parametrize(
    "slow",
    [lambda: progressive(4000, 400), lambda: empty_items(1_000_000)],
    ids=["JPEG of 400 scans", "DICOM of a million empty items"],
)
def test_a_page_that_takes_too_long_is_refused(
    slow: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_client, "PAGE_SECONDS", 0.7)
    data = slow()
    before = used()
    with pytest.raises(PageRefused, match="takes longer than"):
        reader.read_all(data)
    assert used() - before < 2


def test_by_the_clock_a_page_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_client, "BUSY_FACTOR", 0.001)
    with pytest.raises(PageRefused, match="takes longer than"):
        reader.read_all(encoded(blocks(480, 320), "PNG"))


@posix
def test_a_page_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_client, "MEMORY", 300 << 20)
    with pytest.raises(PageRefused, match="memory"):
        reader.read_all(encoded(Image.new("RGB", (9000, 9000)), "PNG", compress_level=1))


def test_a_webp_of_few_bytes_and_many_pixels_is_refused_by_its_header() -> None:
    body = b"\x2f" + (16_382 | 16_382 << 14).to_bytes(4, "little") + bytes(7)
    data = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    with pytest.raises(PageRefused, match="268,402,689 pixels"):
        reader.read_all(b"RIFF" + struct.pack("<I", len(data)) + data)


@posix
def test_the_bounds_are_a_pages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve pages that take a third of the bound each: together four times as much as one may."""
    monkeypatch.setattr(reader, "MAX_PIXELS", 10**9)
    decoder_client.stop()
    before = used()
    reader.read_all(pdf(RED_BOX))
    decoder_client.stop()
    monkeypatch.setattr(decoder_client, "PAGE_SECONDS", 3 * (used() - before))
    assert len(reader.read_all(pdf(*[RED_BOX] * 12))) == 12


def forms(pages: int) -> tuple[bytes, ...]:
    """Each form draws the next one twenty times: no end of drawing. For a PDF of so many pages."""
    objects = []
    for level in range(12):
        inner = b"/N Do " * 20 if level < 11 else RED_BOX
        named = b"/Resources<</XObject<</N %d 0 R>>>>" % (4 + 2 * pages + level)
        head = b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]%s/Length %d>>stream\n%s\nendstream"
        objects.append(head % (named, len(inner), inner))
    return tuple(objects)


@posix
def test_a_hostile_page_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_client, "PAGE_SECONDS", 0.7)
    data = pdf(RED_BOX, b"/F Do", RED_BOX, more=forms(3))
    first, second, third = reader.Document(data)
    assert isinstance(first, reader.Page)
    assert isinstance(second, reader.UnreadablePage)
    assert second.name == "image#2"
    assert "image#2: takes longer" in str(second.error)
    assert isinstance(third, reader.Page)
    assert np.array_equal(np.asarray(first.image), np.asarray(third.image))


@posix
def test_after_three_hostile_pages_the_rest_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_client, "PAGE_SECONDS", 0.3)
    pages = list(reader.Document(pdf(*[b"/F Do"] * 3, more=forms(3))))
    assert [type(page) for page in pages] == [reader.UnreadablePage] * 3
    monkeypatch.setattr(reader, "MAX_FAILURES", 2)
    *_, last = reader.Document(pdf(*[b"/F Do"] * 3, more=forms(3)))
    assert "was not read" in str(last.error)  # type: ignore[union-attr]


def test_one_damaged_page_of_a_tiff_leaves_the_others() -> None:
    data = bytearray(
        several(
            blocks(64, 64, seed=1),
            blocks(64, 64, seed=2),
            blocks(64, 64, seed=3),
            compression="tiff_lzw",
        )
    )
    whole = [np.asarray(page.image) for page in reader.read_all(bytes(data))]
    with Image.open(io.BytesIO(bytes(data))) as image:
        image.seek(1)
        start = image.tag_v2[273][0]  # type: ignore[attr-defined]
        length = image.tag_v2[279][0]  # type: ignore[attr-defined]
    data[start + length // 2 : start + length] = bytes(length - length // 2)
    first, second, third = reader.Document(bytes(data))
    assert isinstance(second, reader.UnreadablePage)
    assert isinstance(first, reader.Page)
    assert isinstance(third, reader.Page)
    assert np.array_equal(np.asarray(first.image), whole[0])
    assert np.array_equal(np.asarray(third.image), whole[2])


# --- the process ----------------------------------------------------------------------------------


def kill() -> None:
    worker = decoder_client.running_worker()
    assert worker is not None
    worker.process.kill()
    worker.process.wait()


def test_a_decoder_that_was_killed_is_started_again() -> None:
    document = reader.Document(several(blocks(seed=1), blocks(seed=2)))
    pages = iter(document)
    first = next(pages)
    kill()
    second = next(pages)
    assert isinstance(first, reader.Page)
    assert isinstance(second, reader.Page)
    assert np.array_equal(np.asarray(second.image), np.asarray(blocks(seed=2)))


def test_a_page_that_ends_the_decoder_is_tried_once_more_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader.read(encoded(blocks(), "PNG"))
    attempts = []

    def aborted(self: Any, task: decoder_client.Task) -> int:
        attempts.append(self.files)
        self.process.send_signal(signal.SIGTERM)
        raise self._end_error()

    monkeypatch.setattr(decoder_client.Worker, "open", aborted)
    with pytest.raises(ScanError, match="ends the decoder"):
        reader.read(encoded(blocks(), "PNG"))
    assert attempts == [1, 0]  # the second worker was new


def test_two_threads_read_their_own_pages() -> None:
    documents = [several(*[blocks(seed=10 * n + k) for k in range(4)]) for n in range(2)]
    result: dict[int, list[Any]] = {}

    def job(n: int) -> None:
        result[n] = [np.asarray(page.image) for page in reader.read_all(documents[n])]

    threads = [threading.Thread(target=job, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(2):
        for k in range(4):
            assert np.array_equal(result[n][k], np.asarray(blocks(seed=10 * n + k)))


def test_decoder_ends_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from pulse_edge.common import child_process

    code = "from pulse_edge.page import decoder_worker as w; w.IDLE = 0.1; w.main(0)"
    monkeypatch.setattr(child_process, "command", lambda *_a: [sys.executable, "-c", code])
    monkeypatch.setattr(
        child_process, "environment", lambda **_v: os.environ | {"PYTHONPATH": str(ROOT)}
    )
    document = reader.Document(several(blocks(seed=1), blocks(seed=2)))
    worker = decoder_client.running_worker()
    assert worker is not None
    worker.process.wait(60)
    assert worker.gone()
    assert [type(page) for page in document] == [reader.Page] * 2
    decoder_client.stop()


@posix
def test_a_decoder_writes_nothing(tmp_path: Path) -> None:
    import subprocess

    code = "from pulse_edge.page import decoder; decoder._bound_space(0)\nopen('x', 'w').write('y')"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert not (tmp_path / "x").exists() or not (tmp_path / "x").stat().st_size


def test_chunks_by_the_million_are_no_trouble() -> None:
    data = encoded(Image.new("L", (64, 64)), "PNG")
    assert reader.read(data[:33] + chunk(b"abCd", b"") * 100_000 + data[33:]).image.size == (64, 64)


def test_a_dicom_of_sequences_without_end_is_refused_in_plain_words() -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.SecondaryCaptureImageStorage,
        "1.2.3",
    )
    head = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(head, meta)
    inside = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(ScanError, match="it is nested too deeply") as refusal:
        reader.read(bytes(128) + b"DICM" + head.getvalue() + inside * 20_000)
    assert "recursion" not in str(refusal.value)
