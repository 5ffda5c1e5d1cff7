"""What happens to images between a dataset and a network.

In: uint8 images. Out: index batches, augmented batches, normalized float batches, and the list of
training images that calibration may look at. Every random choice comes from a generator or a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeres.datasets import Dataset, _splits
from edgeres.errors import BadInput, unknown
from edgeres.types import Preprocess


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> uint8 (N, 3, H, W), a copy in that layout."""
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))


def batches(n: int, batch_size: int, generator: torch.Generator, shuffle: bool) -> Iterator[Tensor]:
    """Indices 0..n-1, each once, in batches of int64 (<= batch_size,); the last may be smaller."""
    order = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
    yield from torch.split(order, batch_size)


def augment(images: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Each named augmentation in turn, drawn anew for every image.

    - `crop`: moved by up to 1/8 of the size in each direction, the border mirrored;
    - `flip`: mirrored left to right, half of the images;
    - `cutout`: a square of 1/4 of the size around a random pixel made mid-grey
      (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        images: uint8 (N, 3, H, W), left as it is.
        names: out of `AUGMENTATIONS`.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        BadInput: an unknown name.
    """
    for name in names:
        if name not in _AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
        images = _AUGMENTATIONS[name](images, generator)
    return images


def normalize(images: Tensor, preprocess: Preprocess) -> Tensor:
    """`(pixel / 255 - mean) / std`, resized first (bilinear) if the network takes another size.

    Args:
        images: uint8 (N, 3, H, W).

    Returns:
        float32 (N, 3, size_px, size_px).
    """
    x = images.float()
    size = (preprocess.size_px, preprocess.size_px)
    if tuple(x.shape[2:]) != size:
        x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    mean = x.new_tensor(preprocess.mean).view(1, -1, 1, 1)
    std = x.new_tensor(preprocess.std).view(1, -1, 1, 1)
    return x.div_(255).sub_(mean).div_(std)


def calibration(
    dataset: Dataset, count: int, seed: int, preprocess_note: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """A stratified sample of the training images, none of which is also a test image.

    Args:
        preprocess_note: recorded in the manifest as it is.

    Returns:
        Indices into `dataset.train`, int64 (count,), of which every prefix is stratified; and the
        manifest that lists them with the SHA-256 of their pixels.

    Raises:
        BadInput: there are fewer than `count` such images.
    """
    tested = {_pixel_hash(image) for image in dataset.test.images}
    hashes = [_pixel_hash(image) for image in dataset.train.images]
    allowed = np.flatnonzero([digest not in tested for digest in hashes])
    if not 1 <= count <= len(allowed):
        repeated = len(hashes) - len(allowed)
        raise BadInput(
            f"data '{dataset.name}': {count} calibration images asked for; 1 to {len(allowed)} are "
            f"possible ({len(hashes)} training images, {repeated} of them also in the test split)"
        )
    indices = allowed[_splits.order(dataset.train.labels[allowed], seed)[:count]]
    samples = [{"index": int(i), "sha256": hashes[i]} for i in indices]
    return indices, {
        "schema": 1,
        "split": "train",
        "count": count,
        "seed": seed,
        "samples": samples,
        "overlap_with_test": sum(sample["sha256"] in tested for sample in samples),
        "preprocess": preprocess_note,
    }


def _pixel_hash(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    rows, columns = _moved(n, height, generator), _moved(n, width, generator)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1)
    flat = images.reshape(n, channels, -1)
    return flat.gather(2, pixels.expand(-1, channels, -1)).view(images.shape)


def _moved(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Which source line each line of a moved image shows, (n, size), mirrored at both ends."""
    reach = max(1, size // 8)
    move = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
    last = size - 1
    return last - (last - (torch.arange(size) + move).abs()).abs()


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, images.flip(3), images)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    hidden = (
        _span(n, height, generator)[:, None, :, None] & _span(n, width, generator)[:, None, None]
    )
    return images.masked_fill(hidden, 128)


def _span(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Which lines a random stretch of a quarter of them covers, bool (n, size)."""
    length = max(1, size // 4)
    first = torch.randint(0, size, (n, 1), generator=generator) - length // 2
    line = torch.arange(size)
    return (line >= first) & (line < first + length)


_AUGMENTATIONS = {"crop": _crop, "flip": _flip, "cutout": _cutout}
AUGMENTATIONS = tuple(_AUGMENTATIONS)
"""What `augment` knows."""
