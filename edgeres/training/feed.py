"""An epoch's batches, brought to the device that trains without making it wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from edgeres.training import placement
from edgeres.training.views import Raw, Views

_ANSWERS_BYTES = 2**28  # a view's stored answers, as float32, that may be brought at once


class Feed:
    """The raw batches of a split's views.

    On another device than the CPU, the split stays there if it fits, with an epoch's numbers
    brought at its start; else a thread gathers one batch ahead in pinned memory.

    Attributes:
        resident: whether all of it is on the device.
    """

    def __init__(self, views: Views, device: torch.device):
        self.views, self.device = views, device
        split = views.split
        size = split.images.nbytes + 4 * split.labels.nbytes
        self.resident = (
            device.type != "cpu" and placement.fits(size, device) and self._answers_are_few()
        )
        self._images = split.images.to(device) if self.resident else split.images

    def epoch(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        """The batches of these sample numbers, each int64 (N,) on the CPU."""
        if not order:
            return iter(())
        if self.device.type == "cpu":
            return (self._gathered(chosen, view) for chosen in order)
        return self._sliced(order, view) if self.resident else self._ahead(order, view)

    def _answers_are_few(self) -> bool:
        split = self.views.split
        if split.answers is None:
            return True
        one = split.answers.of(torch.zeros(1, dtype=torch.long), 0)
        return len(split.labels) * one.nbytes <= _ANSWERS_BYTES

    def _numbers(self, chosen: Tensor, view: int) -> Raw:
        raw, answers = self.views.numbers(chosen, view), self.views.split.answers
        return raw if answers is None else replace(raw, answer=answers.of(chosen, view))

    def _gathered(self, chosen: Tensor, view: int) -> Raw:
        return self._numbers(chosen, view).with_images(self._images)

    def _sliced(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        whole, first = self._numbers(torch.cat(list(order)), view).to(self.device), 0
        for chosen in order:
            yield whole[first : first + len(chosen)].with_images(self._images)
            first += len(chosen)

    def _ahead(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        on_cuda = self.device.type == "cuda"
        copying = torch.cuda.Stream(self.device) if on_cuda else None

        def gather(chosen: Tensor) -> Raw:
            raw = self._gathered(chosen, view)
            return raw.pinned() if on_cuda else raw

        def bring(raw: Raw) -> Raw:
            if copying is None:
                return raw.to(self.device)
            with torch.cuda.stream(copying):
                return raw.to(self.device, non_blocking=True)

        with ThreadPoolExecutor(1, "batches") as thread:
            coming = thread.submit(gather, order[0])
            for following in [*order[1:], None]:
                pinned = coming.result()
                raw = bring(pinned)
                if following is not None:
                    coming = thread.submit(gather, following)
                if copying is not None:
                    current = torch.cuda.current_stream(self.device)
                    current.wait_stream(copying)
                    for tensor in raw.tensors().values():
                        tensor.record_stream(current)
                yield raw
