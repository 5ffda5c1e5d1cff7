"""How fast a training goes, in words for whoever waits."""

from __future__ import annotations

import time

import torch

_EVERY_S = 1.0


class Pace:
    """Images per second since it was made, and the GPU's memory; worked out once a second.

    Args:
        images: in a batch, of all processes.
    """

    def __init__(self, images: int, device: torch.device):
        self._images, self._device = images, device
        self._steps, self._begin = 0, time.monotonic()
        self._said, self._next = "", self._begin + _EVERY_S

    def step(self) -> str:
        """After a step: `, 1,240 images/s, GPU 3.1 GB`; empty in the first second."""
        self._steps, now = self._steps + 1, time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_S
            rate = self._steps * self._images / (now - self._begin)
            self._said = f", {rate:,.0f} images/s{self._memory()}"
        return self._said

    def _memory(self) -> str:
        if self._device.type != "cuda":
            return ""
        return f", GPU {torch.cuda.max_memory_reserved(self._device) / 1e9:.1f} GB"
