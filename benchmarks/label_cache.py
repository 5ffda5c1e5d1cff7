"""What a teacher costs its student: steps with stored answers, with a teacher asked, and plain.

    .venv/bin/python benchmarks/label_cache.py [--student resnet20] [--batch 64 128] [--rounds 30]

A step is all that the loop does for a batch: the view, the answer, forward, backward, update. Each
round takes one step of each kind in an order shuffled anew, so that a noisy machine hurts all
alike; the ratio is the median over rounds of the round's own ratio to the plain step.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from edgeres.models import resnet, spec
from edgeres.training import label_cache, objectives
from edgeres.training.answers import as_teacher
from edgeres.training.inference import in_layout
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Views, ViewSettings

_AUGMENT = ("crop", "flip")
_WARM_UP = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--teacher", default="resnet56-A")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    print(f"{given.student} taught by {given.teacher}, {given.px} px, {torch.get_num_threads()} "
          f"threads, torch {torch.__version__}\n")  # fmt: skip
    print("| batch | step | median ms | x plain (middle half) | n |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for batch in given.batch:
            times = _measured(_steps(given, batch, Path(folder)), given.rounds)
            for name, values in times.items():
                ratios = [a / b for a, b in zip(values, times["plain"], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                milliseconds = statistics.median(values) * 1e3
                print(f"| {batch} | {name} | {milliseconds:.1f} | {middle:.3f} "
                      f"({low:.3f}-{high:.3f}) | {len(values)} |", flush=True)  # fmt: skip


def _measured(steps: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + _WARM_UP):
        for name in random.sample(sorted(steps), len(steps)):
            begin = time.perf_counter()
            steps[name](number)
            if number >= _WARM_UP:
                times[name].append(time.perf_counter() - begin)
    return times


def _steps(given: argparse.Namespace, batch: int, folder: Path) -> dict[str, Callable[[int], None]]:
    preprocess = spec.default_preprocess(given.px)
    generator = torch.Generator().manual_seed(0)
    shape = (given.samples, 3, given.px, given.px)
    split = Labelled(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
                     torch.randint(0, 10, (given.samples,), generator=generator))  # fmt: skip
    views = Views(split, ViewSettings(0, _AUGMENT))
    teacher = as_teacher(resnet.build(spec.parse(given.teacher, 10, preprocess)))
    if not (folder / "labels.json").exists():
        layout = Layout(1, given.samples, 10, 10, views.settings)
        label_cache.build(teacher, views, layout, folder, lambda *_: None)
    cache = LabelCache(folder)
    supervised = objectives.supervised(preprocess, 0.0)
    distilled = objectives.distilled(teacher, preprocess, temperature=4.0, alpha=0.9, smoothing=0.0)

    def step(objective: objectives.Objective, stored: bool) -> Callable[[int], None]:
        student = resnet.build(spec.parse(given.student, 10, preprocess))
        module = in_layout(student, preprocess).train()
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

        def run(number: int) -> None:
            chosen = torch.randperm(given.samples)[:batch]
            images, labels = views.batch(chosen, 0)
            known = {"answer": cache.of(chosen, 0)} if stored else {}
            loss = objective(module, images, labels, **known)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return run

    return {
        "plain": step(supervised, stored=False),
        "KD, answers stored": step(distilled, stored=True),
        "KD, teacher asked": step(distilled, stored=False),
    }


if __name__ == "__main__":
    main()
