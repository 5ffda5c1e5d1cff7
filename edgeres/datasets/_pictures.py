"""Picture files as images of which only a few at a time are decoded, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import file_sha256
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

BATCH_BYTES = 4 << 20
"""What a batch of decoded images takes at most (but for a single larger image)."""
_WORKERS = min(8, os.cpu_count() or 1)
_FEW = 256  # so many are decoded before the processes have started
_AHEAD = 2  # batches per process that wait to be fetched
SPAWN = multiprocessing.get_context("spawn")
_Decoded = tuple["np.ndarray", list[str]]  # images, and why others have none
_MOST_NAMED = 20


class Undecodable(BadInput):
    """Pictures that can't be used.

    Attributes:
        reasons: of each, its file's name and why.
    """

    def __init__(self, reasons: Sequence[str]):
        self.reasons = list(reasons)
        named = "; ".join(self.reasons[:_MOST_NAMED])
        more = len(self.reasons) - _MOST_NAMED
        count = f"{len(self.reasons):,} pictures can't be used: " if len(self.reasons) > 1 else ""
        super().__init__(count + named + (f"; and {more:,} more" if more > 0 else ""))


@dataclass(frozen=True)
class Pictures:
    """Images uint8 (N, size_px, size_px, 3) RGB that are decoded when they are asked for.

    Attributes:
        decode: (file, size_px) -> uint8 (size_px, size_px, 3); a function of a module, since it is
            sent to other processes. BadInput names the file that can't be decoded.
    """

    files: Sequence[Path]
    size_px: int
    decode: Callable[[Path, int], np.ndarray]

    dtype = "uint8"

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As an array's."""
        return (len(self.files), self.size_px, self.size_px, 3)

    def __getitem__(self, chosen: np.ndarray) -> Pictures:
        """Some of them, by number; none is decoded by this."""
        return Pictures([self.files[i] for i in chosen], self.size_px, self.decode)

    def batches(self, workers: int | None = None) -> Iterator[np.ndarray]:
        """All of them in order, whatever the number of processes that decode them.

        At most `2 * workers` batches of 4 MB and those in the workers' hands are in memory.

        Raises:
            Undecodable: pictures can't be decoded; the others have been, to name all of these.
            BadInput: a process died.
        """
        workers = _WORKERS if workers is None else workers
        each = max(1, BATCH_BYTES // (3 * self.size_px**2))
        work = partial(_decoded, self.decode, self.size_px)
        parts = (self.files[i : i + each] for i in range(0, len(self.files), each))
        alone = workers < 2 or len(self.files) <= _FEW
        reasons: list[str] = []
        for images, said in map(work, parts) if alone else _spread(work, parts, workers):
            reasons += said
            if not reasons:
                yield images
        if reasons:
            raise Undecodable(reasons)


def batches(images: np.ndarray | Pictures) -> Iterator[np.ndarray]:
    """uint8 (<= n, H, W, 3), C-contiguous, one after the other, of an array or of `Pictures`."""
    import numpy as np

    if isinstance(images, Pictures):
        yield from images.batches()
        return
    each = max(1, BATCH_BYTES // max(1, images[:1].nbytes))
    for i in range(0, len(images), each):
        yield np.ascontiguousarray(images[i : i + each])


def same_files(first: object, second: object) -> dict[int, int]:
    """Numbers of pictures of the first that are also of the second, to the byte: -> theirs.

    The pixels of one file may differ, where it is decoded in another way. Only files of equal
    size are read; arrays have no files.
    """
    if not isinstance(first, Pictures) or not isinstance(second, Pictures):
        return {}
    sizes = [[file.stat().st_size for file in each.files] for each in (first, second)]
    both = set(sizes[0]) & set(sizes[1])
    known = {file_sha256(second.files[i]): i for i, n in enumerate(sizes[1]) if n in both}
    return {i: known[digest] for i, n in enumerate(sizes[0])
            if n in both and (digest := file_sha256(first.files[i])) in known}  # fmt: skip


def first(
    pictures: Pictures, order: Sequence[int], count: int, skip: bool
) -> tuple[list[int], np.ndarray, list[str]]:
    """The first pictures of an order, decoded here.

    Args:
        skip: pass over those that can't be decoded.

    Returns:
        Which they are, their pixels uint8 (<= count, H, W, 3), and why others were passed over.

    Raises:
        BadInput: one can't be decoded, or none can.
    """
    import numpy as np

    chosen, images, reasons = list[int](), list[np.ndarray](), list[str]()
    for i in order:
        if len(chosen) == count:
            break
        try:
            images.append(pictures.decode(pictures.files[i], pictures.size_px))
            chosen.append(i)
        except BadInput as error:
            if not skip:
                raise BadInput(f"{error}, or go on without it: data.on_error=skip") from error
            reasons.append(f"not used to calibrate: {error}")
    if not chosen:
        raise Undecodable(reasons)
    return chosen, np.stack(images), reasons


def whole(images: np.ndarray | Pictures) -> np.ndarray:
    """All of them in memory, uint8 (N, H, W, 3)."""
    import numpy as np

    if not isinstance(images, Pictures):
        return np.asarray(images)
    found, at = np.empty(images.shape, np.uint8), 0
    for batch in images.batches():
        found[at : at + len(batch)] = batch
        at += len(batch)
    return found


def _decoded(decode: Callable[[Path, int], np.ndarray], px: int, files: Sequence[Path]) -> _Decoded:
    import numpy as np

    images, reasons = [np.empty((0, px, px, 3), np.uint8)], []
    for file in files:
        try:
            images.append(decode(file, px)[None])
        except BadInput as error:
            reasons.append(str(error))
    return np.concatenate(images), reasons


def _spread(
    work: Callable[[Sequence[Path]], _Decoded], parts: Iterator[Sequence[Path]], workers: int
) -> Iterator[_Decoded]:
    """`map(work, parts)` by some processes, in order and with a bounded lead."""
    with started(workers) as pool, broken_pool():
        waiting: deque[Future[_Decoded]] = deque()
        try:
            waiting.extend(pool.submit(work, part) for part in islice(parts, _AHEAD * workers))
            while waiting:
                decoded = waiting.popleft().result()
                waiting.extend(pool.submit(work, part) for part in islice(parts, 1))
                yield decoded
        finally:
            pool.shutdown(cancel_futures=True)


def started(
    workers: int, prepare: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()
) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to this one, and end with it, however it ends.

    They are started afresh: a copy of this one could inherit a lock that a thread holds.

    Args:
        prepare: called in each of them first, with `arguments`.
    """
    pool = ProcessPoolExecutor(workers, SPAWN, _prepare_worker, (prepare, arguments))
    # What a thread blocks, its children begin with; Ctrl-C could come before they are prepared.
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        for _ in range(workers):
            pool.submit(int)
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)
    return pool


@contextmanager
def broken_pool() -> Iterator[None]:
    """A process that died, in a sentence (BadInput)."""
    try:
        yield
    except BrokenProcessPool as error:
        raise BadInput(
            "a process that decodes pictures ended by itself: memory may have run out, or a "
            'script started edgeres without `if __name__ == "__main__":`'
        ) from error


def _prepare_worker(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if prepare is not None:
        prepare(*arguments)
