"""Augmentation: each changes what it says, and a view is the same wherever it is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeres.datasets import _augment
from edgeres.datasets._augment import augment
from edgeres.datasets._draws import Draws
from edgeres.errors import BadInput


def draws(seed: int = 0, n: int = 64) -> Draws:
    return Draws(seed, 0, torch.arange(n))


def noise(n: int = 64, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def test_a_view_does_not_depend_on_its_batch() -> None:
    images, names = noise(), _augment.AUGMENTATIONS
    whole = augment(images, names, Draws(3, 5, torch.arange(64)))
    chosen = torch.tensor([40, 3, 17])
    assert torch.equal(augment(images[chosen], names, Draws(3, 5, chosen)), whole[chosen])
    for seed, view in ((3, 6), (4, 5)):
        other = augment(images, names, Draws(seed, view, torch.arange(64)))
        assert (other != whole).flatten(1).any(1).sum() > 60


def test_draws_are_spread_evenly_and_unrelated() -> None:
    samples = torch.arange(20_000)
    first = Draws(0, 0, samples)
    columns = [first.uniform(), first.uniform(), Draws(0, 1, samples).uniform(),
               Draws(1, 0, samples).uniform(), first.uniform().roll(1)]  # fmt: skip
    for column in columns:
        assert 0 <= column.min() < column.max() < 1
        counts = torch.histc(column, 10, 0, 1)
        assert ((counts - 2000) ** 2 / 2000).sum() < 33  # chi squared, p = 1e-4
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlation.abs().max() < 0.03  # four standard deviations
    assert Draws(2**32 - 1, 10**6, samples).below(7).unique().tolist() == list(range(7))


@pytest.mark.parametrize("name", _augment.AUGMENTATIONS)
def test_an_augmentation_keeps_the_form_and_follows_its_generator(name: str) -> None:
    images = noise(height=16, width=24)
    before = images.clone()
    first, again, other = (augment(images, (name,), draws(s)) for s in (1, 1, 2))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, images)
    changes = {(a.int() - b.int()).abs().sum().item() for a, b in zip(first, images, strict=True)}
    assert len(changes) > 10  # each image is drawn for itself


def test_no_augmentation_changes_nothing() -> None:
    assert torch.equal(augment(noise(), (), draws()), noise())


def test_augmentations_follow_one_another() -> None:
    both = augment(noise(), ("crop", "flip"), draws(4))
    state = draws(4)
    cropped = augment(noise(), ("crop",), state)
    assert torch.equal(both, augment(cropped, ("flip",), state))


def test_an_unknown_augmentation_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown augmentation 'cropp' \(did you mean 'crop'\?\)"):
        augment(noise(), ("cropp",), draws())


@pytest.mark.parametrize(("height", "width"), [(16, 24), (8, 8), (4, 2)])
def test_a_crop_is_a_window_of_the_mirrored_image(height: int, width: int) -> None:
    images = noise(40, height, width)
    top, left = max(1, height // 8), max(1, width // 8)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (top, top), (left, left)), mode="reflect")
    cropped = augment(images, ("crop",), draws(0, 40)).numpy()
    moves = set()
    for whole, got in zip(padded, cropped, strict=True):
        windows = {
            (y, x): whole[:, y : y + height, x : x + width]
            for y in range(2 * top + 1)
            for x in range(2 * left + 1)
        }
        fitting = [move for move, window in windows.items() if np.array_equal(window, got)]
        assert fitting
        moves.update(fitting)
    assert {y for y, _ in moves} == set(range(2 * top + 1))
    assert {x for _, x in moves} == set(range(2 * left + 1))


def test_a_flip_mirrors_about_half_of_the_images_and_twice_is_none() -> None:
    images = noise(400, 4, 4)
    flipped = augment(images, ("flip",), draws(3, 400))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 140 < mirrored.sum() < 260  # six standard deviations of a fair coin
    assert torch.equal(augment(flipped, ("flip",), draws(3, 400)), images)


def test_a_cutout_hides_one_grey_rectangle_and_nothing_else() -> None:
    images = torch.full((300, 3, 16, 16), 5, dtype=torch.uint8)
    cut = augment(images, ("cutout",), draws(0, 300))
    assert set(cut.unique().tolist()) == {5, 128}
    hidden = cut == 128
    assert (hidden[:, 0] == hidden[:, 1]).all()
    for mask in hidden[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert 2 <= rows.sum() <= 4
        assert 2 <= columns.sum() <= 4
    assert hidden[:, 0].any(0).all()  # every pixel is hidden in some image


def test_a_resized_crop_shows_a_piece_of_the_image_enlarged() -> None:
    rows, columns = np.mgrid[:48, :64]
    plane = np.stack([columns * 4, rows * 5, np.full_like(rows, 9)]).astype(np.uint8)
    images = torch.from_numpy(plane).expand(512, -1, -1, -1)
    shown = augment(images, ("resized-crop",), draws(n=512)).float()
    assert (shown[:, 2] == 9).all()
    wide = (shown[:, 0, 20, 60] - shown[:, 0, 20, 4]) / (60 - 4) / 4  # shares of the sides
    high = (shown[:, 1, 43, 30] - shown[:, 1, 4, 30]) / (43 - 4) / 5
    area, ratio = wide * high, wide / high
    assert area.min() > 0.33 and area.max() < 1.02
    assert ratio.min() > 0.73 and ratio.max() < 1.37
    assert area.min() < 0.4 < 0.9 < area.max() and ratio.min() < 0.8 and ratio.max() > 1.25
    assert abs(area.mean() - 0.66) < 0.03
    flat_rows = shown[:, 0] - shown[:, 0, :1]
    assert flat_rows.abs().max() <= 1  # neither turned nor sheared
    left, right = shown[:, 0, 20, 0], 252 - shown[:, 0, 20, -1]
    assert abs((left - right).mean()) < 8  # anywhere in the image, and never beyond it
    assert shown[:, 0].min() >= 0 and left.max() > 50
