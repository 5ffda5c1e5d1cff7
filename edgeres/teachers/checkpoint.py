"""A checkpoint file of anybody's, or a folder that edgeres wrote; see `edgeres.models.weights`.

`checkpoint:FILE` recognizes the architecture; with `model: NAME` and `checkpoint: FILE` it is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models.spec import default_preprocess
from edgeres.teachers import Found, Peeked, Wanted, onnx, tflite, torch
from edgeres.types import Preprocess

SUMMARY = (
    "a .pth, .pt, .pt2, .onnx, .tflite or .safetensors file, or a folder of edgeres: "
    "checkpoint:FILE"
)
BLACK_BOX = False


def check(rest: str) -> None:
    """The file must be there."""
    path = Path(rest)
    try:
        there = path.is_file() or (path / "spec.json").is_file()
    except (OSError, ValueError):  # a name that no system has
        there = False
    if not there:
        raise BadInput(f"checkpoint {path}: no such file; paths start in the current folder")


def precheck(rest: str, wanted: Wanted) -> None:
    """Read the weights before the data are there; raises like `fetch`, but for their classes."""
    from edgeres.models import foreign, weights

    path = Path(rest)
    if (network := _importer(path)) is not None:
        count = len(wanted.outputs or ())
        network(path, dataclasses.replace(wanted, classes=count, new_head="never"))
        return
    if wanted.outputs is not None:
        known: int | None = len(wanted.outputs)
    elif path.is_dir():
        known = weights.load(path).spec.classes
    elif ":" in (wanted.model or ""):
        known = 0
    else:
        known = weights.classes(foreign.read(path, wanted.weights).tensors)
    fetch(rest, dataclasses.replace(wanted, classes=known or 1, new_head="never"), path)


def _importer(path: Path) -> Callable[[Path, Wanted], Found] | None:
    """What reads a file that holds a graph, too."""
    if torch.is_program(path):
        return torch.network
    if tflite.is_tflite(path):
        return tflite.network
    return onnx.network if onnx.is_onnx(path) else None


def peek(rest: str) -> Peeked | None:
    """What a file that holds a graph, too, says of itself."""
    if tflite.is_tflite(Path(rest)):
        return tflite.peek(rest)
    return onnx.peek(rest) if onnx.is_onnx(Path(rest)) else None


def keyed(rest: str) -> object:
    """The file's contents."""
    check(rest)
    return onnx.keyed(rest) if onnx.is_onnx(Path(rest)) else file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network."""
    from edgeres.models import modules, weights
    from edgeres.models.resnet import ResNet
    from edgeres.teachers import _library, _network
    from edgeres.teachers._black_box import check_outputs

    path = Path(rest)
    if path.is_dir():
        model = weights.load(path)
        if isinstance(model, ResNet) and model.spec.folded:
            raise BadInput(f"{path}: is quantized already; name the network before it")
        said = wanted.mean is not None and (wanted.mean, wanted.std) != (
            model.spec.preprocess.mean, model.spec.preprocess.std)  # fmt: skip
        note = "its spec.json says how its images are prepared; what the recipe says isn't used"
        notes = (note,) if said else ()
        wanted = dataclasses.replace(wanted, outputs=None)
        replaced = _network.replaceable(model.spec.classes, wanted)
        if replaced is not None:
            model = modules.with_new_head(model, wanted.classes)
        else:
            check_outputs(model.spec.classes, wanted, str(path))
        return Found(model.spec.name, model, replaced=replaced, notes=notes)
    if (network := _importer(path)) is not None:
        return network(path, wanted)
    trained_like_ours = default_preprocess(wanted.data_px)
    if (named := _library.parse(wanted.model or "")) is not None:
        mean, std, assumed = _network.normalization(wanted, trained_like_ours, None)
        own = Preprocess(wanted.size_px or wanted.data_px, mean, std)
        read, notes_too = _library.loaded(*named, path, own, wanted.weights)
        return _network.imported(read, wanted, str(path), (mean, std), [*assumed, *notes_too])
    return _network.found(path, wanted, str(path), wanted.model, trained_like_ours, assumed=True)
