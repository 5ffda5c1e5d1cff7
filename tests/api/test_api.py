"""`import edgeres`: somebody's module and arrays in, verified files and figures out."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network.nets import Mobile, of

import edgeres
from edgeres.errors import BadInput
from edgeres.measurement import protocol
from edgeres.measurement.runners import Preset

PX = 16


def arrays(count: int = 192) -> dict[str, Any]:
    """Red or blue, dark or bright: four classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    images = (
        rng.integers(0, 60, (count, PX, PX, 3)) + (60 + 80 * (labels // 2))[:, None, None, None]
    )
    images[np.arange(count), :, :, (labels % 2) * 2] += 50
    x = images.astype(np.uint8)
    half = count // 2
    return {"x_train": x[half:], "y_train": labels[half:], "x_test": x[:half],
            "y_test": labels[:half],
            "classes": ["dark red", "dark blue", "bright red", "bright blue"]}  # fmt: skip


def test_a_module_becomes_a_verified_file_and_goes_on_as_a_run(tmp_path: Path) -> None:
    model = of(lambda: Mobile(4))
    runs = tmp_path / "runs"
    small = edgeres.quantize(
        model, data=arrays(), preprocess="half", method="ptq", runs=runs,
        settings={"data.calibration": 32, "teacher.near_chance": "go on"},
    )  # fmt: skip
    assert [step.name for step in small.steps] == ["teacher", "quantize"]
    assert small.last.n == 96 and small.last.parameters
    made = edgeres.export(small, "tflite-int8", runs=runs)
    (file,) = made.files
    assert file.certificate is not None and file.certificate.passed
    assert file.path.stat().st_size == file.size_bytes and made.path == small.path
    assert edgeres.load(made.path) == made
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        assert made.module("teacher")(x).allclose(model(x), atol=1e-4)
    (again,) = edgeres.verify(made)
    assert again == file.certificate
    assert edgeres.inspect(file.path)["target"] == "tflite-int8"
    page = made._repr_html_()
    assert "tflite-int8" in page and ", verified" in page and f"{file.certificate.n:,}" in page
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.path = runs  # type: ignore[misc]
    again_run = edgeres.quantize(
        model, data=arrays(), preprocess="half", method="ptq", runs=runs,
        settings={"data.calibration": 32, "teacher.near_chance": "go on"},
    )  # fmt: skip
    assert again_run.path == small.path, "the same module and arrays are the same run"


def test_what_would_have_to_be_guessed_is_asked_for(tmp_path: Path) -> None:
    model = of(Mobile)
    for given, said in (
        ({"data": "digits"}, "say how the module's images are prepared"),
        ({"preprocess": "half"}, "a module needs data"),
        ({"data": "digits", "preprocess": "imagnet"}, r"unknown preprocess 'imagnet'"),
        ({"data": "digits", "mean": [123.0], "std": [58.0]}, "123 is above 1"),
        ({"data": "digits", "mean": np.array(0.5)}, "mean and std go together"),
        ({"data": "digits", "mean": "red", "std": 0.5}, "mean: one number or three"),
        ({"data": "digits", "mean": 0.5, "std": 0.5, "preprocess": "half"}, "leave one of them"),
        ({"data": [1, 2], "preprocess": "half"}, "a mapping with x_train"),
        ({"data": {"x_train": [[1], [2, 3]]}, "preprocess": "half"}, "not arrays of numbers"),
        ({"data": {"file": [1]}, "preprocess": "half"}, "'file' isn't one of"),
        (
            {"data": "digits", "preprocess": "half", "settings": {"seed": model}},
            "can't be a recipe",
        ),
    ):
        with pytest.raises(BadInput, match=said):
            edgeres.quantize(model, runs=tmp_path, **given)
    with pytest.raises(BadInput, match="a function's result, not int"):
        edgeres.quantize(3, data="digits", preprocess="half", runs=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        edgeres.quantise  # noqa: B018


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"x_train": arrays()["x_train"] / 255}, "data: x_train is float64"),
        ({"y_test": arrays()["y_test"] + 7}, "data: names 4 classes, and a label is 10"),
        ({"x_val": arrays()["x_test"]}, "data: no array y_val"),
        ({"x_test": arrays()["x_test"].transpose(0, 3, 1, 2)}, "data: x_test is uint8"),
    ],
)
def test_arrays_that_no_run_takes_are_kept_nowhere(
    wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        edgeres.quantize(of(Mobile), data=arrays() | wrong, preprocess="half", runs=tmp_path)
    assert "npz" not in str(caught.value).partition(";")[0]
    assert not list(tmp_path.iterdir())


def test_the_package_is_light_until_a_function_is_asked_for() -> None:
    code = "import sys, edgeres; print('torch' in sys.modules, 'numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


def test_a_chain_of_functions_and_a_run_as_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(16, 0.01, 1.0, 0.1, sessions=2))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet8").mkdir()  # a folder that happens to be there isn't the architecture
    short = {"data.size": np.int64(8), "teacher.train.epochs": 2, "distill.train.epochs": 2}
    student = edgeres.distill("resnet8", "resnet8-w0.5", data="digits", settings=short)
    assert [s.name for s in student.steps] == ["teacher", "distill"]
    assert student.last.model == "resnet8-w0.5" and 0 < student.last.interval[0] < student.last.top1
    again = edgeres.distill(student, "resnet8-w0.25", data="digits", settings={
        "data.size": 8, "distill.train.epochs": 1, "teacher.near_chance": "go on",
        "teacher.train.epochs": 0})  # fmt: skip
    assert [s.model for s in again.steps] == ["resnet8-w0.5", "resnet8-w0.25"]
    slim = edgeres.prune(student, budget="macs=0.7",
                         settings={"prune.train.epochs": 1, "prune.max_drop": 100})  # fmt: skip
    assert slim.last.macs is not None and student.last.macs is not None
    assert slim.last.macs <= 0.7 * student.last.macs
    made = edgeres.export(edgeres.quantize(slim.path.name, method="ptq"), ["onnx-int8"])
    measured = edgeres.benchmark(made, preset="quick")
    assert [(m.device, m.target) for m in measured] == [("host", "onnx-int8")]
    assert (
        measured[0].median_ns and measured[0].median_ns > 0 and "onnxruntime" in measured[0].runtime
    )
    (found,) = edgeres.verify(made.path.name, on="onnxruntime-unoptimized")
    assert found.passed
    alone = edgeres.run("quickstart", {"data.size": 8, "teacher.train.epochs": 1}, until="teacher")
    assert [s.name for s in alone.steps] == ["teacher"]
    with pytest.raises(BadInput, match="distill: None leaves no stage out; say until=STAGE"):
        edgeres.run("quickstart", {"distill": None})


def test_the_documented_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of docs/python.md, as they stand there, with a trained module and arrays."""
    text = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
    (cell,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(cell.splitlines()) <= 15
    found = arrays(256)
    model = trained(found)
    monkeypatch.chdir(tmp_path)
    names = {"model": model, **found}
    exec(cell, names)
    made = names["made"]
    assert made.files[0].certificate.passed and made.last.top1 > 0.9


def trained(found: dict[str, Any]) -> torch.nn.Module:
    """A module that tells the four classes apart, of images as ImageNet's are prepared."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x = (torch.from_numpy(found["x_train"]).permute(0, 3, 1, 2) / 255 - mean) / std
    y, model = torch.from_numpy(found["y_train"]), Mobile(4).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        part = slice(32 * (step % 4), 32 * (step % 4) + 32)
        loss = torch.nn.functional.cross_entropy(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_what_is_assumed_of_data_and_classes_is_in_the_result(tmp_path: Path) -> None:
    data = arrays() | {"x_test": arrays()["x_test"][:, ::2, ::2]}
    done = edgeres.quantize(
        of(lambda: Mobile(3)), data=data, preprocess="half", method="ptq", runs=tmp_path / "runs",
        settings={"data.calibration": 32, "teacher.near_chance": "go on",
                  "teacher.train.epochs": 1, "teacher.new_head.epochs": 1},
    )  # fmt: skip
    assert "x_test: scaled from 8 to 16 px" in done.notes
    assert "its 3 classes aren't the data's: new last layer" in " ".join(done.steps[0].notes)


@pytest.mark.parametrize("std", [0, -0.5, float("nan"), [0.2, 0.2, 0]])
def test_a_std_that_divides_by_nothing_is_refused(std: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="std: "):
        edgeres.quantize(of(Mobile), data=arrays(), mean=0.5, std=std, runs=tmp_path)
