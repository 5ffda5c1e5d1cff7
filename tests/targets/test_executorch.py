"""ExecuTorch files: one delegate, every scale in its place, hostile bytes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images, needs, network

from edgeres import targets
from edgeres.compression import graph, ptq
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput
from edgeres.recipe import VerifySection
from edgeres.targets import _faults, executorch
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile
from edgeres.verification import selftest
from edgeres.verification.certificate import Reference, certify
from edgeres.verification.gates import integer_gates
from edgeres.verification.scales import audit

needs("executorch")

LABELS = "\n".join(f"clàss {n}" for n in range(10))
METADATA = {
    "edgeres.labels": LABELS,
    "edgeres.origin": 'a "run"',
    "edgeres.preprocess": json.dumps({"mean": [0.5], "std": [0.25]}),
}


@pytest.fixture(scope="module")
def written(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, folded, scales = quantized
    path = tmp_path_factory.mktemp("executorch") / "model.pte"
    executorch.export(targets.Source(folded, scales, METADATA), "int8", path)
    return path


def test_the_file_is_one_delegate_that_says_what_it_is(written: Path, quantized: tuple) -> None:
    _, folded, scales = quantized
    read = executorch.read(written)
    assert read.partitions == 1
    assert dict(read.metadata) == METADATA
    assert read.requires == "ExecuTorch 1.0"
    assert (read.input.shape, read.input.layout, read.output.shape) == (
        (1, 3, 16, 16), "NCHW", (1, 10),
    )  # fmt: skip
    assert audit(read, folded, scales).equal == len(scales) == 25
    assert read.integer_share() == {"operators": 1, "macs": 1, "bytes": 1}
    shapes = [op.shape for op in read.ops if op.role == "conv"]
    assert shapes[0] == (1, 16, 16, 16)
    assert shapes[-1] == (1, 64, 4, 4)
    weights = sum(w.numel() for n, w in folded.state_dict().items() if n.endswith("weight"))
    assert sum(op.constant_bytes for op in read.ops) > weights


def test_the_runtime_gives_the_graphs_codes(written: Path, quantized: tuple) -> None:
    _, folded, scales = quantized
    x = prepared(images(32, seed=9), folded.spec.preprocess)
    with torch.no_grad():
        expected = graph.quantized_graph(folded, scales, fold_weights=True)(x).numpy()
    session = executorch.session(written)
    first = session.run(x.numpy())
    assert np.abs(expected - first).max() / scales["fc"].scale[0] <= 2
    session.run(x.flip(0).numpy())
    assert np.array_equal(first, session.run(x.numpy())), "an answer must not be overwritten"


@pytest.mark.parametrize("name", ["resnet18", "resnet8-A"])
def test_stem_pool_and_fixed_shortcuts_stay_in_the_delegate(name: str, tmp_path: Path) -> None:
    model = network(f"{name}-w0.25" if name == "resnet18" else name, px=32)
    folded, scales = ptq.quantize(model, images(16, 32))
    executorch.export(targets.Source(folded, scales), "int8", tmp_path / "m.pte")
    read = executorch.read(tmp_path / "m.pte")
    assert read.partitions == 1
    assert [g.sentence() for g in integer_gates(read, folded) if not g.passed] == []
    assert audit(read, folded, scales).differing == ()


def test_every_planted_fault_is_caught(written: Path, quantized: tuple) -> None:
    model, folded, scales = quantized
    sample = images(64, seed=5)
    x = prepared(sample, folded.spec.preprocess)
    with torch.no_grad():
        logits = graph.quantized_graph(folded, scales, fold_weights=True)(x).numpy()
        before = model(x).numpy()
    reference = Reference(folded, scales, logits, before, sample, torch.zeros(64, dtype=torch.long),
                          METADATA)  # fmt: skip
    read = executorch.read(written)
    exported = ExportedFile("executorch-int8", written.name, file_sha256(written),
                            folder_size(written), read.input, read.output)  # fmt: skip
    assert certify(written, exported, reference, VerifySection(), lambda *_: None).passed
    trials = list(selftest.try_all(written, exported, reference, VerifySection(), lambda *_: None))
    missed = {t.fault for t in trials if not t.planted}
    silent = set(_faults.SILENT) - {"a second graph or function"}
    assert missed == {"a residual add's identity replaced by zeros",
                      "the inputs of a concatenation swapped", *silent}  # fmt: skip
    assert [t.fault for t in trials if t.planted and not t.caught] == []


def convert(model: torch.nn.Module, shape: tuple[int, ...], path: Path, **how: Any) -> Path:
    """A file that edgeres didn't write."""
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model.eval(), (torch.zeros(shape),))
    path.write_bytes(to_edge_transform_and_lower(program, **how).to_executorch().buffer)
    return path


def test_kernels_outside_the_delegate_are_float_operators(tmp_path: Path) -> None:
    model = network("resnet8")
    read = executorch.read(convert(model, (1, 3, 16, 16), tmp_path / "foreign.pte"))
    assert read.partitions == 0
    weight = model.conv1.weight.detach().numpy()
    assert any(op.weight is not None and op.weight.shape == weight.shape for op in read.ops)
    assert read.count("add") == 3
    assert sum(op.macs for op in read.ops) > 0
    assert read.integer_share()["macs"] == 0


class _Turned(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x).permute(0, 1, 3, 2)).mean((2, 3))


def test_a_transpose_in_the_middle_is_one(tmp_path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    path = convert(_Turned(), (1, 3, 8, 8), tmp_path / "t.pte", partitioner=[XnnpackPartitioner()])
    assert executorch.read(path).count("transpose") >= 1


def test_damage_is_one_sentence_or_a_file_that_reads(written: Path, tmp_path: Path) -> None:
    data, path = written.read_bytes(), tmp_path / "bad.pte"
    rng = np.random.default_rng(0)
    cut = [data[: len(data) * n // 8] for n in range(8)]
    flipped = []
    for _ in range(40):
        wrong = bytearray(data)
        for place in rng.integers(0, 12_000, 8):  # the tables, not the weights
            wrong[place] = rng.integers(256)
        flipped.append(bytes(wrong))
    messages = []
    for content in [*cut, *flipped, data.replace(b"XnnpackBackend", b"OtherBackend!!")]:
        path.write_bytes(content)
        try:
            executorch.read(path)
        except BadInput as error:
            messages.append(str(error))
    assert all(str(path) in m and "\n" not in m for m in messages)
    assert len(messages) >= len(cut) + 1
    with pytest.raises(BadInput, match="delegated to 'OtherBackend!!'"):
        executorch.read(path)
    with pytest.raises(BadInput, match="a folder"):
        executorch.read(tmp_path)


def test_portable_scales_are_kept_to_the_code(portable: tuple, tmp_path: Path) -> None:
    folded, scales, x, expected = portable
    path = tmp_path / "m.pte"
    first, last = executorch.export(targets.Source(folded, scales), "int8", path)
    session = executorch.session(path)
    assert session is not None
    assert np.array_equal(targets.decode(session.run(targets.encode(x, first)), last), expected)
