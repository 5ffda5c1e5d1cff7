"""Datasets: one module per source of labelled images, found by its name (edgeres.plugins).

In: a source as a recipe writes it, `NAME` or `NAME:PATH`. Out: train, validation and test splits of
square uint8 RGB images, checked, and the same on every machine, in memory or decoded as they are
looked at; or a fingerprint of the files, without decoding them. Nothing of the test split ever
reaches another split from here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgeres.datasets import _splits
from edgeres.datasets._hashes import Hashes
from edgeres.disk import storage_errors, write_whole
from edgeres.errors import BadInput
from edgeres.plugins import Plugins
from edgeres.types import Resize

if TYPE_CHECKING:
    import numpy as np


_NOISE = 256  # images of each split


@dataclass(frozen=True)
class Samples:
    """Labelled images: `images` uint8 (N, H, W, 3) RGB, `labels` int64 (N,).

    `images` is an array, or `_pictures.Pictures` that are decoded only when they are looked at.
    """

    images: Any
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits of one source; label k means `classes[k]`.

    Attributes:
        resize: how a picture of any size becomes such an image; None where no rule does that.
        notes: what was left out of the source or assumed of it, a line each.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    resize: Resize | None
    notes: tuple[str, ...] = ()


class RawDataset(NamedTuple):
    """What a plugin reads.

    Attributes:
        validation: None where the source has no such split.
        notes: what was left out or assumed, a line each.
        by_rule: whether `ReadOptions.resize` makes such images of pictures.
    """

    classes: tuple[str, ...]
    train: Samples
    validation: Samples | None
    test: Samples
    notes: tuple[str, ...] = ()
    by_rule: bool = True


@dataclass(frozen=True)
class ReadOptions:
    """How the images of a source are wanted.

    Attributes:
        resize: their size, and how pictures of any size come to it.
        links: also take files that links lead to outside the folder.
    """

    resize: Resize
    links: bool = False


class Plugin(Protocol):
    """What a data set's module provides (PEP 544: a module fits, `self` is ignored).

    One whose files are pictures of any size also has `ANY_SIZE = True`, and its `sources` takes
    `links`. One whose files say their size has `own_size(path)`.
    """

    SUMMARY: str
    SIZE: int  # height and width in pixels where a recipe names none
    NEEDS_PATH: bool

    def read(self, path: Path | None, options: ReadOptions) -> RawDataset:
        """Every image at `options.resize.size_px`; BadInput names the file that can't be used."""
        ...

    def sources(self, path: Path | None) -> tuple[Path, ...]:
        """The files whose contents identify the data; each is `path` itself or lies under it."""
        ...


PLUGINS = Plugins("dataset", __name__, Plugin)


def names() -> tuple[str, ...]:
    """Every dataset a recipe can name."""
    return tuple(sorted(name.replace("_", "-") for name in PLUGINS.names()))


def parse(source: str) -> tuple[str, Path | None]:
    """`NAME` or `NAME:PATH` -> the name and the path.

    Raises:
        BadInput: no such dataset, a path is missing, or there is one too many.
        MissingComponent: it is a package's, and can't be used.
    """
    name, colon, path = source.partition(":")
    name = name.strip().replace("_", "-")
    plugin = PLUGINS.find(name)
    if plugin is None:
        if source.strip() and Path(source).expanduser().is_dir():
            raise BadInput(f"data '{source}' is a folder; write imagefolder:{source}")
        raise PLUGINS.unknown(name, names())
    if not plugin.NEEDS_PATH:
        if colon:
            raise BadInput(f"data '{source}': '{name}' takes no path; write {name}")
        return name, None
    if not path.strip():
        raise BadInput(f"data '{name}' needs a folder: write {name}:PATH")
    return name, Path(path.strip()).expanduser()


def noise(folder: Path, classes: int, size_px: int) -> str:
    """A source of random images and labels, the same each time, as a file below a folder."""
    import numpy as np

    draw, packed, shape = np.random.default_rng(0), io.BytesIO(), (_NOISE, size_px, size_px, 3)
    arrays = {f"x_{part}": draw.integers(0, 256, shape, np.uint8) for part in ("train", "test")}
    labels, names = np.arange(_NOISE) % min(classes, 10), [str(number) for number in range(classes)]
    np.savez(packed, allow_pickle=False, y_train=labels, y_test=labels, classes=names, **arrays)
    path = folder / f"noise-{classes}-{size_px}.npz"
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, packed.getvalue())
    return f"arrays:{path}"


def default_size(source: str) -> int:
    """Height and width of a source's images where nobody says another; raises like `parse`."""
    name, path = parse(source)
    plugin = PLUGINS.load(name)
    own_size = getattr(plugin, "own_size", None)
    return int(own_size(path) if own_size is not None else plugin.SIZE)


def load(source: str, size_px: int | None = None, **asked: Any) -> Dataset:
    """Read a dataset into memory, checked and split: `opened`, with every image decoded.

    Raises:
        BadInput: the source is unknown, missing, damaged or inconsistent.
    """
    from edgeres.datasets._pictures import whole

    data = opened(source, size_px, **asked)
    parts = [Samples(whole(p.images), p.labels) for p in (data.train, data.validation, data.test)]
    train, validation, test = parts
    return dataclasses.replace(data, train=train, validation=validation, test=test)


def opened(
    source: str, size_px: int | None = None, validation: float = 0.1, seed: int = 0,
    resize: Mapping[str, Any] | None = None, links: bool = False,
) -> Dataset:  # fmt: skip
    """A dataset, checked and split; a folder's pictures aren't decoded yet.

    Args:
        size_px: height and width of the images; None for the dataset's own default.
        validation: share of the training images, above 0 and below 1, that becomes the validation
            split (stratified) where the source has none of its own.
        seed: decides which images those are; the test split never depends on it.
        resize: what of `Resize` is other than its default, for pictures of any size.
        links: also take files that links lead to outside the folder.

    Raises:
        BadInput: the source is unknown, missing, damaged or inconsistent; or its images all have
            one size, and more is asked of them.
    """
    name, path = parse(source)
    plugin = PLUGINS.load(name)
    size_px = default_size(source) if size_px is None else size_px
    if (resize or links) and not _any_size(plugin):
        raise BadInput(f"data '{name}': its images all have one size; leave out "
                       f"data.{'resize' if resize else 'links'}")  # fmt: skip
    if size_px < 1:
        raise BadInput(f"data '{source}': the image size is {size_px} px; give a positive one")
    if not 0 < validation < 1:
        raise BadInput(f"data '{source}': validation is {validation}; give a share between 0 and 1")
    rule = Resize.of(size_px) if _any_size(plugin) else Resize(size_px, size_px)
    rule = dataclasses.replace(rule, **(resize or {}))
    if rule.crop != "none" and rule.short_side_px < rule.size_px:
        raise BadInput(f"data.resize.short_side: is {rule.short_side_px}, less than the images' "
                       f"size, {rule.size_px} px; give at least that")  # fmt: skip
    with _readable(source):
        raw = plugin.read(path, ReadOptions(rule, links))
    _check_names(source, raw.classes)
    if len(raw.classes) < 2:
        raise BadInput(f"data '{source}' has {len(raw.classes)} class; a classifier needs two")
    train, held_out = raw.train, raw.validation
    _check(source, "train", train, len(raw.classes), size_px)
    if held_out is None:
        kept, cut = _splits.cut(train.labels, validation, seed)
        held_out = Samples(train.images[cut], train.labels[cut])
        train = Samples(train.images[kept], train.labels[kept])
    _check(source, "validation", held_out, len(raw.classes), size_px)
    _check(source, "test", raw.test, len(raw.classes), size_px)
    known = rule if raw.by_rule else None
    return Dataset(name, raw.classes, train, held_out, raw.test, known, raw.notes)


def fingerprint(source: str, links: bool = False, known: Path | None = None) -> str:
    """SHA-256 (hex) over the dataset's name and its files' contents and names below the path.

    Identifies the data without decoding it, and is the same wherever the files lie.

    Args:
        known: a folder in which their hashes are remembered (`_hashes`).

    Raises:
        BadInput: the source is unknown or its files are missing.
    """
    name, path = parse(source)
    plugin = PLUGINS.load(name)
    more = {"links": True} if links and _any_size(plugin) else {}
    total = hashlib.sha256(f"{name}\n".encode())
    hashes = hashes_of(source, known)
    with _readable(source):
        found = {_name_below(path, file): file for file in plugin.sources(path, **more)}
        for relative, file in sorted(found.items()):
            # Hashed as UTF-8 with surrogates kept: a file name on Linux may be any bytes.
            line = f"{hashes.sha256(file).hex()} {relative}\n"
            total.update(line.encode("utf-8", "surrogateescape"))
    hashes.save()
    return total.hexdigest()


def hashes_of(source: str, known: Path | None) -> Hashes:
    """Hashes of a source's files, remembered in a folder, if there is one."""
    _, path = parse(source)
    if known is None or path is None:
        return Hashes(None)
    return Hashes(known / hashlib.sha256(bytes(path.absolute())).hexdigest()[:20])


def _name_below(path: Path | None, file: Path) -> str:
    return file.name if path is None else file.relative_to(path).as_posix()


def _check_names(source: str, classes: tuple[str, ...]) -> None:
    """Class names go into files and onto terminals, one to a line."""
    for name in classes:
        # Cc control, Cf format (reading directions), Cs bytes that are no UTF-8, Zl and Zp lines
        wrong = [c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        if wrong or not name.strip():
            what = f"holds {ascii(wrong[0])[1:-1]}" if wrong else "is empty"
            raise BadInput(f"data '{source}': the class name {name!a} {what}; rename the "
                           f"folder in plain characters")  # fmt: skip


def _check(source: str, split: str, samples: Samples, classes: int, size_px: int) -> None:
    images, labels = samples.images, samples.labels
    where = f"data '{source}', {split} split"
    if len(images) == 0:
        raise BadInput(f"{where}: no image in it; add some")
    if images.dtype != "uint8" or images.shape[1:] != (size_px, size_px, 3):
        raise BadInput(
            f"{where}: images are {images.dtype} {images.shape[1:]}, "
            f"expected uint8 ({size_px}, {size_px}, 3)"
        )
    if labels.dtype != "int64" or labels.shape != images.shape[:1]:
        raise BadInput(
            f"{where}: {len(images)} images but labels are {labels.dtype} {labels.shape}, "
            f"expected int64 ({len(images)},)"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise BadInput(
            f"{where}: label {wrong[0]} is out of range, {classes} classes are 0 to {classes - 1}"
        )


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turn an unreadable file into BadInput."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise BadInput(
            f"data '{source}' can't be read: {where}{error.strerror or error}"
        ) from error


def _any_size(plugin: object) -> bool:
    return getattr(plugin, "ANY_SIZE", False)
