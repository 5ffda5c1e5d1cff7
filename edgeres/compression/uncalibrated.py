"""An int8 network that nobody calibrated: its file takes the time that a real one takes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeres.compression.exclusions import kept_float
from edgeres.compression.graph import export_program, snap, weight_scales
from edgeres.compression.quantizer import layers
from edgeres.models.modules import Classifier, fold_batchnorm
from edgeres.types import QuantParams, ScaleTable

_ANY = QuantParams((2.0**-5,), (-10,), "int8")


def quantized(model: Classifier, exclude: Sequence[str] = ()) -> tuple[Classifier, ScaleTable]:
    """Folded weights on their int8 grid, and a scale table whose activations are made up.

    Only good for measuring latency: its answers mean nothing.

    Args:
        exclude: regular expressions of layers that stay float.

    Raises:
        BadInput: as `exclusions.kept_float`.
    """
    kept = kept_float(model, exclude)
    folded = fold_batchnorm(model.eval())
    scales = weight_scales(folded, kept.layers)
    names = {layer.name for layer in layers(export_program(folded).module())}
    scales |= dict.fromkeys(sorted(names - kept.tensors), _ANY)
    scales["input"] = folded.spec.preprocess.input_quantization() or _ANY
    snap(folded, scales)
    return folded, scales
