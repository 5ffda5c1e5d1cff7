"""Each source of teachers, with a real file made on the spot, through the stage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from teachers.conftest import CLASSES, MEAN, PX, STD, first, pictures, widened

from edgeres import teachers
from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.models import resnet, spec, weights
from edgeres.models.resnet import ResNet
from edgeres.recipe import TeacherSection
from edgeres.stages import Context
from edgeres.stages import teacher as stage
from edgeres.teachers import _download, torchvision
from edgeres.teachers._keras_run import Child
from edgeres.types import Preprocess

IMAGES, LABELS = pictures(24, 9)


def made(tmp_path: Path, data: Artifact, **section: object) -> tuple[teachers.Teacher, dict]:
    """The teacher that a section gives, loaded from the folder that the stage wrote."""
    out = tmp_path / "artifact"
    out.mkdir()
    context = Context(0, tmp_path, lambda *_: None)
    facts = stage.run(TeacherSection(**section), {"data": data}, out, context)
    return teachers.load(out), facts


def same(teacher: teachers.Teacher, model: ResNet, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(teacher.answer(IMAGES), first(model, IMAGES),
                               atol=tolerance, rtol=tolerance)  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_recognized(
    tmp_path: Path, data: Artifact, trained: ResNet, suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    state = {f"module.{k}": v for k, v in trained.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    teacher, facts = made(tmp_path, data, model=f"checkpoint:{path}", mean=MEAN, std=STD,
                          claimed=0.9)  # fmt: skip
    same(teacher, trained)
    assert facts["model"] == "resnet8" and facts["claimed"] == 0.9
    assert facts["test"]["correct"] / facts["test"]["n"] > 0.9
    assert "(claimed 90.00%)" in stage.summary(facts)


def test_a_folder_of_ours_brings_its_preprocessing(
    tmp_path: Path, data: Artifact, trained: ResNet
) -> None:
    (tmp_path / "ours").mkdir()
    weights.save(tmp_path / "ours", trained)
    teacher, _ = made(tmp_path, data, model=f"checkpoint:{tmp_path / 'ours'}")
    same(teacher, trained)


def test_outputs_and_blue_first(tmp_path: Path, data: Artifact, trained: ResNet) -> None:
    wide = widened(trained, 9, [7, 2, 5, 0])
    with torch.no_grad():
        wide.conv1.weight.copy_(wide.conv1.weight.flip(1))
    torch.save(wide.state_dict(), tmp_path / "net.pth")
    with pytest.raises(BadInput, match=r"have 9 classes but the data have 4.*teacher\.outputs"):
        made(tmp_path, data, model=f"checkpoint:{tmp_path / 'net.pth'}", train={"epochs": 0})
    (tmp_path / "artifact").rmdir()
    teacher, _ = made(tmp_path, data, model=f"checkpoint:{tmp_path / 'net.pth'}", mean=MEAN,
                      std=STD, channels="bgr", outputs=(7, 2, 5, 0))  # fmt: skip
    same(teacher, trained)


def test_another_input_size(tmp_path: Path, data: Artifact, trained: ResNet) -> None:
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    teacher, facts = made(tmp_path, data, model=f"checkpoint:{tmp_path / 'net.pth'}", mean=MEAN,
                          std=STD, size=24)  # fmt: skip
    assert facts["size_px"] == 24 and teacher.answer(IMAGES).shape == (24, CLASSES)
    resized = resnet.ResNet(spec.parse("resnet8", CLASSES, Preprocess(24, MEAN, STD))).eval()
    resized.load_state_dict(trained.state_dict())
    same(teacher, resized)


def published(folder: Path, path: str, content: bytes) -> str:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def as_imagenet(width: str) -> ResNet:
    preprocess = Preprocess(224, MEAN, STD)
    return resnet.build(spec.parse(f"resnet18{width}", 1000, preprocess)).eval()


def test_torchvision_weights_are_fetched_once_and_checked(
    tmp_path: Path, data: Artifact, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    model = as_imagenet("")
    torch.save(model.state_dict(), tmp_path / "r18.pth")
    content = (tmp_path / "r18.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    published(folder, f"resnet18-{digest}.pth", content)
    monkeypatch.setenv("EDGERES_TORCHVISION_URL", address)
    monkeypatch.setenv("EDGERES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(torchvision.PUBLISHED, "resnet18.v1", (digest, 0.69758))
    wanted = teachers.Wanted(None, CLASSES, (1, 7, 9, 800), PX)
    found = torchvision.fetch("resnet18", wanted, tmp_path)
    (folder / f"resnet18-{digest}.pth").unlink()  # from now on only the cache has it
    found = torchvision.fetch("resnet18", wanted, tmp_path)
    assert found.network is not None and found.network.spec.preprocess == Preprocess(224, MEAN, STD)
    assert torch.equal(found.network.fc.weight, model.fc.weight[[1, 7, 9, 800]])
    (kept,) = (tmp_path / "cache" / "torchvision").glob("*.pth")
    kept.write_bytes(content[:-1] + b"!")
    with pytest.raises(_download.DownloadFailed, match="can't be fetched"):  # a damaged one is not
        torchvision.fetch("resnet18", wanted, tmp_path)  # used, but fetched anew
    published(folder, f"resnet18-{digest}.pth", content[:-1] + b"!")
    with pytest.raises(_download.DownloadFailed, match="not the file that was published"):
        torchvision.fetch("resnet18", wanted, tmp_path)


def test_timm_weights_come_with_their_preprocessing(
    tmp_path: Path, data: Artifact, trained: ResNet, server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    address, folder = server
    state = widened(trained, 1000, [3, 1, 4, 15]).state_dict()
    save_file(state, tmp_path / "m.safetensors")
    base = "timm/resnet8.a1_in1k/resolve/main"
    content = (tmp_path / "m.safetensors").read_bytes()
    digest = published(folder, f"{base}/model.safetensors", content)
    cfg = {"mean": MEAN, "std": STD, "input_size": [3, PX, PX]}
    published(folder, f"{base}/config.json", json.dumps({"pretrained_cfg": cfg}).encode())
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("EDGERES_CACHE", str(tmp_path / "cache"))
    section = {"model": "timm:resnet8.a1_in1k", "outputs": (3, 1, 4, 15)}
    with pytest.raises(_download.DownloadFailed, match="states no SHA-256"):
        made(tmp_path, data, **section)
    (tmp_path / "artifact").rmdir()
    published(folder, f"{base}/model.etag", digest.encode())
    teacher, facts = made(tmp_path, data, **section)
    same(teacher, trained)
    assert facts["source"] == "timm" and facts["model"] == "resnet8"


def test_downloads_need_tls_and_are_bounded(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERES_CACHE", str(tmp_path / "cache"))
    with pytest.raises(_download.DownloadFailed, match="only https"):
        _download.fetched("http://example.org/net.pth", "net.pth", "00")
    address, folder = server
    published(folder, "big", b"x" * 5000)
    with pytest.raises(_download.DownloadFailed, match="is larger than"):
        _download.fetched(f"{address}/big", "big", "00", max_bytes=4000)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def exported(model: torch.nn.Module, path: Path, px: int = PX) -> None:
    torch.onnx.export(model, (torch.zeros(2, 3, px, px),), path, dynamo=False,
                      input_names=["x"], dynamic_axes={"x": {0: "n"}})  # fmt: skip


def test_an_onnx_file(tmp_path: Path, data: Artifact, trained: ResNet) -> None:
    """Of known operations it is a network; of others a black box, which says why."""
    file = tmp_path / "net.onnx"
    exported(torch.nn.Sequential(trained, torch.nn.Softmax(1)).eval(), file)
    teacher, facts = made(tmp_path, data, model=f"onnx:{file}", mean=MEAN, std=STD)
    torch.testing.assert_close(teacher.answer(IMAGES), first(trained, IMAGES), atol=1e-3, rtol=1e-3)
    assert facts["model"] == "net" and facts["macs"] > 0 and facts["source"] == "onnx"
    assert any("the Softmax at its end is left out" in note for note in facts["notes"])
    unknown = torch.nn.Sequential(trained, torch.nn.ELU(1e-6), torch.nn.Softmax(1)).eval()
    exported(unknown, file)
    (tmp_path / "box").mkdir()
    with pytest.raises(BadInput, match=r"give teacher\.mean"):
        made(tmp_path / "box", data, model=f"onnx:{file}")
    (tmp_path / "box" / "artifact").rmdir()
    teacher, facts = made(tmp_path / "box", data, model=f"onnx:{file}", mean=MEAN, std=STD)
    expected = unknown[1](first(trained, IMAGES)).log_softmax(1)
    torch.testing.assert_close(teacher.answer(IMAGES), expected, atol=1e-3, rtol=1e-3)
    assert facts["model"] == "net.onnx" and facts["macs"] is None
    assert facts["parameters"] > 70_000 and facts["test"]["correct"] > 50
    assert "can't be pruned, quantized or exported: the operation Elu isn't" in facts["notes"][0]
    file.write_bytes(b"no")
    (tmp_path / "other").mkdir()
    with pytest.raises(BadInput, match=r"not an ONNX file|not a network"):
        made(tmp_path / "other", data, model=f"onnx:{file}", mean=MEAN, std=STD)


def test_what_only_answers_can_not_be_quantized(tmp_path: Path, trained: ResNet) -> None:
    from edgeres import pipeline, recipe

    file = tmp_path / "net.onnx"
    teacher = {"model": f"onnx:{file}", "preprocess": "half"}
    said = {"name": "a", "data": "digits", "teacher": teacher, "quantize": {}}
    exported(trained, file)
    pipeline.steps(recipe.load_mapping(said, [], "a test"))
    exported(torch.nn.Sequential(trained, torch.nn.ELU()).eval(), file)
    with pytest.raises(BadInput, match=r"`quantize:` needs a network.*\(the operation Elu isn't"):
        pipeline.steps(recipe.load_mapping(said, [], "a test"))


KERAS = """
import sys, keras, numpy as np
from keras import layers as L
folder, px = sys.argv[1], int(sys.argv[2])
keras.utils.set_random_seed(0)
def unit(x, act=True):
    x = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x))
    return L.ReLU()(x) if act else x
inputs = L.Input((px, px, 3))
x = unit(inputs)
x = L.ReLU()(L.Add()([x, unit(unit(x), act=False)]))
outputs = L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(x))
model = keras.Model(inputs, outputs, name="resnet50")
images = np.load(f"{folder}/train.npz")
mean = np.array([103.939, 116.779, 123.68])
bgr = lambda a: a.transpose(0, 2, 3, 1)[..., ::-1].astype("float32") - mean  # caffe
model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
model.fit(bgr(images["x"]), images["y"], epochs=12, batch_size=32, verbose=0)
np.save(f"{folder}/expected.npy", np.log(model.predict(bgr(images["asked"]), verbose=0)))
model.save(f"{folder}/net.keras")
model.save(f"{folder}/net.h5")
model.save_weights(f"{folder}/net.weights.h5")
evil = keras.Sequential([L.Input((px, px, 3)), L.Lambda(lambda x: x[:, 0, 0, :])])
evil.save(f"{folder}/evil.keras")
"""


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Keras ResNet, trained with caffe's preprocessing, in both formats."""
    pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("keras")
    images, labels = pictures(256, 0)
    np.savez(folder / "train.npz", x=images.numpy(), y=labels.numpy(), asked=IMAGES.numpy())
    done = subprocess.run([sys.executable, "-c", KERAS, folder, str(PX)], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_keras_model(tmp_path: Path, data: Artifact, keras_files: Path) -> None:
    before = set(sys.modules)  # another test's own use of TensorFlow may be in there
    teacher, facts = made(tmp_path, data, model=f"keras:{keras_files / 'net.keras'}")
    expected = torch.from_numpy(np.load(keras_files / "expected.npy"))
    torch.testing.assert_close(teacher.answer(IMAGES), expected, atol=1e-3, rtol=1e-3)
    assert facts["parameters"] > 1000 and facts["test"]["correct"] > 50
    assert not {"tensorflow", "keras"} & (set(sys.modules) - before)


def test_a_keras_model_in_the_older_format(keras_files: Path) -> None:
    child = Child(keras_files / "net.h5")
    assert child.about["input"] == [None, PX, PX, 3] and child.about["softmax"]
    pixels = IMAGES.permute(0, 2, 3, 1).flip(3).float() - torch.tensor([103.939, 116.779, 123.68])
    answer = torch.from_numpy(child.run(pixels.numpy()).copy()).log()
    expected = torch.from_numpy(np.load(keras_files / "expected.npy"))
    torch.testing.assert_close(answer, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "says"), [("evil.keras", "its Lambda is none"), ("net.weights.h5", "weights only")]
)
def test_a_keras_file_with_code_or_without_a_model(
    tmp_path: Path, data: Artifact, keras_files: Path, name: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        made(tmp_path, data, model=f"keras:{keras_files / name}")


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_an_ensemble(tmp_path: Path, data: Artifact, trained: ResNet, average: str) -> None:
    other = resnet.build(trained.spec, seed=7).eval()
    exported(trained, tmp_path / "a.onnx")
    torch.save(other.state_dict(), tmp_path / "b.pth")
    members = (f"onnx:{tmp_path / 'a.onnx'}", f"checkpoint:{tmp_path / 'b.pth'}")
    teacher, facts = made(tmp_path, data, ensemble=members, average=average, mean=MEAN, std=STD,
                          near_chance="go on")  # fmt: skip
    answers = torch.stack([first(trained, IMAGES), first(other, IMAGES)])
    expected = answers.mean(0) if average == "logits" else answers.softmax(2).mean(0).log()
    torch.testing.assert_close(teacher.answer(IMAGES), expected, atol=1e-3, rtol=1e-3)
    assert facts["model"] == "a + resnet8" and facts["parameters"] > 140_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"mean": (0.0,), "std": (1 / 255,)}, "with mean and std of ImageNet"),
     ({"outputs": (2, 3, 0, 1), "mean": MEAN, "std": STD}, "with its classes in another order")],
)  # fmt: skip
def test_a_teacher_near_chance_stops_with_the_reason(
    tmp_path: Path, data: Artifact, trained: ResNet, change: dict, reason: str
) -> None:
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    section = {"model": f"checkpoint:{tmp_path / 'net.pth'}", **change}
    with pytest.raises(BadInput, match=rf"hardly better than guessing one of 4.*{reason}"):
        made(tmp_path, data, **section)
    (tmp_path / "artifact").rename(tmp_path / "before")
    assert made(tmp_path, data, near_chance="go on", **section)[1]["test"]["n"] == 64


def test_few_images_name_no_reason(tmp_path: Path, data: Artifact, trained: ResNet) -> None:
    """Five right of six is no proof of anything, and nothing else is better for sure."""
    from edgeres.teachers import _chance

    torch.save(trained.state_dict(), tmp_path / "net.pth")
    section = {"model": f"checkpoint:{tmp_path / 'net.pth'}", "mean": (0.0,), "std": (1 / 255,)}
    teacher, _ = made(tmp_path, data, near_chance="go on", **section)
    images, labels = pictures(64, 5)
    assert _chance.suspects(teacher, images, labels)
    assert not _chance.suspects(teacher, images[:4], labels[:4])
    few = {"model": "resnet8", "classes": 2, "test": {"correct": 5, "n": 6}}
    with pytest.raises(BadInput, match=r"83\.3% of 6 test images, too few to tell"):
        stage._require_better_than_chance(few, data, tmp_path)
    counted = dataclasses.replace(data, facts={**data.facts, "counts": {"train": 22}})
    new = {"model": "resnet8", "classes": 4, "test": {"correct": 50, "n": 200}, "epochs": 12,
           "new_head": {"classes_before": 10, "epochs_alone": 2}}  # fmt: skip
    with pytest.raises(BadInput, match="last layer is new, and 22 images for 12 epochs didn't"):
        stage._require_better_than_chance(new, counted, tmp_path)
