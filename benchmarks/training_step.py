"""What a training step costs: each kind of training beside a bare loop.

    .venv/bin/python benchmarks/training_step.py [--device auto] [--network resnet20] [--batch 64]
        [--precision bf16] [--compile] [--only QAT] [--peers]

The bare loop is the least that anybody writes: images on the device, no augmentation, one network,
SGD; with --compile on a GPU it is compiled with CUDA graphs. All else are the training loop's own
steps, with crops and flips. On a CPU every kind takes one step in turn, in an order shuffled anew
each round, so that a noisy machine hurts all alike; on a GPU, one kind comes after the other, and
each round is --inner steps, after which it is waited for. Printed are medians and the range of the
middle half, as ratios to the plain step; on a CPU also the ratio of mean processor times, which
other programs disturb less. --peers adds torchao's stock fake quantization on the same tensors of
the same network, and NNCF's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeres.models import resnet, spec
from edgeres.recipe import HintSection, MixSection, TrainSection
from edgeres.training import label_cache, loop, objectives, placement
from edgeres.training.answers import Network
from edgeres.training.hints import Hints
from edgeres.training.inference import in_layout, prepared
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Views, ViewSettings

Step = Callable[[], object]
_BATCHES = 8  # in the data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--teacher", default="resnet56-A")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--inner", type=int, default=0, help="steps a round; 1 on a CPU, else 25")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="kinds with one of these, by commas, in the name"
    )
    parser.add_argument("--peers", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = placement.device_of(given.device, "--device")
    given.inner = given.inner or (1 if device.type == "cpu" else 25)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    compiled = "compiled, " if given.compile else ""
    print(f"{given.network}, {given.px} px, batch {given.batch}, {given.precision}, {compiled}"
          f"n = {given.rounds} rounds of {given.inner} steps, {name}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, placement.kernels(device, tf32=True):
        wanted = given.only.split(",")
        kinds = {n: make for n, make in _kinds(given, device, Path(folder)).items()
                 if n in ("bare", "plain") or any(part in n for part in wanted)}  # fmt: skip
        groups = [list(kinds)] if device.type == "cpu" else [[kind] for kind in kinds]
        plain: list[float] = []
        for group in groups:
            begin = time.perf_counter()
            torch.compiler.reset()
            wall, used = _measured(_made({n: kinds[n] for n in group}, given), given, device)
            plain = wall.get("plain", plain)
            spent = time.perf_counter() - begin
            for n in wall:
                _say(n, wall[n], plain or wall[n], used[n], used.get("plain"), spent)


def _made(kinds: dict[str, Callable[[], Step]], given: argparse.Namespace) -> dict[str, Step]:
    """Those kinds that take a few steps; the others are said: their failure costs no others."""
    found = {}
    for name, make in kinds.items():
        try:
            step = make()
            for _ in range(given.inner):
                step()
            found[name] = step
        except Exception as error:
            print(f"{name:<24} failed: {repr(error)[:300]}", flush=True)
    return found


def _say(name: str, wall: list[float], plain: list[float], used: list[float],
         used_plain: list[float] | None, spent: float) -> None:  # fmt: skip
    low, middle, high = statistics.quantiles(wall, n=4)
    base = statistics.median(plain)
    line = (f"{name:<24} {middle * 1e3:8.2f} ms   {middle / base:5.2f}x plain   "
            f"({low / base:.2f}-{high / base:.2f})")  # fmt: skip
    if used_plain and sum(used_plain):
        line += f"   processor time {statistics.fmean(used) / statistics.fmean(used_plain):.2f}x"
    print(f"{line}   ({spent:.0f} s)", flush=True)


def _measured(
    steps: dict[str, Step], given: argparse.Namespace, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of wall clock and of the processor of each step, by kind."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    used: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(given.rounds + 2):
        for name in random.sample(sorted(steps), len(steps)):
            begin, begun = time.perf_counter(), time.process_time()
            for _ in range(given.inner):
                steps[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 2:  # the first two warm up
                wall[name].append((time.perf_counter() - begin) / given.inner)
                used[name].append((time.process_time() - begun) / given.inner)
    return wall, used


def _kinds(
    given: argparse.Namespace, device: torch.device, folder: Path
) -> dict[str, Callable[[], Step]]:
    preprocess = spec.default_preprocess(given.px)
    count = given.batch * _BATCHES
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, given.px, given.px), generator=generator,
                           dtype=torch.uint8)  # fmt: skip
    split = Labelled(images, torch.arange(count) % 10)

    def fresh() -> resnet.ResNet:
        return resnet.build(spec.parse(given.network, 10, preprocess))

    def teacher() -> Network:
        return Network(resnet.build(spec.parse(given.teacher, 10, preprocess)).eval())

    def distilled(hints: Hints | None = None) -> Any:
        return objectives.distilled(hints or teacher(), preprocess, temperature=4.0, alpha=0.9,
                                    smoothing=0.0, hints=hints)  # fmt: skip

    def cached(settings: TrainSection) -> Labelled:
        seen = ViewSettings.of(settings, 0)
        label_cache.build(teacher(), Views(split, seen), Layout(1, count, 10, 10, seen), folder,
                          lambda *_: None, device)  # fmt: skip
        return Labelled(split.images, split.labels, LabelCache(folder))

    def ours(objective: Callable[[], Any] = lambda: objectives.supervised(preprocess, 0.0),
             qat: dict[str, Any] | None = None, hinted: bool = False, stored: bool = False,
             **more: Any) -> Callable[[], Step]:  # fmt: skip
        def make() -> Step:
            settings = TrainSection(
                batch_size=given.batch, device=given.device, precision=given.precision,
                compile=given.compile, augment=more.pop("augment", ("crop", "flip")), epochs=1000,
                learning_rate=1e-4, **more,
            )  # fmt: skip
            net, extra, minimized = fresh(), None, objective
            trainee = loop.Trainee.of(net, preprocess)
            if qat is not None:
                from edgeres.compression.qat import QatModel

                frozen = qat.get("frozen", False)
                model = QatModel(net, freeze_observers=not frozen, freeze_batchnorm=not frozen,
                                 learned_steps=qat.get("learned", False))  # fmt: skip
                model.calibrate(images[:64])
                trainee = model.trainee()
            if hinted:
                sections = (HintSection(teacher="layer3", student="layer3"),)
                extra = Hints.of(sections, teacher(), net, preprocess)
                minimized = lambda: distilled(extra)  # noqa: E731
            data = cached(settings) if stored else split
            run = loop._Run(trainee, data, settings, minimized(), 0, folder, lambda *_: None, extra)
            trainee.set_training(True)
            trainee.start_epoch(0, 1)
            batches, done = _forever(run), itertools.count()
            return lambda: run.step(next(done), next(batches), given.batch)

        return make

    found: dict[str, Callable[[], Step]] = {
        "bare": lambda: _bare(given, fresh(), device, split),
        "plain": ours(),
        "ema": ours(ema=0.998),
        "randaugment": ours(augment=("crop", "flip", "randaugment")),
        "mixed": ours(mix=MixSection()),
        "KD live": ours(distilled),
        "KD cached": ours(distilled, stored=True),
        "hints": ours(hinted=True),
        "QAT running": ours(qat={}),
        "QAT frozen": ours(qat={"frozen": True}),
        "QAT learned steps": ours(qat={"learned": True}),
    }
    if given.peers:
        found["QAT, torchao's stock"] = lambda: _step(
            _torchao(fresh()), given, device, split)  # fmt: skip
        found["QAT, NNCF's"] = lambda: _step(
            _nncf(fresh(), prepared(images[: given.batch], preprocess)), given, device, split
        )
    return found


def _forever(run: loop._Run) -> Iterator[Any]:
    for epoch in itertools.count():
        order = list(loop._order(len(run.train.labels), run.settings, run.seed, epoch))
        yield from run.feed.epoch(order, 0)


def _bare(
    given: argparse.Namespace, net: resnet.ResNet, device: torch.device, split: Labelled
) -> Step:
    net = in_layout(net, net.spec.preprocess).train().to(device)  # type: ignore[assignment]
    mode = "reduce-overhead" if device.type == "cuda" else None
    run = torch.compile(net, mode=mode, dynamic=False) if given.compile else net
    return _step(run, given, device, split)


def _step(run: Any, given: argparse.Namespace, device: torch.device, split: Labelled) -> Step:
    """A step of the bare loop."""
    preprocess = spec.default_preprocess(given.px)
    run = run.to(device)
    images, labels = split.images.to(device), split.labels.to(device)
    optimizer = torch.optim.SGD(run.parameters(), lr=1e-4, momentum=0.9, nesterov=True,
                                weight_decay=5e-4)  # fmt: skip
    number = itertools.cycle(range(_BATCHES))

    def step() -> None:
        first = next(number) * given.batch
        rows = slice(first, first + given.batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
            answer = run(prepared(images[rows], preprocess))
            loss = nn.functional.cross_entropy(answer.float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torchao(model: resnet.ResNet) -> nn.Module:
    """PT2E QAT with the fake quantization modules that torchao brings."""
    from torchao.quantization.pt2e import fake_quantize, observer
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    from edgeres.compression.graph import export_program
    from edgeres.compression.quantizer import ResidualQuantizer

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
