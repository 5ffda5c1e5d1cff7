"""A checkpoint file of anybody's, or a folder that edgeres wrote; see `edgeres.models.weights`.

`checkpoint:FILE` recognizes the architecture; with `model: NAME` and `checkpoint: FILE` it is said.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.models.spec import default_preprocess
from edgeres.teachers import Found, Wanted

if TYPE_CHECKING:
    from edgeres.models.resnet import ResNet

SUMMARY = "a .pth, .pt, .th or .safetensors file, or a folder of edgeres: checkpoint:FILE"
BLACK_BOX = False


def check(rest: str) -> None:
    """The file must be there."""
    path = Path(rest)
    if not path.is_file() and not (path / "spec.json").is_file():
        raise BadInput(f"checkpoint {path}: no such file; paths start in the current folder")


def keyed(rest: str) -> Any:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network."""
    model, replaced = network(rest, wanted)
    return Found(model.spec.name, model, replaced=replaced)


def network(rest: str, wanted: Wanted) -> tuple[ResNet, int | None]:
    """The network of a file or a folder, and how many classes it had if its head was replaced.

    Raises:
        BadInput: it isn't one, or another network than wanted.
    """
    from edgeres.models import weights
    from edgeres.teachers import _network
    from edgeres.teachers._black_box import check_outputs

    path = Path(rest)
    if path.is_dir():
        model = weights.load(path)
        if model.spec.folded:
            raise BadInput(f"{path}: is quantized already; name the network before it")
        wanted = dataclasses.replace(wanted, outputs=None)
        replaced = _network.replaceable(model.spec.classes, wanted)
        if replaced is not None:
            spec = dataclasses.replace(model.spec, classes=wanted.classes)
            state = model.state_dict() | _network.new_head(model.fc.weight, wanted.classes)
            return weights.fill(spec, state, str(path)), replaced
        check_outputs(model.spec.classes, wanted, str(path))
        return model, None
    trained_like_ours = default_preprocess(wanted.data_px)
    return _network.network(path, wanted, str(path), wanted.model, trained_like_ours)
