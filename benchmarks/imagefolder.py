"""How fast pictures are decoded: images per second, with one process and two, with JPEG's draft.

    .venv/bin/python benchmarks/imagefolder.py FOLDER [--px 224] [--count 1400]

FOLDER is as for `data: imagefolder:FOLDER`. Each way takes the same pictures in turn, three times
in a shuffled order; printed are the median and the range. One worker is this process itself; the
time of two has the start of both in it, and what it takes to fetch the images from them.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import time
from pathlib import Path

from edgeres.datasets import _decoding, imagefolder
from edgeres.datasets._pictures import Pictures

ROUNDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--count", type=int, default=1400)
    given = parser.parse_args()
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


if __name__ == "__main__":
    main()
