"""Files of every kind that a page may come in, made in a few lines."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")


LETTER = (792, 612)


def pdf(
    *contents: bytes,
    size: tuple[int, int] = LETTER,
    more: tuple[bytes, ...] = (),
    page: bytes = b"",
    catalog: bytes = b"",
) -> bytes:
    """A PDF by hand: one page for each content stream; `more` objects follow, numbered from 3 + 2 *
    pages.

    `page` and `catalog` are further entries of the dictionaries of each page and of the document.
    """
    n = len(contents)
    kids = b" ".join(b"%d 0 R" % (3 + 2 * i) for i in range(n))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog,
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, n),
    ]
    for i, content in enumerate(contents):
        named = (
            b"/XObject<</F %d 0 R>>/Font<</H<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"
            % (3 + 2 * n)
        )
        box = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Resources<<%s>>/Contents %d 0 R%s>>"
            % (
                *size,
                named,
                4 + 2 * i,
                page,
            )
        )
        objects += [box, b"<</Length %d>>stream\n%s\nendstream" % (len(content), content)]
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate([*objects, *more], 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(places) + 1, len(out))
    return bytes(out) + b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1) + table + end


RED_BOX = b"1 0 0 rg 0 306 396 306 re f"


def dicom(**elements: Any) -> bytes:
    """A DICOM file with these elements."""
    from pydicom.dataset import Dataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.PatientName = "Doe^Jane"
    for name, value in elements.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


CODES = {
    "I": 1,
    "II": 2,
    **{f"V{n}": n + 2 for n in range(1, 7)},
    "III": 61,
    "aVR": 62,
    "aVL": 63,
    "aVF": 64,
}


def waveform_file(
    names: tuple[str, ...] = tuple(CODES), hz: float = 500, unit: str = "uV", short: int = 0
) -> bytes:
    """A 12-lead object: lead number n holds a constant, and a 1 mV step in its second half."""
    from pydicom.dataset import Dataset

    samples = int(10 * hz)
    values = np.zeros((samples, len(names)), "<i2")
    values[samples // 8 :: samples // 4] = 400  # a spike in each quarter
    channels = []
    for name in names:
        source, units, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = (
            f"2:{CODES[name]}",
            "MDC",
            f"Lead {name}",
        )
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [units]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "2.5", "1"
        channel.ChannelBaseline, channel.WaveformBitsStored = "0", 16
        channels.append(channel)
    group = Dataset()
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = len(names), samples
    group.SamplingFrequency = str(hz)
    group.ChannelDefinitionSequence = channels
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = values.tobytes()[: len(values.tobytes()) - short]
    return dicom(SOPClassUID="1.2.840.10008.5.1.4.1.1.9.1.1", WaveformSequence=[group])


def picture_file(pixels: np.ndarray, **more: Any) -> bytes:
    colour = pixels.ndim == 3
    elements = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    if colour:
        elements["PlanarConfiguration"] = 0
    return dicom(**(elements | more))
