"""Pruning meets its budget, keeps the wiring, and says when it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import images, network
from network.random_networks import Net, Plan, Step
from network.random_networks import images as blots
from torch import nn

from edgeres.compression import blocks, budgets, channels, criteria
from edgeres.compression.budgets import Budget
from edgeres.compression.prune import prune
from edgeres.compression.sparsity import GroupSparsity
from edgeres.errors import BadInput
from edgeres.models import weights
from edgeres.models.modules import complexity, slimmed
from edgeres.models.resnet import ResNet, spec_of
from edgeres.models.shapes import macs, parameters, shapes_of
from edgeres.network.from_torch import from_module
from edgeres.network.module import NetworkModule
from edgeres.training import objectives
from edgeres.training.views import Labelled


def trained(name: str, px: int = 16) -> ResNet:
    """Batch norm's scales differ, as after training."""
    model = network(name, px)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.1, 2)
    return model


def slim_to(model: ResNet, budget: Budget, criterion: object = None, round_to: int = 8) -> ResNet:
    judge = criterion or (lambda _: criteria.magnitude())
    return prune(model, budget, round_to=round_to, criterion=judge)  # type: ignore[arg-type]


def shapes(model: ResNet) -> list:
    return shapes_of(model, model.spec.preprocess.size_px)


def half_the_macs(model: ResNet) -> Budget:
    return budgets.macs(shapes(model), 0.5)


FAMILY = ["resnet20", "resnet20-A", "resnet20-se", "resnet8-preact", "resnet8-mobile",
          "resnext29-8x64d-w0.125", "resnet26-w0.25-D"]  # fmt: skip


@pytest.mark.parametrize("name", FAMILY)
def test_layers_are_counted_as_the_network_counts_them(name: str) -> None:
    model = network(name)
    assert (parameters(shapes(model)), macs(shapes(model))) == complexity(model.spec)
    assert not model.training


@pytest.mark.parametrize("name", FAMILY)
def test_budget_is_met_closely_with_rounded_widths(name: str) -> None:
    model = trained(name)
    slim = slim_to(model, half_the_macs(model))
    left = complexity(slim.spec)[1] / complexity(model.spec)[1]
    assert 0.46 <= left <= 0.5
    widths = [w for stage in slim.spec.stages for block in stage for w in block.widths]
    assert all(w % 8 == 0 for w in widths)
    assert spec_of(slim) == slim.spec
    assert slim(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    assert not slim.training


def test_each_budget_is_met() -> None:
    model = trained("resnet20")
    whole = shapes(model)
    kept = parameters(shapes(slim_to(model, budgets.parameters(whole, 0.3)))) / parameters(whole)
    assert 0.27 <= kept <= 0.3
    for target in ("tflite-int8", "onnx-int8"):
        limit = 0.4 * budgets.file_bytes(whole, target)
        slim = slim_to(model, budgets.size(target, limit))
        assert 0.9 * limit <= budgets.file_bytes(shapes(slim), target) <= limit
    with pytest.raises(BadInput, match="use tflite-int8 or onnx-int8"):
        budgets.size("coreml-int8", 1e5)


def taylor(model: ResNet) -> criteria.Criterion:
    seen = Labelled(images(32), torch.arange(32) % 10)
    return criteria.taylor(model, seen, objectives.supervised(model.spec.preprocess, 0.0))


@pytest.mark.parametrize(
    "criterion", [lambda _: criteria.magnitude(), lambda _: criteria.bn_scale(), taylor]
)
def test_least_important_channels_go_first(criterion: object) -> None:
    model = trained("resnet20")
    block = model.layer3[1]
    with torch.no_grad():  # the first eight inner channels of a block carry next to nothing
        block.conv1.weight[:8] *= 1e-4
        block.bn1.weight[:8] *= 1e-4
        block.bn1.bias[:8] *= 1e-4
        block.conv2.weight[:, :8] *= 1e-4
    kept = block.conv1.weight[8:].clone()
    slim = slim_to(model, budgets.macs(shapes(model), 0.99), criterion)
    left = slim.layer3[1].conv1
    assert left.out_channels == 56
    assert torch.equal(left.weight[:, : kept.shape[1]], kept)


def test_the_original_is_untouched_and_the_result_loads(tmp_path: Path) -> None:
    model = network("resnet20", 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    slim = slim_to(model, half_the_macs(model), taylor)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in slim.parameters())
    weights.save(tmp_path, slim)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(weights.load(tmp_path)(x), slim(x))


@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_an_impossible_budget_says_what_is_reachable(kind: str) -> None:
    model = network("resnet8")
    budget = getattr(budgets, kind)(shapes(model), 0.001)
    reach = r"can't be met .* multiples of 8; (0\.\d+) is the least reachable for resnet8"
    with pytest.raises(BadInput, match=reach) as refused:
        slim_to(model, budget)
    least = float(str(refused.value).split("; ")[1].split()[0])
    slim_to(model, getattr(budgets, kind)(shapes(model), least + 0.006))


def test_the_block_that_does_nothing_goes_first() -> None:
    model = trained("resnet20")
    with torch.no_grad():
        model.layer2[1].bn2.weight.zero_()
        model.layer2[1].bn2.bias.zero_()
    slim = blocks.remove(model, 1, images(16))
    assert [len(stage) for stage in slim.spec.stages] == [3, 2, 3]
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(slim(x), model(x), atol=1e-5)
    assert [len(stage) for stage in blocks.remove(model, 3, images(16)).spec.stages] != [3, 3, 3]
    with pytest.raises(BadInput, match="has only 6 blocks that can be left out"):
        blocks.remove(model, 7, images(16))


def test_group_sparsity_shrinks_weak_channels_faster() -> None:
    model = network("resnet8")
    conv = model.layer1[0].conv1
    with torch.no_grad():
        conv.weight[:8] *= 0.5
        model.layer1[0].conv2.weight[:, :8] *= 0.5
    sparsity = GroupSparsity(model, strength=0.1)
    objective = sparsity.objective(lambda module, x, y: torch.zeros(()))
    objective(model, images(1), torch.zeros(1)).backward()
    norm = model.layer1[0].bn1  # its channels belong to no other group
    assert norm.weight.grad is not None
    pull = norm.weight.grad / norm.weight.detach()  # strength times the channel's factor
    assert pull.max().item() == pytest.approx(0.1 * 2**4, rel=1e-3)
    assert pull.min().item() == pytest.approx(0.1, rel=1e-3)
    assert pull[:8].min() > pull[8:].max()


def joined(*steps: Step, px: int = 12) -> NetworkModule:
    """Steps, their mean and a linear layer, as a network."""
    at = len(steps)
    end = (Step("mean", (at,), {}), Step("flatten", (at + 1,), {}),
           Step("linear", (at + 2,), {"out": 5, "bias": True}))  # fmt: skip
    return read(Plan(3, px, ((0.5,), (0.5,)), (*steps, *end)))


def read(plan: Plan) -> NetworkModule:
    return from_module(Net(plan), plan.px, mean=plan.normalization[0]).module


def conv(source: int, out: int, groups: str = "one", kernel: tuple[int, int] = (3, 3)) -> Step:
    padding = tuple(side // 2 for side in kernel)
    return Step("conv", (source,), {"out": out, "kernel": kernel, "stride": 1, "padding": padding,
                                    "dilation": 1, "groups": groups, "bias": True})  # fmt: skip


COUPLED = {
    "one tensor joined twice": (conv(0, 6), Step("cat", (1, 1), {}), conv(2, 7)),
    "a sum of a concatenation": (conv(0, 6), conv(0, 4), Step("cat", (1, 2), {}), conv(0, 10),
                                 Step("add", (3, 4), {}), conv(5, 6)),
    "two outputs per channel": (conv(0, 6), conv(1, 12, "wider"), conv(2, 5)),
    "groups that read a concatenation": (conv(0, 4), conv(0, 8), Step("cat", (1, 2), {}),
                                         conv(3, 8, "some"), conv(4, 5)),
    "a shuffle": (conv(0, 12), Step("shuffle", (1,), {"native": False}), conv(2, 6, "some"),
                  Step("slice", (3,), {"first": 0.25, "last": 1}), conv(4, 5)),
    "a slice of few": (conv(0, 8), Step("slice", (1,), {"first": 0, "last": 0.25}), conv(2, 4),
                       conv(1, 4), Step("add", (3, 4), {}), conv(5, 4)),
    "a slice that is added": (conv(0, 8), Step("slice", (1,), {"first": 0.5, "last": 1}),
                              conv(0, 4), Step("add", (2, 3), {}), conv(4, 5)),
}  # fmt: skip


def cut_rightly(model: NetworkModule, share: float) -> float:
    """Cut channels of every group; the rest is the network in which nothing reads those.

    Returns:
        The share of multiply-accumulates that is left.
    """
    x = blots(4, Plan(0, model.spec.preprocess.size_px, ((0.5,), (0.5,)), ()))
    whole, pruned = shapes_of(model, x.shape[-1]), read_again(model)
    deaf = read_again(model)
    groups = channels.groups_of(pruned)
    chosen = [(g, range(min(int(share * g.size), g.spare(range(g.size))))) for g in groups]
    for group, gone in chosen:
        for part in group.shares:
            layer = deaf.get_submodule(part.name)
            if part.side == "in" and not part.depthwise:
                away = part.channels[torch.isin(part.places, torch.tensor(list(gone)))]
                with torch.no_grad():  # each group of a grouped one loses the same
                    layer.weight[:, away % layer.weight.shape[1]] = 0
    channels.cut(chosen)
    slim = slimmed(pruned)
    with torch.no_grad():
        torch.testing.assert_close(slim(x), deaf(x), atol=1e-5, rtol=1e-4)
    return macs(shapes_of(slim, x.shape[-1])) / macs(whole)


def read_again(model: NetworkModule) -> NetworkModule:
    found = NetworkModule(model.spec).eval()
    found.load_state_dict(model.state_dict())
    return found


@pytest.mark.parametrize("steps", COUPLED.values(), ids=COUPLED)
def test_channels_that_must_go_together_do(steps: tuple[Step, ...]) -> None:
    model = joined(*steps)
    assert cut_rightly(model, 0.5) < 0.75
    slim = prune(model, budgets.macs(shapes_of(model, 12), 0.6), round_to=1,
                 criterion=lambda _: criteria.magnitude())  # fmt: skip
    assert complexity(slim.spec)[1] <= 0.6 * complexity(model.spec)[1]
    assert slim(torch.randn(2, 3, 12, 12)).shape == (2, 5)


def test_a_criterion_of_batch_norm_of_layers_without_one() -> None:
    """As squeeze-and-excitation has."""
    model = trained("resnet8-se")
    slim = slim_to(model, half_the_macs(model), lambda _: criteria.bn_scale())
    assert complexity(slim.spec)[1] <= 0.5 * complexity(model.spec)[1]


def test_kernels_and_maps_that_are_no_squares_are_counted() -> None:
    steps = conv(0, 8), Step("max", (1,), {"kernel_size": (1, 3)}), conv(2, 8, kernel=(1, 5))
    model = joined(*steps)
    assert macs(shapes_of(model, 12)) == complexity(model.spec)[1]
    assert parameters(shapes_of(model, 12)) == complexity(model.spec)[0]
