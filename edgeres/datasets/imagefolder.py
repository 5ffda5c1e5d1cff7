"""Your own pictures: one folder per split, in it one folder per class.

In: a folder with `train/<class>/*.jpg` and, where there are, `test/`, `val/` or `validation/` of
the same shape. Out: square RGB images, cut from the centre. Without a `test`, the validation folder
is the test split; without either, a fifth of the training images, always the same, is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.datasets import RawDataset, Samples, _splits
from edgeres.datasets._pictures import Pictures
from edgeres.disk import open_regular
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "your own pictures: PATH/train/<class>/*.jpg, PATH/val/<class>/…, PATH/test/<class>/…"
SIZE = 96
NEEDS_PATH = True

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # no other decoder sees a file, whatever its name
_VALIDATION = ("val", "validation")
_TEST_SHARE, _TEST_SEED = 0.2, 20
_MARGIN = 1.15  # the short side, measured in sides of the crop
_MAX_PIXELS = 1 << 27  # a 108-megapixel telephone camera; more is a decompression bomb
_MAX_SIDE = 65_535  # JPEG's; decoders also take memory for each row
_LARGE_BYTES = 64 << 20  # decoded; a picture that large has detail,
_MAX_TIMES = 250  # so that it is no more than so many times its file
DRAFT_MARGIN = 2.0
"""JPEGs are decoded at 1/2, 1/4 or 1/8 of their size while the short side stays this many times
what is asked for; None decodes them whole."""

Classes = dict[str, list[Path]]


def sources(path: Path | None) -> tuple[Path, ...]:
    """Every picture of every split."""
    return tuple(file for classes in _splits_of(path).values() for file in _flat(classes))


def read(path: Path | None, size_px: int) -> RawDataset:
    """Every picture: the centre of its upright self, 1/1.15 of the short side, RGB.

    They are decoded when they are looked at (`_pictures.Pictures`).
    """
    found = _splits_of(path)
    splits = {split: _samples(classes, size_px) for split, classes in found.items()}
    train, validation, test = splits["train"], splits.get("validation"), splits.get("test")
    if test is None:
        validation, test = None, validation
    if test is None:
        kept, cut = _splits.cut(train.labels, _TEST_SHARE, _TEST_SEED)
        test = Samples(train.images[cut], train.labels[cut])
        train = Samples(train.images[kept], train.labels[kept])
    return RawDataset(tuple(found["train"]), train, validation, test)


def _splits_of(path: Path | None) -> dict[str, Classes]:
    """The pictures of `train`, and of `validation` and `test` where there are any."""
    assert path is not None  # NEEDS_PATH
    if not (path / "train").is_dir():
        raise BadInput(f"{path}: no folder 'train' in it; expected train/<class>/<pictures>")
    held_out = [name for name in _VALIDATION if (path / name).is_dir()]
    if len(held_out) == 2:
        raise BadInput(f"{path}: both 'val' and 'validation' are there; keep one")
    names = {"train": "train", "validation": "".join(held_out) or "val", "test": "test"}
    folders = {split: path / name for split, name in names.items() if (path / name).is_dir()}
    found = {split: _classes(folder, path.resolve()) for split, folder in folders.items()}
    for split, classes in found.items():
        if different := sorted(classes.keys() ^ found["train"].keys()):
            name = different[0]
            there, absent = ("train", split) if name in found["train"] else (split, "train")
            raise BadInput(
                f"{path}: class folder '{name}' is in {folders[there].name} but not in "
                f"{folders[absent].name}; the splits need the same classes"
            )
    return found


def _classes(folder: Path, root: Path) -> Classes:
    """Class name -> its pictures, both sorted; files of other kinds are passed over."""
    found: Classes = {}
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        files = [f for f in sorted(entry.iterdir()) if f.suffix.lower() in _SUFFIXES]
        files = [f for f in files if not f.name.startswith(".")]
        if not files:
            raise BadInput(f"{entry}: no picture in it ({', '.join(sorted(_SUFFIXES))})")
        for file in files:
            if not file.is_file():
                raise BadInput(f"{file}: not a file, or a broken link; replace or remove it")
            if not file.resolve().is_relative_to(root):
                raise BadInput(f"{file}: a link to outside {root}; copy the file instead")
        found[entry.name] = files
    if not found:
        raise BadInput(
            f"{folder}: no class folder in it; expected {folder.name}/<class>/<pictures>"
        )
    return found


def _flat(classes: Classes) -> list[Path]:
    return [file for files in classes.values() for file in files]


def _samples(classes: Classes, size_px: int) -> Samples:
    import numpy as np

    sizes = [len(members) for members in classes.values()]
    labels = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    return Samples(Pictures(_flat(classes), size_px, _decode), labels)


def _decode(file: Path, size_px: int, draft_margin: float | None = DRAFT_MARGIN) -> np.ndarray:
    """uint8 (size_px, size_px, 3): short side to 1.15 size_px, then the centre, in one resampling.

    One step also never holds the resized long side, which a one-pixel-high picture would blow up.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with open_regular(file) as stream, Image.open(stream, formats=_FORMATS) as opened:
            _require_decodable(file, *opened.size, os.fstat(stream.fileno()).st_size)
            if draft_margin:
                least = round(draft_margin * size_px * _MARGIN)
                opened.draft(None, (least, least))  # the other formats don't know it
            picture = _rgb(ImageOps.exif_transpose(opened))
    except BadInput:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise BadInput(f"{file}: can't be decoded ({error}); replace or remove it") from error
    width, height = picture.size
    side = min(width, height) * size_px / round(size_px * _MARGIN)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))


def _require_decodable(file: Path, width: int, height: int, size_bytes: int) -> None:
    """Refuse a decompression bomb by its header."""
    decoded = 3 * width * height
    if width * height > _MAX_PIXELS or max(width, height) > _MAX_SIDE:
        raise BadInput(f"{file}: {width}x{height} pixels are too many")
    if decoded > max(_LARGE_BYTES, _MAX_TIMES * size_bytes):
        raise BadInput(f"{file}: {size_bytes:,} bytes would become {width}x{height} pixels, "
                       f"{decoded / 1e6:,.0f} MB; save it smaller")  # fmt: skip


def _rgb(picture: Any) -> Any:
    """Any mode to RGB: 16-bit grey is scaled, not clipped; transparent pixels show white."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I"):
        grey = np.asarray(picture).clip(0, 65535) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
