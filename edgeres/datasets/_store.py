"""Splits on disk: written a batch at a time, read through a memory map.

One safetensors file (8 bytes of header length, a JSON header, then the tensors without gaps:
https://huggingface.co/docs/safetensors), in it for each split `<split>_y`, int64 (N,), and
`<split>_nchw`, uint8 (N, 3, H, W): the layout in which a batch is used as it is read. Of a split
whose pictures stay files there are the arrays of `Listed` in place of the latter.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from edgeres.datasets import Samples, _pictures
from edgeres.datasets._listed import Listed
from edgeres.errors import StorageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FILE = "data.safetensors"


class Written(NamedTuple):
    """What is known of a split after it was written.

    Attributes:
        fingerprint: SHA-256 (hex) over all pixels, (N, H, W, 3), or the files' hashes, and the
            labels.
        digests: SHA-256 of each image's pixels, (H, W, 3), or of its file.
    """

    fingerprint: str
    digests: list[bytes]


def write(
    folder: Path,
    splits: Mapping[str, Samples],
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Written]:
    """Write the splits; of their images only a few batches are in memory at a time.

    Raises:
        StorageError: they don't fit on the disk.
        Undecodable: pictures can't be decoded; it names them all.
    """
    header, size_bytes = _header(splits)
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise StorageError(
            f"{folder}: no space left for the decoded images, {size_bytes / 1e6:,.1f} MB with "
            f"{free / 1e6:,.1f} MB free; lower `size`, free some (`edgeres clean`), choose "
            "another --runs DIR, or leave photographs as they are (data.storage=jpeg)"
        )
    total = sum(len(part.labels) for part in splits.values())
    written: dict[str, Written] = {}
    reasons: list[str] = []
    with (folder / FILE).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for part in splits.values():
            file.write(_bytes(part.labels))
        for array in _lists(splits).values():
            file.write(array.data)
        done = 0
        for name, part in splits.items():
            try:
                written[name] = _written(file, part, partial(_told, tick, done, total))
            except _pictures.Undecodable as error:
                reasons += error.reasons
            done += len(part.labels)
    if reasons:
        raise _pictures.Undecodable(reasons)
    return written


def _told(tick: Callable[[int, int, str], None], before: int, total: int, done: int) -> None:
    tick(before + done, total, f"{before + done:,} of {total:,} images")


def _written(file: BinaryIO, part: Samples, tick: Callable[[int], None]) -> Written:
    import numpy as np

    total, digests = hashlib.sha256(), list[bytes]()
    if isinstance(part.images, Listed):
        total.update(part.images.sha256.data)
        total.update(_bytes(part.labels))
        return Written(total.hexdigest(), [row.tobytes() for row in part.images.sha256])
    for batch in _pictures.batches(part.images):
        total.update(batch.data)
        digests += [hashlib.sha256(image.data).digest() for image in batch]
        file.write(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).data)
        tick(len(digests))
    total.update(_bytes(part.labels))
    return Written(total.hexdigest(), digests)


def _bytes(labels: np.ndarray) -> bytes:
    return bytes(labels.astype("<i8").tobytes())


def _header(splits: Mapping[str, Samples]) -> tuple[bytes, int]:
    """The file's header, and the size of all that follows it; the labels first, for alignment."""
    shapes = {f"{name}_y": ("I64", [len(part.labels)]) for name, part in splits.items()}
    for name, array in _lists(splits).items():
        shapes[name] = ("I64" if array.dtype == "int64" else "U8", list(array.shape))
    for name, part in splits.items():
        if not isinstance(part.images, Listed):
            n, height, width, channels = part.images.shape
            shapes[f"{name}_nchw"] = ("U8", [n, channels, height, width])
    entries, at = {}, 0
    for key, (kind, shape) in shapes.items():
        end = at + math.prod(shape) * (8 if kind == "I64" else 1)
        entries[key] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), at


def _lists(splits: Mapping[str, Samples]) -> dict[str, np.ndarray]:
    """Tensor name -> array, of the splits that stay files; the int64 ones first, for alignment."""
    found = {f"{name}_{field}": array for name, part in splits.items()
             if isinstance(part.images, Listed)
             for field, array in part.images._asdict().items()}  # fmt: skip
    return dict(sorted(found.items(), key=lambda item: item[1].dtype != "int64"))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a broken file into one sentence (StorageError)."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise StorageError(
            f"{path}: isn't a whole safetensors file ({error}); remove its folder and repeat"
        ) from error


def read(path: Path) -> dict[str, tuple[Any, Any]]:
    """Split -> images uint8 (N, 3, H, W), or `Listed`, and labels int64 (N,), as tensors mapped
    into memory."""
    from safetensors.torch import load_file

    with reading(path):
        tensors = load_file(path)  # maps the file; pages are read as they are looked at
    return {name.removesuffix("_y"): (_images(tensors, name.removesuffix("_y")), labels)
            for name, labels in tensors.items() if name.endswith("_y")}  # fmt: skip


def _images(tensors: Mapping[str, Tensor], split: str) -> Tensor | Listed:
    if (stored := tensors.get(f"{split}_nchw")) is not None:
        return stored
    if all(f"{split}_{field}" in tensors for field in Listed._fields):
        return Listed(*(tensors[f"{split}_{field}"] for field in Listed._fields))
    return tensors[f"{split}_x"].permute(0, 3, 1, 2).contiguous()  # of data stage 1 and 2
