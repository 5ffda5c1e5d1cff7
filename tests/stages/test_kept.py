"""Which network the quantize stage keeps: the trained one, or the calibrated one it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeres.artifact import Artifact
from edgeres.recipe import QuantizeSection, checked, load_mapping
from edgeres.stages import Context, data, distill, quantize

PX = 8


@pytest.mark.parametrize(("source", "judge", "views"), [
    ("trained", "validation images", 1),
    ("checkpoint", "augmented views of the validation images", 4),
])  # fmt: skip
def test_qat_that_ends_worse_is_not_kept(
    source: str, judge: str, views: int, tmp_path: Path
) -> None:
    """A learning rate that destroys what the network knew makes PTQ the better of the two."""
    recipe = load_mapping({"name": "x", "data": {"source": "digits", "size": PX},
                           "distill": {"student": "resnet8", "loss": "none",
                                       "train": {"epochs": 2, "batch_size": 64}}})  # fmt: skip
    digits = _made(data, recipe.data, {}, tmp_path)
    model = _made(distill, recipe.distill, {"data": digits}, tmp_path)
    model.facts["source"] = source
    section = checked(QuantizeSection, {"method": "qat", "train": {
        "epochs": 1, "batch_size": 64, "learning_rate": 10.0, "clip_norm": None,
    }})  # fmt: skip
    made = _made(quantize, section, {"data": digits, "teacher": model, "model": model}, tmp_path)
    right, n = made.facts["judged_correct"], made.facts["judged_n"]
    assert right["ptq"] > right["qat"]
    assert (made.facts["kept"], made.facts["judged_on"]) == ("ptq", judge)
    assert n == views * made.facts["validation"]["n"]
    assert made.facts["source"] == source
    if views == 1:
        assert made.facts["validation"]["correct"] == right["ptq"]
    said = quantize.summary(made.facts)
    assert (
        f"kept ptq: ptq {right['ptq'] / n:.1%}, qat {right['qat'] / n:.1%} of {n} {judge}" in said
    )


def _made(stage: object, section: object, inputs: dict[str, Artifact], root: Path) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    for folder in (root / name, root / f"{name}-work"):
        folder.mkdir()
    facts = stage.run(section, inputs, root / name, Context(0, root / f"{name}-work", _quietly))
    return Artifact(name, "k", "d", root / name, {}, {}, facts, {}, 0.0)


def _quietly(done: int, total: int, note: str) -> None:
    """No progress."""
