"""Mixed views: shares that fit the pixels, and the same mix in whatever batch."""

from __future__ import annotations

import pytest
import torch

from edgeres.errors import BadInput
from edgeres.pipeline import steps
from edgeres.recipe import MixSection, load_mapping
from edgeres.training import losses
from edgeres.training.views import Labelled, Views, ViewSettings


def mixed(kind: str, count: int = 400, alpha: float = 1.0, share: float = 1.0):
    """Image i is all of one value, 0 or 255, so that a mean tells the share of the white ones."""
    labels = torch.arange(count) % 2
    pixels = (labels * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    settings = ViewSettings(3, (), MixSection(kind=kind, alpha=alpha, share=share))
    return Views(Labelled(pixels, labels), settings)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "either"])
def test_labels_are_shared_as_the_pixels_are(kind: str) -> None:
    images, shares = mixed(kind).batch(torch.arange(400), view=0)
    torch.testing.assert_close(shares.sum(1), torch.ones(400))
    torch.testing.assert_close(shares[:, 1], images.float().mean((1, 2, 3)) / 255,
                               atol=2e-3, rtol=0)  # fmt: skip
    assert len(shares[:, 1].unique()) > 30


def test_cutmix_pastes_one_box_and_mixup_fades() -> None:
    cut, _ = mixed("cutmix").batch(torch.arange(400), view=0)
    assert set(cut.unique().tolist()) == {0, 255}
    faded, _ = mixed("mixup").batch(torch.arange(400), view=0)
    assert (faded.flatten(1).amax(1) == faded.flatten(1).amin(1)).all()
    either, _ = mixed("either").batch(torch.arange(400), view=0)
    flat = (either.flatten(1).amax(1) == either.flatten(1).amin(1)).float().mean()
    assert 0.5 < flat < 0.95  # half faded, and pairs of one label are flat too


def test_alpha_and_share_say_how_much_is_mixed() -> None:
    _, half = mixed("mixup", share=0.5).batch(torch.arange(400), view=0)
    untouched = (half.amax(1) == 1).float().mean()
    assert 0.65 < untouched < 0.85  # half, and half of the rest have a partner of the same label
    spread = [mixed("mixup", alpha=a).batch(torch.arange(400), 0)[1][:, 0].sub(0.5).abs().mean()
              for a in (0.2, 1.0, 20.0)]  # fmt: skip
    assert spread[0] > spread[1] > spread[2]


def test_a_mix_is_the_same_in_whatever_batch_and_another_in_another_view() -> None:
    views = mixed("either")
    whole, shares = views.batch(torch.arange(400), view=4)
    chosen = torch.tensor([7, 399, 0])
    images, some = views.batch(chosen, view=4)
    assert torch.equal(images, whole[chosen])
    assert torch.equal(some, shares[chosen])
    assert (views.batch(chosen, view=5)[0] != images).any()


def test_cross_entropy_of_shares_is_the_shared_cross_entropy() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.5]])
    share = losses.cross_entropy(logits, torch.tensor([[0.3, 0.7]]))
    apart = [losses.cross_entropy(logits, torch.tensor([label])) for label in (0, 1)]
    torch.testing.assert_close(share, 0.3 * apart[0] + 0.7 * apart[1])


def test_dkd_refuses_mixed_labels() -> None:
    with pytest.raises(BadInput, match="dkd needs one label per image"):
        steps(load_mapping({"name": "x", "distill": {"loss": "dkd", "train": {"mix": {}}}}))
