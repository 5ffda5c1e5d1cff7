"""Quantized files of others and of edgeres, through the command, to int8 files with their codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import images
from in_process import edgeres
from network import keras_files
from network.integer_files import PX, answered, by_quantize_static, codes
from network.nets import Joined, Mobile, of
from network.onnx_files import exported
from network.test_from_tflite import without_softmax
from turns import by_turns

from edgeres import targets
from edgeres.compression import given, ptq
from edgeres.network.from_onnx import from_onnx
from edgeres.network.from_tflite import from_tflite
from edgeres.network.from_torch import from_module
from edgeres.types import QuantParams

N = 1000


def ours(name: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        module = from_module(of(Joined), PX).module
        folded, scales = ptq.quantize(module, images(32), ranges="min-max")
        target, precision = targets.load(name)
        path = folder / f"ours{target.SUFFIX}"
        target.export(targets.Source(folded, targets.scales_for(name, scales)), precision, path)
        return path

    return made


def static(form: str, **settings: Any) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        source = exported(of(Mobile), folder / "float.onnx")
        return by_quantize_static(source, folder / "static.onnx", form, **settings)

    return made


def tensorflows(network: Any, ends: str) -> Callable[[Path], Path]:
    return lambda folder: keras_files.converted(network(), folder / "keras.tflite", ends)


def by_ai_edge_quantizer(folder: Path) -> Path:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = keras_files.converted(keras_files.residual(), folder / "float.tflite")
    ((key, ends),) = Interpreter(str(source)).get_signature_list().items()
    draw = np.random.default_rng(0)
    noise = [draw.normal(0, 1, (1, PX, PX, 3)).astype(np.float32) for _ in range(16)]
    worker = quantizer.Quantizer(str(source))
    worker.load_quantization_recipe(recipe.static_wi8_ai8())
    found = worker.calibrate({key: [{ends["inputs"][0]: one} for one in noise]})
    path = folder / "quantizer.tflite"
    path.write_bytes(bytes(worker.quantize(found).quantized_model))
    return path


def ends_of(path: Path) -> tuple[QuantParams, QuantParams]:
    """What the codes of a file's images and answers stand for."""
    read = (from_tflite if path.suffix == ".tflite" else from_onnx)(path, PX)
    assert read.integers is not None
    folded, scales, _ = given.held(read.module, read.integers)
    return scales["input"], scales[given.last(folded)]


FILES = [
    (ours("qoperator-int8"), "tflite-int8"),
    (static("QDQ"), "onnx-int8"),
    (tensorflows(keras_files.residual, "int8"), "tflite-int8"),
    (by_ai_edge_quantizer, "tflite-int8"),
    (ours("onnx-int8"), "onnx-int8"),
    (ours("tflite-int8"), "onnx-int8"),
    (static("QDQ", per_channel=False), "qoperator-int8"),
    (static("QOperator"), "onnx-int8"),
    (static("QOperator", per_channel=False), "onnx-int8"),
    (tensorflows(keras_files.separable, "float32"), "tflite-int8"),
]


@pytest.mark.parametrize(("make", "target"), by_turns(FILES, 4))
def test_a_quantized_file_comes_out_with_its_codes(
    make: Callable[[Path], Path], target: str, tmp_path: Path
) -> None:
    source = make(tmp_path)
    done = edgeres("export", source, "--target", target, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "its own scales are kept" in done.stderr
    module, _ = targets.load(target)
    (made,) = (tmp_path / "out").glob(f"*{module.SUFFIX}")
    asked, ends = codes(N), ends_of(source)
    known = without_softmax(source) if source.suffix == ".tflite" else source
    before, after = answered(known, asked, *ends), answered(made, asked, *ends)
    assert len(np.unique(before)) > 20
    equal = (before == after).all(1)
    assert equal.all(), f"{equal.sum()} of {N}"


def test_what_cannot_be_held_is_refused_and_calibrated_if_asked(tmp_path: Path) -> None:
    source = static("QDQ", per_channel=False, weights="QUInt8")(tmp_path)
    command = ("export", source, "--target", "onnx-int8", "--data", "digits", "--imgsz", PX,
               "--set", "teacher.near_chance=go on")  # fmt: skip
    done = edgeres(*map(str, command), cwd=tmp_path)
    assert done.returncode == 2
    assert "the weight of 'features.0' has codes from -128 to 127" in done.stderr
    assert "to calibrate, say quantize.method=ptq" in done.stderr
    done = edgeres(*map(str, command), "--set", "quantize.method=ptq", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_float_tflite_file_is_calibrated_like_any_other(tmp_path: Path) -> None:
    source = keras_files.converted(keras_files.residual("pool"), tmp_path / "net.tflite")
    done = edgeres("export", source, "--target", "tflite-int8", "--data", "digits", "--imgsz", PX,
                   "--set", "teacher.near_chance=go on", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the model is not quantized yet" in done.stderr
