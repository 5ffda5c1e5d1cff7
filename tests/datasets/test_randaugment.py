"""RandAugment's operations against Pillow's, and each image drawn for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from edgeres.datasets import _randaugment as ops
from edgeres.datasets._draws import Draws


def photos(n: int = 6, size: int = 24) -> Tensor:
    """Smooth, not noise: a gradient with a spot, dark to bright."""
    line = torch.linspace(0, 1, size)
    base = torch.stack(
        [line[:, None] * line, line[:, None].expand(size, size), line.expand(size, size)]
    )
    levels = torch.linspace(60, 230, n).view(n, 1, 1, 1)
    images = (base * levels + 10).round().to(torch.uint8)
    images[:, :, 5:9, 5:9] = 200
    return images


def pillow(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize(("name", "theirs"), [
    ("_brightness", lambda im, s: ImageEnhance.Brightness(im).enhance(1 + 0.9 * s)),
    ("_contrast", lambda im, s: ImageEnhance.Contrast(im).enhance(1 + 0.9 * s)),
    ("_saturation", lambda im, s: ImageEnhance.Color(im).enhance(1 + 0.9 * s)),
    ("_sharpness", lambda im, s: ImageEnhance.Sharpness(im).enhance(1 + 0.9 * s)),
    ("_posterize", lambda im, s: ImageOps.posterize(im, 8 - round(abs(s) * 4))),
    ("_solarize", lambda im, s: ImageOps.solarize(im, 256 * (1 - abs(s)))),
    ("_autocontrast", lambda im, s: ImageOps.autocontrast(im)),
    ("_equalize", lambda im, s: ImageOps.equalize(im)),
])  # fmt: skip
def test_a_colour_operation_is_pillows(name: str, theirs: object) -> None:
    images = photos()
    strengths = [-1.0, -0.5, -0.25, 0.25, 0.5, 1.0]
    ours = getattr(ops, name)(images, torch.tensor(strengths)).int()
    assert (ours != images.int()).any()
    for got, image, strength in zip(ours, pillow(images), strengths, strict=True):
        expected = torch.from_numpy(np.array(theirs(image, strength))).permute(2, 0, 1).int()
        inner = (slice(None), slice(1, -1), slice(1, -1))  # Pillow leaves the border unsharpened
        difference = (got - expected).abs()[inner]
        assert difference.max() <= 2, name  # rounding; Pillow cuts off, and greys in integers


def test_geometry_moves_shears_and_turns_as_it_says() -> None:
    images = photos(5, size=32)
    none = ops._warped(images, torch.arange(5), torch.zeros(5))
    assert torch.equal(none, images)
    strength = torch.full((5,), 4 / 32 / ops._MOVE)  # four pixels
    moved = ops._warped(images, torch.tensor([2, 3, 2, 3, 2]), strength)
    assert torch.equal(moved[0, :, :, :-4], images[0, :, :, 4:])
    assert torch.equal(moved[1, :, :-4], images[1, :, 4:])
    assert (moved[0, :, :, -4:] == 128).all()
    back = ops._warped(images, torch.full((5,), 4), torch.ones(5))
    theirs = pillow(images)[0].rotate(30, resample=Image.Resampling.BILINEAR)
    inner = torch.from_numpy(np.array(theirs)).permute(2, 0, 1)[:, 8:-8, 8:-8].int()
    assert (back[0, :, 8:-8, 8:-8].int() - inner).abs().float().mean() < 1.5


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_each_image_gets_an_operation_of_its_own(name: str) -> None:
    images = photos(1).expand(200, -1, -1, -1)
    seen = getattr(ops, name)(images, Draws(0, 0, torch.arange(200)))
    different = {image.numpy().tobytes() for image in seen}
    assert len(different) > (40 if name == "randaugment" else 100)
    chosen = torch.tensor([150, 3])
    assert torch.equal(getattr(ops, name)(images[:2], Draws(0, 0, chosen)), seen[chosen])
