"""Networks of others, with their own preprocessing and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from edgeres import preprocessing
from edgeres.errors import BadInput
from edgeres.models import foreign, modules, recognition, weights
from edgeres.models.spec import default_preprocess
from edgeres.network._walk import Imported, Normalization
from edgeres.teachers import Found, Wanted
from edgeres.teachers._black_box import check_outputs
from edgeres.types import Preprocess

_IMAGENET = preprocessing.WAYS["imagenet"]
IMAGENET_MEAN, IMAGENET_STD = _IMAGENET.mean, _IMAGENET.std


def found(
    path: Path, wanted: Wanted, where: str, name: str | None, preprocess: Preprocess,
    *, assumed: bool = False, claimed: float | None = None,
) -> Found:  # fmt: skip
    """The network of a checkpoint file.

    Blue-green-red input is put into the first convolution, and `wanted.outputs` into the last
    layer, so that what comes out is an ordinary network.

    Args:
        name: its architecture; None to recognize it.
        preprocess: what its images are prepared with unless `wanted` or the file says otherwise.
        assumed: that is a guess, which a note says.
        claimed: as `Found` has it.

    Raises:
        BadInput: the tensors don't fit, or its classes aren't the data's.
    """
    read = foreign.read(path, wanted.weights)
    state, notes = dict(read.tensors), list(read.notes)
    prepared = _prepared(read, wanted, preprocess, notes if assumed else [])
    if not read.named:
        raise BadInput(f"{where}: {recognition.unfitting(state, prepared)}")
    if read.headless:
        raise BadInput(f"{where}: {read.headless}; give a checkpoint of the classes, or use "
                       "the network as a teacher through an ONNX file: onnx:FILE")  # fmt: skip
    count = weights.classes(state)
    replaced = replaceable(count, wanted)
    if replaced is not None:
        state |= new_head(state["fc.weight"], wanted.classes)
    elif count is not None:
        check_outputs(count, wanted, where)
    if wanted.outputs is not None:
        rows = torch.tensor(wanted.outputs)
        state = {k: v[rows] if k in ("fc.weight", "fc.bias") else v for k, v in state.items()}
    if wanted.channels == "bgr" and "conv1.weight" in state:
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    spec, said = recognition.described(state, name, wanted.classes, prepared)
    if spec is None:
        raise BadInput(f"{where}: {recognition.unfitting(state, prepared)}")
    network = weights.fill(spec, state, where)
    said_too = [said] if said else []
    return Found(spec.name, network, claimed=None if replaced else claimed, replaced=replaced,
                 notes=(*notes, *said_too))  # fmt: skip


def of_graph(read_file: Callable[..., Imported], path: Path, wanted: Wanted) -> Found:
    """The network of a file that an importer reads, with the data's classes where there are any.

    Args:
        read_file: as `from_onnx.from_onnx` is called.

    Raises:
        BadInput: as it does, and where classes or sizes aren't those that are wanted.
    """
    turned = -1 if wanted.channels == "bgr" else 1  # what is said is of R, G, B; the file isn't
    given = None
    if wanted.mean is not None and wanted.std is not None:
        given = wanted.mean[::turned], wanted.std[::turned]
    read = read_file(path, wanted.size_px or wanted.data_px, given, compare=True)
    notes: list[str] = []
    if read.normalization is not None:
        mean, std = (values[::turned] for values in read.normalization)
    else:
        own = default_preprocess(wanted.data_px)
        mean, std, notes = normalization(wanted, own, None)
    return imported(read, wanted, str(path), (mean, std), notes)


def imported(
    read: Imported, wanted: Wanted, where: str, normalization: Normalization, notes: list[str],
    *, claimed: float | None = None,
) -> Found:  # fmt: skip
    """A network that an importer read, for images of the data's size.

    Args:
        wanted: of 0 classes while nobody knows how many there are.
        claimed: as `Found` has it.

    Raises:
        BadInput: it takes images of another size only, its classes aren't the data's, or its
            numbers are broken.
    """
    model: modules.Classifier = read.module
    notes = [*notes, *read.notes]
    own, asked = model.spec.preprocess.size_px, wanted.size_px or wanted.data_px
    if own != asked and read.fixed_size:
        raise BadInput(f"{where}: takes images of {own} px only, and is to get {asked}; say "
                       f"--imgsz {own} (data.size), or export it with an image of {asked} "
                       "px")  # fmt: skip
    if own != asked:
        notes.append(
            f"was exported with images of {own} px, and gets {asked} here, as the data are"
        )
    if wanted.channels == "bgr":
        with torch.no_grad():
            first = model.get_parameter(f"{modules.stem(model)}.weight")
            first.copy_(first.flip(1))
    replaced = replaceable(model.spec.classes, wanted)
    if replaced is not None:
        model = modules.with_new_head(model, wanted.classes)
    elif wanted.classes:
        check_outputs(model.spec.classes, wanted, where)
    if wanted.outputs is not None:
        model = modules.with_outputs(model, torch.tensor(wanted.outputs))
    spec = dataclasses.replace(model.spec, preprocess=Preprocess(asked, *normalization))
    model = weights.fill(spec, model.state_dict(), where)  # refuses broken numbers
    own_layers = replaced is None and wanted.outputs is None and wanted.channels != "bgr"
    return Found(model.spec.name, model, replaced=replaced, notes=tuple(notes),
                 claimed=None if replaced or wanted.outputs else claimed,
                 integers=read.integers if own_layers else None)  # fmt: skip


def _prepared(
    read: foreign.Foreign, wanted: Wanted, own: Preprocess, notes: list[str]
) -> Preprocess:
    """What is said, else what the file says, else the source's own."""
    mean, std, said = normalization(wanted, own, read.normalization)
    notes += said
    return Preprocess(wanted.size_px or own.size_px, mean, std)


def asked(wanted: Wanted, own: Preprocess) -> Preprocess:
    """What is said, else what its publisher states."""
    said = wanted.mean is not None and wanted.std is not None
    mean, std = (wanted.mean, wanted.std) if said else (own.mean, own.std)
    assert mean is not None and std is not None
    return Preprocess(wanted.size_px or own.size_px, mean, std)


def normalization(
    wanted: Wanted, own: Preprocess, of_file: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """mean, std, and what is to be said of them.

    Args:
        own: what is assumed if nobody says it.
        of_file: what the file says.
    """
    mean, std = own.mean, own.std
    notes = []
    if wanted.mean is not None and wanted.std is not None:
        mean, std = wanted.mean, wanted.std
    elif of_file is not None:
        mean, std = of_file
        notes.append(f"{preprocessing.in_words(mean, std)} are those of a layer in the file")
    else:
        notes.append(f"no one says how its images are prepared: {preprocessing.in_words(mean, std)}"
                     " are assumed, as edgeres trains; say it with --preprocess NAME or --mean and "
                     "--std (in a recipe: preprocess, mean, std)")  # fmt: skip
    return mean, std, notes


def replaceable(count: int | None, wanted: Wanted) -> int | None:
    """The number of a network's classes, if its last layer is to give way to another."""
    if wanted.new_head == "never" or wanted.outputs is not None:
        return None
    return count if count != wanted.classes or wanted.new_head == "always" else None


def new_head(weight: Tensor, classes: int) -> dict[str, Tensor]:
    """A last layer that knows nothing: zeros, from which it learns as well as from any other."""
    return {"fc.weight": weight.new_zeros(classes, weight.shape[1]),
            "fc.bias": weight.new_zeros(classes)}  # fmt: skip
