"""What post-training quantization costs in accuracy, over calibration seeds, on the full test set.

    .venv/bin/python benchmarks/ptq_seeds.py --data data/cifar10 \\
        --weights data/weights [--seeds 5] [--network resnet20] \\
        [--ranges mse min-max]

Each seed draws 512 training images, calibrates, and writes a tflite-int8 file; all 10,000 test
images run through it and through the float network. Printed per seed: both accuracies with Wilson
intervals, the drop in points with its paired interval, McNemar's exact p-value, and what to choose
among methods by: the signal-to-noise ratio of the logits on 1,000 validation images.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from _cifar_networks import arguments, calibration, network, splits

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.models.resnet import ResNet
from edgeres.statistics import mcnemar, paired_difference, wilson
from edgeres.training.inference import evaluate, predict, prepared
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled

_CHUNK = 500
_VALIDATION = 1000


def main() -> None:
    """Calibrate, export, run and print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", action="append", choices=["resnet20", "resnet56"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ranges", nargs="+", default=["mse"])
    parser.add_argument("--images", type=int, default=10_000, help="of the test set, the first")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    train, validation, test = splits(given.data)
    test = Labelled(test.images[: given.images], test.labels[: given.images])
    rows = []
    for name in given.network or ["resnet20", "resnet56"]:
        model = network(given.weights, name)
        trainee = Trainee.of(model, model.spec.preprocess)
        right = (evaluate(trainee, test)[1].argmax(1) == test.labels).numpy()
        for ranges in given.ranges:
            found = [_seed(model, train, validation, test, seed, ranges, right)
                     for seed in range(given.seeds)]  # fmt: skip
            rows += [{"network": name, "ranges": ranges, **row} for row in found]
            if not given.json:
                _print(name, ranges, right, found)
    if given.json:
        print(json.dumps(rows, indent=1))


def _seed(
    model: ResNet, train: Labelled, validation: Labelled, test: Labelled, seed: int, ranges: str,
    right: np.ndarray,
) -> dict:  # fmt: skip
    begin = time.monotonic()
    folded, scales = ptq.quantize(model, calibration(train, seed), ranges=ranges)
    seconds = time.monotonic() - begin
    predicted = _answers(folded, scales, test.images)
    now = predicted == test.labels.numpy()
    lost, gained = int((right & ~now).sum()), int((now & ~right).sum())
    low, high = paired_difference(lost, gained, len(now))
    return {"seed": seed, "correct": int(now.sum()), "n": len(now),
            "drop_points": 100 * (lost - gained) / len(now),
            "drop_low": -100 * high, "drop_high": -100 * low, "p": mcnemar(lost, gained),
            "sqnr_db": _sqnr_db(model, folded, scales, validation.images[:_VALIDATION]),
            "calibration_s": seconds}  # fmt: skip


def _sqnr_db(model: ResNet, folded: ResNet, scales: dict, images: torch.Tensor) -> float:
    """Power of the float network's logits over that of their change."""
    before = predict(model, images, model.spec.preprocess)
    change = predict(integer_graph(folded, scales), images, model.spec.preprocess) - before
    return 10 * float((before.square().sum() / change.square().sum()).log10())


def _answers(folded: ResNet, scales: dict, images: torch.Tensor) -> np.ndarray:
    """Classes by the file."""
    target, precision = targets.load("tflite-int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        first, last = target.export(targets.Source(folded, scales), precision, path)
        session = target.session(path, threads=2)
        assert session is not None
        parts = []
        for chunk in images.split(_CHUNK):
            x = prepared(chunk, folded.spec.preprocess).contiguous().numpy()
            parts.append(targets.decode(session.run(targets.encode(x, first)), last).argmax(1))
    return np.concatenate(parts)


def _print(name: str, ranges: str, right: np.ndarray, rows: Sequence[dict]) -> None:
    low, high = wilson(int(right.sum()), len(right))
    print(f"{name}, {ranges}: float {right.mean():.2%} ({low:.2%}-{high:.2%}), n = {len(right)}")
    for row in rows:
        low, high = wilson(row["correct"], row["n"])
        print(f"  seed {row['seed']}: int8 {row['correct'] / row['n']:.2%} ({low:.2%}-{high:.2%}), "
              f"drop {row['drop_points']:+.2f} points ({row['drop_low']:+.2f} to "
              f"{row['drop_high']:+.2f}), p = {row['p']:.2f}, {row['sqnr_db']:.1f} dB, "
              f"{row['calibration_s']:.0f} s to calibrate")  # fmt: skip
    drops = [row["drop_points"] for row in rows]
    print(f"  worst drop {max(drops):+.2f}, mean {np.mean(drops):+.2f}", flush=True)


if __name__ == "__main__":
    main()
