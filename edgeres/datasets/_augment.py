"""Random changes of whole batches of uint8 images, repeatable image by image.

Which view of an image is seen is decided by numbers alone: a hash of (seed, view, sample, draw).
So a view can be made again at any time, in any batch, order or process: for a teacher's stored
answers, for a training that goes on in mid-epoch, and for one that is spread over processes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgeres.datasets._decoding import LEAST_AREA, WIDEST
from edgeres.datasets._draws import Draws
from edgeres.datasets._randaugment import randaugment, trivialaugment
from edgeres.errors import unknown

RESIZED_CROP = "resized-crop"


def augment(
    images: Tensor, names: tuple[str, ...], draws: Draws, cut: bool = False
) -> Tensor:  # fmt: skip
    """Each named augmentation in turn, drawn anew for every image.

    - `crop`: moved by up to 1/8 of the size in each direction, the border mirrored;
    - `resized-crop`: a piece of 35 to 100 % of the area and of an aspect ratio of 3/4 to 4/3,
      enlarged to the whole (Szegedy et al. 2015, section 6; RandomResizedCrop);
    - `flip`: mirrored left to right, half of the images;
    - `cutout`: a square of 1/4 of the size around a random pixel made mid-grey
      (DeVries & Taylor 2017, arXiv:1708.04552);
    - `randaugment`, `trivialaugment`: two weak, or one more or less strong operation of 14.

    Args:
        images: uint8 (N, 3, H, W), left as it is.
        names: out of `AUGMENTATIONS`.
        draws: of these N samples.
        cut: the images are the pieces already that `resized-crop`, the first name, would show.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        BadInput: an unknown name.
    """
    if cut:
        assert names[0] == RESIZED_CROP
        drawn_piece(draws)
        names = names[1:]
    for name in names:
        if name not in _AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
        images = _AUGMENTATIONS[name](images, draws)
    return images


def _crop(images: Tensor, draws: Draws) -> Tensor:
    n, channels, height, width = images.shape
    rows, columns = _moved(height, draws), _moved(width, draws)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1)
    flat = images.reshape(n, channels, -1)
    return flat.gather(2, pixels.expand(-1, channels, -1)).view(images.shape)


def _moved(size: int, draws: Draws) -> Tensor:
    """Which source line each line of a moved image shows, (n, size), mirrored at both ends."""
    reach = max(1, size // 8)
    move = draws.below(2 * reach + 1)[:, None] - reach
    last = size - 1
    return last - (last - (torch.arange(size, device=move.device) + move).abs()).abs()


def drawn_piece(draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers from 0 to 1 for a piece's area, aspect ratio, left and top, float32 (N,) each."""
    return draws.uniform(), draws.uniform(), draws.uniform(), draws.uniform()


def _resized_crop(images: Tensor, draws: Draws) -> Tensor:
    area, ratio, left, top = drawn_piece(draws)
    area = LEAST_AREA + (1 - LEAST_AREA) * area
    stretch = torch.exp((ratio - 0.5) * math.log(WIDEST))  # the root of the ratio
    width, height = ((area.sqrt() * side).clamp(max=1) for side in (stretch, 1 / stretch))
    columns = _piece(images.shape[3], width, left)[:, None, :].expand(-1, images.shape[2], -1)
    rows = _piece(images.shape[2], height, top)[:, :, None].expand(-1, -1, images.shape[3])
    grid = torch.stack((columns, rows), 3)
    shown = functional.grid_sample(images.float(), grid, padding_mode="border",
                                   align_corners=False)  # fmt: skip
    return shown.round_().clamp_(0, 255).to(torch.uint8)


def _piece(size: int, share: Tensor, at: Tensor) -> Tensor:
    """Where the lines of a piece of this share are, (n, size), from -1 to 1 as grid_sample has it.

    Computed number by number: a matrix product's bits depend on how many there are.
    """
    lines = (2 * torch.arange(size, device=share.device) + 1) / size - 1
    move = (1 - share) * (2 * at - 1)
    return lines * share[:, None] + move[:, None]


def _flip(images: Tensor, draws: Draws) -> Tensor:
    chosen = draws.below(2).bool()
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def _cutout(images: Tensor, draws: Draws) -> Tensor:
    height, width = images.shape[2:]
    hidden = _span(height, draws)[:, None, :, None] & _span(width, draws)[:, None, None]
    return images.masked_fill(hidden, 128)


def _span(size: int, draws: Draws) -> Tensor:
    """Which lines a random stretch of a quarter of them covers, bool (n, size)."""
    length = max(1, size // 4)
    first = draws.below(size)[:, None] - length // 2
    line = torch.arange(size, device=first.device)
    return (line >= first) & (line < first + length)


_AUGMENTATIONS = {"crop": _crop, RESIZED_CROP: _resized_crop, "flip": _flip, "cutout": _cutout,
                  "randaugment": randaugment, "trivialaugment": trivialaugment}  # fmt: skip
AUGMENTATIONS = tuple(_AUGMENTATIONS)
"""What `augment` knows."""
