"""int8 on an x86 CPU without VNNI, whose onnxruntime cuts sums: an emulated Haswell."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import images, network

from edgeres import devices, targets
from edgeres.compression import ptq
from edgeres.measurement.runners import Preset, Work, python
from edgeres.network import onnx_session
from edgeres.targets import onnx as onnx_target
from edgeres.targets import qoperator, tensorrt
from edgeres.training.inference import prepared

_PX = 16
# Emulated: every kernel that the file would get there, with our sessions and with a plain one.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from edgeres.network import onnx_session
from edgeres.targets import onnx, qoperator, tensorrt
folder = Path(sys.argv[1])
codes = np.load(folder / "codes.npy")
assert onnx_session.saturates()
found = {}
for module, name in ((onnx, "a.onnx"), (qoperator, "a.qop.onnx"), (onnx, "shared.onnx"),
                     (onnx, "twice.onnx")):
    session = module.session(folder / name)
    found[name] = session.together(codes)
    found[f"traced {name}"] = list(module.tracer(folder / name).run(codes[:2]).values())[0]
    assert "VNNI" in session.caution
session = tensorrt.session(folder / "signed.onnx")
found["signed.onnx"] = session.together(np.load(folder / "prepared.npy"))
plain = onnx_session.made(folder, str(folder / "a.onnx"), 1, None, ())
found["plain"] = plain.run(None, {plain.get_inputs()[0].name: codes})[0]
np.savez(folder / "there.npz", **found)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a network with large weights and large codes, as ours and as with shared zeros."""
    folder = tmp_path_factory.mktemp("files")
    folded, scales = ptq.quantize(network("resnet8", _PX), images(32, _PX))
    source = targets.Source(folded, scales)
    for module, name in ((onnx_target, "a.onnx"), (qoperator, "a.qop.onnx")):
        module.export(source, "int8", folder / name)
    signed = targets.Source(folded, targets.scales_for("tensorrt-int8", scales))
    tensorrt.export(signed, "int8", folder / "signed.onnx")
    model = onnx.load(folder / "a.onnx")
    zeros: dict[tuple[int, ...], str] = {}
    stored = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            node.input[2] = zeros.setdefault(tuple(stored[node.input[2]].dims), node.input[2])
    onnx.save(model, folder / "shared.onnx")
    weights = {n.output[0]: list(stored[n.input[0]].dims) for n in model.graph.node
               if n.op_type == "DequantizeLinear" and n.input[0] in stored}  # fmt: skip
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    first, second, *_ = (n for n in convs if weights[n.input[1]] == weights[convs[1].input[1]])
    second.input[1] = first.input[1]
    onnx.save(model, folder / "twice.onnx")
    pixels = images(16, _PX)
    np.save(folder / "codes.npy", pixels.numpy())
    np.save(folder / "prepared.npy", prepared(pixels, folded.spec.preprocess).contiguous().numpy())
    return folder


def test_no_weights_share_a_zero_point(folder: Path) -> None:
    """onnxruntime's option for such CPUs refuses the file otherwise."""
    twice = onnx.load(folder / "twice.onnx")
    onnx_session.own_zero_points(twice)
    for name in ("a.onnx", "a.qop.onnx", "twice.onnx"):
        graph = (twice if name == "twice.onnx" else onnx.load(folder / name)).graph
        stored = {t.name for t in graph.initializer}
        zeros = [n.input[z] for n in graph.node
                 for w, z in [onnx_session.ZERO_POINTS.get(n.op_type, (0, 0))]
                 if z and n.input[w] in stored]  # fmt: skip
        assert zeros
        assert len(zeros) == len({*zeros}), name
        weights = [n.output[0] for n in graph.node
                   if n.op_type == "DequantizeLinear" and n.input[0] in stored]  # fmt: skip
        assert all(sum(list(n.input).count(w) for n in graph.node) <= 1 for w in weights), name
    onnx.checker.check_model(twice)


def test_one_weight_of_two_layers_computes_here(folder: Path) -> None:
    """With the option where this CPU needs it, without it elsewhere: a sum is a sum."""
    codes = np.load(folder / "codes.npy")
    session = onnx_target.session(folder / "twice.onnx")
    assert session is not None
    off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnx_session.made(
        folder, str(folder / "twice.onnx"), 1,
        {"graph_optimization_level": off}, (),  # in float32: no integer kernel, nothing is cut
    )  # fmt: skip
    image = plain.get_inputs()[0].name
    expected = np.concatenate([plain.run(None, {image: one[None]})[0] for one in codes])
    assert np.abs(session.together(codes).astype(int) - expected.astype(int)).max() <= 1


def test_a_measurement_says_that_sums_were_cut(folder: Path, tmp_path: Path) -> None:
    """Where onnxruntime refuses its option for a file, here or nowhere: only such CPUs need it."""
    preset, said = Preset(2, 0.01, 1.0, 0.1, sessions=1), {}
    with devices.open_device(devices.load("host")) as device:
        for name in ("a.onnx", "shared.onnx"):
            read = onnx_target.read(folder / name)
            codes = np.load(folder / "codes.npy")
            work = Work(folder / name, codes, read.input, read.output, 1, tmp_path)
            said[name] = python.load(device, work).session(preset).notes
    assert said["a.onnx"] == []
    assert bool(said["shared.onnx"]) == onnx_session.saturates()
    assert all("large sums are cut" in note for note in said["shared.onnx"])


def test_codes_there_are_those_of_here(folder: Path) -> None:
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64-static, and an x86-64 to fetch wheels for")
    if onnx_session.saturates():
        pytest.skip("this CPU has no VNNI itself")
    here = {}
    codes = np.load(folder / "codes.npy")
    for module, name in ((onnx_target, "a.onnx"), (qoperator, "a.qop.onnx"),
                         (onnx_target, "shared.onnx"), (onnx_target, "twice.onnx")):  # fmt: skip
        session = module.session(folder / name)
        assert session is not None
        here[name] = session.together(codes)
        assert session.caution == ""
    session = tensorrt.session(folder / "signed.onnx")
    assert session is not None
    here["signed.onnx"] = session.together(np.load(folder / "prepared.npy"))
    path = os.pathsep.join([str(Path(targets.__file__).parents[2]), *filter(None, sys.path)])
    done = subprocess.run(
        [emulator, "-cpu", "Haswell", sys.executable, "-c", PROGRAM, folder],
        env={"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    there = np.load(folder / "there.npz")
    for name, answers in here.items():
        np.testing.assert_array_equal(there[name], answers, err_msg=name)
    assert (there["plain"] != here["a.onnx"]).any(), "the emulated CPU cuts no sum"
