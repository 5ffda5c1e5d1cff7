"""Networks put together at random, through everything: the same numbers, or one sentence.

`EDGERES_RANDOM_NETWORKS=200` takes so many. One that fails is made smaller by `shrunk`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs
from network.onnx_files import exported
from network.random_networks import Net, Plan, Step, drawn, images, pixels, shrunk
from torch import Tensor

from edgeres import targets
from edgeres.compression import channels, ptq
from edgeres.compression.graph import export_program, quantized_graph
from edgeres.compression.integers import integer_graph
from edgeres.compression.quantizer import image_input, layers
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models.modules import fold_batchnorm, slimmed
from edgeres.network._walk import Imported
from edgeres.network.from_onnx import from_onnx
from edgeres.network.from_torch import from_module
from edgeres.network.module import NetworkModule
from edgeres.recipe import VerifySection
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, ScaleTable
from edgeres.verification import every_input
from edgeres.verification.certificate import Certificate, Reference, certify

COUNT = int(os.environ.get("EDGERES_RANDOM_NETWORKS", "12"))
LOST_DB = 12.0  # against minimum and maximum, in networks whose concatenations have one scale


def read(plan: Plan) -> Imported | None:
    """What is read of a plan's network; None if it is refused, in one sentence that says where."""
    mean, std = plan.normalization
    try:
        return from_module(Net(plan), plan.px, name="random", mean=mean, std=std)
    except BadInput as error:
        require_sentence(error, plan)
        return None


def require_sentence(error: BadInput, plan: Plan) -> None:
    """One, that says where in the network, and blames it."""
    said = str(error)
    assert "\n" not in said and "fault of edgeres" not in said, f"{plan}: {said}"
    assert "steps." in said, f"{plan}: {said}"


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("seed", range(COUNT))
@torch.no_grad()
def test_the_same_numbers(seed: int, tmp_path: Path) -> None:
    """Read, folded, slimmer, and through an ONNX file."""
    plan = drawn(seed)
    net, found = Net(plan), read(plan)
    if found is None:
        return
    x, model = images(4, plan, seed=2), found.module
    wanted = net(x)
    assert off(model(x), wanted) < 1e-4, plan
    assert off(fold_batchnorm(model)(x), wanted) < 1e-4, plan
    slim, deaf = cut(model, 0.4)
    assert off(slim(x), deaf(x)) < 1e-4, plan
    try:
        path = exported(net, tmp_path / "net.onnx", px=plan.px)
    except torch.onnx.errors.UnsupportedOperatorError:  # a channel shuffle
        return
    assert off(from_onnx(path, plan.px).module(x), wanted) < 1e-4, plan


def cut(model: NetworkModule, share: float) -> tuple[NetworkModule, NetworkModule]:
    """With a share of every group's channels gone, and whole, but nothing reads these."""
    pruned, deaf = again(model), again(model)
    groups = channels.groups_of(pruned)
    chosen = [(g, range(min(int(share * g.size), g.spare(range(g.size))))) for g in groups]
    for group, gone in chosen:
        for part in group.shares:
            if part.side == "in" and not part.depthwise:
                away = part.channels[torch.isin(part.places, torch.tensor(list(gone)))]
                weight = deaf.get_parameter(f"{part.name}.weight")
                weight[:, away % weight.shape[1]] = 0  # each group of a grouped one loses the same
    channels.cut(chosen)
    found = slimmed(pruned)
    assert isinstance(found, NetworkModule)
    return found, deaf


def again(model: NetworkModule) -> NetworkModule:
    found = NetworkModule(model.spec).eval()
    found.load_state_dict(model.state_dict())
    return found


@pytest.mark.parametrize("scheme", ["w8a8", "w8a8-portable"])
@pytest.mark.parametrize("seed", range(COUNT // 2))
def test_as_integers(seed: int, scheme: str) -> None:
    """About as exact as with the plainest quantization; what is proven has no witness."""
    plan = drawn(seed)
    found = read(plan)
    if found is None:
        return
    calibration, preprocess = pixels(32, plan.px), found.module.spec.preprocess
    try:
        folded, scales = ptq.quantize(found.module, calibration, scheme=scheme)
    except BadInput as error:
        require_sentence(error, plan)
        return
    x = prepared(pixels(32, plan.px, seed=3), preprocess)
    with torch.no_grad():
        wanted, ours = found.module(x), integer_graph(folded, scales)(x)
        theirs = _Plain(found.module, prepared(calibration, preprocess)).run(x)
    least = min(_decibels(wanted, theirs) - LOST_DB, 20.0)
    assert _decibels(wanted, ours) > least, plan
    if scheme == "w8a8-portable":
        assert every_input.prove(folded, scales).witnesses == (), plan


def _decibels(wanted: Tensor, found: Tensor) -> float:
    return 10 * float((wanted.square().sum() / ((found - wanted).square().sum() + 1e-20)).log10())


class _Plain(torch.fx.Interpreter):
    """Minimum and maximum of each tensor, weights to the nearest code: a reference of its own."""

    def __init__(self, model: NetworkModule, calibration: Tensor):
        graph = export_program(fold_batchnorm(model)).module()
        super().__init__(graph)
        self.tensors = {layer.last for layer in layers(graph)} | {image_input(graph)}
        self.ends: dict[torch.fx.Node, tuple[float, float]] = {}
        self.measuring = True
        self.run(calibration)
        self.measuring = False
        for name, value in graph.named_parameters():
            if name.endswith("weight"):
                step = value.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
                step = step.view(-1, *[1] * (value.ndim - 1))
                value.copy_((value / step).round() * step)

    def run_node(self, n: torch.fx.Node) -> object:
        value = super().run_node(n)
        if n in self.tensors and isinstance(value, Tensor):
            if self.measuring:
                self.ends[n] = min(0.0, float(value.min())), max(0.0, float(value.max()))
            else:
                low, high = self.ends[n]
                step = max((high - low) / 255, 1e-12)
                zero = round(-128 - low / step)
                value = ((value / step).round() + zero).clamp(-128, 127).sub(zero) * step
        return value


def certified(plan: Plan, target: str, folder: Path) -> tuple[Certificate, float]:
    """The certificate of a plan's file, and the decibels of the graph that it was written from."""
    needs(targets.load(target)[0].PACKAGE)
    found = read(plan)
    assert found is not None
    folded, trained = ptq.quantize(found.module, pixels(48, plan.px))
    module, precision = targets.load(target)
    scales: ScaleTable = targets.scales_for(target, trained)
    given = pixels(32, plan.px, seed=3)
    x = prepared(given, folded.spec.preprocess)
    with torch.no_grad():
        expected, before = integer_graph(folded, scales)(x), found.module(x)
    path = folder / f"net{module.SUFFIX}"
    ends = module.export(targets.Source(folded, scales), precision, path)
    file = ExportedFile(target, path.name, file_sha256(path), 0, *ends)
    labels = torch.zeros(len(given), dtype=torch.int64)
    reference = Reference(folded, scales, expected.numpy(), before.numpy(), given, labels)
    # Of answers of which many are alike, the largest is no measure.
    limits = VerifySection(agreement=0.0)
    certificate = certify(path, file, reference, limits, lambda *_: None)
    return certificate, _decibels(before, expected)


def conv(source: int, **others: object) -> Step:
    plain = {"out": 8, "kernel": (3, 3), "stride": 1, "padding": 1, "dilation": 1, "groups": "one",
             "bias": True}  # fmt: skip
    return Step("conv", (source,), {**plain, **others})


def ended(*steps: Step) -> Plan:
    """With a mean, if that isn't there, and a linear layer behind."""
    if not any(step.op == "mean" for step in steps):
        steps += (Step("mean", (len(steps),), {}),)
    at = len(steps)
    tail = Step("flatten", (at,), {}), Step("linear", (at + 1,), {"out": 5, "bias": True})
    return Plan(1, 16, ((128 / 255,), (0.25,)), (*steps, *tail))


POOLED = (conv(0), Step("act", (1,), {"kind": "relu"}), Step("mean", (2,), {}),
          Step("max", (2,), {"kernel_size": 16}), Step("cat", (3, 4), {}))  # fmt: skip
CUT_OFF = (conv(0, weights="huge"), Step("act", (1,), {"kind": "relu6"}),
           conv(0, weights="biased"), Step("cat", (2, 3), {}), conv(4))  # fmt: skip
FOUND: dict[str, tuple[str, tuple[Step, ...]]] = {
    "pooled maps that are joined": ("tflite-int8", POOLED),
    "one tensor joined twice": ("executorch-int8", (conv(0), Step("cat", (1, 1), {}), conv(2))),
    "a ReLU6 joined with larger values": ("onnx-int8", CUT_OFF),
    "the same mean twice": ("onnx-int8", (conv(0), Step("mean", (1,), {}), Step("mean", (1,), {}),
                                          Step("add", (2, 3), {}))),
    "a mean of the image": ("onnx-int8", (Step("mean", (0,), {}), conv(0), Step("mean", (2,), {}),
                                          Step("cat", (1, 3), {}))),
    "a max pool without padding": ("tflite-int16x8",
                                   (conv(0), Step("max", (1,), {"kernel_size": (1, 2)}), conv(2))),
}  # fmt: skip


@pytest.mark.parametrize(("target", "steps"), FOUND.values(), ids=FOUND)
def test_files_of_what_was_once_found(target: str, steps: tuple[Step, ...], tmp_path: Path) -> None:
    found, exact_db = certified(ended(*steps), target, tmp_path)
    assert [gate.sentence() for gate in found.gates if not gate.passed] == [], found.notes
    assert exact_db > 20


def test_a_relu6_whose_codes_go_on_is_refused() -> None:
    """As scales of an earlier version, or of somebody's own, may say."""
    found = read(ended(conv(0), Step("act", (1,), {"kind": "relu6"})))
    assert found is not None
    folded, scales = ptq.quantize(found.module, pixels(16, 16))
    wide = {name: type(p)((0.5,), p.zero_point, p.dtype) if name == "steps.0" else p
            for name, p in scales.items()}  # fmt: skip
    with pytest.raises(BadInput, match=r"'steps\.0' ends at 6, and its codes beyond that"):
        quantized_graph(folded, wide, fold_weights=True)


def test_padding_in_16_bits_that_is_not_neutral_is_refused(tmp_path: Path) -> None:
    """Zeros around negative numbers would be the largest."""
    pool = Step("max", (1,), {"kernel_size": 3, "stride": 2, "padding": 1})
    with pytest.raises(BadInput, match="int16x8 has no padding for a max pool behind anything but"):
        certified(ended(conv(0), pool, conv(2)), "tflite-int16x8", tmp_path)


def test_what_is_too_large_is_one_sentence() -> None:
    found = read(ended(conv(0), *[Step("mul", (n, n), {}) for n in (1, 2, 3, 4, 5)]))
    assert found is not None
    with torch.no_grad():
        found.module.get_parameter("steps.0.weight").mul_(100)
    with pytest.raises(BadInput, match=r"can't be quantized; its weights .* another network's$"):
        ptq.quantize(found.module, pixels(16, 16))


def test_integers_that_answer_otherwise_are_doubted() -> None:
    """Cubes beside what they are cubes of: one scale, of the larger."""
    for plan, doubted in ((drawn(10), True), (ended(conv(0), conv(1)), False)):
        found = read(plan)
        assert found is not None
        calibration = pixels(32, plan.px)
        folded, scales = ptq.quantize(found.module, calibration)
        said = " ".join(ptq.doubts(found.module, folded, scales, calibration))
        assert ("the integers answer otherwise than the network: on 32 " in said) is doubted
        assert ("of 255 steps, as it is concatenated with larger values" in said) is doubted


def test_a_failing_plan_is_made_smaller() -> None:
    plan = next(p for p in map(drawn, range(50)) if any(step.op == "norm" for step in p.steps))
    small = shrunk(plan, lambda p: any(step.op == "norm" for step in p.steps))
    assert sum(step.op == "norm" for step in small.steps) == 1
    assert len(small.steps) <= 4 < len(plan.steps)
    assert np.isfinite(Net(small)(images(2, small)).detach().numpy()).all()
