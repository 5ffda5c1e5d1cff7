"""The contract beside a file, done literally, gives the certified accuracy to the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import edgeres
from PIL import Image, ImageOps

from edgeres import artifact, contract, targets
from edgeres.types import Preprocess, QuantParams, Resize, TensorSpec

RECIPE = """
name: photos
data:
  {{source: "imagefolder:photos", size: 32, calibration: 64, resize: {{interpolation: bicubic}}}}
train: {{batch_size: 16}}
teacher: {{model: resnet8-w0.5, preprocess: imagenet, train: {{epochs: 5, learning_rate: 0.05}}}}
quantize: {{method: ptq}}
export: {{targets: [tflite-int8, tflite-fp32, onnx-int8, onnx-fp32, coreml-int8], input: {input}}}
verify: {{}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three kinds: sizes and formats mixed, some turned, some transparent."""
    folder = tmp_path_factory.mktemp("contract")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 20)):
        for kind, name in enumerate(("blue", "green", "red")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                width, height = rng.integers(32, 200, 2)
                y, x = np.mgrid[:height, :width]
                waves = np.sin(x / rng.uniform(3, 9)) * np.sin(y / rng.uniform(3, 9))
                noisy = rng.uniform(60, 190) + 50 * waves[..., None] * rng.uniform(0.2, 1, 3)
                noisy[..., 2 - kind] += 14  # of one colour a little more
                noisy += rng.normal(0, 30, (height, width, 3))
                image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                suffix = (".jpg", ".png", ".jpg", ".webp")[i % 4]
                exif = Image.Exif()
                exif[0x0112] = (1, 6)[suffix == ".jpg" and i % 8 == 0]
                image.save(folder / "photos" / split / name / f"{i:02}{suffix}", exif=exif,
                           quality=90)  # fmt: skip
    return folder


def followed(said: dict[str, Any], picture: Image.Image) -> np.ndarray:
    """What the contract says, line by line."""
    scope: dict[str, Any] = {"picture": picture, "np": np, "Image": Image}
    for line in said["code"]:
        exec(line, scope)
    found: np.ndarray = scope["x"]
    return found


@pytest.mark.parametrize("takes", ["any", "pixels"])
def test_it_gives_the_certified_accuracy_to_the_image(takes: str, folder: Path) -> None:
    (folder / f"{takes}.yaml").write_text(RECIPE.format(input=takes))
    done = edgeres("run", f"{takes}.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads(done.stdout)["artifacts"]
    certified = {row["target"]: row["test"] for row in made["verify"]["facts"]["files"]}
    for name, test in certified.items():
        export = artifact.load(folder / made[f"export:{name}"]["path"])
        said = json.loads(export.read(contract.FILE))
        target, _ = targets.load(name)
        session = target.session(export.file(export.facts["exported"]["file"]))
        assert session is not None
        files = sorted((folder / "photos" / "val").glob("*/*"))
        correct = 0
        for file in files:
            with Image.open(file) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
            answer = session.run(followed(said, picture))
            correct += said["labels"][int(answer.argmax())] == file.parent.name
        assert (correct, len(files)) == (test["correct"], test["n"]), name
        assert test["correct"] > test["n"] / 2, "a network that learned nothing proves nothing"
        if takes == "pixels" and said["dtype"] in ("int8", "uint8"):
            small = picture.resize((32, 32))
            got = followed({"code": ["pixels = picture", *said["code"][4:]]}, small)
            raw = np.asarray(small, np.int16)[None] - {"int8": 128, "uint8": 0}[said["dtype"]]
            raw = raw.transpose(0, 3, 1, 2) if said["layout"] == "NCHW" else raw
            np.testing.assert_array_equal(got, raw)  # bytes as they come from a camera


def test_it_goes_with_the_file_wherever_that_goes(folder: Path) -> None:
    (folder / "any.yaml").write_text(RECIPE.format(input="any"))
    done = edgeres("run", "any.yaml", "--json", cwd=folder)
    run = json.loads(done.stdout)["run"]
    out = edgeres("export", run, "--target", "tflite-int8", "--out", "models", cwd=folder)
    assert out.returncode == 0, out.stderr
    (file,) = (folder / "models").glob("*.tflite")
    beside = json.loads((folder / "models" / f"{file.name}.preprocess.json").read_text())
    assert beside["labels"] == ["blue", "green", "red"]
    assert beside["resize"] == {"size_px": 32, "short_side_px": 37, "crop": "center",
                                "interpolation": "bicubic"}  # fmt: skip
    read = targets.load("tflite-int8")[0].read(file)
    inside = json.loads(read.metadata["edgeres.preprocess"])
    assert inside == {key: beside[key] for key in inside} and "resize" in inside
    made = edgeres("bundle", run, "--for", "android", cwd=folder)
    assert made.returncode == 0, made.stderr
    (archive,) = folder.glob("*.zip")
    checked = edgeres("verify", archive, cwd=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_network_of_another_size_than_the_data_says_so() -> None:
    rule = Resize.of(96)
    takes = TensorSpec("x", (1, 224, 224, 3), "int8", "NHWC", QuantParams((0.02,), (3,), "int8"))
    said = contract.whole(Preprocess(224, (0.5,), (0.25,)), rule, takes, ["a", "b"])
    assert said["then"] == (
        "scaled from 96 to 224 px in floating point, bilinear with antialiasing"
    )
    assert any(line.startswith("# scale x to 224 px here") for line in said["code"])
    assert "then" not in contract.noted(Preprocess(96, (0.5,), (0.25,)), rule)
    assert contract.noted(Preprocess(96, (0.5,), (0.25,)), None) == {
        "size_px": 96, "mean": [0.5], "std": [0.25]}  # fmt: skip


@pytest.mark.parametrize("q", [QuantParams((0.02,), (), "int8"), QuantParams((), (), "int8"),
                               QuantParams((0.1, 0.2), (0, 0), "int8")])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_a_file_says_of_its_input_breaks_nothing(q: QuantParams, dtype: str) -> None:
    takes = TensorSpec("x", (1, 8, 8, 3), dtype, "NHWC", q)
    said = contract.whole(Preprocess(8, (0.5,), (0.25,)), None, takes, ["a"])
    assert "scale" not in said and said["formula"] == "(pixel / 255 - mean) / std"
