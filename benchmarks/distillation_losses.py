"""Distillation losses on one budget: a ResNet-8 on part of CIFAR-10, several seeds, as Markdown.

    .venv/bin/python benchmarks/distillation_losses.py --data data/cifar10 \\
        --weights data/weights [--images 10000] [--epochs 16] [--seeds 3]

The teacher (ResNet-56) answers stored views once; then every loss trains the same student with the
same views, batches and first weights per seed, and differs in its loss alone. Attention transfer
needs the teacher's layers in every step, so it is left out unless asked for with --attention.
Accuracy is that of the last epoch on the test images; nothing was chosen by them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from _cifar_networks import arguments, network, splits

from edgeres.models import resnet, spec
from edgeres.recipe import HintSection, TrainSection
from edgeres.training import inference, label_cache, loop, objectives
from edgeres.training.answers import Network
from edgeres.training.hints import Hints
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Views, ViewSettings

_LOSSES = ("none", "kd", "dkd", "dist", "mse", "cosine")
_ALPHA = {"none": 0.0, "kd": 0.9, "dkd": 0.5, "dist": 0.9, "mse": 0.5, "cosine": 0.9}
_ATTENTION = tuple(HintSection(teacher=f"layer{i}", student=f"layer{i}", loss="attention",
                               weight=10.0) for i in (1, 2, 3))  # fmt: skip
_PREPROCESS = spec.default_preprocess(32)


def main() -> None:
    """Train all and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--losses", nargs="+", choices=_LOSSES, default=["none", "kd", "dkd", "dist"]
    )
    parser.add_argument("--attention", action="store_true", help="KD with attention transfer, too")
    given = parser.parse_args()
    train, _, test = splits(given.data)
    train = Labelled(train.images[: given.images], train.labels[: given.images])
    test = Labelled(test.images[: given.test_images], test.labels[: given.test_images])
    teacher = Network(network(given.weights, "resnet56"))
    names = [*given.losses, *(["kd + attention"] if given.attention else [])]
    tops: dict[str, list[float]] = {name: [] for name in names}
    begin = time.monotonic()
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            stored = _stored(teacher, train, given.views, seed, Path(folder))
            for name in names:
                tops[name].append(_top1(name, teacher, stored, test, given.epochs, seed))
                print(f"# seed {seed} {name}: {tops[name][-1]:.2%}, "
                      f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
    print(f"\nResNet-8 from ResNet-56, {len(train.labels):,} images, {given.epochs} epochs, "
          f"{given.views} stored views, {len(test.labels):,} test images:\n")  # fmt: skip
    print("| loss | alpha | top-1, mean ± sd | n |\n|---|---|---|---|")
    for name, values in tops.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"| {name} | {_ALPHA[name.split()[0]]:g} | {statistics.mean(values) * 100:.2f} ± "
              f"{spread * 100:.2f} % | {len(values)} |")  # fmt: skip


def _settings(epochs: int) -> TrainSection:
    return TrainSection(epochs=epochs, batch_size=128, learning_rate=0.1, weight_decay=1e-4,
                        augment=("crop", "flip"))  # fmt: skip


def _stored(teacher: Network, train: Labelled, views: int, seed: int, folder: Path) -> Labelled:
    seen = ViewSettings.of(_settings(1), seed)
    layout = Layout(views, len(train.labels), 10, 10, seen)
    label_cache.build(teacher, Views(train, seen), layout, folder, lambda *_: None)
    return Labelled(train.images, train.labels, LabelCache(folder))


def _top1(
    name: str, teacher: Network, train: Labelled, test: Labelled, epochs: int, seed: int
) -> float:
    student = resnet.build(spec.parse("resnet8", 10, _PREPROCESS), seed=seed)
    loss, _, attention = name.partition(" + ")
    hints = Hints.of(_ATTENTION if attention else (), teacher, student, _PREPROCESS)
    # With alpha 0 the answers have no weight, and the views are the same as the others'.
    objective = objectives.distilled(
        teacher, _PREPROCESS, temperature=4.0, alpha=_ALPHA[loss], smoothing=0.0,
        loss="kd" if loss == "none" else loss, hints=hints,
    )  # fmt: skip
    if hints:
        train = Labelled(train.images, train.labels)  # the teacher shows its layers in every step
    trainee = loop.Trainee.of(student, _PREPROCESS)
    few = Labelled(test.images[:1], test.labels[:1])  # no epoch is chosen, so none is examined
    with tempfile.TemporaryDirectory() as work:
        loop.fit(trainee, train, few, _settings(epochs), objective, seed=seed, work=Path(work),
                 tick=lambda *_: None, extra=hints)  # fmt: skip
    return inference.evaluate(trainee, test)[0].top1


if __name__ == "__main__":
    main()
