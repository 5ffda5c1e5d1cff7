"""However batches get to the device, they are the same ones."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from conftest import images, network

from edgeres.datasets import _randaugment
from edgeres.datasets._draws import Draws
from edgeres.errors import BadInput
from edgeres.recipe import MixSection
from edgeres.training import feed, label_cache, placement
from edgeres.training.answers import as_teacher
from edgeres.training.feed import Feed
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Views, ViewSettings

COUNT, CPU = 50, torch.device("cpu")


def views(folder: Path, *, mix: bool = True) -> Views:
    split = Labelled(images(COUNT, px=8), torch.arange(COUNT) % 10)
    seen = ViewSettings(3, ("crop", "flip"), MixSection(share=0.6) if mix else None)
    label_cache.build(as_teacher(network("resnet8-w0.5", px=8)), Views(split, seen),
                      Layout(2, COUNT, 10, 10, seen), folder, lambda *_: None)  # fmt: skip
    return Views(Labelled(split.images, split.labels, LabelCache(folder)), seen)


@pytest.mark.parametrize("way", ["_sliced", "_ahead"])
@pytest.mark.parametrize("mix", [False, True])
def test_kept_there_or_brought_ahead_batches_are_those_of_a_cpu(
    way: str, mix: bool, tmp_path: Path
) -> None:
    made = views(tmp_path, mix=mix)
    given = Feed(made, CPU)
    order = torch.randperm(COUNT).split(16)
    plain = list(given.epoch(order, 1))
    assert [len(raw) for raw in plain] == [16, 16, 16, 2]
    for raw, other in zip(plain, getattr(given, way)(order, 1), strict=True):
        assert raw.tensors().keys() == other.tensors().keys()
        for name, tensor in raw.tensors().items():
            assert torch.equal(other.tensors()[name], tensor), name
        for tensor, again in zip(made.made(raw), made.made(other), strict=True):
            assert torch.equal(again, tensor)
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_what_fits_stays_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, meta = views(tmp_path), torch.device("meta")
    assert Feed(made, meta).resident
    assert not Feed(made, CPU).resident  # where it is mapped into memory
    monkeypatch.setattr(feed, "_ANSWERS_BYTES", COUNT * 10 * 4 - 1)
    assert not Feed(made, meta).resident
    monkeypatch.undo()
    monkeypatch.setattr(placement, "fits", lambda size, device: size < made.split.images.nbytes)
    given = Feed(made, meta)
    assert not given.resident
    batches = list(given.epoch(torch.arange(COUNT).split(20), 0))
    assert [raw.images.device.type for raw in batches if raw.images is not None] == ["meta"] * 3


def test_a_device_that_is_not_there_is_said() -> None:
    for name, found in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if not found.is_available():
            with pytest.raises(BadInput, match=r"labels\.device: there is no .*(CUDA|mps).*auto"):
                placement.device_of(name, "labels.device")
    assert placement.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_changing_all_images_and_taking_some_is_changing_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What another device than a CPU does, where to count the images would be to wait."""
    pixels = images(200, px=16)
    some = _randaugment.randaugment(pixels, Draws(1, 0, torch.arange(200)))

    def on_device(out: torch.Tensor, chosen: torch.Tensor, change: object,
                  *inputs: torch.Tensor) -> torch.Tensor:  # fmt: skip
        return torch.where(chosen.view(-1, 1, 1, 1), change(*inputs), out)  # type: ignore[operator]

    monkeypatch.setattr(_randaugment, "_put", on_device)
    assert torch.equal(_randaugment.randaugment(pixels, Draws(1, 0, torch.arange(200))), some)
