"""What w8a8-portable costs beside w8a8: accuracy, size, time; and what the proof says of both.

    .venv/bin/python benchmarks/portable.py --data data/cifar10 --weights data/weights \\
        [--seeds 5] [--network resnet20] [--rounds 60] [--qat EPOCHS] [--rate R]

Each seed draws 512 training images and calibrates both ways, then with --qat trains both ways from
the float network's answers, with the same views in the same order; all 10,000 test images go
through both integer graphs (whose codes the files have, to the bit). Printed: top-1 of both, the
images that only one gets right with McNemar's exact p, the proof of both; of the first seed's files
their sizes and, interleaved in one process with one thread, the ratio of their times.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import train_qat
from _cifar_networks import arguments, calibration, network, splits

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.compression.qat import QatModel
from edgeres.models.modules import Classifier
from edgeres.statistics import mcnemar
from edgeres.training.answers import as_teacher
from edgeres.training.inference import predict, prepared
from edgeres.training.views import Labelled
from edgeres.types import ScaleTable
from edgeres.verification.every_input import prove

SCHEMES = ("w8a8", "w8a8-portable")
_CALLS = 40


def main() -> None:
    """Calibrate, ask, prove, time and print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", action="append", choices=["resnet20", "resnet56"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--qat", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--rate", type=float, default=0.0005, help="QAT's learning rate")
    given = parser.parse_args()
    train, validation, test = splits(given.data)
    for name in given.network or ["resnet20", "resnet56"]:
        model = network(given.weights, name)
        print(f"{name}, n = {len(test.labels)}")
        shares = []
        for seed in range(given.seeds):
            images = calibration(train, seed)
            made = [ptq.quantize(model, images, scheme=scheme) for scheme in SCHEMES]
            if given.qat:
                made = [_trained(model, scheme, scales, train, validation, given.qat, given.rate,
                                 seed)
                        for scheme, (_, scales) in zip(SCHEMES, made, strict=True)]  # fmt: skip
            right = [_right(*one, test.images, test.labels) for one in made]
            shares.append([float(one.mean()) for one in right])
            lost, won = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
            print(f"  seed {seed}: {shares[-1][0]:.2%} and {shares[-1][1]:.2%}, {lost} lost, "
                  f"{won} won, p = {mcnemar(lost, won):.2f}", flush=True)  # fmt: skip
            if seed == 0:
                first = made
        means = np.mean(shares, 0)
        print(
            f"  mean {means[0]:.3%} and {means[1]:.3%}: {100 * (means[1] - means[0]):+.3f} points"
        )
        for scheme, (folded, scales) in zip(SCHEMES, first, strict=True):
            proof = prove(folded, scales)
            print(f"  {scheme}: {proof.sums:,} sums, {proof.pairs:,} pairs, {proof.differing} of "
                  f"{proof.channels} channels differ, {len(proof.unproven)} not proven, "
                  f"{proof.seconds:.1f} s", flush=True)  # fmt: skip
        _files(first, test.images[:1], given.rounds)


def _trained(
    model: Classifier, scheme: str, scales: ScaleTable, train: Labelled, validation: Labelled,
    epochs: int, rate: float, seed: int,
) -> tuple[Classifier, ScaleTable]:  # fmt: skip
    quantized = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.6, scheme=scheme)
    quantized.start(scales)
    train_qat.trained(quantized, as_teacher(model), train, validation, epochs, rate, seed)
    return quantized.finish()


def _right(
    folded: Classifier, scales: ScaleTable, images: torch.Tensor, labels: torch.Tensor
) -> np.ndarray:
    logits = predict(integer_graph(folded, scales), images, folded.spec.preprocess)
    return (logits.argmax(1) == labels).numpy()


def _files(made: list[tuple[Classifier, ScaleTable]], image: torch.Tensor, rounds: int) -> None:
    """Sizes, and times in turn."""
    for name in ("tflite-int8", "onnx-int8"):
        target, precision = targets.load(name)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{scheme}{target.SUFFIX}" for scheme in SCHEMES]
            calls = []
            for path, (folded, scales) in zip(paths, made, strict=True):
                first, _ = target.export(targets.Source(folded, scales), precision, path)
                session = target.session(path, threads=1)
                x = prepared(image, folded.spec.preprocess).contiguous().numpy()
                calls.append(functools.partial(session.run, targets.encode(x, first)))
            ratios = sorted(_ratio(calls, number) for number in range(rounds))
            sizes = [path.stat().st_size for path in paths]
        low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
        print(f"  {name}: {sizes[0]:,} and {sizes[1]:,} bytes, {np.median(ratios):.3f}x the time "
              f"(quartiles {low:.3f}-{high:.3f}, {rounds} rounds)", flush=True)  # fmt: skip


def _ratio(calls: list[Callable[[], object]], number: int) -> float:
    """The second one's time over the first one's, in alternating order."""
    took = {}
    for which in (0, 1) if number % 2 else (1, 0):
        calls[which]()
        begin = time.perf_counter()
        for _ in range(_CALLS):
            calls[which]()
        took[which] = time.perf_counter() - begin
    return took[1] / took[0]


if __name__ == "__main__":
    main()
