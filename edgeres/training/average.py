"""The moving average of a network's weights, which is what is kept of a training with `ema`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of weights and batch statistics, warmed up like 1/t.

    Args:
        module: on the device where it stays; what isn't a floating-point number is as it is there.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay, self.updates = module, decay, 0
        found = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
        self._values = list(found.values())  # the module's own, which change with it
        self._means = {k: v.clone() for k, v in found.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer's step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._means.values()), self._values, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """What a training needs to go on."""
        return {"state": self._state(), "updates": self.updates}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.updates = saved["updates"]
        for name, mean in self._means.items():
            mean.copy_(saved["state"][name])

    def copy_to_module(self) -> None:
        """Give the module the average for good."""
        self.module.load_state_dict(self._state())

    def applied(self) -> _Swapped:
        """A context in which the module is the average."""
        return _Swapped(self.module, self._state())

    def _state(self) -> dict[str, Tensor]:
        return {**self.module.state_dict(), **self._means}


class _Swapped:
    """Context in which a module carries another state."""

    def __init__(self, module: nn.Module, state: dict[str, Tensor]):
        self.module, self.state = module, state

    def __enter__(self) -> None:
        self.before = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.state)

    def __exit__(self, *_: object) -> None:
        self.module.load_state_dict(self.before)
