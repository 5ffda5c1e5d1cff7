"""Preprocessing is said once, in one of two ways, and a wrong one is noticed."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from teachers.conftest import MEAN, PX, STD, pictures

from edgeres.artifact import Artifact
from edgeres.commands import chain
from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet
from edgeres.preprocessing import WAYS
from edgeres.recipe import DistillSection, TeacherSection, load_mapping
from edgeres.stages import Context, distill, teacher
from edgeres.teachers import _prepared
from edgeres.training.answers import Network
from edgeres.types import Preprocess


@pytest.fixture
def file(tmp_path: Path, trained: ResNet) -> Path:
    """The network that was trained with ImageNet's mean and std."""
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def noted(section: TeacherSection, data: Artifact, tmp_path: Path) -> list[str]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    context = Context(0, tmp_path, lambda *_: None)
    facts = teacher.run(section, {"data": data}, out, context)
    return list(facts["notes"])


def shown(trained: ResNet, way: str, blue_first: bool = False) -> Network:
    """The network as somebody uses it who prepares its images in this way."""
    network = copy.deepcopy(trained)
    if blue_first:
        network.conv1.weight.data = network.conv1.weight.data.flip(1)
    return Network(network).prepared_as(Preprocess(PX, WAYS[way].mean, WAYS[way].std))


@pytest.mark.parametrize(("way", "blue_first"), [("unit", False), ("pixels", False),
                                                 ("imagenet", True)])  # fmt: skip
def test_a_wrong_way_is_noticed(trained: ResNet, way: str, blue_first: bool) -> None:
    said = _prepared.advice(shown(trained, way, blue_first), *pictures(500, 3))
    assert said is not None
    before, after = (float(x) for x in re.findall(r"([\d.]+)%", said))
    assert after > before + 3 and "of 300 training images are right" in said
    assert ("channels: bgr" if blue_first else "preprocess: ") in said


def test_the_right_way_and_one_like_it_are_not_called_wrong(trained: ResNet) -> None:
    for seed in range(10):
        assert _prepared.advice(shown(trained, "imagenet"), *pictures(500, seed)) is None
    assert _prepared.advice(shown(trained, "cifar"), *pictures(500, 1)) is None


def test_chance_is_no_reason(trained: ResNet) -> None:
    """Of a network that guesses, some way is always the luckiest on the images it is tried on."""
    from edgeres.models import resnet

    for seed in range(10):
        images, labels = pictures(500, seed)
        guessing = Network(resnet.build(trained.spec, seed=seed).eval())
        shuffled = labels[torch.randperm(500, generator=torch.Generator().manual_seed(seed))]
        assert _prepared.advice(guessing, images, shuffled) is None


def test_what_is_assumed_is_said(file: Path, data: Artifact, tmp_path: Path) -> None:
    section = {"model": f"checkpoint:{file}", "near_chance": "go on"}
    (assumed,) = noted(TeacherSection(**section), data, tmp_path)
    assert "mean 0.502 and std 0.251 are assumed" in assumed
    for said in ({"preprocess": "imagenet"}, {"mean": MEAN, "std": STD}):
        assert noted(TeacherSection(**section, **said), data, tmp_path) == []


def test_a_folder_of_ours_knows_better(trained: ResNet, data: Artifact, tmp_path: Path) -> None:
    from edgeres.models import weights

    (tmp_path / "ours").mkdir()
    weights.save(tmp_path / "ours", trained)
    section = TeacherSection(model=f"checkpoint:{tmp_path / 'ours'}", preprocess="half")
    (said,) = noted(section, data, tmp_path)
    assert "spec.json says how its images are prepared; what the recipe says isn't used" in said


def test_a_name_and_its_numbers_are_one(file: Path) -> None:
    start = {"checkpoint": str(file), "student": "resnet8"}
    named = DistillSection(**start, preprocess="imagenet")
    numbered = DistillSection(**start, mean=MEAN, std=STD)
    assert distill.keyed(named) == distill.keyed(numbered)
    assert distill.keyed(named) != distill.keyed(DistillSection(**start, preprocess="half"))
    with pytest.raises(BadInput, match="`preprocess` says mean and std by name; leave one"):
        load_mapping(_recipe(preprocess="half", mean=[0.5], std=[0.5]))


def _recipe(**teacher: object) -> dict[str, object]:
    return {"name": "x", "data": {"source": "digits"}, "teacher": {"model": "resnet8", **teacher}}


def test_pixels_that_were_not_divided() -> None:
    mend = (
        r"123\.675 is above 1, so it is of pixels from 0 to 255: divide mean and std by 255 "
        r"\(0\.485, 0\.456, 0\.406\)"
    )
    with pytest.raises(BadInput, match=rf"teacher\.mean: {mend}$"):
        load_mapping(_recipe(mean=[123.675, 116.28, 103.53], std=[0.2]))
    with pytest.raises(BadInput, match=f"--mean: {mend}"):
        chain.brought("123.675,116.28,103.53", "58.395,57.12,57.375", None, None, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [(("0.5", None), "--mean and --std go together"), (("0.5,0.4", "0.5"), "one number or three"),
     (("x", "0.5"), "--mean x: write one number or three")],
)  # fmt: skip
def test_means_that_are_none(given: tuple[str, str | None], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        chain.brought(*given, None, None, None)


def test_options_of_a_checkpoint(file: Path, tmp_path: Path) -> None:
    given = chain.brought("0.5 0.4 0.3", "0.25", 24, None, "raw")
    settings = chain.training("quantize", 3, 0.01, 32, 20)
    recipe, _ = chain.continued(str(file), None, "digits", tmp_path, "quantize", [],
                                {"method": "qat"}, given, settings)  # fmt: skip
    assert recipe.teacher.mean == (0.5, 0.4, 0.3) and recipe.teacher.std == (0.25,)
    assert recipe.teacher.size == 24 and recipe.teacher.weights == "raw" and recipe.quantize
    assert recipe.data.size == 20 and recipe.quantize.train.epochs == 3
    assert recipe.quantize.train.learning_rate == 0.01 and recipe.quantize.train.batch_size == 32
    with pytest.raises(BadInput, match="--preprocess is for a checkpoint file"):
        chain.continued(None, None, None, tmp_path, "export", [], {"targets": ["onnx-fp32"]},
                        chain.brought(None, None, None, "half", None))  # fmt: skip


def test_distill_with_a_checkpoint(file: Path) -> None:
    """As its help shows it: the recipe's start of random weights isn't in the way."""
    settings = {"data": f"cifar10:{file.parent}"}
    said = chain.distilling("resnet8", file, {"preprocess": "imagenet"}, settings, [])
    assert said.teacher.model == "resnet8" and said.teacher.checkpoint == str(file)
    assert said.teacher.preprocess == "imagenet" and said.data.size is None
    found = chain.distilling(None, file, {}, settings, [])
    assert found.teacher.model == f"checkpoint:{file}"
    assert chain.distilling(None, None, {}, {}, []).teacher.zero_init_residual


def test_what_is_said_of_a_checkpoint_is_refused_of_a_teacher_trained_here(file: Path) -> None:
    for said in ({"size": 24}, {"weights": "raw"}, {"mean": [0.5], "std": [0.5]}):
        says = f"--{next(iter(said))} is for a teacher that is trained already; give --checkpoint"
        for model in (None, "resnet8"):
            with pytest.raises(BadInput, match=says):
                chain.distilling(model, None, said, {}, [])
    for given in ([f"checkpoint:{file}", None], ["resnet8", file], [None, file]):
        assert chain.distilling(*given, {"size": 24}, {}, []).teacher.size == 24
    several = [f"teacher.ensemble=[checkpoint:{file}, onnx:x]"]
    assert chain.distilling(None, None, {"size": 24}, {}, several).teacher.size == 24
    assert chain.distilling("onnx:x", None, {"size": 24}, {}, []).teacher.size == 24
