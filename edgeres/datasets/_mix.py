"""Two images of a batch become one, and their labels shares: mixup and CutMix.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2;
Yun et al. 2019, "CutMix", equations 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeres.datasets._draws import Draws


def shares(draws: Draws, alpha: float) -> Tensor:
    """Each image's share in its mix, from Beta(alpha, alpha), float32 (N,): the first draw.

    Computed on the CPU: there is no quantile function of Beta elsewhere.
    """
    from scipy.special import betaincinv

    quantile = draws.uniform().double().numpy()
    return torch.from_numpy(betaincinv(alpha, alpha, quantile)).float()


def mixed(
    images: Tensor, others: Tensor, own: Tensor, draws: Draws, kind: str, share: float
) -> tuple[Tensor, Tensor]:
    """Each image with another one.

    Args:
        images, others: uint8 (N, 3, H, W).
        own: of `shares`, float32 (N,).
        draws: those that `shares` has drawn from.
        kind: "mixup", "cutmix" or "either" (half of the images each).
        share: of the images that are mixed at all.

    Returns:
        uint8 (N, 3, H, W), and the first image's share in each, float32 (N,).
    """
    untouched = draws.uniform() >= share
    pasted = _box(own, images.shape[2], images.shape[3], draws)
    left = 1 - pasted.float().mean((1, 2))  # of a box cut off at the border
    faded = images.float().lerp(others.float(), (1 - own).view(-1, 1, 1, 1)).round()
    cut = torch.where(pasted[:, None], others, images)
    by_box = {"mixup": torch.zeros_like(untouched), "cutmix": torch.ones_like(untouched)}.get(
        kind, draws.below(2).bool()
    )
    out = torch.where(by_box.view(-1, 1, 1, 1), cut, faded.to(torch.uint8))
    out = torch.where(untouched.view(-1, 1, 1, 1), images, out)
    return out, torch.where(untouched, 1.0, torch.where(by_box, left, own))


def _box(own: Tensor, height: int, width: int, draws: Draws) -> Tensor:
    """Rectangles with `1 - own` of the area around random pixels, bool (N, H, W)."""
    side = (1 - own).clamp(min=0).sqrt()
    rows, columns = (_span(side, size, draws) for size in (height, width))
    return rows[:, :, None] & columns[:, None, :]


def _span(side: Tensor, size: int, draws: Draws) -> Tensor:
    half = (side * size / 2)[:, None]
    middle = draws.below(size)[:, None] + 0.5
    line = torch.arange(size, device=side.device) + 0.5
    return (line - middle).abs() <= half - 1e-4
