"""An int8 network that nobody calibrated: its file takes the time that a real one takes."""

from __future__ import annotations

from edgeres.compression.graph import export_program, snap, weight_scales
from edgeres.compression.quantizer import layers
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.types import QuantParams, ScaleTable

_ANY = QuantParams((2.0**-5,), (-10,), "int8")


def quantized(model: ResNet) -> tuple[ResNet, ScaleTable]:
    """Folded weights on their int8 grid, and a scale table whose activations are made up.

    Only good for measuring latency: its answers mean nothing.
    """
    folded = fold_batchnorm(model.eval())
    scales = weight_scales(folded)
    scales |= {layer.name: _ANY for layer in layers(export_program(folded).module())}
    scales["input"] = folded.spec.preprocess.input_quantization() or _ANY
    snap(folded, scales)
    return folded, scales
