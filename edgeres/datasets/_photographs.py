"""Photographs that stay files until a training looks at them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeres.datasets._decoder import Reasons, fill
from edgeres.datasets._decoding import Wanted
from edgeres.datasets._listed import Listed
from edgeres.datasets._skipped import Skipped
from edgeres.errors import BadInput
from edgeres.types import Resize

_MOST_WORKERS = 8


class Photographs:
    """Images uint8 (N, 3, size_px, size_px) of a training split, in files below a folder.

    Taken by number, they are what the rule shows, decoded here.

    Attributes:
        labels: int64 (N,).
        skip: whether a picture that can't be used is to be replaced, and doesn't stop the work.
        workers: processes that decode for a training.
    """

    dtype = torch.uint8

    def __init__(
        self, folder: Path, listed: Listed, labels: Tensor, rule: Resize, skip: bool = False,
        workers: int | None = None,
    ):  # fmt: skip
        self.labels, self.rule, self.skip = labels, rule, skip
        self.workers = _cores() if workers is None else workers
        self._folder = os.fsencode(folder)
        self._listed = Listed(*(np.asarray(array) for array in listed))

    def __len__(self) -> int:
        return len(self._listed.ends)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As a tensor's."""
        return (len(self), 3, self.rule.size_px, self.rule.size_px)

    def __getitem__(self, chosen: slice | Sequence[int] | Tensor) -> Tensor:
        """What the rule shows of some of them, or of the next of the class that can be used.

        Args:
            chosen: a slice, or numbers.

        Raises:
            BadInput: one of them can't be used, and isn't to be replaced.
        """
        samples = np.arange(len(self))[chosen].tolist()
        wanted, skipped = self.wanted(samples), Skipped(None)
        images, reasons = self.decoded(wanted)
        for row, why in reasons.items():
            self.skipped(wanted[row], why, skipped)
            for other in self.others(samples[row]):
                instead = self.wanted([other])
                images[row], bad = self.decoded(instead)
                if not bad:
                    break
                self.skipped(instead[0], bad[0], skipped)
        return images

    def skipped(self, wanted: Wanted, why: str, skipped: Skipped) -> None:
        """Name a picture that is replaced; BadInput where none is to be."""
        if not self.skip:
            raise BadInput(f"{why}, or go on without it: data.on_error=skip")
        name = os.path.relpath(wanted.file, os.fsdecode(self._folder))
        reason, _, _ = why.removeprefix(f"{wanted.file}: ").partition(";")  # behind it is the mend
        skipped.add(name, reason)

    def others(self, sample: int) -> Iterator[int]:
        """The other samples of its class, from the next one on.

        Raises:
            BadInput: at their end, where none of them could be used.
        """
        label = self.labels[sample]
        same = (self.labels == label).nonzero().ravel()
        yield from torch.cat([same[same > sample], same[same < sample]]).tolist()
        raise BadInput(f"none of the {len(same):,} training pictures of class {int(label)} can be "
                       f"used ({self.wanted([sample])[0].file} and others)")  # fmt: skip

    def wanted(self, samples: Sequence[int], pieces: Tensor | None = None) -> list[Wanted]:
        """Some of them as they are asked for.

        Args:
            pieces: of each one, float32 (N, 4); None: what the rule shows.
        """
        drawn = [None] * len(samples) if pieces is None else map(tuple, pieces.tolist())
        return [self._listed.wanted(self._folder, i, piece)
                for i, piece in zip(samples, drawn, strict=True)]  # fmt: skip

    def decoded(self, wanted: Sequence[Wanted]) -> tuple[Tensor, Reasons]:
        """Pictures uint8 (N, 3, H, W), decoded here, and why some rows have none."""
        images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        reasons = fill(images, wanted, self.rule)
        return torch.from_numpy(images), reasons


def _cores() -> int:
    """Processes for this one, where several on this machine share its cores."""
    mine = getattr(os, "sched_getaffinity", None)
    cores = len(mine(0)) if mine else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
