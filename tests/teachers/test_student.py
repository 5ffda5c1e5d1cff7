"""A student that was trained before goes on from its own weights, under any teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from teachers.conftest import CLASSES, MEAN, STD, first, pictures

from edgeres import pipeline
from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.models import weights
from edgeres.models.resnet import ResNet
from edgeres.recipe import DistillSection, load_mapping
from edgeres.stages import Context, distill

IMAGES, _ = pictures(24, 9)
START = {"student": "resnet8", "mean": MEAN, "std": STD, "train": {"epochs": 0}}


@pytest.fixture
def file(tmp_path: Path, trained: ResNet) -> Path:
    """Of the trained network, as people have it."""
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def run(section: DistillSection, data: Artifact, tmp_path: Path) -> tuple[ResNet, dict]:
    """Under a teacher that isn't there, since nothing is to be asked."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    nobody = Artifact("teacher", "-", "-", tmp_path / "nowhere", {}, {}, {}, {}, 0.0)
    facts = distill.run(section, {"data": data, "teacher": nobody}, out,
                        Context(0, tmp_path, lambda *_: None))  # fmt: skip
    return weights.load(out), facts


def test_without_epochs_it_is_that_network(
    tmp_path: Path, data: Artifact, trained: ResNet, file: Path
) -> None:
    student, facts = run(DistillSection(**START, checkpoint=str(file)), data, tmp_path)
    assert torch.equal(first(student, IMAGES), first(trained, IMAGES))
    assert facts["test"]["correct"] / facts["test"]["n"] > 0.9
    fresh, _ = run(DistillSection(**START), data, tmp_path)
    assert fresh.spec.preprocess.mean == MEAN  # mean and std are those of fresh weights, too
    assert not torch.equal(fresh.conv1.weight, student.conv1.weight)


def test_it_is_known_by_what_the_file_holds(tmp_path: Path, trained: ResNet, file: Path) -> None:
    copy = tmp_path / "copy.pth"
    copy.write_bytes(file.read_bytes())
    here, there = (DistillSection(**START, checkpoint=str(path)) for path in (file, copy))
    assert distill.keyed(here) == distill.keyed(there)
    torch.save({**trained.state_dict(), "fc.bias": torch.ones(CLASSES)}, copy)
    assert distill.keyed(here) != distill.keyed(there)


def test_wrong_starts_are_refused_before_any_work(file: Path) -> None:
    base = {"name": "x", "data": {"source": "digits"}, "teacher": {"model": "resnet8"}}
    gone = {"distill": {"student": "resnet8", "checkpoint": str(file.with_name("gone.pth"))}}
    with pytest.raises(BadInput, match=r"checkpoint .*gone\.pth: no such file"):
        pipeline.steps(load_mapping({**base, **gone}))
    both = {"distill": {"student": "resnet8", "checkpoint": str(file), "skip_scale": True}}
    with pytest.raises(BadInput, match="`skip_scale` is for random weights"):
        load_mapping({**base, **both})
