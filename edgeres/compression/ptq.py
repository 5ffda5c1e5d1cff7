"""Post-training quantization: a float network and calibration images in, a `ScaleTable` out.

Ranges are calibrated on the tensors that our quantizer names, so that PTQ and QAT quantize the same
tensors in the same way; weights are rounded so that layers' outputs change least (`rounding`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from edgeres.compression import bits, portable, rounding
from edgeres.compression.exclusions import Kept, kept_float
from edgeres.compression.fake_quant import activation_params
from edgeres.compression.graph import (
    ACTIVATION_RANGE,
    WEIGHT_RANGE,
    concatenated,
    export_program,
    snap,
    storable,
    weight_scales,
    wiring,
)
from edgeres.compression.integers import integer_graph
from edgeres.compression.quantizer import ResidualQuantizer, image_input, layers
from edgeres.compression.ranges import chosen as chosen_ranges
from edgeres.compression.ranges import crowded, widest
from edgeres.compression.ties import without_ties
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier, Spec, fold_batchnorm
from edgeres.quiet import quiet
from edgeres.training.inference import prepared
from edgeres.types import QuantParams, ScaleTable

_BATCH = 32
_ASKED = 64  # images
_DOUBTFUL = 0.3  # of the answers: 10 dB
_FEW = 16  # steps: 4 bits


def quantize(
    model: Classifier, images: Tensor, *, scheme: str = "w8a8", ranges: str = "mse",
    exclude: Sequence[str] = (), four: Collection[str] | None = None,
) -> tuple[Classifier, ScaleTable]:  # fmt: skip
    """Calibrate on images of the training set.

    Args:
        model: batch norm not folded; left as it was.
        images: uint8 (N, 3, H, W); prepared a batch at a time.
        scheme: how activations are quantized, see `fake_quant.activation_params`.
        ranges: `min-max` (NNCF's: the mean over the batches of their ends), or a method of
            `ranges`.
        exclude: regular expressions of layers that stay float, see `exclusions`.
        four: scheme w4a8: the layers whose weights have 4 bits; None: as `bits.four` has them.

    Returns:
        The folded network, weights and biases on their grids, and the scales of all its tensors.

    Raises:
        BadInput: weights or activations that aren't numbers or are too large, an expression in
            `exclude` that fits no layer.
    """
    require_finite(model)
    model = portable.sums_only(model) if scheme == portable.SCHEME else model
    kept = kept_float(model, exclude)
    if scheme == bits.SCHEME and four is None:
        four = bits.four(model)
    scheme = bits.of_activations(scheme)
    folded = fold_batchnorm(model.eval())
    names = {"input", *(layer.name for layer in wiring(folded.spec))} - kept.tensors
    if ranges == "min-max":
        widest(folded, images, names)  # refuses what NNCF would stumble over
        table = _joined(folded.spec, _read_back(_calibrated(folded, images, kept), kept))
    else:
        found = chosen_ranges(folded, images, names, ranges)
        table = {name: activation_params(*ends) for name, ends in found.items()}
    exact = folded.spec.preprocess.input_quantization()
    table |= {"input": exact} if exact else {}
    if scheme not in ("w8a8", portable.SCHEME):
        table = {name: _in_scheme(params, scheme) for name, params in table.items()}
    scales = weight_scales(folded, kept.layers, four or ())
    scales |= without_ties(folded.spec, table, scheme)
    snap(folded, scales, rounding.moments(folded, images), scheme)
    return folded, scales


def require_finite(model: Classifier) -> None:
    """Refuse a network that holds NaN or infinite numbers.

    Raises:
        BadInput: names the first such tensor.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BadInput(
                f"{model.spec.name}: {name} holds NaN or infinite numbers, so the network can't be "
                "quantized; take a checkpoint from before its training diverged"
            )


@torch.no_grad()
def doubts(
    model: Classifier, folded: Classifier, scales: ScaleTable, images: Tensor
) -> list[str]:  # fmt: skip
    """What to know of integers that answer quite otherwise than their network: a sentence, if any.

    Args:
        model: before it was quantized; folded, scales: after.
        images: uint8 (N, 3, H, W), of calibration.
    """
    images = images[:_ASKED]
    x = prepared(images, folded.spec.preprocess)
    wanted, found = (y - y.mean(1, keepdim=True)  # the same number for each class is no answer
                     for y in (model.eval()(x), integer_graph(folded, scales)(x)))  # fmt: skip
    off = ((found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-20)).sqrt().item()
    if off < _DOUBTFUL:
        return []
    said = (f"the integers answer otherwise than the network: on {len(images)} calibration images "
            f"they are off by {off:.0%} of how its answers differ between classes")  # fmt: skip
    few = {n: steps for n, steps in crowded(folded, images, scales).items() if steps < _FEW}
    if few and (name := min(few, key=lambda n: few[n])):
        said += (f"; '{name}' reaches {few[name]:.0f} of 255 steps, as it is concatenated with "
                 "larger values")  # fmt: skip
    return [f"{said}; edgeres quantize RUN --sensitivity names the layers"]


def _calibrated(folded: Classifier, images: Tensor, kept: Kept) -> GraphModule:
    """NNCF's quantized graph, ranges in it.

    Its fast bias correction asks each layer about an image of mean values alone; what it then
    corrects costs more than it mends (docs/quantization.md), and `rounding` keeps the means.
    """
    activation = QuantizationSpec(
        torch.int8, HistogramObserver.with_args(eps=2**-12), *ACTIVATION_RANGE,
        torch.per_tensor_affine,
    )  # fmt: skip
    weight = QuantizationSpec(
        torch.int8, PerChannelMinMaxObserver.with_args(eps=2**-12), *WEIGHT_RANGE,
        torch.per_channel_symmetric, 0,
    )  # fmt: skip
    quantizer = ResidualQuantizer(
        lambda name: None if name in kept.tensors else activation,
        lambda name: None if name.removesuffix(".weight") in kept.layers else weight,
    )
    graph = export_program(folded).module()
    batches = images.split(_BATCH)
    with torch.no_grad(), quiet("post-training quantization with NNCF"):
        import nncf
        from nncf.experimental.torch.fx import quantize_pt2e

        streamed = nncf.Dataset(batches, lambda part: prepared(part, folded.spec.preprocess))
        quantized: GraphModule = quantize_pt2e(
            graph, quantizer, streamed, subset_size=len(batches),
            fast_bias_correction=None, fold_quantize=False,
        )  # fmt: skip
    return quantized


def _read_back(graph: GraphModule, kept: Kept) -> ScaleTable:
    """The activations' scales of the graph."""
    found = {layer.name: _parameters(next(iter(layer.last.users)))
             for layer in layers(graph) if layer.name not in kept.tensors}  # fmt: skip
    images = next(u for u in image_input(graph).users if u.op == "call_function")
    return found | {"input": _parameters(images)}


def _joined(spec: Spec, table: ScaleTable) -> ScaleTable:
    """What concatenations join gets one range, which holds those of all."""
    found = dict(table)
    low, high = ACTIVATION_RANGE
    for group in concatenated(spec):
        names = sorted(group.intersection(table))
        ends = [(end - p.zero_point[0]) * p.scale[0]
                for p in map(table.get, names) if p for end in (low, high)]  # fmt: skip
        if ends:
            found |= dict.fromkeys(names, activation_params(min(ends), max(ends)))
    return found


def _in_scheme(params: QuantParams, scheme: str) -> QuantParams:
    """The same range in another scheme; an exact input with zero point 0 stays exact."""
    (scale,), (zero,) = params.scale, params.zero_point
    if zero == 0 and scheme == "w8a8-symmetric":
        return params
    low, high = ACTIVATION_RANGE
    return activation_params((low - zero) * scale, (high - zero) * scale, scheme)


def _parameters(node: Node) -> QuantParams:
    exact, zero = node.args[1], node.args[2]
    assert isinstance(exact, float) and isinstance(zero, int)
    scale = storable(torch.tensor(exact)).item()
    return QuantParams((scale,), (zero,), "int8")
