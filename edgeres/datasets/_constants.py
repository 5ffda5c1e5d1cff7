"""Small tensors of fixed numbers, brought to a device once."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """float32 (len(values),) on the device of `like`.

    Anew each time on a CPU, where it costs nothing; elsewhere a copy would wait for the device.
    """
    if like.device.type == "cpu":
        return torch.tensor(values, dtype=torch.float32)
    return _kept(values, like.device)


@functools.lru_cache(maxsize=256)
def _kept(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
