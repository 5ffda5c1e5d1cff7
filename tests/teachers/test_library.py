"""Networks that torchvision's and timm's own code builds: by name, with a file, with published
weights."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from teachers.conftest import CLASSES, MEAN, PX, STD, pictures
from teachers.test_sources import made, published
from torch import nn
from turns import by_turns

from edgeres import teachers
from edgeres.artifact import Artifact
from edgeres.errors import BadInput, MissingComponent
from edgeres.network.module import NetworkModule
from edgeres.recipe import DistillSection, TeacherSection
from edgeres.stages import _checkpoint
from edgeres.teachers import _library, torchvision
from edgeres.training.inference import predict, prepared
from edgeres.types import Preprocess

IMAGES, _ = pictures(8, 9)
OWN = Preprocess(PX, MEAN, STD)


def answers(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module.eval()(prepared(IMAGES, OWN))
    return found


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("name", by_turns(["timm:lcnet_050", "torchvision:mobilenet_v3_small"], 2))
def test_a_student_of_their_code_starts_as_they_start_it(name: str, data: Artifact) -> None:
    section = DistillSection(student=name, mean=MEAN, std=STD)
    ours = _checkpoint.fresh(section, name, data, seed=3)
    again = _checkpoint.fresh(section, name, data, seed=3)
    theirs = _library.built(*name.split(":"), CLASSES, seed=3)
    assert isinstance(ours, NetworkModule) and ours.spec.preprocess == OWN
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in ours.state_dict().items())
    torch.testing.assert_close(predict(ours, IMAGES, OWN), answers(theirs))
    with pytest.raises(BadInput, match="skip_scale is for the residual networks built here"):
        _checkpoint.fresh(section.model_copy(update={"skip_scale": 0.5}), name, data, seed=3)


@pytest.mark.usefixtures("zoo")
def test_a_file_of_weights_with_the_name_of_its_network(tmp_path: Path, data: Artifact) -> None:
    """As trainers save it: inside a wrapper, of their own number of classes."""
    theirs = _library.built("timm", "lcnet_050", 9)
    state = {f"module.{k}": v for k, v in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "net.pth")
    section = {"model": "timm:lcnet_050", "checkpoint": str(tmp_path / "net.pth"), "mean": MEAN,
               "std": STD, "near_chance": "go on", "train": {"epochs": 0}}  # fmt: skip
    with pytest.raises(BadInput, match=r"have 9 classes but the data have 4.*teacher\.outputs"):
        made(tmp_path, data, **section)
    (tmp_path / "artifact").rmdir()
    teacher, facts = made(tmp_path, data, **section, outputs=(7, 2, 5, 0))
    torch.testing.assert_close(teacher.answer(IMAGES), answers(theirs)[:, [7, 2, 5, 0]])
    assert facts["model"] == "lcnet_050" and facts["source"] == "checkpoint"
    teachers.check(TeacherSection(**section))
    (tmp_path / "artifact").rename(tmp_path / "x")
    with pytest.raises(BadInput, match=r"net.pth: is no timm:mobilenetv3_small_050: it lacks"):
        made(tmp_path, data, **section | {"model": "timm:mobilenetv3_small_050"})


@pytest.mark.usefixtures("zoo")
def test_torchvision_says_where_weights_are_and_how_images_are_prepared(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V3_Small_Weights

    address, folder = server
    theirs = _library.built("torchvision", "mobilenet_v3_small", 1000)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    file = f"mobilenet_v3_small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published(folder, file, content)
    weights = MobileNet_V3_Small_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(weights, "url", f"https://download.pytorch.org/models/{file}")
    monkeypatch.setenv("EDGERES_TORCHVISION_URL", address)
    monkeypatch.setenv("EDGERES_CACHE", str(tmp_path / "cache"))
    wanted = teachers.Wanted(None, CLASSES, (1, 7, 9, 800), PX)
    found = torchvision.fetch("mobilenet_v3_small", wanted, tmp_path)
    assert found.network is not None and found.network.spec.preprocess == Preprocess(224, MEAN, STD)
    assert found.network.spec.classes == CLASSES and found.claimed is None
    whole = torchvision.fetch("mobilenet_v3_small.v1", teachers.Wanted(None, 1000, None, PX, PX),
                              tmp_path)  # fmt: skip
    assert whole.network is not None and whole.claimed == pytest.approx(0.67668)
    torch.testing.assert_close(predict(whole.network, IMAGES, OWN), answers(theirs))
    assert torchvision.keyed("mobilenet_v3_small").endswith(file[-12:-4])
    with pytest.raises(BadInput, match="mobilenet_v3_small has the versions v1"):
        torchvision.check("mobilenet_v3_small.v2")
    with pytest.raises(BadInput, match=r"'mobilenet_v5' \(did you mean 'mobilenet_v2'\?\); its"):
        torchvision.check("mobilenet_v5")


@pytest.mark.usefixtures("zoo")
def test_timm_weights_of_any_network(
    tmp_path: Path, data: Artifact, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    theirs = _library.built("timm", "lcnet_050", 1000)
    base = "timm/lcnet_050.ra2_in1k/resolve/main"
    save_file(theirs.state_dict(), tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    digest = published(folder, f"{base}/model.safetensors", content)
    cfg = {"mean": MEAN, "std": STD, "input_size": [3, PX, PX]}
    published(folder, f"{base}/config.json", json.dumps({"pretrained_cfg": cfg}).encode())
    published(folder, f"{base}/model.etag", digest.encode())
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("EDGERES_CACHE", str(tmp_path / "cache"))
    teacher, facts = made(tmp_path, data, model="timm:lcnet_050.ra2_in1k", outputs=(3, 1, 4, 15),
                          near_chance="go on")  # fmt: skip
    torch.testing.assert_close(teacher.answer(IMAGES), answers(theirs)[:, [3, 1, 4, 15]])
    assert facts["source"] == "timm" and facts["model"] == "lcnet_050"


def test_without_its_library_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingComponent, match="timm's own code: pip install timm"):
        teachers.check(TeacherSection(model="timm:lcnet_050.ra2_in1k"))
    with pytest.raises(MissingComponent, match="pip install timm"):
        teachers.check_architecture("timm:lcnet_050")
    with pytest.raises(ValueError, match="`checkpoint` is a second teacher"):
        TeacherSection(model="onnx:net.onnx", checkpoint="net.pth")
