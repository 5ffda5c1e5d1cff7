"""A network that came with scales of its own: its folded form and a `ScaleTable`, not calibrated.

A file of integers says what its codes stand for (`network._walk.Integers`). If the known graph of
integers can hold all of that, it has the file's own codes, of weights, of biases and of every
answer; if it can't, this says why.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgeres.compression.graph import (
    ACTIVATION_RANGE,
    WEIGHT_RANGE,
    concatenated,
    weight_scale,
    wiring,
)
from edgeres.compression.integers import integer_graph
from edgeres.compression.quantizer import SIGMOID
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier, fold_batchnorm
from edgeres.network._walk import Integers, maker
from edgeres.network.graph import Network
from edgeres.types import QuantParams, ScaleTable

_INT32 = 2**31 - 1
_SAME = 1e-5  # relative: two float32 numbers that are meant to be one, and a product of two


@torch.no_grad()
def held(model: Classifier, integers: Integers) -> tuple[Classifier, ScaleTable, str]:
    """The folded network and the table of all its tensors, with the file's codes.

    Args:
        model: as it was read of the file.

    Returns:
        What `ptq.quantize` returns, and a sentence on how many answers are the file's own.

    Raises:
        BadInput: it can't have the file's codes; names the first thing that is in the way.
    """
    spec = model.spec
    assert isinstance(spec, Network)
    if integers.strange:
        raise BadInput(integers.strange[0])
    folded = fold_batchnorm(model.eval())
    table = _activations(folded, integers)
    _require_ends(spec, table)
    _weights(folded, integers, table)
    return folded, table, _asked(folded, table, integers)


def _activations(folded: Classifier, integers: Integers) -> ScaleTable:
    """Of each tensor that is quantized; those that a concatenation joins have its scale."""
    wires = wiring(folded.spec)
    names = ["input", *(wire.name for wire in wires)]
    table = {name: integers.scales[name] for name in names if name in integers.scales}
    for joined in concatenated(folded.spec):
        known = {table[name] for name in sorted(joined) if name in table}
        if len(known) > 1:
            raise BadInput(f"'{min(joined)}' and what it is concatenated with have several scales, "
                           "so that its codes are rounded a second time there")  # fmt: skip
        table |= dict.fromkeys(sorted(joined), *known) if known else {}
    for wire in wires:
        if wire.name not in table:
            raise BadInput(f"it says no scale of what '{wire.name}' makes")
        if wire.kind == "sigmoid" and not _close(table[wire.name], SIGMOID["int8"]):
            raise BadInput(f"the sigmoid '{wire.name}' has another scale than 1/256 with zero "
                           "point -128, the only one that every runtime takes")  # fmt: skip
    if "input" not in table:
        raise BadInput("it says no scale of its image")
    return table


def _close(one: QuantParams, other: QuantParams) -> bool:
    return one.zero_point == other.zero_point and np.allclose(one.scale, other.scale, _SAME, 0)


def _require_ends(spec: Network, table: ScaleTable) -> None:
    """No code may stand for more than a ReLU6 lets through: in integers it is a ReLU."""
    for node in spec.nodes:
        params = table.get(maker(spec, node.name))
        if node.op == "clamp" and params is not None:
            (scale,), (zero,) = params.scale, params.zero_point
            if round(node.real("most") / scale) + zero < ACTIVATION_RANGE[1]:
                raise BadInput(f"codes of '{node.inputs[0]}' stand for more than "
                               f"{node.real('most'):g}, where it ends")  # fmt: skip


def _weights(folded: Classifier, integers: Integers, table: ScaleTable) -> None:
    """Put scales of weights into the table, and biases to the file's codes."""
    state = folded.state_dict()
    for wire in wiring(folded.spec):
        weight, bias = (state.get(f"{wire.name}.{key}") for key in ("weight", "bias"))
        if wire.kind not in ("conv", "linear") or weight is None:
            continue
        known = integers.scales.get(f"{wire.name}.weight")
        if known is None and folded.get_parameter(f"{wire.name}.weight").requires_grad:
            raise BadInput(f"the weight of '{wire.name}' isn't quantized")
        scale = weight_scale(weight) if known is None else torch.tensor(known.scale)
        steps = scale.float().expand(len(weight)) if len(scale) == 1 else scale.float()
        if len(steps) != len(weight):
            raise BadInput(f"the weight of '{wire.name}' has scales along another axis than that "
                           "of what it makes")  # fmt: skip
        _require_codes(wire.name, weight, steps)
        table[f"{wire.name}.weight"] = QuantParams(tuple(steps.tolist()), (0,) * len(steps),
                                                   "int8", 0)  # fmt: skip
        if bias is not None:
            step = steps.double() * table[wire.source].scale[0]
            bias.copy_(_bias(wire.name, bias, step, integers.biases.get(f"{wire.name}.bias")))


def _require_codes(name: str, weight: Tensor, steps: Tensor) -> None:
    column = steps.view(-1, *[1] * (weight.ndim - 1))
    codes = (weight / column).round()
    if not torch.equal(codes * column, weight):
        raise BadInput(f"the weight of '{name}' isn't made of codes and one scale per channel")
    low, high = int(codes.min()), int(codes.max())
    if low < WEIGHT_RANGE[0] or high > WEIGHT_RANGE[1]:
        ends = f"{WEIGHT_RANGE[0]} to {WEIGHT_RANGE[1]}"
        raise BadInput(f"the weight of '{name}' has codes from {low} to {high}, its zero point "
                       f"taken off; here they are from {ends}")  # fmt: skip


def _bias(name: str, bias: Tensor, step: Tensor, stored: np.ndarray | None) -> Tensor:
    """float32 (O,), from which every writer gets the file's codes."""
    codes = (bias.double() / step).round() if stored is None else torch.from_numpy(stored).double()
    found = (codes * step).float()
    if stored is not None and not torch.allclose(found, bias, rtol=_SAME, atol=float(step.max())):
        raise BadInput(f"the bias of '{name}' has another scale than its input's times its "
                       "weight's")  # fmt: skip
    if (codes.abs() > _INT32).any() or not torch.equal((found.double() / step).round(), codes):
        raise BadInput(f"the bias of '{name}' has codes that no float32 number stands for")
    return found


def _asked(folded: Classifier, table: ScaleTable, integers: Integers) -> str:
    """Compare with the file's own answers to noise.

    Raises:
        BadInput: more than the last bit of a code is another.
    """
    if integers.asked is None:
        return "its scales are kept; its answers weren't compared with its codes"
    codes, theirs = (torch.from_numpy(a).float() for a in integers.asked)
    image = table["input"]
    answer = table[last(folded)]
    x = (codes - image.zero_point[0]) * image.scale[0]
    ours = (integer_graph(folded, table)(x) / answer.scale[0]).round() + answer.zero_point[0]
    off = (ours - theirs).abs()
    wrong, worst = int((off > 0).sum()), int(off.max())
    if worst > 1:
        raise BadInput(f"in the known graph of integers {wrong} of {off.numel()} answers to noise "
                       f"are other codes than its own, by up to {worst}")  # fmt: skip
    said = f"{off.numel() - wrong} of {off.numel()} answers to noise are its own codes"
    return f"its scales are kept: {said}" + (", the others are 1 away" if wrong else "")


def last(folded: Classifier) -> str:
    """The tensor of a table that the answers are."""
    spec = folded.spec
    assert isinstance(spec, Network)
    return maker(spec, spec.output)
