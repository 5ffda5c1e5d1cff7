"""Your own pictures: one folder per split, in it one folder per class.

In: a folder with `train/<class>/*.jpg` and, where there are, `test/` and `val/` of the same shape,
or class folders alone (`_folders`). Out: square RGB images (`_decoding`). Without a `test`, the
validation folder is the test split; without either, a fifth of the training images, always the
same, is.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from edgeres.datasets import RawDataset, ReadOptions, Samples, _splits
from edgeres.datasets._decoding import DRAFT_MARGIN, decode
from edgeres.datasets._folders import Classes, flat, found
from edgeres.datasets._pictures import Pictures
from edgeres.types import Resize

SUMMARY = "your own pictures: PATH/train/<class>/*.jpg, PATH/val/<class>/…, PATH/test/<class>/…"
SIZE = 96
NEEDS_PATH = True
ANY_SIZE = True

_TEST_SHARE, _TEST_SEED = 0.2, 20


def sources(path: Path | None, links: bool = False) -> tuple[Path, ...]:
    """Every picture of every split, and the lists of their labels."""
    assert path is not None  # NEEDS_PATH
    folder = found(path, links)
    return (*(file for split in folder.splits.values() for file in flat(split)), *folder.others)


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """Every picture, upright, RGB, cut and scaled as `options.resize` says.

    They are decoded when they are looked at (`_pictures.Pictures`), those of the test split whole,
    so that the rule gives their pixels to the bit.
    """
    assert path is not None  # NEEDS_PATH
    splits, _, notes = found(path, options.links)
    rule = options.resize
    train = _samples(splits["train"], rule, DRAFT_MARGIN)
    validation, test = (_samples(splits[s], rule, None) if s in splits else None
                        for s in ("validation", "test"))  # fmt: skip
    if test is None:
        validation, test = None, validation
        what = "the validation images are" if test else "a fifth of the training images is"
        notes = (*notes, f"no folder 'test': {what} the test split")
    if test is None:
        kept, cut = _splits.cut(train.labels, _TEST_SHARE, _TEST_SEED)
        whole = dataclasses.replace(train.images, decode=partial(decode, resize=rule))
        test = Samples(whole[cut], train.labels[cut])
        train = Samples(train.images[kept], train.labels[kept])
    return RawDataset(tuple(splits["train"]), train, validation, test, notes)


def _samples(classes: Classes, rule: Resize, draft_margin: float | None) -> Samples:
    import numpy as np

    sizes = [len(members) for members in classes.values()]
    labels = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    how = partial(decode, resize=rule, draft_margin=draft_margin)
    return Samples(Pictures(flat(classes), rule.size_px, how), labels)
