"""A teacher's answers to stored views, so that the teacher doesn't run while its student learns.

Each training image has a fixed number of augmented views, which take turns, one each epoch. A view
is made again from numbers (`datasets._augment`), so only the answers lie on disk: float16 logits,
all of them for few classes, else the largest and one number for the rest. Files are mapped into
memory, and a batch reads its own rows.

Source: Shen & Xing 2022, "A Fast Knowledge Distillation Framework for Visual Recognition".
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeres.errors import BadInput
from edgeres.training.answers import Teacher
from edgeres.training.feed import Feed
from edgeres.training.views import Raw, Views, ViewSettings

_BATCH = 250
_BATCH_ON_DEVICE = 2000
_SYNC_EVERY_S = 10.0
_ANSWERS, _CLASSES, _LAYOUT, _PROGRESS = "answers.npy", "classes.npy", "labels.json", "done"
FILES = (_ANSWERS, _CLASSES, _LAYOUT)


@dataclass(frozen=True)
class Layout:
    """What a cache holds.

    Attributes:
        views: of each sample.
        seen: what decides the views.
        kept: how many of the classes' logits are stored; the rest of the probability is one more
            number, shared evenly by the other classes ("marginal smoothing" in the paper).
    """

    views: int
    samples: int
    classes: int
    kept: int
    seen: ViewSettings

    @property
    def whole(self) -> bool:
        """Whether every class's logit is stored."""
        return self.kept == self.classes

    @property
    def size_bytes(self) -> int:
        """What the files take on disk, but for a few hundred bytes of headers."""
        a_view = 2 * self.kept if self.whole else 2 * (self.kept + 1) + 2 * self.kept
        return self.views * self.samples * a_view

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        counts = {n: getattr(self, n) for n in ("views", "samples", "classes", "kept")}
        return {**counts, "seen": self.seen.to_json()}

    def sentence(self) -> str:
        """`45,000 images x 8 views, 10 of 10 answers each: 7.2 MB`."""
        return (f"{self.samples:,} images x {self.views} views, {self.kept} of {self.classes} "
                f"answers each: {self.size_bytes / 1e6:,.1f} MB")  # fmt: skip


def build(
    teacher: Teacher,
    views: Views,
    layout: Layout,
    folder: Path,
    tick: Callable[[int, int, str], None],
    device: torch.device | str = "cpu",
) -> None:
    """Ask the teacher about every view; goes on where a call that was killed has stopped.

    Args:
        folder: for the files; what an earlier call with the same arguments left there is used.
        device: where views are made and the teacher is asked.

    Raises:
        BadInput: the teacher gave something that isn't a finite number.
    """
    total = layout.views * layout.samples
    files, done = _files(layout, folder)
    said, saved = layout.sentence(), time.monotonic()
    tick(done, total, said)
    with contextlib.closing(Feed(views, torch.device(device), folder)) as feed:
        for view, chosen, raw in _batches(feed, layout, done):
            answer = teacher.answer(views.made(raw)[0]).cpu().float()
            if not bool(torch.isfinite(answer).all()):
                raise BadInput("the teacher's answers are not finite numbers; use another teacher")
            rows = slice(int(chosen[0]), int(chosen[-1]) + 1)
            for file, values in zip(files, _packed(answer, layout), strict=True):
                file[view, rows] = values
            done += len(chosen)
            if time.monotonic() - saved > _SYNC_EVERY_S or done == total:
                for file in files:
                    file.flush()
                _note_done(folder, done)
                saved = time.monotonic()
            tick(done, total, said)
    (folder / _LAYOUT).write_text(json.dumps(layout.to_json(), indent=1), "utf-8")


def _batches(feed: Feed, layout: Layout, done: int) -> Iterator[tuple[int, Tensor, Raw]]:
    """(view, sample numbers, what the views are made of) of all that is yet to be asked."""
    size = _BATCH if feed.device.type == "cpu" else _BATCH_ON_DEVICE
    for view in range(done // layout.samples, layout.views):
        first = done % layout.samples if view == done // layout.samples else 0
        order = torch.arange(first, layout.samples).split(size)
        for chosen, raw in zip(order, feed.epoch(order, view), strict=True):
            yield view, chosen, raw


class LabelCache:
    """Answers that `build` stored (`views.Answers`).

    Raises:
        BadInput: the folder holds none, or damaged ones.
    """

    def __init__(self, folder: Path):
        try:
            found = json.loads((folder / _LAYOUT).read_text("utf-8"))
            self.layout = Layout(**{**found, "seen": ViewSettings.from_json(found["seen"])})
            self.count = self.layout.views
            self._answers = np.load(folder / _ANSWERS, mmap_mode="r", allow_pickle=False)
            if not self.layout.whole:
                self._classes = np.load(folder / _CLASSES, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{folder}: holds no stored answers ({error!r:.100}); remove the folder "
                           "and run again") from error  # fmt: skip

    def of(self, chosen: Tensor, view: int) -> Tensor:
        """Logits float32 (N, C) of the samples `chosen`, int64 (N,), as seen in a view."""
        rows = chosen.numpy()
        answers = torch.from_numpy(self._answers[view][rows]).float()
        if self.layout.whole:
            return answers
        kept, rest = answers[:, :-1], answers[:, -1:]
        classes = torch.from_numpy(self._classes[view][rows].astype(np.int64))
        return rest.repeat(1, self.layout.classes).scatter_(1, classes, kept)

    def check(self, settings: ViewSettings) -> None:
        """Raise BadInput unless the answers are to these views."""
        if settings != self.layout.seen:
            raise BadInput(
                f"the stored answers are to views with {self.layout.seen.sentence()}; this "
                f"training has {settings.sentence()}; give both the same"
            )


def _packed(answer: Tensor, layout: Layout) -> list[np.ndarray]:
    """Logits (N, C) as the rows of the cache's files."""
    if layout.whole:
        return [answer.half().numpy()]
    top, classes = answer.topk(layout.kept, dim=1)
    others = answer.scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True)
    rest = others - np.log(layout.classes - layout.kept)
    return [torch.cat([top, rest], 1).half().numpy(), classes.numpy().astype(np.uint16)]


def _files(layout: Layout, folder: Path) -> tuple[list[np.memmap], int]:
    """The cache's files, and how many answers an earlier call is known to have stored in them."""
    width = layout.kept if layout.whole else layout.kept + 1
    wanted: list[tuple[Path, type, tuple[int, ...]]] = [
        (folder / _ANSWERS, np.float16, (layout.views, layout.samples, width))
    ]
    if not layout.whole:
        shape = (layout.views, layout.samples, layout.kept)
        wanted.append((folder / _CLASSES, np.uint16, shape))
    try:
        done = int((folder / _PROGRESS).read_text("ascii"))
        files = [np.lib.format.open_memmap(path, mode="r+") for path, _, _ in wanted]
        if all(file.shape == shape for file, (_, _, shape) in zip(files, wanted, strict=True)):
            return files, done
    except (OSError, ValueError):
        pass  # nothing there, or not whole
    return [np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            for path, dtype, shape in wanted], 0  # fmt: skip


def _note_done(folder: Path, done: int) -> None:
    temporary = folder / f"{_PROGRESS}.tmp"
    with temporary.open("w") as stream:
        stream.write(str(done))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / _PROGRESS)
