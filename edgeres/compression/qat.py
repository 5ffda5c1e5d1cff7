"""Quantization-aware training: a float network in, folded weights and a trained `ScaleTable` out.

torchao's PT2E QAT inserts fake quantization on the edges that our quantizer names, and folds each
batch norm into its convolution's weight while training, as inference will. The training itself is
the one loop of `edgeres.training`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e.fake_quantize import (
    FakeQuantizeBase,
    FusedMovingAvgObsFakeQuantize,
)
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from edgeres.compression.graph import (
    ACTIVATION_RANGE,
    SMALLEST_SCALE,
    WEIGHT_RANGE,
    export_program,
    snap,
    storable,
    weight_scale,
    weight_scales,
)
from edgeres.compression.quantizer import ResidualQuantizer
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.training.loop import Trainee, prepared
from edgeres.types import QuantParams, ScaleTable

_A = torch.ops.aten
_OBSERVER_MEMORY = 0.01  # share of a new batch in the running range, as in Jacob et al. 2018
_TRAINING_ARGUMENT = {_A.batch_norm.default: 5}


class QatModel:
    """A network prepared for QAT.

    Args:
        model: batch norm not folded; its weights are the starting point.
        freeze_observers, freeze_batchnorm: share of the epochs after which ranges, and then batch
            statistics, stay fixed (Krishnamoorthi 2018, section 3.2).
    """

    def __init__(self, model: ResNet, *, freeze_observers: float, freeze_batchnorm: float):
        self.model = model
        self.freeze_observers, self.freeze_batchnorm = freeze_observers, freeze_batchnorm
        graph = export_program(model.train()).module()
        self.graph: GraphModule = prepare_qat_pt2e(graph, ResidualQuantizer(_activation, _weight))
        self.exact_input = model.spec.preprocess.input_quantization()

    def calibrate(self, images: Tensor) -> None:
        """Start the ranges from real activations: uint8 images (N, 3, H, W), 64 at a time."""
        self._fake_quantization(False)
        self._observe(True)
        _set_training(self.graph, False)
        with torch.no_grad():
            for part in images.split(64):
                self.graph(prepared(part, self.model.spec.preprocess))
        self._fake_quantization(True)

    def trainee(self) -> Trainee:
        """What the training loop trains."""
        return Trainee(
            self.graph,
            self.model.spec.preprocess,
            lambda training: self._mode(training),
            self._start_epoch,
        )

    def finish(self) -> tuple[ResNet, ScaleTable]:
        """The folded network, its weights on the int8 grid, and its scales as trained."""
        trained = self.graph.state_dict()
        self.model.load_state_dict({k: trained[k] for k in self.model.state_dict()})
        folded = fold_batchnorm(self.model.eval())
        scales = weight_scales(folded)
        scales |= {module.tensor: module.params() for module in self._observers()}
        if self.exact_input:
            scales["input"] = self.exact_input
        snap(folded, scales)
        return folded, scales

    def _observers(self) -> list[_Activation]:
        return [m for m in self.graph.modules() if isinstance(m, _Activation)]

    def _fake_quantization(self, on: bool) -> None:
        for module in self.graph.modules():
            if isinstance(module, FakeQuantizeBase):
                module.enable_fake_quant(on)

    def _mode(self, training: bool) -> None:
        _set_training(self.graph, training)
        self._observe(training)

    def _observe(self, on: bool) -> None:
        for module in self._observers():
            module.enable_observer(on)
            if module.tensor == "input" and self.exact_input:
                module.pin(self.exact_input)

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        if epoch >= self.freeze_observers * epochs:
            for module in self._observers():
                module.pin(module.params())
        if epoch >= self.freeze_batchnorm * epochs:
            _set_training(self.graph, False)


class _Activation(FusedMovingAvgObsFakeQuantize):
    """Fake quantization that knows which tensor of the scale table it stands for."""

    def __init__(self, tensor: str, **settings: Any):
        super().__init__(**settings)
        self.tensor = tensor

    def params(self) -> QuantParams:
        """The present range, as files will store it."""
        scale, zero = storable(self.scale).item(), int(self.zero_point.item())
        return QuantParams((scale,), (zero,), "int8")

    def pin(self, params: QuantParams) -> None:
        """Keep the range of these parameters, from which the fused kernel derives its scale."""
        (scale,), (zero,) = params.scale, params.zero_point
        low, high = ACTIVATION_RANGE
        self.activation_post_process.min_val.fill_((low - zero) * scale)
        self.activation_post_process.max_val.fill_((high - zero) * scale)
        self.enable_observer(False)


class _WeightPerChannel(FakeQuantizeBase):
    """Fake quantization of a weight by its present peaks, as `weight_scales` will find them.

    PyTorch's fused kernel isn't symmetric: it divides a negative peak by 128, and gives a channel
    of one sign a zero point. (torchao hands the axis to classes with PerChannel in their name.)
    """

    def __init__(self, tensor: str, **_: Any):
        super().__init__()
        self.tensor = tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.fake_quant_enabled[0]:
            return x
        scale = weight_scale(x)
        zeros = torch.zeros(len(x), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, *WEIGHT_RANGE)

    def calculate_qparams(self, **_: Any) -> Any:
        raise AssertionError("scales are read by edgeres.compression.graph.weight_scales")


def _activation(tensor: str) -> QuantizationSpec:
    observer = _Activation.with_args(
        tensor=tensor, observer=MovingAverageMinMaxObserver,
        averaging_constant=_OBSERVER_MEMORY, eps=SMALLEST_SCALE,
    )  # fmt: skip
    return QuantizationSpec(torch.int8, observer, *ACTIVATION_RANGE, torch.per_tensor_affine)


def _weight(tensor: str) -> QuantizationSpec:
    observer = _WeightPerChannel.with_args(tensor=tensor)
    return QuantizationSpec(torch.int8, observer, *WEIGHT_RANGE, torch.per_channel_symmetric, 0)


def _set_training(graph: GraphModule, training: bool) -> None:
    """Batch norm with batch statistics or with running ones; the graph has no `train()`."""
    changed = False
    for node in graph.graph.nodes:
        position = _TRAINING_ARGUMENT.get(node.target)
        if position is not None and node.args[position] is not training:
            node.update_arg(position, training)
            changed = True
    if changed:
        graph.recompile()
