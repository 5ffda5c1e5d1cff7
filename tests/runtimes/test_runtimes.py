"""Files are asked on other runtimes, really, and what stands in the way is one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import edgeres
from runtime_files import IMAGES, needs

from edgeres import runtimes, targets
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256
from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.measurement import latency_table
from edgeres.models.modules import fold_batchnorm
from edgeres.network import tflite_file as flatbuffer
from edgeres.recipe import VerifySection
from edgeres.runtimes._asking import ask as ask_runtime
from edgeres.training.inference import predict, prepared
from edgeres.types import ExportedFile
from edgeres.verification.certificate import certify
from edgeres.verification.runtimes import Verdict, judge
from edgeres.verification.structure import mismatches

ANSWERING = ("litert-builtin", "litert-reference", "onnxruntime-unoptimized", "tflm", "openvino",
             "qnn-htp")  # fmt: skip
Asked = Callable[..., Verdict]


@pytest.fixture
def ask(exported: Callable, tmp_path: Path) -> Asked:
    def asked(name: str, target: str, path: Path | None = None) -> Verdict:
        needs(name)
        known, about, reference = exported(target)
        return judge(
            name, path or known, about, reference, IMAGES, tmp_path / "kept", lambda *_: None
        )

    return asked


@pytest.mark.parametrize("name", [*ANSWERING, "rk3588"])
def test_a_files_answers_on_a_runtime(name: str, ask: Asked) -> None:
    target = next(t for t in runtimes.load(name).TAKES if t in ("tflite-int8", "onnx-int8"))
    found = ask(name, target)
    assert found.passed, found
    assert found.parity is not None and found.parity.n == IMAGES
    assert found.equal_images is not None
    assert found.accuracy is not None and found.accuracy.correct >= IMAGES - 1
    assert found.answer.version
    if name == "tflm":
        assert 5_000 < found.answer.memory_bytes["arena"] < 200_000


@pytest.mark.parametrize("name", ANSWERING)
def test_another_networks_file_is_caught_and_its_layer_named(
    name: str, ask: Asked, exported: Callable, tmp_path: Path
) -> None:
    """The file of a network whose second stage was changed: the runtime computes that, honestly."""
    target = next(t for t in runtimes.load(name).TAKES if t in ("tflite-int8", "onnx-int8"))
    path, _, reference = exported(target)
    weight = reference.model.state_dict()["layer2.0.conv2.bias"]
    before = weight.clone()
    weight += 3.0
    try:
        wrong = tmp_path / path.name
        module, precision = targets.load(target)
        module.export(targets.Source(reference.model, reference.scales, {}), precision, wrong)
    finally:
        weight.copy_(before)
    found = ask(name, target, wrong)
    failed = [gate.name for gate in found.gates if not gate.passed]
    assert f"{name}: worst difference" in failed, found.gates


def test_the_gpu_and_where_it_departs(ask: Asked) -> None:
    """LiteRT's GPU computes a strided 1x1 convolution before an add wrongly; it has to be seen."""
    found = ask("litert-gpu", "tflite-int8")
    assert found.answer.error == ""
    assert not found.passed and found.parity is not None and found.parity.worst > 4
    assert found.divergence is not None
    assert found.divergence.layer.startswith("layer2.0.")
    assert found.known.startswith("2 1x1 convolutions with stride 2 before an addition")


def test_the_form_for_gpus_is_right_there_and_the_same_network(
    ask: Asked, exported: Callable, tmp_path: Path
) -> None:
    _, about, reference = exported("tflite-int8")
    module, precision = targets.load("tflite-int8")
    path = tmp_path / "gpu.tflite"
    source = targets.Source(reference.model, reference.scales, {}, gpu=True)
    module.export(source, precision, path)
    about = dataclasses.replace(about, file=path.name, sha256=file_sha256(path))
    limits = VerifySection(agreement=1.0, worst_codes=0)
    certificate = certify(path, about, reference, limits, lambda *_: None)
    assert certificate.passed, certificate.notes
    # A weight in the part that has to be zero is another network's.
    model = flatbuffer.load(path.read_bytes(), path)
    tensor = next(t for t in model.subgraphs[0].tensors if list(t.shape)[1:3] == [2, 2])
    stored = np.array(model.buffers[tensor.buffer].data)
    stored[-1] = 1
    model.buffers[tensor.buffer].data = stored
    (wrong := tmp_path / "wrong.tflite").write_bytes(flatbuffer.pack(model))
    strange = mismatches(module.structure(wrong, source, precision), reference.model,
                         reference.scales, precision)  # fmt: skip
    assert any("its kernel is (2, 2), the network's (1, 1)" in words for words in strange), strange
    found = ask("litert-gpu", "tflite-int8", path)
    assert found.passed and found.known == "", found
    assert found.parity is not None and found.parity.worst <= 1


def test_limits_are_in_int8_codes_and_leave_compressed_weights_alone(
    quantized: tuple, exported: Callable, tmp_path: Path
) -> None:
    """A code of int16x8 is finer, and dynamic weights are others than the network's."""
    model, folded, scales = quantized
    _, _, reference = exported("tflite-int8")
    floats = fold_batchnorm(model)
    for name, network, table in (
        ("tflite-int16x8", folded, targets.scales_for("tflite-int16x8", scales)),
        ("tflite-dynamic", floats, None),
    ):
        target, precision = targets.load(name)
        path = tmp_path / f"{precision}.tflite"
        ends = target.export(targets.Source(network, table, {}), precision, path)
        graph = integer_graph(network, table) if table else network
        logits = predict(graph, reference.images, model.spec.preprocess).numpy()
        about = ExportedFile(name, path.name, file_sha256(path), 1, *ends)
        expected = dataclasses.replace(reference, model=network, scales=table, logits=logits)
        found = judge("litert-builtin", path, about, expected, IMAGES, None, lambda *_: None)
        limits = {gate.name.split(": ")[1]: gate.limit for gate in found.gates}
        assert limits.get("worst difference") == (256 if table else None)
        assert found.passed, found


def test_vela_says_memory_cycles_and_what_the_cpu_gets(ask: Asked, tmp_path: Path) -> None:
    found = ask("ethos-u55-128", "tflite-int8")
    assert found.passed and found.parity is None
    assert found.answer.cycles is not None and 10_000 < found.answer.cycles < 10_000_000
    assert found.answer.memory_bytes["SRAM"] > 1000
    assert found.compiled == ["m_vela.tflite"]
    assert b"ethos-u" in (tmp_path / "kept" / "m_vela.tflite").read_bytes()


def test_a_float_file_is_refused_by_the_npu_operator_by_operator(
    quantized: tuple, tmp_path: Path
) -> None:
    needs("ethos-u55-128")
    folded = quantized[1]
    path = tmp_path / "f.tflite"
    targets.load("tflite-fp32")[0].export(targets.Source(folded, None, {}), "fp32", path)
    (folder := tmp_path / "asked").mkdir()
    (answer,) = ask_runtime("ethos-u55-128", [(path, None)], folder)
    assert answer.taken == 0 and len(answer.refused) > 10
    assert any(words.startswith("CONV_2D") and "Float32" in words for words in answer.refused)
    with pytest.raises(DeviceError, match="estimates only what it computes itself"):
        latency_table._estimated("ethos-u55-128", "tflite-int8", path)


def test_what_is_compiled_stays_beside_what_is_there(exported: Callable, tmp_path: Path) -> None:
    needs("ethos-u55-128")
    path, _, _ = exported("tflite-int8")
    (own := tmp_path / "out" / "ethos-u55-128" / "mine.c").parent.mkdir(parents=True)
    own.write_text("mine")
    on = ("--on", "ethos-u55-128,ethos-u85-256", "--compiled", "out")
    done = edgeres("inspect", path, *on, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert own.read_text() == "mine"
    made = [
        tmp_path / "out" / name / "m_vela.tflite" for name in ("ethos-u55-128", "ethos-u85-256")
    ]
    assert made[0].read_bytes() != made[1].read_bytes()
    (tmp_path / "file").write_text("")
    done = edgeres("inspect", path, *on[:2], "--compiled", "file", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for wrong, words in (((*on[2:],), "--on"), (("--on", " ,"), "names nothing")):
        done = edgeres("inspect", path, *wrong, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr


def test_a_float_files_values_are_judged_too(
    quantized: tuple, exported: Callable, tmp_path: Path
) -> None:
    """Answers with the same winners, a thousand times larger."""
    model, _, reference = quantized[0], quantized[1], exported("tflite-int8")[2]
    floats = fold_batchnorm(model)
    logits = predict(floats, reference.images, model.spec.preprocess).numpy()
    expected = dataclasses.replace(reference, model=floats, scales=None, logits=logits)
    module, precision = targets.load("tflite-fp32")
    with torch.no_grad():
        floats.fc.weight *= 1000
        floats.fc.bias *= 1000
    path = tmp_path / "f.tflite"
    ends = module.export(targets.Source(floats, None, {}), precision, path)
    about = ExportedFile("tflite-fp32", path.name, file_sha256(path), 1, *ends)
    found = judge("litert-builtin", path, about, expected, IMAGES, None, lambda *_: None)
    assert found.parity is not None and found.parity.agreement == 1
    assert [g.name for g in found.gates if not g.passed] == ["litert-builtin: worst difference"]


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_a_file_cut_at_a_layer_gives_that_layers_codes(
    target: str, exported: Callable, tmp_path: Path
) -> None:
    path, about, reference = exported(target)
    module, _ = targets.load(target)
    x = prepared(reference.images[:2], reference.model.spec.preprocess).contiguous().numpy()
    given = targets.encode(x, about.input)
    traced = module.tracer(path).run(given)
    cut = 0
    for number, op in enumerate(module.read(path).ops):
        short = tmp_path / f"{number}{path.suffix}"
        if op.output in traced and module.cut(path, op.output, short):
            codes = module.session(short).run(given)
            codes = (
                codes.transpose(0, 3, 1, 2)
                if about.input.layout == "NHWC" and codes.ndim == 4
                else codes
            )
            assert np.array_equal(codes, traced[op.output]), op
            cut += 1
    assert cut >= 10
    assert not module.cut(path, "no such tensor", tmp_path / "none")


# What a runtime may do instead of answering: its module's code, and the sentence.
MISBEHAVING = {
    "a crash": ("print('last thing'); import os, signal; sys.stdout.flush(); "
                "os.kill(os.getpid(), signal.SIGSEGV)", 
                "it crashed (SIGSEGV); its last words: last thing"),
    "an exit": ("import os; os._exit(3)", "it stopped with code 3; its last words: none"),
    "a hang": ("import time; time.sleep(60)", "no answer within 1 s"),
    "an error": ("raise ValueError('first line\\nsecond line')", "first line"),
    "a traceback in an error": ("raise ValueError('Traceback:\\n  here\\nKeyError: the reason')",
                                "KeyError: the reason"),
    "a wrong answer": ("return {'taken': 'many'}", "its answer can't be read"),
    "numbers of other images": ("import numpy; return {'outputs': numpy.zeros((1, 10))}",
                                "its answers aren't one row of numbers for each image"),
    "no numbers": ("import numpy; return {'outputs': numpy.full((2, 10), numpy.nan)}",
                   "its answers aren't one row of numbers for each image"),
    "broken JSON": ("import os, pathlib; "
                    "pathlib.Path(question.folder, '../reply-1.json').write_text('[' * 9999); "
                    "os._exit(0)", "its answer can't be read"),
    "another signal": ("import os; os.kill(os.getpid(), 40)", "it crashed (signal 40)"),
    "a link for a folder": ("import os; os.rmdir(question.folder); "
                            "os.symlink('/etc', question.folder); return {}",
                            "its folder is a link"),
    "objects": ("import numpy; return {'outputs': numpy.array([[object()]] * 2)}",
                "Object arrays cannot be saved"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISBEHAVING)
def test_what_a_runtime_does_stays_there(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, words = MISBEHAVING[what]
    module = tmp_path / "vendor.py"
    body = textwrap.indent("\n".join(part.strip() for part in code.split("; ")), "        ")
    module.write_text("import sys\nNAMES = {'litert-builtin': ''}\ndef ask(question):\n"
                      f"    if question.file.endswith('bad'):\n{body}\n"
                      "    return {'version': 'v', 'taken': 1}\n")  # fmt: skip
    monkeypatch.setattr(runtimes, "source", lambda own: module)
    (folder := tmp_path / "asked").mkdir()
    files = [(tmp_path / name, np.zeros((2, 3), np.int8)) for name in ("a", "bad", "b")]
    first, bad, last = ask_runtime("litert-builtin", files, folder, limit_s=1)
    assert words in bad.error and bad.outputs is None
    assert first.error == last.error == "" and last.taken == 1


def test_a_runtime_may_not_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor may a process that it starts; memory that is only reserved doesn't count."""
    module = tmp_path / "vendor.py"
    module.write_text(
        "import mmap, subprocess, sys, time\nNAMES = {'litert-builtin': ''}\n"
        "FILL = 'import time; a = bytearray(300 << 20); time.sleep(60)'\n"
        "def ask(question):\n"
        "    if question.file.endswith('own'):\n        exec(FILL)\n"
        "    if question.file.endswith('started'):\n"
        "        subprocess.run([sys.executable, '-c', FILL])\n"
        "    reserved = mmap.mmap(-1, 8 << 30)\n"
        "    return {'version': 'v', 'taken': 1}\n"
    )
    monkeypatch.setattr(runtimes, "source", lambda own: module)
    (folder := tmp_path / "asked").mkdir()
    files = [(tmp_path / name, None) for name in ("fine", "own", "started")]
    fine, *stopped = ask_runtime("litert-builtin", files, folder, limit_bytes=256 << 20)
    assert fine.error == "" and fine.taken == 1
    for answer in stopped:
        assert answer.error.startswith("it was stopped at 0.25 GiB of memory")


def test_a_runtime_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "empty"))
    with pytest.raises(MissingComponent, match="isn't installed: edgeres runtimes install tflm"):
        runtimes.require("tflm")
    with pytest.raises(BadInput, match=r"unknown runtime 'tfml' \(did you mean 'tflm'\?\)"):
        runtimes.require("tfml")
    file = tmp_path / "m.tflite"
    file.write_bytes(b"")
    done = edgeres("inspect", file, "--on", "tflm", cwd=tmp_path)
    assert done.returncode == 4 and "edgeres runtimes install tflm" in done.stderr
    done = edgeres("runtimes", "install", "qnn-htp", cwd=tmp_path)
    assert done.returncode == 4 and "--accept-licence" in done.stderr and "Qualcomm" in done.stderr
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    done = edgeres("runtimes", "install", "tflm", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "can't be installed" in done.stderr and "network" in done.stderr
    assert not list((tmp_path / "empty").glob("*/bin"))


def test_a_system_that_is_too_old_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.31"))
    assert runtimes.missing("qnn-htp") == "it needs glibc 2.35 or newer; this system has 2.31"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert runtimes.missing("tflm") == "its packages are for Linux on x86-64"


def test_the_list_names_each_one(tmp_path: Path) -> None:
    shown = edgeres("list", "runtimes", cwd=tmp_path).stdout
    assert set(runtimes.names()) <= set(re.findall(r"[a-z0-9-]+", shown))
    assert max(len(line) for line in shown.split("\n\n")[0].splitlines()) <= 100
    rows = json.loads(edgeres("list", "runtimes", "--json", cwd=tmp_path).stdout)
    assert [row["runtime"] for row in rows] == list(runtimes.names())
