"""SavedModels: what TensorFlow makes of them, and files that are damaged, foreign or hostile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images, needs, network

from edgeres import targets
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.recipe import VerifySection
from edgeres.targets import savedmodel
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile
from edgeres.verification import selftest
from edgeres.verification.certificate import Reference, certify

needs("tensorflow")

METADATA = {
    "edgeres.labels": "\n".join(f"clàss {n}" for n in range(10)),
    "edgeres.origin": 'a "run"\r\n',
    "edgeres.preprocess": json.dumps({"mean": [0.5], "std": [0.25]}),
}


@pytest.fixture(scope="module")
def model() -> ResNet:
    return network("resnet18-w0.25", px=80)  # large enough for a max pool


@pytest.fixture(scope="module")
def written(model: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("savedmodel") / "any name.savedmodel"
    savedmodel.export(targets.Source(fold_batchnorm(model), None, METADATA), "fp32", path)
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy.savedmodel"))


def stored(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())


def change(path: Path, how: Callable[[Any], object]) -> None:
    saved = stored(path)
    how(saved.meta_graphs[0])
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())


def test_the_graph_is_the_network(written: Path, model: ResNet) -> None:
    read = savedmodel.read(written)
    assert dict(read.metadata) == METADATA
    assert (read.input.shape, read.input.layout, read.input.dtype) == (
        (1, 80, 80, 3), "NHWC", "float32",
    )  # fmt: skip
    assert (read.input.name, read.output.name) == ("input", "logits")
    assert (read.count("conv"), read.count("add"), read.count("pool"), read.count("linear")) == (
        20, 8, 1, 1,
    )  # fmt: skip
    assert read.count("transpose") == 0
    assert sum(op.macs for op in read.ops) == complexity(model.spec)[1]
    folded = {k: v.numpy() for k, v in fold_batchnorm(model).state_dict().items()}
    for op in read.ops:
        if op.weight is not None:
            assert np.array_equal(op.weight, folded[f"{op.name}.weight"])
    assert sum(op.constant_bytes for op in read.ops) >= sum(v.nbytes for v in folded.values())
    shapes = {op.name: op.shape for op in read.ops}
    assert shapes["conv1"] == (1, 16, 40, 40)
    assert shapes["layer4.1.conv2"] == (1, 128, 3, 3)


@pytest.mark.parametrize("px", [80, 97])  # an odd size pads otherwise under a stride
@pytest.mark.parametrize(
    "name", ["resnet18-w0.25", "resnet50-w0.25", "resnet8-A", "resnet8-mobile-se-preact"]
)
def test_tensorflows_own_loader_gives_the_networks_answers(
    name: str, px: int, tmp_path: Path
) -> None:
    import tensorflow as tf

    model = network(name, px=px)
    path = tmp_path / "m.savedmodel"
    savedmodel.export(targets.Source(fold_batchnorm(model)), "fp32", path)
    x = prepared(images(5, px, seed=7), model.spec.preprocess)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    for batch in (1, 5):  # any batch size, in one go
        answers = serve(input=tf.constant(x[:batch].permute(0, 2, 3, 1).numpy()))["logits"].numpy()
        with torch.no_grad():
            assert np.abs(model(x[:batch]).numpy() - answers).max() <= 1e-4


def test_the_session_answers_any_number_of_images(written: Path, model: ResNet) -> None:
    x = prepared(images(37, 80, seed=9), model.spec.preprocess)
    codes = targets.encode(x.numpy(), savedmodel.read(written).input)
    session = savedmodel.session(written, threads=2)
    assert session
    answers = session.run(codes)
    with torch.no_grad():
        assert np.abs(model(x).numpy() - answers).max() <= 1e-4
    assert np.abs(session.run(codes[:1]) - answers[:1]).max() <= 1e-5
    with pytest.raises(BadInput, match="TensorFlow can't run it"):
        session.run(codes[..., :2])


def test_planted_faults_are_caught(
    written: Path, model: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them, since each starts TensorFlow anew; the others are common to all formats."""
    some = ("a residual add's identity replaced by zeros", "two channels swapped",
            "a weight scale changed by 5 %")  # fmt: skip
    monkeypatch.setattr(selftest, "FAULTS", {name: selftest.FAULTS[name] for name in some})
    sample = images(16, 80, seed=5)
    with torch.no_grad():
        logits = model(prepared(sample, model.spec.preprocess)).numpy()
    reference = Reference(fold_batchnorm(model), None, logits, logits, sample,
                          torch.zeros(16, dtype=torch.long), METADATA)  # fmt: skip
    read = savedmodel.read(written)
    exported = ExportedFile("savedmodel-fp32", written.name, file_sha256(written),
                            folder_size(written), read.input, read.output)  # fmt: skip
    assert certify(written, exported, reference, VerifySection(), lambda *_: None).passed
    trials = list(selftest.try_all(written, exported, reference, VerifySection(), lambda *_: None))
    assert [(t.planted, t.caught) for t in trials] == [(True, True)] * 2 + [(False, False)]


def test_exporting_again_replaces_the_folder(copy: Path, quantized: tuple) -> None:
    savedmodel.export(targets.Source(fold_batchnorm(quantized[0])), "fp32", copy)
    assert not list((copy / "assets.extra").iterdir())  # no notes in this source
    (other := copy.parent / "photos.savedmodel").mkdir()
    (other / "holiday.jpg").write_text("mine")
    with pytest.raises(BadInput, match="holds no SavedModel"):
        savedmodel.export(targets.Source(fold_batchnorm(quantized[0])), "fp32", other)
    assert (other / "holiday.jpg").exists()


def test_what_is_no_savedmodel(tmp_path: Path) -> None:
    (tmp_path / "empty.savedmodel").mkdir()
    (tmp_path / "file.savedmodel").write_text("")
    for name in ("empty", "file", "none"):
        for load in (savedmodel.read, savedmodel.session):
            with pytest.raises(BadInput, match="not a SavedModel"):
                load(tmp_path / f"{name}.savedmodel")


def test_damage_is_one_sentence_or_a_file_that_reads(copy: Path) -> None:
    file = copy / "saved_model.pb"
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    cut = [data[: len(data) * n // 8] for n in range(8)]
    flipped = []
    for _ in range(60):
        wrong = bytearray(data)
        for place in (*rng.integers(0, 2000, 1), *rng.integers(-9000, 0, 1)):  # few weights there
            wrong[place] = rng.integers(256)
        flipped.append(bytes(wrong))
    messages = []
    for content in [*cut, *flipped]:
        file.write_bytes(content)
        try:
            savedmodel.read(copy)
        except BadInput as error:
            messages.append(str(error))
    assert all(str(copy) in m and "\n" not in m for m in messages)
    assert len(messages) >= len(cut) + 1


def _node(meta: Any, name: str) -> Any:
    return next(node for node in meta.graph_def.node if node.name == name)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda m: m.signature_def.clear(), "has no signature"),
        (lambda m: m.meta_info_def.ClearField("tags"), "has no signature"),
        (lambda m: m.signature_def["serving_default"].inputs["more"].SetInParent(), "2 inputs"),
        (lambda m: m.signature_def["serving_default"].outputs.clear(), "0 outputs"),
        (lambda m: _node(m, "add").input.__setitem__(0, "fc"), "form a circle"),
        (lambda m: _node(m, "avgpool").input.__setitem__(0, "fc/bias"), "doesn't depend"),
        (lambda m: _node(m, "add").input.__setitem__(0, "nothing"), r"damaged one \(KeyError\)"),
        (lambda m: setattr(_node(m, "relu"), "op", "StatefulPartitionedCall"), "in functions"),
    ],
)  # fmt: skip
def test_what_is_no_network(how: Callable[[Any], object], reason: str, copy: Path) -> None:
    change(copy, how)
    with pytest.raises(BadInput, match=reason) as caught:
        savedmodel.read(copy)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_write_files_is_not_run(copy: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    change(copy, lambda m: m.graph_def.node.add(name="w", op="WriteFile", input=["x", "y"]))
    assert savedmodel.read(copy).count("conv") == 20, "what isn't run can be read"
    with pytest.raises(BadInput, match="calls 'WriteFile'"):
        savedmodel.session(copy)

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
        def serve(self, x: Any) -> Any:
            return tf.reduce_mean(x, (1, 2))

    module, path = Module(), tmp_path / "two.savedmodel"
    tf.saved_model.save(module, str(path), signatures=module.serve)
    with pytest.raises(BadInput, match="in functions or variables"):
        savedmodel.session(path)


def test_a_graph_that_crashes_tensorflow_is_one_sentence(copy: Path) -> None:
    change(copy, lambda m: setattr(_node(m, "relu_1"), "op", "Squeeze"))
    # Which of the two depends on the kernels that oneDNN has for this CPU.
    said = r"TensorFlow can't run it \((crashes: SIGABRT|Graph execution error: .*bias_add.*)\)"
    with pytest.raises(BadInput, match=said) as refused:
        savedmodel.session(copy).run(np.zeros((1, 80, 80, 3), np.float32))
    assert 'File "' not in str(refused.value)


def test_tensorflows_symbols_stay_its_own() -> None:
    """Else the next library with an LLVM inside, such as PyTorch's Triton, aborts the process."""
    code = ("import ctypes, edgeres.targets, tensorflow\n"
            "assert not hasattr(ctypes.CDLL(None), 'LLVMContextCreate')")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-300:]
