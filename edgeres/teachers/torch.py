"""A program of `torch.export` (.pt2): any convolutional classifier, as an ordinary network."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

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
    count = len(wanted.outputs) if wanted.outputs is not None else None
    fetch(rest, dataclasses.replace(wanted, classes=count or 0, new_head="never"), Path(rest))


def keyed(rest: str) -> Any:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network, for images of the data's size."""
    import torch

    from edgeres.models import modules, weights
    from edgeres.network.from_torch import from_pt2
    from edgeres.teachers import _network
    from edgeres.teachers._black_box import check_outputs

    path = Path(rest)
    mean, std, notes = _network.normalization(wanted, default_preprocess(wanted.data_px), None)
    read = from_pt2(path, mean=mean, std=std)
    model: modules.Classifier = read.module
    notes += list(read.notes)
    own, asked = model.spec.preprocess.size_px, wanted.size_px or wanted.data_px
    if own != asked and read.fixed_size:
        raise BadInput(f"{path}: takes images of {own} px only, and is to get {asked}; say --imgsz "
                       f"{own} (data.size), or export it with an image of {asked} px")  # fmt: skip
    if own != asked:
        notes.append(
            f"was exported with images of {own} px, and gets {asked} here, as the data are"
        )
    if wanted.channels == "bgr":
        with torch.no_grad():
            first = model.get_parameter(f"{modules.stem(model)}.weight")
            first.copy_(first.flip(1))
    replaced = _network.replaceable(model.spec.classes, wanted)
    if replaced is not None:
        model = modules.with_new_head(model, wanted.classes)
    elif wanted.classes:
        check_outputs(model.spec.classes, wanted, str(path))
    if wanted.outputs is not None:
        model = modules.with_outputs(model, torch.tensor(wanted.outputs))
    prepared = dataclasses.replace(model.spec.preprocess, size_px=asked)
    spec = dataclasses.replace(model.spec, preprocess=prepared)
    model = weights.fill(spec, model.state_dict(), str(path))  # refuses broken numbers
    return Found(model.spec.name, model, replaced=replaced, notes=tuple(notes))
