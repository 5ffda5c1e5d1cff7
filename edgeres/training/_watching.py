"""One forward pass over a network, watched: what each layer took and gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgeres.models.resnet import PreactBlock, ResidualBlock


@dataclass
class Seen:
    """What one pass showed of each layer."""

    rms: dict[str, float] = field(default_factory=dict)
    peak: dict[str, Tensor] = field(default_factory=dict)  # largest value of each channel
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    entered: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@contextmanager
def watched(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Fill `seen` with what passes through the layers meanwhile."""
    handles = []
    for name, module in model.named_modules():
        if not name:
            continue
        leaf = not list(module.children())
        if leaf or isinstance(module, (ResidualBlock, PreactBlock, nn.Sequential)):
            handles.append(module.register_forward_hook(_note(name, module, seen)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(
    name: str, module: nn.Module, seen: Seen
) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        if not bool(torch.isfinite(output).all()):
            seen.broken.append(name)
        seen.rms[name] = _rms(output)
        if inputs and isinstance(inputs[0], Tensor):
            seen.entered[name] = _rms(inputs[0])
        if output.ndim == 4:
            seen.peak[name] = output.amax(dim=(0, 2, 3))
        if isinstance(module, nn.BatchNorm2d):
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
            seen.moments[name] = (mean, variance)

    return hook


def _rms(x: Tensor) -> float:
    return float(x.float().square().mean().sqrt())
