"""A network of anybody's as an importer read it, with the data's size and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from edgeres.errors import BadInput
from edgeres.models import modules, weights
from edgeres.network._walk import Imported
from edgeres.teachers import Found, Wanted, _network
from edgeres.teachers._black_box import check_outputs


def found(
    read: Imported, wanted: Wanted, where: str, notes: Sequence[str], claimed: float | None = None
) -> Found:
    """The network for images of the data's size.

    Blue-green-red input is put into the first convolution, and `wanted.outputs` into the last
    layer, so that what comes out is an ordinary network.

    Args:
        notes: what is to be said beside what the importer says.
        claimed: as `Found` has it.

    Raises:
        BadInput: it takes images of another size only, its classes aren't the data's, or its
            numbers are broken.
    """
    model: modules.Classifier = read.module
    said = [*notes, *read.notes]
    own, asked = model.spec.preprocess.size_px, wanted.size_px or wanted.data_px
    if own != asked and read.fixed_size:
        raise BadInput(
            f"{where}: takes images of {own} px only, and is to get {asked}; say --imgsz {own} "
            f"(data.size), or export it with an image of {asked} px"
        )
    if own != asked:
        said.append(f"was exported with images of {own} px, and gets {asked} here, as the data are")
    if wanted.channels == "bgr":
        with torch.no_grad():
            first = model.get_parameter(f"{modules.stem(model)}.weight")
            first.copy_(first.flip(1))
    replaced = _network.replaceable(model.spec.classes, wanted)
    if replaced is not None:
        model = modules.with_new_head(model, wanted.classes)
    elif wanted.classes:
        check_outputs(model.spec.classes, wanted, where)
    if wanted.outputs is not None:
        model = modules.with_outputs(model, torch.tensor(wanted.outputs))
    prepared = dataclasses.replace(model.spec.preprocess, size_px=asked)
    spec = dataclasses.replace(model.spec, preprocess=prepared)
    model = weights.fill(spec, model.state_dict(), where)  # refuses broken numbers
    return Found(model.spec.name, model, replaced=replaced, notes=tuple(said),
                 claimed=None if replaced or wanted.outputs else claimed)  # fmt: skip
