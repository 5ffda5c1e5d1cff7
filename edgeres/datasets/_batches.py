"""What happens to images between a dataset and a network.

In: uint8 images. Out: index batches, normalized float batches, and the list of training images that
calibration may look at. Every random choice comes from a generator or a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeres.datasets import Dataset, _splits
from edgeres.datasets._constants import constant
from edgeres.errors import BadInput
from edgeres.types import Preprocess


def batches(n: int, batch_size: int, generator: torch.Generator, shuffle: bool) -> Iterator[Tensor]:
    """Indices 0..n-1, each once, in batches of int64 (<= batch_size,); the last may be smaller."""
    order = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
    yield from torch.split(order, batch_size)


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
    mean = constant(preprocess.mean, x).view(1, -1, 1, 1)
    std = constant(preprocess.std, x).view(1, -1, 1, 1)
    return x.div_(255).sub_(mean).div_(std)


def calibration(
    dataset: Dataset,
    count: int,
    seed: int,
    preprocess_note: dict[str, object],
    digests: tuple[list[bytes], list[bytes]] | None = None,
) -> tuple[np.ndarray, dict[str, object]]:
    """A stratified sample of the training images, none of which is also a test image.

    Args:
        count: at most; fewer where there are fewer.
        preprocess_note: recorded in the manifest as it is.
        digests: SHA-256 of each training and each test image, where they are known already.

    Returns:
        Indices into `dataset.train`, int64 (<= count,), of which every prefix is stratified;
        and the manifest that lists them with the SHA-256 of their pixels.

    Raises:
        BadInput: there is no such image.
    """
    hashes, of_test = digests or (_hashes(dataset.train.images), _hashes(dataset.test.images))
    indices = calibration_order(dataset, seed, hashes, of_test)[:count]
    chosen = [hashes[i] for i in indices]
    overlap = len(set(chosen).intersection(of_test))
    return indices, manifest(indices, chosen, overlap, seed, preprocess_note)


def calibration_order(
    dataset: Dataset, seed: int, hashes: list[bytes], of_test: list[bytes]
) -> np.ndarray:
    """All training images that may calibrate, int64, in an order of which every prefix is
    stratified; raises like `calibration`."""
    tested = set(of_test)
    allowed = np.flatnonzero([digest not in tested for digest in hashes])
    if not len(allowed):
        raise BadInput(f"data '{dataset.name}': each of the {len(hashes):,} training images is "
                       "in the test split, too, so none is left to calibrate with")  # fmt: skip
    return allowed[_splits.order(dataset.train.labels[allowed], seed)]


def manifest(
    indices: Sequence[int] | np.ndarray, digests: list[bytes], overlap: int, seed: int,
    preprocess_note: dict[str, object],
) -> dict[str, object]:  # fmt: skip
    """The list of the images that calibrate, with the SHA-256 of each one's pixels, and how many
    of them are test images."""
    samples = [{"index": int(i), "sha256": digest.hex()}
               for i, digest in zip(indices, digests, strict=True)]  # fmt: skip
    return {
        "schema": 1,
        "split": "train",
        "count": len(samples),
        "seed": seed,
        "samples": samples,
        "overlap_with_test": overlap,
        "preprocess": preprocess_note,
    }


def _hashes(images: np.ndarray) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in images]
