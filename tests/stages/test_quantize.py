"""What quantization refuses before it begins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images

from edgeres import pipeline, targets
from edgeres.artifact import Artifact
from edgeres.datasets import _store
from edgeres.errors import BadInput
from edgeres.recipe import QuantizeSection, checked, load_mapping
from edgeres.stages import Context, _checkpoint, data, distill, quantize
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


def test_calibration_takes_the_listed_training_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "read", lambda _path: {})  # it stores none of them apart
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


def test_what_is_for_4_bits_is_refused_in_the_plan() -> None:
    pipeline.steps(recipe(scheme="w4a8"))
    four = {"name": "r", "export": {"targets": ["onnx-int4"]}}
    pipeline.steps(load_mapping({**four, "quantize": {"scheme": "w4a8"}}))
    with pytest.raises(BadInput, match=r"'onnx-int4' stores weights of 4 bits.* use onnx-int8"):
        pipeline.steps(load_mapping({**four, "quantize": {"scheme": "w8a8"}}))


@pytest.mark.parametrize("limits", [{}, {"max_drop": 100}, {"max_kb": 60}])
def test_the_step_says_which_layers_have_which_bits(limits: dict, tmp_path: Path) -> None:
    """And an int8 file, that it stores them in 8."""
    described = load_mapping({"name": "x", "data": {"source": "digits", "size": 8},
                              "distill": {"student": "resnet8", "loss": "none",
                                          "train": {"epochs": 1, "batch_size": 64}}})  # fmt: skip
    digits = made(data, described.data, {}, tmp_path)
    model = made(distill, described.distill, {"data": digits}, tmp_path)
    section = checked(QuantizeSection, {"method": "ptq", "scheme": "w4a8", **limits})
    found = made(quantize, section, {"data": digits, "model": model}, tmp_path)
    four = [name for name, bits in found.facts["bits"].items() if bits == 4]
    assert 0 < len(four) <= len(found.facts["bits"]) - 2
    assert any(f"weights of {len(four)} layers have 4 bits" in n for n in found.facts["notes"])
    chosen = [n for n in found.facts["notes"] if "bits were chosen by layer" in n]
    assert bool(chosen) == bool(limits)
    scales = _checkpoint.read_scales(found)
    assert targets.stored_in_8_bits("tflite-int4", scales) == 0
    assert targets.stored_in_8_bits("coreml-int8", scales) == len(four)


@pytest.mark.parametrize(("wanted", "all_there"), [(64, True), (100_000, False)])
def test_calibration_on_fewer_images_than_are_wanted_is_said(
    wanted: int, all_there: bool, tmp_path: Path
) -> None:
    described = load_mapping({"name": "x", "data": {"source": "digits", "size": 8,
                                                    "calibration": wanted},
                              "distill": {"student": "resnet8", "loss": "none",
                                          "train": {"epochs": 0}}})  # fmt: skip
    digits = made(data, described.data, {}, tmp_path)
    model = made(distill, described.distill, {"data": digits}, tmp_path)
    section = checked(QuantizeSection, {"method": "ptq"})
    found = made(quantize, section, {"data": digits, "model": model}, tmp_path)
    count = digits.facts["calibration"]["count"]
    said = [n for n in found.facts["notes"] if n.startswith("calibrated on ")]
    assert said == ([] if all_there else [
        f"calibrated on {count:,} images, all there are to calibrate with; data.calibration is "
        f"{wanted:,}"])  # fmt: skip


def made(stage: object, section: object, inputs: dict[str, Artifact], root: Path) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    for folder in (root / name, root / f"{name}-work"):
        folder.mkdir()
    context = Context(0, root / f"{name}-work", lambda *_: None)
    facts = stage.run(section, inputs, root / name, context)
    said = section.model_dump(mode="json")
    return Artifact(name, "k", "d", root / name, {}, said, facts, {}, 0.0)
