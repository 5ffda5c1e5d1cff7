"""Photographs that stay files until a training looks at them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeres.datasets._decoder import fill
from edgeres.datasets._decoding import Wanted
from edgeres.datasets._listed import Listed
from edgeres.errors import BadInput
from edgeres.types import Resize

_MOST_WORKERS = 8


class Photographs:
    """Images uint8 (N, 3, size_px, size_px) of a training split, in files below a folder.

    Taken by number, they are what the rule shows, decoded here.

    Attributes:
        skip: whether a picture that can't be used is to be replaced, and doesn't stop the work.
        workers: processes that decode for a training.
    """

    dtype = torch.uint8

    def __init__(
        self, folder: Path, listed: Listed, rule: Resize, skip: bool = False,
        workers: int | None = None,
    ):  # fmt: skip
        self.rule, self.skip = rule, skip
        self.workers = _cores() if workers is None else workers
        self._folder = os.fsencode(folder)
        self._listed = Listed(*(np.asarray(array) for array in listed))

    def __len__(self) -> int:
        return len(self._listed.ends)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As a tensor's."""
        return (len(self), 3, self.rule.size_px, self.rule.size_px)

    def __getitem__(self, chosen: Any) -> Tensor:
        """What the rule shows of some of them.

        Args:
            chosen: a slice, or numbers.

        Raises:
            BadInput: one of them can't be used.
        """
        return self.decoded(self.wanted(np.arange(len(self))[chosen].tolist()))

    def wanted(self, samples: Sequence[int], pieces: Tensor | None = None) -> list[Wanted]:
        """Some of them as they are asked for.

        Args:
            pieces: of each one, float32 (N, 4); None: what the rule shows.
        """
        drawn = [None] * len(samples) if pieces is None else map(tuple, pieces.tolist())
        return [self._listed.wanted(self._folder, i, piece)
                for i, piece in zip(samples, drawn, strict=True)]  # fmt: skip

    def decoded(self, wanted: Sequence[Wanted]) -> Tensor:
        """Pictures uint8 (N, 3, H, W), decoded here; BadInput names one that can't be used."""
        images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for reason in fill(images, wanted, self.rule).values():
            raise BadInput(reason)
        return torch.from_numpy(images)

    def below(self, file: str) -> str:
        """A file's name below the folder."""
        return os.path.relpath(file, os.fsdecode(self._folder))


def _cores() -> int:
    """Processes for this one, where several on this machine share its cores."""
    mine = getattr(os, "sched_getaffinity", None)
    cores = len(mine(0)) if mine else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
