"""What quantization refuses before it begins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images

from edgeres import pipeline
from edgeres.errors import BadInput
from edgeres.recipe import load_mapping
from edgeres.stages import _checkpoint
from edgeres.training.views import Labelled


def recipe(**quantize: Any) -> Any:
    return load_mapping({"name": "r", "quantize": quantize, "export": {"targets": ["tflite-int8"]}})


def test_a_target_that_cannot_hold_the_scheme_is_refused_in_the_plan() -> None:
    pipeline.steps(recipe(scheme="w8a8-symmetric"))
    with pytest.raises(BadInput, match=r"'tflite-int8' has no 16-bit activations.*int16x8"):
        pipeline.steps(recipe(scheme="w8a16"))


class Data:
    """A data artifact's manifest."""

    def __init__(self, folder: Path, samples: list[dict[str, Any]]):
        self.path = folder / "calibration.json"
        self.path.write_text(json.dumps({"split": "train", "samples": samples}))

    def read_json(self, _name: str, _form: Any) -> Any:
        return json.loads(self.path.read_text())

    def file(self, _name: str) -> Path:
        return self.path


def sample(index: int, image: torch.Tensor) -> dict[str, Any]:
    pixels = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    return {"index": index, "sha256": hashlib.sha256(pixels).hexdigest()}


def test_calibration_takes_the_listed_training_images_only(tmp_path: Path) -> None:
    train = Labelled(images(8, seed=1), torch.zeros(8, dtype=torch.int64))
    test = Labelled(images(8, seed=2), torch.zeros(8, dtype=torch.int64))

    def chosen(*samples: dict[str, Any]) -> torch.Tensor:
        data: Any = Data(tmp_path, list(samples))
        return _checkpoint.calibration_images(data, train, test)

    found = chosen(sample(3, train.images[3]), sample(0, train.images[0]))
    assert torch.equal(found, train.images[[3, 0]])
    with pytest.raises(BadInput, match="test images are listed for calibration"):
        chosen(sample(3, test.images[3]))
    with pytest.raises(BadInput, match="not the images that are listed"):
        chosen(sample(3, train.images[4]))
    with pytest.raises(BadInput, match="must use training images"):
        chosen(sample(99, train.images[3]))
