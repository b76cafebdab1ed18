from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from checkout import ROOT

from export.schema import schema

FILE = ROOT / "docs" / "manifest.schema.json"


def test_the_schema_in_the_repository_is_the_current_one() -> None:
    assert json.loads(FILE.read_text()) == schema()


def test_a_kits_manifest_is_valid_and_an_unknown_field_is_not(tiny_kit: Path) -> None:
    manifest = json.loads((tiny_kit / "manifest.json").read_text())
    jsonschema.validate(manifest, schema())
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(manifest | {"surprise": 1}, schema())


def test_the_encoder_loads_through_optimum(tiny_kit: Path, tmp_path: Path) -> None:
    import shutil

    import numpy as np
    from optimum.onnxruntime import ORTModelForCustomTasks
    from transformers import CLIPVisionConfig

    folder = Path(shutil.copytree(tiny_kit, tmp_path / "kit"))
    CLIPVisionConfig(architectures=["CLIPVisionModel"]).save_pretrained(folder)
    model = ORTModelForCustomTasks.from_pretrained(folder, file_name="vision.onnx")
    features = model(pixel_values=np.zeros((2, 3, 56, 56), np.float32))["image_features"]
    assert features.shape == (2, 16, 256)
