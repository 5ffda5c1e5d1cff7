"""What a training step costs: memory layouts, distillation, QAT, as ratios to a plain step.

    .venv/bin/python benchmarks/training_step.py [--network resnet20] [--px 32] [--batch 64]

Every variant takes one step in turn, in an order shuffled anew each round, so that a noisy machine
hurts all alike; printed are medians and the range of the middle half, as ratios to the plain step.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from edgeres.compression.qat import QatModel
from edgeres.models import resnet, spec
from edgeres.training import objectives
from edgeres.training.loop import in_layout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--teacher", default="resnet56-A")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (given.batch, 3, given.px, given.px), dtype=torch.uint8)
    labels = torch.randint(0, 10, (given.batch,))
    steps = _variants(given, images, labels)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(given.rounds + 2):
        for name in random.sample(sorted(steps), len(steps)):
            begin = time.perf_counter()
            steps[name]()
            if round_ >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - begin)
    plain = statistics.median(times["plain"])
    print(f"{given.network}, {given.px} px, batch {given.batch}, n = {given.rounds} steps each, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:<22} {middle * 1e3:8.1f} ms   {middle / plain:5.2f}x plain   "
              f"({low / plain:.2f}-{high / plain:.2f})")  # fmt: skip


def _variants(
    given: argparse.Namespace, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Callable[[], None]]:
    preprocess = spec.default_preprocess(given.px)

    def fresh() -> resnet.ResNet:
        return resnet.build(spec.parse(given.network, 10, preprocess))

    teacher = resnet.build(spec.parse(given.teacher, 10, preprocess)).eval()
    supervised = objectives.supervised(preprocess, 0.0)
    distilled = objectives.distilled(teacher, preprocess, temperature=4.0, alpha=0.9, smoothing=0.0)
    qat = QatModel(fresh(), freeze_observers=1.0, freeze_batchnorm=1.0)
    qat.calibrate(images)
    qat.trainee().set_training(True)
    other = fresh().to(memory_format=torch.contiguous_format)

    def step(module: nn.Module, objective: objectives.Objective) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

        def run() -> None:
            loss = objective(module, images, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return run

    return {
        "plain": step(in_layout(fresh(), preprocess).train(), supervised),
        "weights left in NCHW": step(other.train(), supervised),
        f"KD from {given.teacher}": step(in_layout(fresh(), preprocess).train(), distilled),
        "QAT": step(qat.graph, supervised),
    }


if __name__ == "__main__":
    main()
