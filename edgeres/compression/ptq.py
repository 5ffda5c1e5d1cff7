"""Post-training quantization: a float network and calibration images in, a `ScaleTable` out.

NNCF calibrates and corrects biases on the graph that our quantizer annotates, so that PTQ and QAT
quantize the same tensors in the same way; then scales and corrected biases are read back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from edgeres.compression.graph import (
    ACTIVATION_RANGE,
    WEIGHT_RANGE,
    export_program,
    snap,
    storable,
    weight_scales,
)
from edgeres.compression.quantizer import ResidualQuantizer, layers
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.quiet import quiet
from edgeres.training.loop import prepared
from edgeres.types import QuantParams, ScaleTable

_BATCH = 32


def quantize(model: ResNet, images: Tensor) -> tuple[ResNet, ScaleTable]:
    """Calibrate on images of the training set.

    Args:
        model: batch norm not folded; left as it was.
        images: uint8 (N, 3, H, W).

    Returns:
        The folded network with corrected biases, and the scales of all its tensors.
    """
    folded = fold_batchnorm(model.eval())
    batches = [prepared(part, model.spec.preprocess) for part in images.split(_BATCH)]
    activation = QuantizationSpec(
        torch.int8, HistogramObserver.with_args(eps=2**-12), *ACTIVATION_RANGE,
        torch.per_tensor_affine,
    )  # fmt: skip
    weight = QuantizationSpec(
        torch.int8, PerChannelMinMaxObserver.with_args(eps=2**-12), *WEIGHT_RANGE,
        torch.per_channel_symmetric, 0,
    )  # fmt: skip
    graph = export_program(folded).module()
    quantizer = ResidualQuantizer(lambda _: activation, lambda _: weight)
    with torch.no_grad(), quiet("post-training quantization with NNCF"):
        import nncf
        from nncf.experimental.torch.fx import quantize_pt2e

        quantized: GraphModule = quantize_pt2e(
            graph, quantizer, nncf.Dataset(batches), subset_size=len(batches),
            fast_bias_correction=True, fold_quantize=False,
        )  # fmt: skip
    scales = _read_back(quantized, folded)
    return folded, scales


def _read_back(graph: GraphModule, folded: ResNet) -> ScaleTable:
    """Copy corrected biases into the network and return the scales of the graph."""
    state = folded.state_dict()
    found: ScaleTable = {}
    for layer in layers(graph):
        found[layer.name] = _parameters(next(iter(layer.last.users)))
        if layer.weighted and len(layer.node.args) > 2 and isinstance(layer.node.args[2], Node):
            bias = _constant(graph, layer.node.args[2])
            state[f"{layer.name}.bias"] = bias.reshape(-1)
    source = next(n for n in graph.graph.nodes if n.op == "placeholder")
    found["input"] = folded.spec.preprocess.input_quantization() or _parameters(
        next(u for u in source.users if u.op == "call_function")
    )
    folded.load_state_dict(state)
    scales = weight_scales(folded) | found
    snap(folded, scales)
    return scales


def _parameters(node: Node) -> QuantParams:
    exact, zero = node.args[1], node.args[2]
    assert isinstance(exact, float) and isinstance(zero, int)
    scale = storable(torch.tensor(exact)).item()
    return QuantParams((scale,), (zero,), "int8")


def _constant(graph: GraphModule, node: Node) -> Tensor:
    value: object = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach().clone()
