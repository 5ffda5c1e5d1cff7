"""What a training step costs: memory layouts, distillation, QAT, as ratios to a plain step.

    .venv/bin/python benchmarks/training_step.py [--network resnet20] [--px 32] [--batch 64]
        [--only QAT]

Every variant takes one step in turn, in an order shuffled anew each round, so that a noisy machine
hurts all alike; printed are medians and the range of the middle half, as ratios to the plain step,
and the ratio of mean processor times, which other programs disturb less, and in which the steps
that look at ranges (every fourth of ours) count for what they are. QAT is ours with running ranges
and batch statistics, ours once both are frozen, ours with learned steps; torchao's stock fake
quantization on the same tensors of the same network; and NNCF's.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from edgeres.compression.graph import export_program
from edgeres.compression.qat import QatModel
from edgeres.compression.quantizer import ResidualQuantizer
from edgeres.models import resnet, spec
from edgeres.training import objectives
from edgeres.training.inference import in_layout, prepared


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--teacher", default="resnet56-A")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="of the variants, those with this in the name")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    images = torch.randint(0, 256, (given.batch, 3, given.px, given.px), dtype=torch.uint8)
    labels = torch.randint(0, 10, (given.batch,))
    steps = _variants(given, images, labels)
    steps = {n: s for n, s in steps.items() if n == "plain" or given.only in n}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    used: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(given.rounds + 2):
        for name in random.sample(sorted(steps), len(steps)):
            begin, begun = time.perf_counter(), time.process_time()
            steps[name]()
            if round_ >= 2:  # the first two warm up
                wall[name].append(time.perf_counter() - begin)
                used[name].append(time.process_time() - begun)
    plain, processor = statistics.median(wall["plain"]), statistics.fmean(used["plain"])
    print(f"{given.network}, {given.px} px, batch {given.batch}, n = {given.rounds} steps each, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    for name, values in wall.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:<24} {middle * 1e3:8.1f} ms   {middle / plain:5.2f}x plain   "
              f"({low / plain:.2f}-{high / plain:.2f})   processor time "
              f"{statistics.fmean(used[name]) / processor:.2f}x")  # fmt: skip


def _variants(
    given: argparse.Namespace, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Callable[[], None]]:
    preprocess = spec.default_preprocess(given.px)

    def fresh() -> resnet.ResNet:
        return resnet.build(spec.parse(given.network, 10, preprocess))

    teacher = resnet.build(spec.parse(given.teacher, 10, preprocess)).eval()
    supervised = objectives.supervised(preprocess, 0.0)
    distilled = objectives.distilled(teacher, preprocess, temperature=4.0, alpha=0.9, smoothing=0.0)

    def qat(frozen: bool = False, learned_steps: bool = False) -> nn.Module:
        model = QatModel(fresh(), freeze_observers=not frozen, freeze_batchnorm=not frozen,
                         learned_steps=learned_steps)  # fmt: skip
        model.calibrate(images)
        trainee = model.trainee()
        trainee.set_training(True)
        trainee.start_epoch(0, 1)
        return model.network

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
        "QAT": step(qat(), supervised),
        "QAT, frozen": step(qat(frozen=True), supervised),
        "QAT, learned steps": step(qat(learned_steps=True), supervised),
        "QAT, torchao's stock": step(_torchao(fresh()), supervised),
        "QAT, NNCF's": step(_nncf(fresh(), prepared(images, preprocess)), supervised),
    }


def _torchao(model: resnet.ResNet) -> nn.Module:
    """PT2E QAT with the fake quantization modules that torchao brings."""
    from torchao.quantization.pt2e import fake_quantize, observer
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    fused = fake_quantize.FusedMovingAvgObsFakeQuantize
    activation = QuantizationSpec(
        torch.int8, fused.with_args(observer=observer.MovingAverageMinMaxObserver), -128, 127,
        torch.per_tensor_affine,
    )  # fmt: skip
    weight = QuantizationSpec(
        torch.int8, fused.with_args(observer=observer.MovingAveragePerChannelMinMaxObserver),
        -127, 127, torch.per_channel_symmetric, 0,
    )  # fmt: skip
    quantizer = ResidualQuantizer(lambda _: activation, lambda _: weight)
    graph: nn.Module = prepare_qat_pt2e(export_program(model.train()).module(), quantizer)
    return graph


def _nncf(model: resnet.ResNet, x: torch.Tensor) -> nn.Module:
    """What `nncf.quantize` gives for training."""
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "0")  # it builds its kernels first
    import nncf

    quantized: nn.Module = nncf.quantize(in_layout(model.eval(), model.spec.preprocess),
                                         nncf.Dataset([x]), subset_size=1)  # fmt: skip
    return quantized.train()


if __name__ == "__main__":
    main()
