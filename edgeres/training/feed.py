"""An epoch's batches, brought to the device that trains without making it wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from edgeres.datasets._decoder import Decoder, Reasons
from edgeres.datasets._decoding import Wanted
from edgeres.datasets._photographs import Photographs
from edgeres.datasets._skipped import Skipped
from edgeres.training import placement
from edgeres.training.views import Raw, Views

_ANSWERS_BYTES = 2**28  # a view's stored answers, as float32, that may be brought at once


class Feed:
    """The raw batches of a split's views; `close` ends what brings them.

    On another device than the CPU, the split stays there if it fits, with an epoch's numbers
    brought at its start; else a thread gathers one batch ahead in pinned memory. Photographs are
    decoded by processes beforehand; they never stay on a device.

    Args:
        work: folder that keeps which photographs were replaced.

    Attributes:
        resident: whether all of it is on the device.
    """

    def __init__(self, views: Views, device: torch.device, work: Path | None = None):
        self.views, self.device = views, device
        self._images, self.resident = views.split.images, False
        self._decoder: Decoder | None = None
        if isinstance(self._images, Photographs):
            self._skipped = Skipped(work)
            return
        size = self._images.nbytes + 4 * views.split.labels.nbytes
        self.resident = (
            device.type != "cpu" and placement.fits(size, device) and self._answers_are_few()
        )
        if self.resident:
            self._images = self._images.to(device)

    def epoch(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        """The batches of these sample numbers, each int64 (N,) on the CPU."""
        if not order:
            return iter(())
        if self.resident:
            return self._sliced(order, view)
        if self.device.type == "cpu":
            return self._gathered(order, view)
        return self._ahead(order, view)

    def close(self) -> None:
        """End the processes that decode, if there are any."""
        if self._decoder is not None:
            self._decoder.close()

    def _answers_are_few(self) -> bool:
        split = self.views.split
        if split.answers is None:
            return True
        one = split.answers.of(torch.zeros(1, dtype=torch.long), 0)
        return len(split.labels) * one.nbytes <= _ANSWERS_BYTES

    def _numbers(self, chosen: Tensor, view: int) -> Raw:
        raw, answers = self.views.numbers(chosen, view), self.views.split.answers
        return raw if answers is None else replace(raw, answer=answers.of(chosen, view))

    def _gathered(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        if isinstance(self._images, Photographs):
            return self._decoded(order, view, self._images)
        return (self._numbers(chosen, view).with_images(self._images) for chosen in order)

    def _decoded(self, order: Sequence[Tensor], view: int, images: Photographs) -> Iterator[Raw]:
        if self._decoder is None:
            each = 1 if self.views.settings.mix is None else 2
            batch = each * max(map(len, order))
            self._decoder = Decoder(images.rule, images.workers, batch)
        raws: deque[Raw] = deque()

        def wanted() -> Iterator[list[Wanted]]:
            for chosen in order:
                raws.append(self._numbers(chosen, view))
                yield self.views.wanted(raws[-1])

        for pixels, reasons in self._decoder.batches(wanted()):
            raw = raws.popleft().with_decoded(torch.from_numpy(pixels))
            yield self._replaced(raw, view, reasons, images) if reasons else raw

    def _replaced(self, raw: Raw, view: int, reasons: Reasons, images: Photographs) -> Raw:
        """A batch without the photographs that can't be used.

        A sample of one, or mixed with one, becomes the next sample of its class that can be shown
        in this view: its number, and so its changes, partner and answer.

        Raises:
            BadInput: such a photograph stops the training, or no other of its class can be used.
        """
        wanted, rows = self.views.wanted(raw), raw.clone()
        for row, why in sorted(reasons.items()):
            images.skipped(wanted[row], why, self._skipped)
        for row in sorted({row % len(raw) for row in reasons}):
            other = self._next(int(raw.samples[row]), view, images)
            for name, x in other.tensors().items():
                if name != "keys":
                    rows.tensors()[name][row] = x[0]
        return rows

    def _next(self, sample: int, view: int, images: Photographs) -> Raw:
        for other in images.others(sample):
            raw = self._numbers(torch.tensor([other]), view)
            wanted = self.views.wanted(raw)
            pixels, reasons = images.decoded(wanted)
            if not reasons:
                break
            for row, why in reasons.items():
                images.skipped(wanted[row], why, self._skipped)
        return raw.with_decoded(pixels)

    def _sliced(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        whole, first = self._numbers(torch.cat(list(order)), view).to(self.device), 0
        for chosen in order:
            yield whole[first : first + len(chosen)].with_images(self._images)
            first += len(chosen)

    def _ahead(self, order: Sequence[Tensor], view: int) -> Iterator[Raw]:
        raws, on_cuda = self._gathered(order, view), self.device.type == "cuda"
        copying = torch.cuda.Stream(self.device) if on_cuda else None

        def gather() -> Raw | None:
            raw = next(raws, None)
            return raw.pinned() if raw is not None and on_cuda else raw

        def bring(raw: Raw) -> Raw:
            if copying is None:
                return raw.to(self.device)
            with torch.cuda.stream(copying):
                return raw.to(self.device, non_blocking=True)

        with ThreadPoolExecutor(1, "batches") as thread:
            coming = thread.submit(gather)
            while (gathered := coming.result()) is not None:
                raw = bring(gathered)
                coming = thread.submit(gather)
                if copying is not None:
                    current = torch.cuda.current_stream(self.device)
                    current.wait_stream(copying)
                    for tensor in raw.tensors().values():
                        tensor.record_stream(current)
                yield raw
