"""A network whose normalization is in its first layer answers as before, but at the border."""

from __future__ import annotations

import pytest
import torch
from conftest import images

from edgeres.models import resnet, spec
from edgeres.models.pixels import of_pixels
from edgeres.models.resnet import ResNet
from edgeres.training.inference import prepared
from edgeres.types import Preprocess

IMAGENET = Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def trained(name: str, preprocess: Preprocess) -> ResNet:
    model = resnet.build(spec.parse(name, 10, preprocess), seed=0)
    for k, module in enumerate(model.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=torch.Generator().manual_seed(k))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(k))
    return model.eval()


def stem(model: ResNet, pixels: torch.Tensor) -> torch.Tensor:
    x = model.conv1(prepared(pixels, model.spec.preprocess))
    return x if model.spec.folded else model.bn1(x)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet8", "wrn-16-1", "resnet8-mobile", "resnet10"])
@pytest.mark.parametrize("folded", [False, True])
def test_inside_the_border_the_first_layer_gives_the_same(name: str, folded: bool) -> None:
    model = trained(name, IMAGENET)
    model = resnet.fold_batchnorm(model) if folded else model
    taken = of_pixels(model)
    assert taken.spec.preprocess == spec.default_preprocess(32)
    assert not taken.training
    pixels = images(8, 32, seed=3)
    before, after = stem(model, pixels), stem(taken, pixels)
    torch.testing.assert_close(after[..., 2:-2, 2:-2], before[..., 2:-2, 2:-2], rtol=0, atol=1e-4)
    white = torch.full_like(pixels, 128)  # the border's own value: nothing changes at it
    padded = stem(taken, white)
    torch.testing.assert_close(padded, padded[..., 4:5, 4:5].expand_as(padded), rtol=0, atol=1e-4)


def test_a_network_that_takes_pixels_already_is_left_alone() -> None:
    model = trained("resnet8", spec.default_preprocess(32))
    assert of_pixels(model) is model
    assert of_pixels(trained("resnet8", Preprocess(32, (0.0,), (1.0,)))).spec.preprocess.mean == (
        0.0,)  # fmt: skip
