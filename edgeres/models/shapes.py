"""The layers of a network in numbers: a module in, a list of `LayerShape` out.

What a layer costs (multiply-accumulates, parameters, bytes, time) is a function of its shape, so a
pruner can weigh widths without building the network that has them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["conv", "linear", "norm", "add", "mean"]
Sides = int | tuple[int, int]
"""Height and width; one number where both are the same."""


@dataclass(frozen=True)
class LayerShape:
    """One operation that takes time.

    Attributes:
        name: the module; an add or a mean has that of the last convolution before it, whose output
            channels it has.
        kind: "conv", "linear", "norm" (batch norm), "add" (residual), "mean" (average pool).
        cin, cout: channels; the same for an add and a mean.
        px: of the output of a convolution or add, of the input of a mean.
        kernel, stride, groups: of a convolution; depthwise is `groups == cin`.
        trained: parameters per output channel beside the weights (bias, batch norm's scale and
            shift); -1 if nothing is trained, as in option A's shortcuts.
    """

    name: str
    kind: Kind
    cin: int
    cout: int
    px: Sides = 1
    kernel: Sides = 1
    stride: Sides = 1
    groups: int = 1
    trained: int = 0

    @property
    def weights(self) -> int:
        """How many weights it holds, biases aside."""
        if self.kind not in ("conv", "linear"):
            return 0
        return self.cout * self.cin // self.groups * math.prod(sides(self.kernel))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.weights * math.prod(sides(self.px))

    def of_widths(self, cin: int, cout: int) -> LayerShape:
        """The same layer, slimmer; a depthwise one stays depthwise."""
        groups = cin if self.groups == self.cin > 1 else self.groups
        return dataclasses.replace(self, cin=cin, cout=cout, groups=groups)


def sides(value: Sides) -> tuple[int, int]:
    """Height and width."""
    return value if isinstance(value, tuple) else (value, value)


def _sides(height: int, width: int) -> Sides:
    return height if height == width else (height, width)


def macs(shapes: Iterable[LayerShape]) -> int:
    """Multiply-accumulates of one image."""
    return sum(shape.macs for shape in shapes)


def parameters(shapes: Iterable[LayerShape]) -> int:
    """Trained parameters: weights, biases, batch norm's scales and shifts."""
    return sum(s.weights + s.trained * s.cout for s in shapes if s.trained >= 0)


def shapes_of(model: nn.Module, px: int) -> list[LayerShape]:
    """The layers of a network in the order in which they run, found by running it on zeros."""
    import torch
    from torch import nn
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    found: list[LayerShape] = []
    names = {module: name for name, module in model.named_modules()}

    def weighted(module: nn.Module, _: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            trained = int(module.bias is not None) if module.weight.requires_grad else -1
            found.append(LayerShape(
                names[module], "conv", module.in_channels, module.out_channels,
                _sides(*output.shape[-2:]), _sides(*module.kernel_size[:2]),
                _sides(*module.stride[:2]), module.groups, trained,
            ))  # fmt: skip
        elif isinstance(module, nn.Linear):
            found.append(LayerShape(
                names[module], "linear", module.in_features, module.out_features, trained=1
            ))  # fmt: skip
        elif isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            found.append(LayerShape(names[module], "norm", channels, channels, trained=2))

    def other(kind: Kind, channels: int, px: Sides) -> None:
        before = [s.name for s in found if s.kind == "conv" and s.cout == channels]
        if before:
            found.append(LayerShape(before[-1], kind, channels, channels, px))

    class Others(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Callable[..., object], types: object, args: tuple[Any, ...] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:  # fmt: skip
            output = func(*args, **(kwargs or {}))
            if isinstance(output, torch.Tensor) and output.dim() == 4:
                if func in (aten.add.Tensor, aten.add_.Tensor):
                    other("add", output.shape[1], _sides(*output.shape[-2:]))
                elif func in (aten.mean.dim, aten._adaptive_avg_pool2d.default):
                    other("mean", output.shape[1], _sides(*args[0].shape[-2:]))
            return output

    was_training = model.training
    hooks = [module.register_forward_hook(weighted) for module in model.modules()]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), Others():
            model.eval()(torch.zeros(1, 3, px, px, device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return found
