"""Every target, the same sequence: export, read, audit, run, and the same bytes twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, needs

from edgeres import targets
from edgeres.compression import graph
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.training.inference import prepared
from edgeres.verification import parity
from edgeres.verification.gates import integer_gates
from edgeres.verification.scales import audit
from edgeres.verification.structure import mismatches

METADATA = {"edgeres.origin": "test"}
# Worst difference from the network: codes for integer files, else logits (which reach 0.4 here).
# A half has 11 bits; dynamic rounds weights and activations to 8 bits with no training for it;
# a palettized weight is one of 256 values of its layer.
TOLERANCE = {"fp16": 2e-3, "dynamic": 0.05, "palettized": 0.05, "fp32": 1e-4}
INTEGER_TOLERANCE = 5


@pytest.mark.parametrize("name", targets.names())
def test_contract(name: str, quantized: tuple, four_bits: tuple, tmp_path: Path) -> None:
    target, precision = targets.load(name)
    model, folded, scales = four_bits if precision == "int4" else quantized
    needs(target.PACKAGE)
    if why := getattr(target, "missing", lambda: None)():
        pytest.skip(why)
    integer = targets.is_integer(precision)
    scales = targets.scales_for(name, scales) if integer else None
    form = targets.compiled(name)
    source = targets.Source(folded if integer else fold_batchnorm(model), scales, METADATA,
                            npus=form.npus[-1:] if form else ())  # fmt: skip
    path, again = (tmp_path / f"{n}{target.SUFFIX}" for n in ("a", "b"))
    first, last = target.export(source, precision, path)
    target.export(source, precision, again)

    same = file_sha256(path) == file_sha256(again)
    assert same or name == "rknn-int8", "the same network must give the same bytes"
    read = target.read(path)
    assert (read.input, read.output) == (first, last)
    assert first.shape[0] == 1
    assert last.shape == (1, 10)
    assert targets.of_file(path) == (name.split("-", maxsplit=1)[0], target)
    stored = target.structure(path, source, precision)
    assert mismatches(stored, source.model, scales, precision) == ()
    if integer:
        assert read.precision() == precision or target.SUFFIX == ".trt.onnx"
        assert [g.sentence() for g in integer_gates(read, folded) if not g.passed] == []
        assert audit(read, folded, scales).differing == ()
    else:
        assert read.float_operators()

    session = target.session(path)
    if session is None:
        assert name.startswith("coreml")
        return
    x = prepared(images(64, seed=3), folded.spec.preprocess)
    network = graph.quantized_graph(folded, scales, fold_weights=True) if integer else model
    with torch.no_grad():
        reference = network(x).numpy()
    answers = targets.decode(session.run(targets.encode(x.numpy(), first)), last)
    step = last.quantization.scale[0] if last.quantization else None
    found = parity.compare(reference, answers, step)
    assert found.agreement >= 0.95
    assert found.worst <= (INTEGER_TOLERANCE if integer else TOLERANCE[precision])


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a model", b"abcdTFL3" + b"\xff" * 500])
def test_what_is_not_a_model_gets_one_sentence(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    _, target = targets.of_file(path)
    with pytest.raises(BadInput) as caught:
        target.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_package_and_unknown_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.mlpackage").mkdir()
    with pytest.raises(BadInput, match="not a Core ML package"):
        targets.of_file(tmp_path / "a.mlpackage")[1].read(tmp_path / "a.mlpackage")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(BadInput, match=r"unknown model format; known: .*\.mlpackage, \.onnx"):
        targets.of_file(tmp_path / "a.xyz")
    with pytest.raises(BadInput, match="no such file"):
        targets.of_file(tmp_path / "none.onnx")


def test_raw_pixels_are_the_int8_input(quantized: tuple, tmp_path: Path) -> None:
    """The camera's byte minus 128 is the code: no normalization on the device."""
    _, folded, scales = quantized
    target, _ = targets.load("tflite-int8")
    first, last = target.export(targets.Source(folded, scales), "int8", tmp_path / "m.tflite")
    pixels = images(16, seed=4)
    by_hand = (pixels.permute(0, 2, 3, 1).numpy().astype(np.int16) - 128).astype(np.int8)
    encoded = targets.encode(prepared(pixels, folded.spec.preprocess).numpy(), first)
    assert np.array_equal(encoded, by_hand)
    session = target.session(tmp_path / "m.tflite")
    assert session is not None
    assert np.array_equal(session.run(by_hand), session.run(encoded))
    assert last.quantization is not None
