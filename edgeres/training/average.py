"""The moving average of a network's weights, which is what is kept of a training with `ema`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of weights and batch statistics, warmed up like 1/t."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.state = {k: v.clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """After an optimizer's step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on."""
        return {"state": self.state, "updates": self.updates}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.updates = saved["updates"]
        for name, value in saved["state"].items():
            self.state[name].copy_(value)

    def copy_to(self, module: nn.Module) -> None:
        """Give the module the average for good."""
        module.load_state_dict(self.state)

    def applied(self, module: nn.Module) -> _Swapped:
        """A context in which the module is the average."""
        return _Swapped(module, self.state)


class _Swapped:
    """Context in which a module carries another state."""

    def __init__(self, module: nn.Module, state: dict[str, Tensor]):
        self.module, self.state = module, state

    def __enter__(self) -> None:
        self.before = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.state)

    def __exit__(self, *_: object) -> None:
        self.module.load_state_dict(self.before)
