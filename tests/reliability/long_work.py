"""Does memory stay flat in long work? A long training, a long benchmark, many runs in one process.

    python tests/reliability/long_work.py                 # 200 epochs, 10,000 queries, 500 runs
    python tests/reliability/long_work.py --epochs 40 --queries 2000 --runs 40

Resident memory of the process that does the work is read after every piece of it (an epoch, a few
milliseconds of queries, a run). The first quarter is warm-up: libraries load, allocators grow. What
counts is how much higher the last fifth is than the first fifth after that (medians).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import psutil  # noqa: E402

RECIPE = """
name: long-work
data: {source: digits, size: 32, calibration: 32}
train: {epochs: 1, batch_size: 128}
teacher: {model: resnet8-w0.25}
quantize: {method: ptq}
export: {targets: [onnx-int8]}
report: {}
"""
_MOST_S = 600.0
_ENDING_S = 0.1  # a process tells its figures and ends


def growth(sizes: Sequence[int]) -> dict[str, Any]:
    """Of resident sizes in bytes, one per piece of work: figures in MB."""
    settled = sizes[len(sizes) // 4 :]
    fifth = max(len(settled) // 5, 1)
    first, last = statistics.median(settled[:fifth]), statistics.median(settled[-fifth:])
    figures = {"first": first, "last": last, "most": max(sizes), "growth": last - first}
    return {"pieces": len(sizes)} | {f"{k}_mb": round(v / 1e6, 2) for k, v in figures.items()}


def training(epochs: int, folder: Path) -> list[int]:
    """Sizes after each epoch; every step's checkpoint is written, too."""
    import torch

    from edgeres.models import resnet, spec
    from edgeres.recipe import TrainSection
    from edgeres.training import keeper, loop, objectives
    from edgeres.training.views import Labelled

    torch.set_num_threads(1)
    assert hasattr(keeper, "EVERY_S") and hasattr(keeper, "_PATIENCE")  # else nothing is set
    keeper.EVERY_S = keeper._PATIENCE = 0
    known = spec.parse("resnet8-w0.25", 10, spec.default_preprocess(8))
    images = torch.randint(0, 256, (256, 3, 8, 8), dtype=torch.uint8)
    labelled = Labelled(images, torch.arange(256) % 10)
    me, sizes = psutil.Process(), []

    def tick(done: int, total: int, note: str) -> None:
        if "val" in note:  # the epoch's last
            sizes.append(me.memory_info().rss)

    settings = TrainSection(epochs=epochs, batch_size=64, ema=0.9)
    loop.fit(
        loop.Trainee.of(resnet.build(known, seed=0), known.preprocess), labelled, labelled,
        settings, objectives.supervised(known.preprocess, 0.0), seed=0, work=folder, tick=tick,
    )  # fmt: skip
    assert len(sizes) == epochs
    return sizes


def runs(count: int, folder: Path) -> list[int]:
    """Sizes after each `edgeres run` in this process; all but the first find every step made."""
    from edgeres.__main__ import main

    (folder / "recipe.yaml").write_text(RECIPE)
    me, sizes = psutil.Process(), []
    sys.argv = ["edgeres", "run", str(folder / "recipe.yaml"), "--runs", str(folder / "runs")]
    with Path(os.devnull).open("w") as nowhere:
        for _ in range(count):
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                try:
                    main()
                except SystemExit as stop:
                    if stop.code:
                        raise
            sizes.append(me.memory_info().rss)
    return sizes


def queries(count: int, folder: Path) -> list[int]:
    """Sizes of the measuring process while it answers, every few ms.

    Args:
        folder: where `runs` has left an exported file.
    """
    import numpy as np

    from edgeres import devices
    from edgeres.measurement import runners

    (model,) = folder.glob("runs/*/artifacts/export-onnx-int8/*.onnx")
    work = folder / "queries"
    work.mkdir()
    inputs = np.zeros((16, 3, 32, 32), np.uint8)
    profile = devices.load("host")
    runner = runners.of(profile, model)
    assert runner
    preset = runners.Preset(min_queries=count, min_seconds=0, max_seconds=_MOST_S)
    with devices.open_device(profile) as device, _watched() as sizes:
        unused: Any = None
        loaded = runner.load(device, runners.Work(model, inputs, unused, unused, 1, work))
        session = loaded.session(preset)
        end = time.monotonic() - _ENDING_S
    begin = end - sum(session.samples_ns) / 1e9
    measured = [size for at, size in sizes if begin < at < end]
    assert len(session.samples_ns) >= count
    return measured


@contextlib.contextmanager
def _watched() -> Iterator[list[tuple[float, int]]]:
    """When, and the size of the largest process that was started here, every few ms."""
    me, done = psutil.Process(), threading.Event()
    sizes: list[tuple[float, int]] = []

    def watch() -> None:
        while not done.wait(0.005):
            with contextlib.suppress(psutil.Error):
                found = [child.memory_info().rss for child in me.children(recursive=True)]
                sizes.extend([(time.monotonic(), max(found))] if found else [])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def main() -> int:
    """The command line; 0 if nothing grew by more than `--most-mb`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--most-mb", type=float, default=8.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found, seconds = {}, {}
        for work, count in (
            (training, given.epochs), (runs, given.runs), (queries, given.queries),
        ):  # fmt: skip
            begin = time.monotonic()
            found[work.__name__] = growth(work(count, folder)) | {"asked": count}
            seconds[work.__name__] = round(time.monotonic() - begin, 1)
    print(json.dumps({**found, "seconds": seconds}, indent=1))
    return int(any(row["growth_mb"] > given.most_mb for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
