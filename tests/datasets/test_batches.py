"""Batches, augmentation, normalization and the calibration sample."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeres import datasets
from edgeres.datasets import Dataset, Samples, _batches
from edgeres.errors import BadInput
from edgeres.types import Preprocess, Resize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 64, height: int = 16, width: int = 16) -> Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=generator(9), dtype=torch.uint8)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_visit_every_sample_once(shuffle: bool) -> None:
    drawn = list(_batches.batches(10, 4, generator(), shuffle))
    assert [len(batch) for batch in drawn] == [4, 4, 2]
    order = torch.cat(drawn).tolist()
    assert sorted(order) == list(range(10))
    assert (order == list(range(10))) is not shuffle
    again = torch.cat(list(_batches.batches(10, 4, generator(), shuffle)))
    assert again.tolist() == order


@pytest.mark.parametrize(
    ("mean", "std"), [((128 / 255,), (0.25,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)
def test_normalize_is_the_formula(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    images = noise(3)
    x = _batches.normalize(images, Preprocess(16, mean, std))
    assert x.dtype == torch.float32
    shape = (1, -1, 1, 1)
    expected = (images.numpy() / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)


def test_normalized_pixels_land_on_the_exact_input_codes() -> None:
    preprocess = Preprocess(16, (128 / 255,), (0.25,))
    q = preprocess.input_quantization()
    assert q is not None
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert np.float16(q.scale[0]) == q.scale[0], "the scale that every format can hold"
    codes = _batches.normalize(pixels, preprocess) / q.scale[0] + q.zero_point[0]
    np.testing.assert_allclose(codes.numpy(), pixels.int().numpy() - 128, atol=1 / 16)


@pytest.mark.parametrize("size_px", [8, 24])
def test_normalize_resizes_where_the_network_takes_another_size(size_px: int) -> None:
    flat = torch.full((2, 3, 16, 16), 51, dtype=torch.uint8)
    x = _batches.normalize(flat, Preprocess(size_px, (0.0,), (1.0,)))
    assert x.shape == (2, 3, size_px, size_px)
    torch.testing.assert_close(x, torch.full_like(x, 0.2))


def dataset(train: int = 40, test: int = 10) -> Dataset:
    rng = np.random.default_rng(0)

    def samples(n: int) -> Samples:
        images = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        return Samples(images, np.arange(n, dtype=np.int64) % 4)

    return Dataset("toy", tuple("abcd"), samples(train), samples(8), samples(test), Resize.of(4))


def test_the_calibration_manifest_lists_training_images_by_hash() -> None:
    data = dataset()
    note = {"size_px": 4}
    indices, manifest = _batches.calibration(data, 16, 7, note)
    hashes = [hashlib.sha256(data.train.images[i].tobytes()).hexdigest() for i in indices]
    assert manifest == {
        "schema": 1, "split": "train", "count": 16, "seed": 7,
        "samples": [{"index": int(i), "sha256": h} for i, h in zip(indices, hashes, strict=True)],
        "overlap_with_test": 0, "preprocess": note,
    }  # fmt: skip
    assert len(set(indices.tolist())) == 16
    assert np.bincount(data.train.labels[indices]).tolist() == [4] * 4
    assert np.bincount(data.train.labels[indices[:8]]).tolist() == [2] * 4


def test_calibration_follows_its_seed() -> None:
    first, again, other = (_batches.calibration(dataset(), 16, s, {})[0] for s in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert sorted(first) != sorted(other)


def test_a_training_image_that_is_also_a_test_image_is_replaced() -> None:
    data = dataset()
    planted = [0, 5, 9]
    data.test.images[:3] = data.train.images[planted]
    indices, manifest = _batches.calibration(data, 37, 0, {})
    assert sorted(indices) == sorted(set(range(40)) - set(planted))
    assert manifest["overlap_with_test"] == 0


def test_fewer_images_than_asked_for_are_taken_and_none_is_refused() -> None:
    data = dataset(train=10)
    indices, manifest = _batches.calibration(data, 256, 0, {})
    assert sorted(indices) == list(range(10)) and manifest["count"] == 10
    data.test.images[:] = data.train.images
    with pytest.raises(BadInput, match="each of the 10 training images is in the test split"):
        _batches.calibration(data, 1, 0, {})


def test_calibration_of_the_digits() -> None:
    data = datasets.load("digits")
    _, manifest = _batches.calibration(data, 100, 0, {})
    drawn = [s["index"] for s in manifest["samples"]]
    assert np.bincount(data.train.labels[drawn]).tolist() == [10] * 10
