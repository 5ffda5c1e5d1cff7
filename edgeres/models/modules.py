"""Any network as a module: a residual one by its numbers, or a graph of anybody's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.models import resnet
from edgeres.models.resnet import ResNet
from edgeres.models.spec import ModelSpec
from edgeres.network import fold, module
from edgeres.network.graph import Network
from edgeres.network.module import NetworkModule

Spec = ModelSpec | Network
"""What a network is, without its weights; hashable."""

Classifier = ResNet | NetworkModule
"""(N, 3, H, W) normalized images -> (N, classes) logits; `spec` says what it is."""


def module_of(spec: Spec) -> Classifier:
    """Its module, with weights that nobody trained."""
    return NetworkModule(spec) if isinstance(spec, Network) else ResNet(spec)


def build(spec: Spec, *, seed: int = 0) -> Classifier:
    """A freshly initialized network; the global generator is left as it was."""
    if isinstance(spec, ModelSpec):
        return resnet.build(spec, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = NetworkModule(spec)
        module.initialize(made)
    return made


def fold_batchnorm(model: Classifier) -> Classifier:
    """The same function of its input, in eval mode, with every batch norm in a convolution.

    In the one before it, or, where its input is needed as it is (before a pre-activation), in a
    depthwise 1x1 convolution of its own.
    """
    if isinstance(model, NetworkModule):
        return fold.folded(model)
    return resnet.fold_batchnorm(model)


def slimmed(model: Classifier) -> Classifier:
    """A network with channels cut out of its modules as a fresh one of its present widths."""
    if isinstance(model, ResNet):
        return resnet.slimmed(model)
    slim = NetworkModule(module.present(model))
    slim.load_state_dict(model.state_dict())
    return slim.eval()


def head(model: Classifier) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that makes the logits, and its name.

    Raises:
        BadInput: they don't come from a linear layer or a convolution.
    """
    name = model.spec.head if isinstance(model.spec, Network) else "fc"
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return name, found


def stem(model: Classifier) -> str:
    """The name of the convolution that reads the image.

    Raises:
        BadInput: there isn't exactly one.
    """
    return model.spec.stem if isinstance(model.spec, Network) else "conv1"


def with_outputs(model: Classifier, rows: Tensor) -> Classifier:
    """With some of its outputs only, in this order."""
    return _with_head(model, len(rows), lambda value: value[rows])


def with_new_head(model: Classifier, classes: int) -> Classifier:
    """With a last layer of zeros, which learns as well from them as from any other numbers."""
    return _with_head(model, classes, lambda value: value.new_zeros(classes, *value.shape[1:]))


def _with_head(model: Classifier, classes: int, made: Callable[[Tensor], Tensor]) -> Classifier:
    name, _ = head(model)
    spec = dataclasses.replace(model.spec, classes=classes)
    if isinstance(spec, Network):
        spec = spec.with_node(name, out=classes)
    ends = (f"{name}.weight", f"{name}.bias")
    state = {k: made(v) if k in ends else v for k, v in model.state_dict().items()}
    found = module_of(spec)
    found.load_state_dict(state)
    return found.eval()


@torch.no_grad()
def complexity(spec: Spec) -> tuple[int, int]:
    """Trainable parameters and multiply-accumulates of one image, counted on the meta device."""
    macs = 0

    def count(layer: nn.Module, _args: object, output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            macs += layer.weight.numel()

    with torch.device("meta"):
        model = module_of(spec).eval()
        for layer in model.modules():
            layer.register_forward_hook(count)
        px = spec.preprocess.size_px
        try:
            model(torch.zeros(1, 3, px, px))
        except RuntimeError as error:
            said = str(error).splitlines()[0]
            raise BadInput(f"{spec.name}: its operations don't fit together: {said}") from error
    return sum(p.numel() for p in model.parameters() if p.requires_grad), macs
