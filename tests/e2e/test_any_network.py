"""Somebody's own network, through the whole chain: pruned, QAT, PTQ, every int8 and float file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import needs
from e2e.test_model_matrix import FLOAT, PRUNED, PX, TUNED, train
from e2e.test_model_matrix import data as data
from in_process import edgeres
from network.nets import Gated, Joined, Mobile, Split, of, saved
from network.onnx_files import exported
from torch import nn
from turns import by_turns

from edgeres import targets
from edgeres.compression import budgets, criteria, integers, ptq
from edgeres.compression.graph import wiring
from edgeres.compression.prune import prune
from edgeres.compression.qat import QatModel
from edgeres.disk import file_sha256
from edgeres.models import modules
from edgeres.models.shapes import shapes_of
from edgeres.network.from_onnx import from_onnx
from edgeres.network.from_torch import from_module
from edgeres.recipe import VerifySection
from edgeres.training.inference import prepared
from edgeres.training.loop import Trainee
from edgeres.types import ExportedFile
from edgeres.verification.certificate import Reference, certify
from edgeres.verification.structure import mismatches

SIDE = 2 * PX
SHOWN = 200  # of the test images, to each file
LONG = FLOAT.model_copy(update={"epochs": 20, "learning_rate": 0.1})
INTEGER = ("tflite-int8", "onnx-int8", "qoperator-int8", "coreml-int8", "executorch-int8",
           "tensorrt-int8")  # fmt: skip
REAL = ("tflite-fp32", "tflite-fp16", "onnx-fp32", "onnx-fp16", "coreml-fp16", "executorch-fp32",
        "savedmodel-fp32", "tensorrt-fp16")  # fmt: skip


@pytest.fixture(scope="module", params=by_turns([Mobile, Gated, Joined, Split], 4))
def trained(request: Any, data: tuple, tmp_path_factory: Any) -> tuple[Any, nn.Module]:
    """A network trained on the digits here, and the module that it was."""
    data = doubled(data)
    torch.manual_seed(0)
    theirs = request.param()
    read = from_module(theirs, SIDE, name=request.param.__name__.lower())
    model = read.module
    train(Trainee.of(model, model.spec.preprocess), data, LONG, tmp_path_factory.mktemp("f") / "w")
    model.eval()
    theirs.load_state_dict(model.state_dict(), strict=False)
    return model, theirs.eval()


def doubled(data: tuple) -> tuple:
    """Each pixel as 2 x 2."""
    return tuple(
        type(part)(part.images.repeat_interleave(2, 2).repeat_interleave(2, 3), part.labels)
        for part in data
    )


def certified(
    model: Any, folded: Any, scales: Any, test: Any, folder: Path,
    names: tuple[str, ...] = INTEGER,
) -> None:  # fmt: skip
    test = type(test)(test.images[:SHOWN], test.labels[:SHOWN])
    x = prepared(test.images, folded.spec.preprocess)
    with torch.no_grad():
        before = model.eval()(x).numpy()
    gated = any(layer.kind == "sigmoid" for layer in wiring(folded.spec))
    for name in names:
        if gated and name.startswith("executorch"):
            continue  # XNNPACK's sigmoid stays float there; its gate says so (docs/models.md)
        target, precision = targets.load(name)
        needs(target.PACKAGE)
        own = targets.scales_for(name, scales)
        with torch.no_grad():
            expected = integers.integer_graph(folded, own)(x).numpy()
        path = folder / f"{name}{target.SUFFIX}"
        ends = target.export(targets.Source(folded, own), precision, path)
        exported = ExportedFile(name, path.name, file_sha256(path), 0, *ends)
        reference = Reference(folded, own, expected, before, test.images, test.labels)
        found = certify(path, exported, reference, VerifySection(agreement=0.99), lambda *_: None)
        failed = [gate.sentence() for gate in found.gates if not gate.passed]
        assert failed == [], (name, found.notes)
        assert not found.graph.float_operators()
        if name == "tflite-int8":
            assert found.parity is not None and found.parity.worst == 0
            assert found.layers is not None
            assert gated or found.graph.partitions == 1  # a pad that isn't zero is cut off
            assert {c.name for c in found.layers} == {w.name for w in wiring(folded.spec)}


def test_quantized_as_it_is(trained: tuple, data: tuple, tmp_path: Path) -> None:
    model, theirs = trained
    train_, test = doubled(data)
    x = prepared(test.images, model.spec.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), atol=1e-3, rtol=1e-3)
        right = (theirs(x).argmax(1) == test.labels).float().mean()
    assert right > 0.7  # it means something
    folded, scales = ptq.quantize(model, train_.images[:128])
    with torch.no_grad():
        answers = integers.integer_graph(folded, scales)(x).argmax(1)
    assert (answers == test.labels).float().mean() > right - 0.02
    certified(model, folded, scales, test, tmp_path)


def test_an_onnx_file_quantized(trained: tuple, data: tuple, tmp_path: Path) -> None:
    """Its batch norms were folded by who wrote it."""
    _, theirs = trained
    train_, test = doubled(data)
    path = exported(theirs, tmp_path / "net.onnx", dynamo=True, px=SIDE)
    model = from_onnx(path, SIDE).module
    x = prepared(test.images, model.spec.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), atol=1e-3, rtol=1e-3)
    folded, scales = ptq.quantize(model, train_.images[:128])
    certified(model, folded, scales, test, tmp_path, ("tflite-int8", "onnx-int8"))


def test_pruned_and_trained_in_integers(trained: tuple, data: tuple, tmp_path: Path) -> None:
    model, _ = trained
    doubled_ = doubled(data)
    budget = budgets.macs(shapes_of(model, SIDE), 0.7)
    slim = prune(model, budget, round_to=4, criterion=lambda _: criteria.magnitude())
    assert modules.complexity(slim.spec)[1] <= 0.7 * modules.complexity(model.spec)[1]
    train(Trainee.of(slim, slim.spec.preprocess), doubled_, PRUNED, tmp_path / "pruned")
    qat = QatModel(slim.eval(), freeze_observers=0.5, freeze_batchnorm=0.5)
    qat.calibrate(doubled_[0].images[:128])
    train(qat.trainee(), doubled_, TUNED, tmp_path / "qat")
    folded, scales = qat.finish()
    # Other widths and scales; how each format writes them is the tests' above.
    certified(slim, folded, scales, doubled_[1], tmp_path, ("tflite-int8", "qoperator-int8"))


@pytest.mark.parametrize("name", REAL)
def test_float_files_are_exactly_the_network(name: str, trained: tuple, tmp_path: Path) -> None:
    model, theirs = trained
    target, precision = targets.load(name)
    needs(target.PACKAGE)
    folded = modules.fold_batchnorm(model)
    source = targets.Source(folded, None)
    path = tmp_path / f"net{target.SUFFIX}"
    first, last = target.export(source, precision, path)
    assert mismatches(target.structure(path, source, precision), folded, None, precision) == ()
    session = target.session(path)
    if session is None:
        return
    x = torch.randn(4, 3, SIDE, SIDE)
    got = targets.decode(session.run(targets.encode(x.numpy(), first)), last)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(got), theirs(x), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("suffix", by_turns(["pt2", "onnx"], 2))
def test_one_command_from_a_file(suffix: str, tmp_path: Path) -> None:
    """`edgeres export net.pt2` fine-tunes a new last layer, quantizes, exports and verifies."""
    theirs, path = of(lambda: Mobile(classes=7), SIDE), tmp_path / f"own.{suffix}"  # type: ignore[arg-type]
    if suffix == "pt2":
        saved(theirs, path, SIDE)
    else:
        exported(theirs, path, px=SIDE)
    done = edgeres(
        "export", path.name, "--preprocess", "half", "--data", "digits", "--imgsz", str(SIDE),
        "--target", "tflite-int8", "--set", "teacher.train.epochs=3", "--set",
        "teacher.near_chance=go on", "--set", "teacher.train.learning_rate=0.1", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = {name: entry["facts"] for name, entry in json.loads(done.stdout)["artifacts"].items()}
    assert (
        facts["teacher"]["model"] == "own" and facts["teacher"]["new_head"]["classes_before"] == 7
    )
    said = "dropout" if suffix == "pt2" else "holds no batch norm"
    assert any(said in note for note in facts["teacher"]["notes"])
    assert facts["verify"]["passed"]
