"""Random changes of whole batches of uint8 images, repeatable image by image.

Which view of an image is seen is decided by numbers alone: a hash of (seed, view, sample, draw).
So a view can be made again at any time, in any batch, order or process: for a teacher's stored
answers, for a training that goes on in mid-epoch, and for one that is spread over processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeres.errors import unknown

_WORD = 1 << 64
_STEP = 0x9E3779B97F4A7C15


class Draws:
    """Random numbers of some samples of a view, each sample's own; every call is a fresh draw.

    The hash is SplitMix64's (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
    Generators", figure 17).

    Args:
        samples: int64 (N,), which samples.
    """

    def __init__(self, seed: int, view: int, samples: Tensor):
        start = _hashed(_hashed(seed) + view)
        self.state = _scrambled(samples + _signed(start))
        self.count = 0

    def below(self, limit: int) -> Tensor:
        """Whole numbers from 0 to limit - 1, int64 (N,)."""
        return self._bits() % limit

    def uniform(self) -> Tensor:
        """Numbers from 0 up to, not including, 1: float32 (N,)."""
        return (self._bits() >> 7).float() / (1 << 24)

    def _bits(self) -> Tensor:
        """31 random bits as int64 (N,)."""
        self.count += 1
        return _shifted(_scrambled(self.state + _signed(self.count * _STEP)), 33)


def augment(images: Tensor, names: tuple[str, ...], draws: Draws) -> Tensor:
    """Each named augmentation in turn, drawn anew for every image.

    - `crop`: moved by up to 1/8 of the size in each direction, the border mirrored;
    - `flip`: mirrored left to right, half of the images;
    - `cutout`: a square of 1/4 of the size around a random pixel made mid-grey
      (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        images: uint8 (N, 3, H, W), left as it is.
        names: out of `AUGMENTATIONS`.
        draws: of these N samples.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        BadInput: an unknown name.
    """
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


def _flip(images: Tensor, draws: Draws) -> Tensor:
    mirrored, chosen = images.clone(), draws.below(2).bool()
    mirrored[chosen] = images[chosen].flip(3)
    return mirrored


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


_AUGMENTATIONS = {"crop": _crop, "flip": _flip, "cutout": _cutout}
AUGMENTATIONS = tuple(_AUGMENTATIONS)
"""What `augment` knows."""


def _hashed(value: int) -> int:
    """SplitMix64's finalizer of a whole number."""
    z = (value + _STEP) % _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % _WORD
    return z ^ (z >> 31)


def _scrambled(z: Tensor) -> Tensor:
    """The same of int64 tensors, whose sums and products wrap around, without the first step."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right (int64's own copies the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word
