"""Arrays: one .npz with `x_train`, `y_train`, `x_test`, `y_test`, as Keras stores its data sets.

In: uint8 images (N, H, H), (N, H, H, 1) or (N, H, H, 3), whole-number labels (N,) or (N, 1) from 0
up, and, if they are there, `x_val`, `y_val` and `classes` (names). Out: the same as RGB.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.datasets import RawDataset, ReadOptions, Samples, _pixels
from edgeres.disk import open_regular
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "arrays in one .npz: x_train, y_train, x_test, y_test, uint8 (N, H, H[, 3]), as Keras's"
SIZE = 32
NEEDS_PATH = True

_MOST_BYTES = 4 << 30  # of one array
_MOST_CLASSES = 100_000
_MOST_PX = 4096
_PARTS = ("train", "val", "test")


def sources(path: Path | None) -> tuple[Path, ...]:
    """The file."""
    assert path is not None  # NEEDS_PATH
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give an .npz with x_train, y_train, x_test, y_test")
    return (path,)


def own_size(path: Path | None) -> int:
    """The height and width of the images in the file."""
    from numpy.lib import format as npy

    (file,) = sources(path)
    try:
        with (
            open_regular(file) as stream,
            zipfile.ZipFile(stream) as packed,
            packed.open("x_train.npy") as array,
        ):
            old = npy.read_magic(array) == (1, 0)
            shape, *_ = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(array)
            return int(shape[1]) if 0 < shape[1] <= _MOST_PX else SIZE
    except Exception:  # `read` says what is wrong with it
        return SIZE


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """Every split at the size that is asked for."""
    (file,) = sources(path)
    found = _arrays(file)
    parts = {p: _samples(file, p, found, options.resize.size_px) for p in _PARTS
             if f"x_{p}" in found}  # fmt: skip
    count = 1 + max(int(part.labels.max(initial=-1)) for part in parts.values())
    if count > _MOST_CLASSES:
        raise BadInput(f"{file}: a label is {count - 1:,}; labels count the classes from 0")
    names, notes = found.get("classes"), list(_scaled(found, options.resize.size_px))
    if names is None:
        classes = tuple(str(k) for k in range(count))
        notes.append(f"no `classes` in it: they are called 0 to {count - 1}")
    else:
        classes = tuple(str(name) for name in names.reshape(-1))
        if len(classes) < count:
            raise BadInput(f"{file}: names {len(classes)} classes, and a label is {count - 1}")
    if lacking := sorted(set(range(len(classes))) - set(parts["train"].labels.tolist())):
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        some = ", ".join(classes[k] for k in lacking[:5])
        notes.append(f"no training image of {some}{more}: is a label meant otherwise?")
    return RawDataset(
        classes, parts["train"], parts.get("val"), parts["test"], tuple(notes), by_rule=False
    )


def _scaled(found: dict[str, np.ndarray], size_px: int) -> Iterator[str]:
    """What is to be said of images of another size than asked for."""
    for part in _PARTS:
        if f"x_{part}" in found and (own := found[f"x_{part}"].shape[1]) != size_px:
            yield f"x_{part}: scaled from {own} to {size_px} px"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file; no object is unpickled, none is larger than it may be.

    Raises:
        BadInput: it isn't such a file, or an array is missing.
    """
    from numpy.lib import format as npy

    wanted = {f"{kind}_{part}.npy" for kind in "xy" for part in _PARTS} | {"classes.npy"}
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as packed:
            arrays: dict[str, np.ndarray] = {}
            for info in packed.infolist():
                name = info.filename
                if name not in wanted:
                    continue
                if info.file_size > _MOST_BYTES:
                    raise BadInput(
                        f"{path}: {name} is larger than {_MOST_BYTES >> 30} GiB; give the pictures "
                        "as a folder: imagefolder:PATH"
                    )
                with packed.open(info) as array:
                    arrays[name.removesuffix(".npy")] = npy.read_array(array, allow_pickle=False)
    except BadInput:
        raise
    except Exception as error:  # zip and the npy header each have their own
        raise BadInput(
            f"{path}: can't be read as an .npz ({type(error).__name__}: {error})"
        ) from error
    missing = [n for n in ("x_train", "y_train", "x_test", "y_test") if n not in arrays]
    if ("x_val" in arrays) != ("y_val" in arrays):
        missing.append("y_val" if "x_val" in arrays else "x_val")
    if missing:
        raise BadInput(
            f"{path}: no array {missing[0]} in it; save them with numpy.savez_compressed(FILE, "
            "x_train=…, y_train=…, x_test=…, y_test=…)"
        )
    return arrays


def _samples(path: Path, part: str, found: dict[str, np.ndarray], size_px: int) -> Samples:
    import numpy as np

    images, labels = found[f"x_{part}"], found[f"y_{part}"]
    shape = images.shape
    if shape[3:] == (1,):
        images = images[..., 0]
    square = images.ndim in (3, 4) and 0 < shape[1] == shape[2] <= _MOST_PX
    if images.dtype != np.uint8 or not square or images.shape[3:] not in ((), (3,)):
        raise BadInput(f"{path}: x_{part} is {images.dtype} {shape}; uint8 (N, H, H) or "
                       "(N, H, H, 3) is expected, 0 to 255, channels last, of at most "
                       f"{_MOST_PX:,} px")  # fmt: skip
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise BadInput(f"{path}: y_{part} is {labels.dtype} {labels.shape}; whole numbers "
                       f"({len(images)},), the classes from 0, are expected")  # fmt: skip
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise BadInput(f"{path}: y_{part} holds {int(labels.min())}; classes count from 0")
    if images.ndim == 3:
        images = _pixels.rgb(images)
    return Samples(_pixels.resized(images, size_px), labels.astype(np.int64))
