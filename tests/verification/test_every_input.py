"""The proof's arithmetic is the real kernels', and what it says of every sum is what they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import images, network

from edgeres import runtimes, targets
from edgeres.compression import ptq
from edgeres.models.spec import default_preprocess
from edgeres.network import onnx_session
from edgeres.network.graph import Network, Node
from edgeres.network.module import NetworkModule
from edgeres.runtimes._asking import ask
from edgeres.types import QuantParams, ScaleTable
from edgeres.verification.every_input import prove
from edgeres.verification.kernels import ADDS, KERNELS, AddScales, Scales

_PX, _SIDE = 32, 4  # a layer's kernel is a square of four by four, so that an image has 64 sums
_WIDE = 126  # the weight of all inputs but the last
_READ = 1 / 64  # whose codes are pixel - 128
_ONE = 1 - 2.0**-23
_CONV = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "trained": True}
_INPUTS, _SUMS = 3 * _SIDE**2, (_PX // _SIDE) ** 2
Runner = Callable[[Path, np.ndarray], np.ndarray]


def _litert(resolver: OpResolverType) -> Runner:
    def run(path: Path, codes: np.ndarray) -> np.ndarray:
        loaded = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
        (given,), (answer,) = loaded.get_input_details(), loaded.get_output_details()
        loaded.allocate_tensors()
        found = []
        for image in codes.transpose(0, 2, 3, 1):
            loaded.set_tensor(given["index"], image[None])
            loaded.invoke()
            found.append(loaded.get_tensor(answer["index"]))
        return np.concatenate(found)

    return run


def _onnx(level: onnxruntime.GraphOptimizationLevel) -> Runner:
    def run(path: Path, codes: np.ndarray) -> np.ndarray:
        loaded = onnx_session.computing(
            path, str(path), settings={"graph_optimization_level": level}
        )
        (answer,) = loaded.run(None, {"input": codes.view(np.uint8) ^ 128})
        return (answer ^ 128).view(np.int8)

    return run


_LEVELS = onnxruntime.GraphOptimizationLevel
LITERT = {
    "float32": _litert(OpResolverType.AUTO),
    "own": _litert(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES),
    "reference": _litert(OpResolverType.BUILTIN_REF),
}
ONNX = {"float32": _onnx(_LEVELS.ORT_ENABLE_ALL), "as written": _onnx(_LEVELS.ORT_DISABLE_ALL)}


def _one_layer(
    steps: np.ndarray, bias: int, last: int, written: QuantParams
) -> tuple[NetworkModule, ScaleTable]:
    """A convolution of square after square, whose channels differ only in their weights' scale."""
    node = Node.of("fc", "conv2d", ("input",), out=len(steps), bias=True, kernel=(_SIDE, _SIDE),
                   stride=(_SIDE, _SIDE), **{"in": 3}, **_CONV)  # fmt: skip
    nodes, answers = (node, Node.of("flatten", "flatten", ("fc",))), len(steps) * _SUMS
    made = NetworkModule(Network("one", nodes, "flatten", answers, default_preprocess(_PX)))
    codes = torch.full((len(steps), _INPUTS), float(_WIDE), dtype=torch.float64)
    codes[:, -1] = last
    scale = torch.from_numpy(steps).float().double()
    weight = (codes * scale[:, None]).view(-1, 3, _SIDE, _SIDE).float()
    made.load_state_dict({"fc.weight": weight, "fc.bias": (bias * scale * _READ).float()})
    table = {
        "input": QuantParams((_READ,), (0,), "int8"),
        "fc": written,
        "fc.weight": QuantParams(tuple(scale.tolist()), (0,) * len(scale), "int8", 0),
    }
    return made.eval(), table


def _images(sums: np.ndarray, bias: int, last: int) -> np.ndarray:
    """Images of codes, (N, 3, 32, 32), in whose squares a layer has these sums, and zeros."""
    left = sums - bias
    many = np.rint(left / _WIDE).astype(np.int64)
    one, rest = np.divmod(left - many * _WIDE, last)
    assert not rest.any() and np.abs(one).max() < 128
    count = _INPUTS - 1
    share, more = np.divmod(many, count)
    codes = share[:, None] + (np.arange(count) < more[:, None])
    assert np.abs(codes).max() < 128
    whole = np.concatenate([codes, one[:, None]], 1)
    padded = np.concatenate([whole, np.zeros((-len(whole) % _SUMS, _INPUTS), np.int64)])
    per_row = _PX // _SIDE
    squares = padded.reshape(-1, per_row, per_row, 3, _SIDE, _SIDE)
    return squares.transpose(0, 3, 1, 4, 2, 5).reshape(-1, 3, _PX, _PX).astype(np.int8)


def _by_sum(answers: np.ndarray, sums: int) -> np.ndarray:
    """Answers of such images as (sums, channels)."""
    return (
        answers.reshape(len(answers), -1, _SUMS)
        .transpose(0, 2, 1)
        .reshape(len(answers) * _SUMS, -1)[:sums]
    )


def _files(model: NetworkModule, table: ScaleTable, folder: Path) -> dict[str, Path]:
    found = {}
    for name in ("tflite-int8", "onnx-int8"):
        target, precision = targets.load(name)
        found[name] = folder / f"m{target.SUFFIX}"
        target.export(targets.Source(model, table), precision, found[name])
    return found


def _answers(files: dict[str, Path], codes: np.ndarray) -> dict[str, np.ndarray]:
    """Every real kernel's codes."""
    found = {f"LiteRT, {n}": run(files["tflite-int8"], codes) for n, run in LITERT.items()}
    return found | {f"onnxruntime, {n}": run(files["onnx-int8"], codes) for n, run in ONNX.items()}


def _asked(
    model: NetworkModule, table: ScaleTable, folder: Path, sums: np.ndarray, bias: int, last: int
) -> dict[str, np.ndarray]:
    """Every real kernel's codes of sums, (sums, channels) each."""
    found = _answers(_files(model, table, folder), _images(sums, bias, last))
    return {name: _by_sum(codes, len(sums)) for name, codes in found.items()}


def _predicted(kind: int, sums: np.ndarray, table: ScaleTable) -> np.ndarray:
    """Codes as a kind of kernel is said to make them, (N, channels)."""
    written = table["fc"]
    columns = [KERNELS[kind].rounded(sums, Scales(_READ, step, written.scale[0]))
               for step in table["fc.weight"].scale]  # fmt: skip
    return np.clip(np.stack(columns, 1) + written.zero_point[0], -128, 127)


def _every(table: ScaleTable, stride: int, rest: int) -> np.ndarray:
    """All sums at which some channel isn't at its ends."""
    least = min(table["fc.weight"].scale) * _READ / table["fc"].scale[0]
    reach = int(260 / least)
    return np.arange(-reach + (rest + reach) % stride, reach, stride, dtype=np.int64)


WRITTEN = QuantParams((0.0478515625,), (-17,), "int8")


def test_any_scale_is_rounded_as_said(tmp_path: Path) -> None:
    """Every sum of six channels: one kind is LiteRT's with XNNPACK and onnxruntime's, one that of
    LiteRT's own kernels, one that of its reference; and they differ."""
    steps = np.random.default_rng(0).uniform(2.0**-7, 2.0**-5, 6)
    model, table = _one_layer(steps, 3, 1, WRITTEN)
    sums = _every(table, 1, 0)
    found = _asked(model, table, tmp_path, sums, 3, 1)
    single, double = (_predicted(kind, sums, table) for kind in (0, 1))
    assert (single != double).any(0).all()
    assert np.array_equal(found["LiteRT, float32"], single)
    assert np.array_equal(found["onnxruntime, float32"], single)
    assert np.array_equal(found["LiteRT, own"], _predicted(2, sums, table))
    assert np.array_equal(found["LiteRT, reference"], double)
    assert prove(model, table).differing == len(steps)


def _portable(last: int = 2, bias: int = 5, unit: float = _ONE) -> tuple[NetworkModule, ScaleTable]:
    steps = unit * WRITTEN.scale[0] / _READ * 2.0 ** -np.arange(5, 10)
    return _one_layer(steps, bias, last, WRITTEN)


def test_portable_scales_are_rounded_alike_by_all(tmp_path: Path) -> None:
    """133,120 sums, all that don't saturate, of five channels."""
    model, table = _portable()
    proof = prove(model, table)
    assert proof.holds and proof.channels == 5 and proof.sums > 1_000_000
    sums = _every(table, 2, 1)
    found = _asked(model, table, tmp_path, sums, 5, 2)
    for name, codes in found.items():
        assert np.array_equal(codes, _predicted(0, sums, table)), name


def test_microcontrollers_round_them_so_too(tmp_path: Path) -> None:
    """Every sum next to where a code ends."""
    if runtimes.missing("tflm"):
        pytest.skip("tflm isn't installed: edgeres runtimes install tflm")
    model, table = _portable()
    sums = _every(table, 2, 1)
    codes = _predicted(0, sums, table)
    turns = np.flatnonzero((codes[1:] != codes[:-1]).any(1))[::3]
    turns = np.unique(np.concatenate([turns, turns + 1]))
    path = _files(model, table, tmp_path)["tflite-int8"]
    x = _images(sums[turns], 5, 2).transpose(0, 2, 3, 1)
    (folder := tmp_path / "kept").mkdir()
    (answer,) = ask("tflm", [(path, x)], folder)
    assert np.array_equal(_by_sum(answer.outputs, len(turns)), codes[turns])


@pytest.mark.parametrize("planted", [
    {"unit": 1 + 2.0**-22},  # the multiplier next above a power of two
    {"bias": 4},
    {"last": 1},
], ids=["multiplier", "even bias", "odd weight"])  # fmt: skip
def test_what_breaks_the_rule_has_a_witness_that_kernels_confirm(
    planted: dict, tmp_path: Path
) -> None:
    """The sum that the proof names, as an image: XNNPACK and LiteRT's own kernels say its codes."""
    model, table = _portable(**planted)
    proof = prove(model, table)
    assert not proof.holds and proof.differing
    (witness,) = proof.witnesses
    bias, last = planted.get("bias", 5), planted.get("last", 2)
    found = _asked(model, table, tmp_path, np.array(witness.values), bias, last)
    assert witness.channel is not None
    for name, kind in (("LiteRT, float32", 0), ("LiteRT, reference", 1), ("LiteRT, own", 2)):
        said = witness.codes[KERNELS[kind].name]
        assert found[name][0, witness.channel] == said, (name, witness.sentence())
    assert len(set(witness.codes.values())) > 1


def _one_add(first: float, second: float, written: float) -> tuple[NetworkModule, ScaleTable]:
    """The red and the green codes of an image, added pixel by pixel."""
    table = {"input": QuantParams((_READ,), (0,), "int8"),
             "add": QuantParams((written,), (3,), "int8")}  # fmt: skip
    nodes, state = [], {}
    for channel, (name, scale) in enumerate((("red", first), ("green", second))):
        nodes.append(Node.of(name, "conv2d", ("input",), out=1, bias=False, kernel=(1, 1),
                             stride=(1, 1), **{"in": 3}, **_CONV))  # fmt: skip
        step = float(np.float32(scale / _READ / 64 * _ONE))
        state[f"{name}.weight"] = torch.zeros(1, 3, 1, 1)
        state[f"{name}.weight"][:, channel] = 64 * step
        table[name] = QuantParams((scale,), (0,), "int8")
        table[f"{name}.weight"] = QuantParams((step,), (0,), "int8", 0)
    nodes += [Node.of("add", "add", ("red", "green")), Node.of("flatten", "flatten", ("add",))]
    made = NetworkModule(Network("one", tuple(nodes), "flatten", _PX**2, default_preprocess(_PX)))
    made.load_state_dict(state)
    return made.eval(), table


@pytest.mark.parametrize(("scales", "alike"), [
    ((1317 / 2**15, 897 / 2**15, 1845 / 2**15), True),
    ((1316 / 2**15, 898 / 2**15, 1844 / 2**15), False),
])  # fmt: skip
def test_adds_are_rounded_as_said(scales: tuple, alike: bool, tmp_path: Path) -> None:
    """All 65,536 pairs of codes."""
    model, table = _one_add(*scales)
    every = np.arange(-128, 128)
    a, b = (pair.ravel() for pair in np.meshgrid(every, every, indexing="ij"))
    codes = np.zeros((64, 3, _PX**2), np.int8)
    codes[:, 0], codes[:, 1] = a.reshape(64, -1), b.reshape(64, -1)
    found = _answers(_files(model, table, tmp_path), codes.reshape(-1, 3, _PX, _PX))
    said = [np.clip(kernel.rounded(a, b, AddScales(*scales, 3)) + 3, -128, 127).reshape(64, -1)
            for kernel in ADDS]  # fmt: skip
    assert np.array_equal(found["LiteRT, float32"], said[0])
    for name in ("onnxruntime, float32", "onnxruntime, as written"):
        assert (said[1] <= found[name]).all() and (found[name] <= said[2]).all(), name
    assert np.array_equal(said[1], said[2]) == alike
    assert np.array_equal(found["LiteRT, reference"], said[3])
    assert np.array_equal(found["LiteRT, own"], said[3])
    proof = prove(model, table)
    assert (proof.pairs, proof.holds) == (65_536, alike)
    assert all(np.array_equal(said[0], other) for other in said[1:]) == alike


def test_a_network_of_today_has_a_witness_in_every_layer() -> None:
    folded, scales = ptq.quantize(network("resnet8"), images(32))
    proof = prove(folded, scales)
    named = {witness.layer for witness in proof.witnesses}
    weighted = {name.removesuffix(".weight") for name in scales if name.endswith(".weight")}
    assert weighted <= named
    assert proof.unproven == ("avgpool: the sum of a mean has too few bits to be rounded alike",)
    assert "becomes" in proof.witnesses[0].sentence()


def test_what_is_not_int8_is_not_proven() -> None:
    folded, scales = ptq.quantize(network("resnet8"), images(32), scheme="w8a8-portable",
                                  exclude=["layer2.0.conv1"])  # fmt: skip
    proof = prove(folded, scales)
    assert not proof.holds and not proof.witnesses
    assert [line.partition(":")[0] for line in proof.unproven] == ["layer2.0.conv1"]
    wide = {n: dataclasses.replace(p, dtype="int16") if n == "fc" else p for n, p in scales.items()}
    assert any(line.startswith("fc:") for line in prove(folded, wide).unproven)


def test_a_sum_of_more_than_32_bits_is_not_proven() -> None:
    model, table = _portable()
    assert prove(model, table).holds
    with torch.no_grad():
        model.get_parameter("fc.bias").copy_(
            torch.full((5,), 2.0**31) * table["fc.weight"].scale[0]
        )
    assert prove(model, table).unproven == ("fc: a sum may need more than 32 bits",)
