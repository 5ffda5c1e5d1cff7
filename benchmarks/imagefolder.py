"""How fast photographs are decoded: for storage, and for a training that leaves them files.

    .venv/bin/python benchmarks/imagefolder.py FOLDER [--px 224] [--count 1400]
    .venv/bin/python benchmarks/imagefolder.py FOLDER --training [--workers 2] [--rounds 21]
        [--enlarged 500]

FOLDER is as for `data: imagefolder:FOLDER`. In the first form each way of decoding takes the same
pictures in turn, three times in a shuffled order; printed are the median and the range. One worker
is this process itself; the time of two has the start of both in it, and what it takes to fetch the
images from them.

In the second, epochs of resized-crop, flip and normalization, to float32 batches of 64: `edgeres`
with `data.storage: jpeg`; torchvision's ImageFolder, RandomResizedCrop (of the same areas), flip,
ToTensor, Normalize and DataLoader; and the same with bytes that are normalized a batch at a time.
Each round takes an epoch of each way in a shuffled order, the processes of all having been started;
a ratio is the median over rounds of the round's own, with its middle half. Then the most memory in
each of three epochs of `edgeres`, of processes that do nothing else. torchvision (any build; its
compiled operators aren't needed) is imported from `.venv-zoo`, where `make test` puts it.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeres.datasets import _decoding, _hashes, _listed, _splits, imagefolder
from edgeres.datasets._photographs import Photographs
from edgeres.datasets._pictures import Pictures
from edgeres.training.feed import Feed
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled, Views, ViewSettings
from edgeres.types import Preprocess, Resize

ROUNDS, BATCH = 3, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ZOO = Path(__file__).parents[1] / ".venv-zoo"
_COMPILED = ("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward",
             "ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward",
             "deform_conv2d", "_deform_conv2d_backward")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--count", type=int, default=1400)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--enlarged", type=int, help="short side that pictures are enlarged to")
    given = parser.parse_args()
    if not given.training:
        stored(given)
        return
    torch.set_num_threads(1)
    if given.enlarged is None:
        trained_on(given, given.folder / "train")
        return
    with tempfile.TemporaryDirectory() as folder:
        enlarged(given.folder / "train", Path(folder), given.enlarged)
        trained_on(given, Path(folder))


def stored(given: argparse.Namespace) -> None:
    """The ways of decoding for storage."""
    files = list(imagefolder.sources(given.folder))[: given.count]
    ways = [(workers, margin) for workers in (1, 2) for margin in (None, _decoding.DRAFT_MARGIN)]
    found: dict[tuple[int, float | None], list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for workers, margin in random.sample(ways, len(ways)):
            decode = functools.partial(_decoding.decode, draft_margin=margin)
            pictures = Pictures(files, given.px, decode)
            begin = time.perf_counter()
            for _ in pictures.batches(workers):
                pass
            found[workers, margin].append(len(files) / (time.perf_counter() - begin))
    print(f"{len(files)} pictures to {given.px} px, {ROUNDS} rounds, images/s: median (range)")
    for (workers, margin), rates in found.items():
        draft = "draft" if margin else "whole"
        print(f"{workers} workers, {draft}: {statistics.median(rates):.0f} "
              f"({min(rates):.0f}-{max(rates):.0f})")  # fmt: skip


def trained_on(given: argparse.Namespace, folder: Path) -> None:
    """The ways of a training, then the memory of ours."""
    ours, feed = edgeres(folder, given.px, given.workers)
    ways = {"edgeres": ours, **torchvision(folder, given.px, given.workers)}
    order = list(ways)
    for name in reversed(order):  # theirs are forked: before ours has threads
        warm_up = ways[name](0)
        shape = next(warm_up).shape
        assert shape == (BATCH, 3, given.px, given.px)
        count = BATCH + sum(map(len, warm_up))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(1, given.rounds + 1):
        for name in random.sample(order, len(order)):
            begin = time.perf_counter()
            assert sum(map(len, ways[name](epoch))) == count
            rates[name].append(count / (time.perf_counter() - begin))
    feed.close()
    print(f"{count} pictures, resized-crop to {given.px} px, {given.workers} workers, "
          f"{given.rounds} rounds, images/s: median (range)")  # fmt: skip
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})")
        if name != "edgeres":
            ratios = [a / b for a, b in zip(rates["edgeres"], found, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"  edgeres is {middle:.2f}x ({low:.2f}-{high:.2f})")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        before, peaks = pool.submit(memory, folder, given.px, given.workers).result()
    print(f"memory before {before:.0f} MB; most in each of 3 epochs, with its {given.workers} "
          f"workers: {', '.join(f'{peak:.0f}' for peak in peaks)} MB")  # fmt: skip


def edgeres(folder: Path, px: int, workers: int) -> tuple[Callable[[int], Iterator[Any]], Feed]:
    """Epoch -> float32 batches; and what brings them."""
    files = sorted(folder.glob("*/*.*"))
    hashes, rule = _hashes.Hashes(None), Resize.of(px)
    listed = _listed.listed(Pictures(files, px, _decoding.decode), folder, hashes)
    names = sorted({file.parent for file in files})
    labels = torch.tensor([names.index(file.parent) for file in files])
    split = Labelled(Photographs(folder, listed, labels, rule, workers=workers), labels)
    views = Views(split, ViewSettings(0, ("resized-crop", "flip")))
    feed, preprocess = Feed(views, torch.device("cpu")), Preprocess(px, MEAN, STD)

    def epoch(number: int) -> Iterator[Any]:
        order = torch.from_numpy(_splits.order(split.labels.numpy(), number)).split(BATCH)
        for raw in feed.epoch(order, number):
            yield prepared(views.made(raw)[0], preprocess)

    return epoch, feed


def torchvision(folder: Path, px: int, workers: int) -> dict[str, Callable[[int], Iterator[Any]]]:
    """Way -> epoch -> float32 batches, as torchvision's examples have them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _COMPILED:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    sys.path.append(str(_ZOO))
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    cut = [transforms.RandomResizedCrop(px, (_decoding.LEAST_AREA, 1)),
           transforms.RandomHorizontalFlip()]  # fmt: skip
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (MEAN, STD))

    def loader(*more: Any) -> Any:
        data = datasets.ImageFolder(str(folder), transforms.Compose([*cut, *more]))
        return DataLoader(data, BATCH, shuffle=True, num_workers=workers,
                          persistent_workers=True)  # fmt: skip

    floats = loader(transforms.ToTensor(), transforms.Normalize(MEAN, STD))
    pixels = loader(transforms.PILToTensor())
    layout = torch.channels_last

    def plain(number: int) -> Iterator[Any]:
        for images, _ in floats:
            yield images.contiguous(memory_format=layout)

    def by_bytes(number: int) -> Iterator[Any]:
        for images, _ in pixels:
            yield images.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=layout)

    return {"torchvision": plain, "torchvision, normalized by batches": by_bytes}


def memory(folder: Path, px: int, workers: int) -> tuple[float, list[float]]:
    """MB of a process and those that decode for it: before, and at most in each of three epochs."""
    import psutil

    def now() -> float:
        every = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(process.memory_full_info().pss for process in every) / 1e6

    torch.set_num_threads(1)
    before, peaks = now(), list[float]()
    epoch, feed = edgeres(folder, px, workers)
    for number in range(3):
        peaks.append(max(now() for _ in epoch(number)))
    feed.close()
    return before, peaks


def enlarged(folder: Path, into: Path, short_px: int) -> None:
    """Copies of pictures with a longer short side, and as many bits per pixel as photographs."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for file in sorted(folder.glob("*/*.*")):
        with Image.open(file) as image:
            scale = short_px / min(image.size)
            size = [round(side * scale) for side in image.size]
            large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        grain = noise.normal(0, 4, large.shape)
        to = into / file.parent.name / file.name
        to.parent.mkdir(exist_ok=True)
        Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(to, quality=90)


if __name__ == "__main__":
    main()
