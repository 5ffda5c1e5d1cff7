"""A small network of ours beside other tools' int8 files of a large one: accuracy, and time.

    .venv/bin/python benchmarks/same_accuracy.py --data data/cifar10 --weights data/weights \\
        [--network resnet56] [--ours pretrained:cifar10-resnet20-int8] [--rounds 60]

The large one is akamaster's, quantized by each tool for TFLite as its documentation says, with 512
training images to calibrate. All files run in turn, in random order, in one process with one
thread, batch 1. Printed: top-1 on the 10,000 test images with its 95 % Wilson interval, the images
that only one gets right with McNemar's exact p, the median time, and our time over each file's: the
median over rounds with the 2.5th and 97.5th percentile of 2,000 bootstrap samples of the rounds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import peers
import torch
from _bursts import in_turn, ratio, session
from _cifar_networks import arguments, calibration, network, splits

from edgeres.compression.given import held
from edgeres.network.from_tflite import from_tflite
from edgeres.statistics import mcnemar, wilson
from edgeres.teachers import pretrained
from edgeres.training.inference import prepared
from edgeres.types import Preprocess

OURS = "ours"


def main() -> None:
    """Make the files, time them, run the test set, print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--ours", default="pretrained:cifar10-resnet20-int8")
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    torch.manual_seed(0)
    train, _, test = splits(given.data)
    large = network(given.weights, given.network)
    own = pretrained.path(given.ours.removeprefix("pretrained:"))
    read = from_tflite(own, 32)
    assert read.integers is not None
    preprocess = {OURS: held(read.module, read.integers)[0].spec.preprocess}
    with tempfile.TemporaryDirectory() as folder:
        files = peers._files("tflite", large, calibration(train), Path(folder))
        files = {OURS: own} | {f"{given.network}, {tool}": path for tool, path in files.items()}
        sessions = {name: session(path) for name, path in files.items()}
        times = in_turn(sessions, given.rounds)
        labels = test.labels.numpy()
        right = {name: _right(path, preprocess.get(name, large.spec.preprocess), test.images,
                              labels) for name, path in files.items()}  # fmt: skip
    print(f"{given.ours}, n = {len(labels)}, {given.rounds} rounds")
    for name in files:
        low, high = wilson(int(right[name].sum()), len(labels))
        line = (f"{name:<32} {right[name].mean():.2%} ({low:.1%}-{high:.1%})  "
                f"{np.median(times[name]):.3f} ms")  # fmt: skip
        if name != OURS:
            middle, least, most = ratio(times[OURS], times[name])
            lost = int((right[name] & ~right[OURS]).sum())
            won = int((right[OURS] & ~right[name]).sum())
            line += (f"  ours {middle:.3f}x ({least:.3f}-{most:.3f}), {lost} lost, {won} won, "
                     f"p = {mcnemar(lost, won):.2f}")  # fmt: skip
        print(line, flush=True)


def _right(
    path: Path, preprocess: Preprocess, images: torch.Tensor, labels: np.ndarray
) -> np.ndarray:
    """(N,), which images a file gets right."""
    loaded = session(path)
    parts = [loaded.logits(prepared(part, preprocess).contiguous().numpy())
             for part in images.split(1000)]  # fmt: skip
    return np.asarray(np.concatenate(parts).argmax(1) == labels)


if __name__ == "__main__":
    main()
