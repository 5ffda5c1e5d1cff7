"""Scales around residual adds leave no ties, and two runtimes agree to the bit."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images
from network.nets import Gated, of

from edgeres import targets
from edgeres.compression import device_quant, ptq, ties
from edgeres.compression.graph import storable, wiring
from edgeres.compression.integers import integer_graph
from edgeres.compression.qat import QatModel
from edgeres.models import spec
from edgeres.models.resnet import ResNet
from edgeres.network.from_torch import from_module
from edgeres.training.inference import prepared
from edgeres.types import QuantParams, ScaleTable

SOME = range(-128, 128, 3)


def ties_of(first: float, second: float, out: float) -> int:
    """How many sums of codes lie exactly between two codes."""
    a, b, c = Fraction(first), Fraction(second), Fraction(out)
    return sum((2 * (m * a + n * b) / c).denominator == 1
               and (2 * (m * a + n * b) / c) % 2 == 1 for m, n in product(SOME, SOME))  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_an_add_of_untied_scales_has_no_tie(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = storable(torch.rand(3, generator=generator) * 0.1 + 0.01).tolist()
    step = ties.grid(found)
    after = [ties.untied(scale, step) for scale in found]
    assert ties_of(*after) == 0
    for old, new in zip(found, after, strict=True):
        assert old <= new <= old * (1 + 1 / 64)
        assert storable(torch.tensor(new)).item() == new  # every format can hold it


def test_ties_are_real() -> None:
    assert ties_of(3 / 64, 5 / 64, 4 / 64) > 0  # as float16 scales come out at times
    assert ties_of(3 / 64, 5 / 64, 5 / 64) == 0


def test_a_scale_that_would_grow_much_or_has_no_room_stays() -> None:
    assert ties.untied(2.0, 2.0**-1) == 2.0  # 2.5 is a quarter more
    assert ties.untied(2.0, 2.0**-12) == 2.0  # an odd multiple has more digits than a float16


@pytest.mark.parametrize("seed", range(6))
def test_a_product_with_an_untied_scale_has_no_tie(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, out = storable(torch.rand(2, generator=generator) * 0.1 + 0.01).tolist()
    after = ties.untied(out, ties.grid([out]), product=True)
    assert products_tied(first, 1 / 256, after) == 0
    assert out <= after <= out * (1 + 1 / 64)
    assert storable(torch.tensor(after)).item() == after


def products_tied(first: float, second: float, out: float) -> int:
    """How many products of codes lie exactly between two codes."""
    ratio = Fraction(first) * Fraction(second) / Fraction(out)
    every = range(-255, 256, 3)
    return sum((2 * m * n * ratio).denominator == 1 and 2 * m * n * ratio % 2 == 1
               for m, n in product(every, every))  # fmt: skip


def test_a_products_ties_are_real() -> None:
    assert products_tied(0.03, 1 / 256, 0.03) > 0  # a gate of what has the same scale


@pytest.mark.parametrize("is_product", [False, True])
def test_on_a_device_as_in_numbers(is_product: bool) -> None:
    primes = torch.tensor(ties.primes() if is_product else (), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for scale in storable(torch.rand(400, generator=generator) ** 3 * 0.2 + 1e-5):
        step = ties.grid([0.1])
        there = device_quant.untied(scale, step, ties.GROWTH, primes)
        assert there.item() == ties.untied(scale.item(), step, product=is_product)


def on_one_grid(model: ResNet, scales: ScaleTable) -> bool:
    """Odd multiples of one power of two, around each add."""
    adds = [wire for wire in wiring(model.spec) if wire.kind == "add"]
    for add in adds:
        found = [Fraction(scales[name].scale[0]) for name in (add.name, *add.sources)]
        lowest = {value.numerator & -value.numerator for value in found}
        if lowest != {1} or len({value.denominator for value in found}) > 1:
            return False
    return len(adds) > 2


def test_each_chain_of_adds_has_a_grid_of_its_own() -> None:
    """Later stages' scales grow, and a grid for all would be too coarse for the first one's."""
    architecture = spec.parse("resnet8", 4, spec.default_preprocess(8))
    chains = [chain.names for chain in ties.chains(architecture)]
    assert len(chains) == 3
    assert len(frozenset().union(*chains)) == sum(map(len, chains))
    names = ("layer1.0.add", "layer1.0.conv2", "layer3.0.add")
    table = {
        n: QuantParams((s,), (0,), "int8") for n, s in zip(names, (0.011, 0.02, 1.3), strict=True)
    }
    found = ties.without_ties(architecture, table)
    assert all(table[n].scale[0] < found[n].scale[0] <= table[n].scale[0] * 1.006 for n in names)


def test_ptq_and_qat_leave_no_ties(quantized: tuple[ResNet, ResNet, ScaleTable]) -> None:
    model, folded, scales = quantized
    assert on_one_grid(folded, scales)
    network = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.7)
    network.calibrate(images(32, seed=1))
    trained, table = network.finish()
    assert on_one_grid(trained, table)


def test_litert_and_onnxruntime_agree_to_the_bit(
    quantized: tuple[ResNet, ResNet, ScaleTable], tmp_path: Path
) -> None:
    _, folded, scales = quantized
    x = prepared(images(64, seed=8), folded.spec.preprocess).contiguous().numpy()
    answers = []
    for name in ("tflite-int8", "onnx-int8"):
        target, precision = targets.load(name)
        path = tmp_path / f"network{target.SUFFIX}"
        first, last = target.export(targets.Source(folded, scales), precision, path)
        session = target.session(path)
        assert session is not None
        answers.append(targets.decode(session.run(targets.encode(x, first)), last))
    same = (answers[0] == answers[1]).all(1)
    assert np.mean(same) >= 0.97, f"{same.sum()} of {len(same)}"


@pytest.mark.parametrize("trained", [False, True])
def test_gates_have_the_same_codes_in_each_runtime(trained: bool, tmp_path: Path) -> None:
    model = from_module(of(Gated), 16).module
    if trained:
        quantized = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.7)
        quantized.calibrate(images(32, seed=1))
        folded, scales = quantized.finish()
    else:
        folded, scales = ptq.quantize(model, images(64))
    gates = [wire.name for wire in wiring(folded.spec) if wire.kind == "mul"]
    numerators = {Fraction(scales[name].scale[0]).numerator for name in gates}
    assert gates and all(n > 255 and all(n % d for d in range(2, n)) for n in numerators)
    x = prepared(images(256, seed=8), folded.spec.preprocess).contiguous()
    with torch.no_grad():
        expected = integer_graph(folded, scales)(x).numpy()
    for name in ("tflite-int8", "onnx-int8", "qoperator-int8"):
        target, precision = targets.load(name)
        path = tmp_path / f"network{target.SUFFIX}"
        first, last = target.export(targets.Source(folded, scales), precision, path)
        session = target.session(path)
        assert session is not None
        found = targets.decode(session.run(targets.encode(x.numpy(), first)), last)
        np.testing.assert_array_equal(found, expected, err_msg=name)
