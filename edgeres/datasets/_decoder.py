"""Batches of pictures, decoded beforehand by processes, in order.

A picture's pixels are decided by its file and by numbers that were drawn for it. So they are the
same in any batch and by any number of processes.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Any

from edgeres.datasets import _pictures
from edgeres.datasets._decoding import DRAFT_MARGIN, Wanted, decode_listed
from edgeres.errors import BadInput
from edgeres.types import Resize

if TYPE_CHECKING:
    import numpy as np

_PART = 16  # pictures that a process is given at once, and at most
_PART_BYTES = 4 << 20  # so much of their pixels

Reasons = dict[int, str]
"""Row of a batch -> why its picture can't be used."""


def fill(images: np.ndarray, wanted: Sequence[Wanted], rule: Resize) -> Reasons:
    """Decode pictures into uint8 (N, 3, H, W), in this process."""
    reasons: Reasons = {}
    for row, one in enumerate(wanted):
        try:
            images[row] = decode_listed(one, rule, DRAFT_MARGIN).transpose(2, 0, 1)
        except BadInput as error:
            images[row] = 0
            reasons[row] = str(error)
    return reasons


class Decoder:
    """Processes that decode photographs for one training; they end with `close`.

    They write the pixels into memory that they share with this one, which holds a batch and two
    parts for each of them, whatever the number of pictures.

    Args:
        workers: how many; 0: this process itself decodes, when it is asked.
        batch: pictures of the largest batch.
    """

    def __init__(self, rule: Resize, workers: int, batch: int):
        import numpy as np

        self._rule, self._shape = rule, (3, rule.size_px, rule.size_px)
        size = int(np.prod(self._shape))
        self._part = max(1, min(_PART, _PART_BYTES // size))
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            parts = -(-batch // self._part) + 2 * workers
            shared = _pictures.SPAWN.RawArray(ctypes.c_uint8, parts * self._part * size)
            self._slots = _slots(shared, self._part, self._shape)
            arguments = (shared, self._part, self._shape, self._rule)
            self._pool = _pictures.started(workers, _prepare, arguments)

    def batches(self, wanted: Iterable[list[Wanted]]) -> Iterator[tuple[np.ndarray, Reasons]]:
        """Each batch decoded, uint8 (N, 3, H, W), in order; the next ones meanwhile.

        Raises:
            BadInput: a process died.
        """
        import numpy as np

        if self._pool is None:
            for batch in wanted:
                images = np.empty((len(batch), *self._shape), np.uint8)
                reasons = fill(images, batch, self._rule)
                yield images, reasons
            return
        parts = ((len(batch), batch[first : first + self._part])
                 for batch in wanted for first in range(0, len(batch), self._part))  # fmt: skip
        free = deque(range(len(self._slots)))
        waiting: deque[tuple[int, int, int, Future[Reasons]]] = deque()
        images, reasons, done = np.empty((0, *self._shape), np.uint8), Reasons(), 0
        try:
            with _pictures.broken_pool():
                while True:
                    for whole, part in islice(parts, len(free)):
                        slot = free.popleft()
                        future = self._pool.submit(_decode, slot, part)
                        waiting.append((whole, len(part), slot, future))
                    if not waiting:
                        return
                    whole, count, slot, future = waiting.popleft()
                    found = future.result()
                    if not done:
                        images, reasons = np.empty((whole, *self._shape), np.uint8), {}
                    images[done : done + count] = self._slots[slot, :count]
                    free.append(slot)
                    reasons |= {done + row: why for row, why in found.items()}
                    done += count
                    if done == whole:
                        done = 0
                        yield images, reasons
        finally:  # nobody writes into the memory when the next batches are asked for
            wait([future for *_, future in waiting if not future.cancel()])

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _slots(shared: Any, part: int, shape: Sequence[int]) -> np.ndarray:
    """Shared memory as uint8 (slots, part, 3, H, W)."""
    import numpy as np

    return np.frombuffer(shared, np.uint8).reshape(-1, part, *shape)


_mine: tuple[np.ndarray, Resize] | None = None  # in a process that decodes


def _prepare(shared: Any, part: int, shape: Sequence[int], rule: Resize) -> None:
    global _mine
    _mine = _slots(shared, part, shape), rule


def _decode(slot: int, wanted: Sequence[Wanted]) -> Reasons:
    assert _mine is not None
    slots, rule = _mine
    return fill(slots[slot], wanted, rule)
