"""RandAugment's operations on whole batches of uint8 images.

Each image gets its own operation and strength. On a CPU, images with the same operation are changed
together; elsewhere every operation changes all of them, and each image takes its own's result:
to count them would be to wait for the device. Ranges are those of the published code, geometry
fills with mid-grey.

Source: Cubuk et al. 2020, "RandAugment", section 3 and table 6 of "AutoAugment" (2019);
Müller & Hutter 2021, "TrivialAugment".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeres.datasets._constants import constant
from edgeres.datasets._draws import Draws

_LEVELS = 30
_ROUNDS, _LEVEL = 2, 9  # the paper's for ResNet-50 on ImageNet
_GREY = 128
_SHEAR, _MOVE, _TURN_RAD = 0.3, 0.33, 0.5236  # at full strength; 30 degrees
_MOST_BLENDED = 0.9
_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601
_SMOOTH = (1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0)  # Pillow's SMOOTH filter, / 13


def randaugment(images: Tensor, draws: Draws) -> Tensor:
    """Two random operations one after the other, at 9 of 30 of their strength.

    Args:
        images: uint8 (N, 3, H, W).
    """
    strength = torch.full_like(draws.samples, _LEVEL).float() / _LEVELS
    for _ in range(_ROUNDS):
        images = _one_of_all(images, strength, draws)
    return images


def trivialaugment(images: Tensor, draws: Draws) -> Tensor:
    """One random operation at a random strength; nothing to tune."""
    return _one_of_all(images, draws.uniform(), draws)


def _one_of_all(images: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    number = draws.below(len(_GEOMETRY) + len(_COLOR))
    signed = torch.where(draws.below(2).bool(), strength, -strength)
    out = _put(images.clone(), number < len(_GEOMETRY), _warped, images, number, signed)
    for i, change in enumerate(_COLOR, len(_GEOMETRY)):
        out = _put(out, number == i, change, images, signed)
    return out


def _put(out: Tensor, chosen: Tensor, change: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`out` with the chosen images as `change` makes them of the inputs, each (N, ...)."""
    if out.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), change(*inputs), out)
    if bool(chosen.any()):
        out[chosen] = change(*(x[chosen] for x in inputs))
    return out


_GEOMETRY = ("shear x", "shear y", "move x", "move y", "turn")


def _warped(images: Tensor, number: Tensor, signed: Tensor) -> Tensor:
    """All geometric operations are one affine map each, done in one call for the batch."""
    matrix = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for i, (row, column, most) in enumerate(((0, 1, _SHEAR), (1, 0, _SHEAR), (0, 2, 2 * _MOVE),
                                             (1, 2, 2 * _MOVE))):  # fmt: skip
        matrix[:, row, column] += torch.where(number == i, signed * most, 0.0)
    angle = torch.where(number == _GEOMETRY.index("turn"), signed * _TURN_RAD, 0.0)
    matrix[:, 0, 0], matrix[:, 1, 1] = angle.cos(), angle.cos()
    matrix[:, 0, 1] -= angle.sin()
    matrix[:, 1, 0] += angle.sin()
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    shown = F.grid_sample(images.float() - _GREY, grid, align_corners=False)
    return _uint8(shown + _GREY)


def _identity(images: Tensor, _: Tensor) -> Tensor:
    return images


def _brightness(images: Tensor, signed: Tensor) -> Tensor:
    return _blended(images, torch.zeros_like(images), signed)


def _contrast(images: Tensor, signed: Tensor) -> Tensor:
    return _blended(images, _grey(images).mean((2, 3), keepdim=True), signed)


def _saturation(images: Tensor, signed: Tensor) -> Tensor:
    return _blended(images, _grey(images), signed)


def _sharpness(images: Tensor, signed: Tensor) -> Tensor:
    kernel = constant(_SMOOTH, images).view(1, 1, 3, 3) / sum(_SMOOTH)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel.expand(images.shape[1], 1, 3, 3), groups=images.shape[1])
    return _blended(images, smooth, signed)


def _posterize(images: Tensor, signed: Tensor) -> Tensor:
    """Up to 4 of the 8 bits are cleared."""
    cleared = (signed.abs() * 4).round().long().view(-1, 1, 1, 1)
    return ((images.long() >> cleared) << cleared).to(torch.uint8)


def _solarize(images: Tensor, signed: Tensor) -> Tensor:
    """Pixels above a threshold are inverted; the stronger, the lower it is."""
    threshold = (256 * (1 - signed.abs())).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel is stretched to 0 to 255."""
    low = images.amin((2, 3), keepdim=True).float()
    span = images.amax((2, 3), keepdim=True).float() - low
    stretched = (images.float() - low) * (255 / span.clamp(min=1))
    return torch.where(span > 0, _uint8(stretched), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram is made flat, as Pillow does it."""
    values = images.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    last = values.amax(2, keepdim=True)
    step = (values.shape[2] - counts.gather(2, last)) // 255
    before = counts.cumsum(2) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    flat = table.gather(2, values).view_as(images).to(torch.uint8)
    return torch.where((step > 0).view(*step.shape[:2], 1, 1), flat, images)


_COLOR: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _identity, _brightness, _contrast, _saturation, _sharpness, _posterize, _solarize,
    _autocontrast, _equalize,
)  # fmt: skip


def _grey(images: Tensor) -> Tensor:
    weights = constant(_GREY_WEIGHTS, images).view(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True)


def _blended(images: Tensor, plain: Tensor, signed: Tensor) -> Tensor:
    """Between a plain image and this one (negative), or beyond it (positive)."""
    factor = 1 + signed.view(-1, 1, 1, 1) * _MOST_BLENDED
    return _uint8(plain + factor * (images.float() - plain))


def _uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
