"""CIFAR-100: 60,000 RGB 32x32 photographs of 100 classes.

In: a folder with `train.npz` and `test.npz` (x uint8 NHWC, y), or the official Python or binary
version, extracted or as its tar.gz. Out: the official splits in the official order.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

from pathlib import Path

from edgeres.datasets import RawDataset, ReadOptions, _cifar

SUMMARY = "CIFAR-100: 60,000 RGB 32x32 photographs, 100 classes (npz, official Python or binary)"
SIZE = 32
NEEDS_PATH = True

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_VERSION = _cifar.Version(
    "CIFAR-100", tuple(_FINE.split()), ("train", "test"), ("cifar-100-python", "cifar-100-binary"),
    ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"), "fine_labels", 2,
)  # fmt: skip


def sources(path: Path | None) -> tuple[Path, ...]:
    """The files of the first format found, in reading order."""
    return _cifar.sources(_VERSION, path)


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """The official splits at their size (32 keeps the pixels as they are)."""
    return _cifar.read(_VERSION, path, options)
