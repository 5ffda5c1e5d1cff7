"""Triton repositories: what the server's own schema reads, and damaged or foreign ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import images

from edgeres import targets
from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet
from edgeres.targets import triton as target
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

Quantized = tuple[ResNet, ResNet, ScaleTable]
LABELS = 'a "quoted" cat\nChien à lunettes\nback\\slash {brace}'
METADATA = {"edgeres.labels": LABELS, "edgeres.origin": 'x" } parameters { key: "y'}

# Parses a config.pbtxt with NVIDIA's schema, in a process of its own; prints what matters.
ORACLE = """
import importlib.util, pathlib, sys
from google.protobuf import text_format
client = importlib.util.find_spec("tritonclient")  # its package of the schema wants all of gRPC
file = pathlib.Path(client.origin).parent / "grpc/model_config_pb2.py" if client else sys.exit(77)
spec = importlib.util.spec_from_file_location("model_config_pb2", file)
schema = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schema)
config = text_format.Parse(open(sys.argv[1], encoding="utf-8").read(), schema.ModelConfig())
(i,), (o,) = config.input, config.output
assert config.HasField("dynamic_batching")
print((config.name, config.backend, config.max_batch_size,
       i.name, i.data_type == schema.TYPE_UINT8, list(i.dims),
       o.name, o.data_type == schema.TYPE_UINT8, list(o.dims), o.label_filename,
       {k: config.parameters[k].string_value for k in sorted(config.parameters)}))
"""


@pytest.fixture(scope="module")
def exported(quantized: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, folded, scales = quantized
    path = tmp_path_factory.mktemp("triton") / "any name.triton"
    target.export(targets.Source(folded, scales, METADATA), "int8", path)
    return path


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(exported, tmp_path / exported.name)


def test_tritons_own_schema_reads_the_config(repository: Path) -> None:
    config = repository / "resnet8/config.pbtxt"
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", ORACLE, str(config)], capture_output=True,
                          text=True, check=False, env=environment)  # fmt: skip
    if done.returncode == 77:
        pytest.skip("NVIDIA's schema is not installed: pip install tritonclient")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(
        ("resnet8", "onnxruntime", 32, "input", True, [3, 16, 16], "logits", True, [10],
         "labels.txt", METADATA)
    )  # fmt: skip


def test_the_layout_that_triton_expects(repository: Path) -> None:
    files = sorted(f.relative_to(repository).as_posix() for f in repository.rglob("*")
                   if f.is_file())  # fmt: skip
    assert files == ["resnet8/1/model.onnx", "resnet8/config.pbtxt", "resnet8/labels.txt"]
    assert (repository / "resnet8/labels.txt").read_text("utf-8").splitlines() == LABELS.split("\n")
    assert target.read(repository).metadata == METADATA


def test_it_runs_and_traces_the_model_inside(repository: Path, quantized: Quantized) -> None:
    read = target.read(repository)
    assert (read.format, read.float_operators()) == ("onnx", [])
    codes = targets.encode(prepared(images(3), quantized[1].spec.preprocess).numpy(), read.input)
    session, tracer = target.session(repository), target.tracer(repository)
    assert session and tracer
    assert np.array_equal(tracer.run(codes)["logits"], session.run(codes))


def test_exporting_again_replaces_the_folder(repository: Path, quantized: Quantized) -> None:
    (repository / "resnet8/2").mkdir()
    target.export(targets.Source(*quantized[1:]), "int8", repository)
    files = {f.name for f in repository.rglob("*") if f.is_file()}
    assert files == {"model.onnx", "config.pbtxt"}  # no labels in this source
    (other := repository.parent / "photos.triton").mkdir()
    (other / "holiday.jpg").write_text("mine")
    with pytest.raises(BadInput, match="holds no Triton repository"):
        target.export(targets.Source(*quantized[1:]), "int8", other)
    assert (other / "holiday.jpg").exists()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name: "input"', 'name: "picture"', "doesn't describe 'input'"),
        ("dims: 10", "dims: 11", "doesn't describe 'logits'"),
        ("TYPE_UINT8", "TYPE_FP32", "doesn't describe 'input'"),
        ("max_batch_size: 32", "max_batch_size: 0", "doesn't describe 'input'"),
        ("TYPE_UINT8", "TYPE_NONE", "not a Triton configuration"),
        ("dims: 10", "dims: ten {", "not a Triton configuration"),
    ],
)
def test_a_config_that_lies_about_its_model(
    repository: Path, old: str, new: str, reason: str
) -> None:
    config = repository / "resnet8/config.pbtxt"
    text = config.read_text("utf-8")
    assert old in text
    config.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(BadInput, match=reason) as caught:
        target.read(repository)
    assert "\n" not in str(caught.value)


def test_what_others_write_is_skipped(repository: Path) -> None:
    config = repository / "resnet8/config.pbtxt"
    more = """instance_group [ { count: 2 kind: KIND_GPU }, { gpus: [ 0, 1 ] } ]  # it's [ theirs
        optimization { execution_accelerators { gpu_execution_accelerator [ { name: "a [" } ] } }"""
    config.write_text(config.read_text("utf-8").replace("dims: 10", "dims [ 10 ]") + more, "utf-8")
    assert target.read(repository).count("conv") == 9


def test_damaged_repositories(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.triton").mkdir()
    (tmp_path / "file.triton").write_text("")
    for name in ("empty", "file"):
        with pytest.raises(BadInput, match="not a Triton repository"):
            target.read(tmp_path / f"{name}.triton")
    (repository / "resnet8/config.pbtxt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(BadInput, match="not a Triton configuration"):
        target.read(repository)
    (repository / "resnet8/1/model.onnx").unlink()
    for load in (target.read, target.session, target.tracer):
        with pytest.raises(BadInput, match="no version folder"):
            load(repository)
