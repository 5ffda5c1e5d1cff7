"""What 4-bit weights (w4a8) cost beside w8a8: accuracy, size, time.

    .venv/bin/python benchmarks/four_bits.py --data data/cifar10 --weights data/weights \\
        [--seeds 3] [--network resnet20] [--qat-epochs 1] [--rounds 40]

Each seed draws 512 training images and calibrates both ways; all 10,000 test images go through the
float network and both integer graphs. Printed: top-1, the drop against float and against w8a8 in
points with paired intervals, the images that only one gets right with McNemar's exact p. With
`--qat-epochs` the first seed's w4a8 is trained on, from the float network's answers; it isn't
chosen by test images. Of the first seed's files: sizes and, interleaved in one process with one
thread, the ratio of their times to the w8a8 file's.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _cifar_networks import arguments, calibration, network, splits

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.compression.qat import QatModel
from edgeres.disk import folder_size
from edgeres.models.modules import Classifier
from edgeres.recipe import TrainSection
from edgeres.statistics import mcnemar, paired_difference
from edgeres.training import loop, objectives
from edgeres.training.answers import as_teacher
from edgeres.training.inference import predict, prepared
from edgeres.training.views import Labelled
from edgeres.types import ScaleTable

FILES = {"tflite-int8": ("tflite-int8", "tflite-int4"),
         "qoperator-int8": ("qoperator-int8", "qoperator-int4"),
         "onnx-int8": ("onnx-int8", "onnx-int4", "qoperator-int4")}  # fmt: skip
_CALLS = 20


def main() -> None:
    """Calibrate, ask, train, time and print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--qat-epochs", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--rounds", type=int, default=0, help="of timing; 0: none")
    given = parser.parse_args()
    train, validation, test = splits(given.data)
    model = network(given.weights, given.network)
    logits = predict(model, test.images, model.spec.preprocess)
    plain = (logits.argmax(1) == test.labels).numpy()
    print(f"{given.network}: float {plain.mean():.2%}, n = {len(plain)}")
    first: list[tuple[Classifier, ScaleTable]] = []
    for seed in range(given.seeds):
        images = calibration(train, seed)
        made = [ptq.quantize(model, images, scheme=scheme) for scheme in ("w8a8", "w4a8")]
        first = first or made
        eight, four = (_right(*one, test) for one in made)
        print(f"  seed {seed}: w8a8 {eight.mean():.2%} ({_paired(plain, eight)}), w4a8 "
              f"{four.mean():.2%} ({_paired(plain, four)}); w4a8 to w8a8 {_paired(eight, four)}",
              flush=True)  # fmt: skip
    if given.qat_epochs:
        begin = time.monotonic()
        trained = _trained(given, train, validation, first[1][1])
        right = _right(*trained, test)
        print(f"  QAT, {given.qat_epochs} epochs, {time.monotonic() - begin:.0f} s: "
              f"{right.mean():.2%} ({_paired(plain, right)})", flush=True)  # fmt: skip
    if given.rounds:
        for base, names in FILES.items():
            _files(base, names, first, test.images[:1], given.rounds)


def _right(folded: Classifier, scales: ScaleTable, split: Labelled) -> np.ndarray:
    logits = predict(integer_graph(folded, scales), split.images, folded.spec.preprocess)
    return (logits.argmax(1) == split.labels).numpy()


def _paired(before: np.ndarray, after: np.ndarray) -> str:
    """The difference in points, its interval, and McNemar's p."""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = paired_difference(lost, won, len(before))
    return (f"{100 * (won - lost) / len(before):+.2f}, {100 * low:+.2f} to {100 * high:+.2f}, "
            f"p = {mcnemar(lost, won):.3g}")  # fmt: skip


def _trained(
    given: object, train: Labelled, validation: Labelled, scales: ScaleTable
) -> tuple[Classifier, ScaleTable]:
    model, teacher = (network(given.weights, given.network) for _ in range(2))
    qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.0, scheme="w4a8")
    qat.start(scales)
    objective = objectives.distilled(as_teacher(teacher), model.spec.preprocess, temperature=4,
                                     alpha=0.9, smoothing=0)  # fmt: skip
    settings = TrainSection(
        epochs=given.qat_epochs, batch_size=128, warmup_epochs=0.1, augment=("crop", "flip"),
        learning_rate=given.learning_rate,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        loop.fit(qat.trainee(), train, validation, settings, objective, seed=0, work=Path(work),
                 tick=lambda *_: None)  # fmt: skip
    return qat.finish()


def _files(
    base: str, names: tuple[str, ...], made: list[tuple[Classifier, ScaleTable]],
    image: torch.Tensor, rounds: int,
) -> None:  # fmt: skip
    """Sizes, and times in turn; the first is the w8a8 network's."""
    with tempfile.TemporaryDirectory() as folder:
        calls = []
        for name in names:
            folded, scales = made[0] if name == base else made[1]
            target, precision = targets.load(name)
            path = Path(folder) / f"{name}{target.SUFFIX}"
            first, _ = target.export(targets.Source(folded, scales), precision, path)
            # onnxruntime as people start it: with its optimizer
            loader = targets.load("onnx-int8")[0] if path.suffix == ".onnx" else target
            if name.startswith("qoperator") and base == name.replace("4", "8"):
                loader = target
            session = loader.session(path, threads=1)
            x = prepared(image, folded.spec.preprocess).contiguous().numpy()
            calls.append(functools.partial(session.run, targets.encode(x, first)))
            print(f"  {name}: {folder_size(path):,} bytes")
        if base.startswith("qoperator"):
            print("  (optimizer off)")
        found = np.array([_ratios(calls, number) for number in range(rounds)])
        for name, column in zip(names[1:], found.T[1:], strict=True):
            low, middle, high = np.quantile(column, (0.25, 0.5, 0.75))
            print(f"  {name} to {base}: {middle:.3f}x the time (quartiles {low:.3f}-{high:.3f}, "
                  f"{rounds} rounds)", flush=True)  # fmt: skip


def _ratios(calls: list[Callable[[], object]], number: int) -> list[float]:
    """Times over the first one's, in an order that turns."""
    took = {}
    for which in np.roll(np.arange(len(calls)), number):
        calls[which]()
        begin = time.perf_counter()
        for _ in range(_CALLS):
            calls[which]()
        took[which] = time.perf_counter() - begin
    return [took[i] / took[0] for i in range(len(calls))]


if __name__ == "__main__":
    main()
