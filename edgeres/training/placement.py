"""Which device computes, and what fits on it: the one place that decides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgeres.errors import BadInput

_SHARE = 0.5  # of the free memory that data may take


def device_of(name: str, key: str = "train.device") -> torch.device:
    """The device of a recipe's `device`; auto is a CUDA GPU where there is one, else the CPU.

    Args:
        key: what asks for it, for the error.

    Raises:
        BadInput: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise BadInput(f"{key}: there is no CUDA device here; use cpu or auto")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if name == "mps" and not torch.backends.mps.is_available():
        raise BadInput(f"{key}: there is no Apple GPU (mps) here; use cpu or auto")
    return torch.device(name)


@contextmanager
def kernels(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """On a CUDA device, convolutions that give the same bits each time meanwhile.

    Args:
        tf32: whether float32 convolutions may use 10 bits of their inputs' 23.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.allow_tf32
    cudnn.deterministic, cudnn.allow_tf32 = True, tf32
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.allow_tf32 = before


def fits(size_bytes: int, device: torch.device) -> bool:
    """Whether data of this size can stay on a device and leave enough for the training."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        return True
    return size_bytes <= _SHARE * free
