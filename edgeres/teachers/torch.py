"""A program of `torch.export` (.pt2): any convolutional classifier, as an ordinary network."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models.spec import default_preprocess
from edgeres.teachers import Found, Wanted

SUMMARY = "any convolutional classifier that torch.export saved: torch:FILE.pt2"
BLACK_BOX = False


def is_program(path: Path) -> bool:
    """Whether a file is one, by what it holds."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # another kind of file, whose reader says what is wrong
    return any(name.endswith("models/model.json") for name in names) or (
        "serialized_exported_program.json" in names
    )


def check(rest: str) -> None:
    """The file must be there."""
    if not Path(rest).is_file():
        raise BadInput(f"teacher 'torch:{rest}': no such file; paths start in the current folder")


def precheck(rest: str, wanted: Wanted) -> None:
    """Read it before the data are there; raises like `fetch`, but for its classes."""
    count = len(wanted.outputs or ())
    network(Path(rest), dataclasses.replace(wanted, classes=count, new_head="never"))


def keyed(rest: str) -> object:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network, for images of the data's size."""
    return network(Path(rest), wanted)


def network(path: Path, wanted: Wanted) -> Found:
    """The network of a file, with the data's classes where there are any."""
    from edgeres.network.from_torch import from_pt2
    from edgeres.teachers import _network

    mean, std, notes = _network.normalization(wanted, default_preprocess(wanted.data_px), None)
    read = from_pt2(path, mean=mean, std=std)
    return _network.imported(read, wanted, str(path), (mean, std), notes)
