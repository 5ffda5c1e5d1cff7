"""Picture files that stay where they are: their names, sizes and hashes as a few arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeres.datasets._decoding import MOST_BYTES, Piece, Wanted
from edgeres.datasets._hashes import Hashes
from edgeres.datasets._pictures import Pictures
from edgeres.errors import BadInput, StorageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Listed(NamedTuple):
    """N files below a folder, as arrays, which a million of them fit into memory as.

    Attributes:
        names: uint8 (B,), the relative names' bytes, one behind the other.
        ends: int64 (N,), where each name ends.
        sizes: int64 (N,), bytes of each file.
        sha256: uint8 (N, 32).
    """

    names: np.ndarray | Tensor
    ends: np.ndarray | Tensor
    sizes: np.ndarray | Tensor
    sha256: Any

    def sound(self) -> bool:
        """Whether its arrays belong together."""
        n = len(self.ends)
        return (
            [str(a.dtype).removeprefix("torch.") for a in self]
            == ["uint8", "int64", "int64", "uint8"]
            and [tuple(a.shape) for a in self] == [(len(self.names),), (n,), (n,), (n, 32)]
            and n > 0 and int(self.ends[-1]) == len(self.names)
            and bool((self.ends[1:] > self.ends[:-1]).all()) and int(self.ends[0]) > 0
        )  # fmt: skip

    def name(self, i: int) -> bytes:
        """A file's relative name.

        Raises:
            StorageError: it leads out of the folder.
        """
        first = int(self.ends[i - 1]) if i else 0
        name = bytes(self.names[first : int(self.ends[i])])
        parts = name.split(b"/")
        if b"\0" in name or any(part in (b"", b".", b"..") for part in parts):
            raise StorageError(f"picture {i} of the list is named {name[:80]!r}; remove the data "
                               "artifact's folder and run again")  # fmt: skip
        return name

    def wanted(self, folder: bytes, i: int, piece: Piece | None = None) -> Wanted:
        """One of them as it is asked for, the folder named; raises like `name`."""
        file = os.fsdecode(os.path.join(folder, self.name(i)))  # noqa: PTH118  bytes
        return Wanted(file, int(self.sizes[i]), bytes(self.sha256[i]), piece)


def listed(
    pictures: Pictures, folder: Path, hashes: Hashes, tick: Callable[[int], None] = lambda _: None
) -> Listed:
    """The list of pictures below a folder.

    Raises:
        BadInput: a file can't be read, or is too large to be.
    """
    import numpy as np

    names = [os.fsencode(file.relative_to(folder)) for file in pictures.files]
    sizes = np.empty(len(names), np.int64)
    sha256 = np.empty((len(names), 32), np.uint8)
    for i, file in enumerate(pictures.files):
        sha256[i] = np.frombuffer(hashes.sha256(file), np.uint8)
        sizes[i] = file.stat().st_size
        if sizes[i] > MOST_BYTES:
            raise BadInput(f"{file}: has more than {MOST_BYTES >> 30} GiB; save it smaller")
        tick(i)
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return Listed(np.frombuffer(b"".join(names), np.uint8), ends, sizes, sha256)
