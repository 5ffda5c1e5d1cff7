"""Weights on disk: a spec and plain tensors, never a pickled module.

Our own checkpoints are a folder with `spec.json` and `weights.safetensors`; those of others are
read by `foreign`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from edgeres.disk import read_bounded, write_whole
from edgeres.errors import BadInput
from edgeres.models import foreign, recognition
from edgeres.models import spec as specs
from edgeres.models.foreign.files import MOST_BYTES
from edgeres.models.modules import Classifier, Spec, module_of
from edgeres.models.spec import ModelSpec

_SPEC_BYTES = 1 << 20
_LARGEST = 1e7  # of trained numbers; a float16 scale holds weights up to 8e6


def save(folder: Path, model: Classifier) -> None:
    """Write `spec.json` and `weights.safetensors`; the same model gives the same bytes."""
    document = json.dumps(specs.to_json(model.spec), indent=1)
    state = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    write_whole(folder / "weights.safetensors", save_bytes(state))
    write_whole(folder / "spec.json", document)  # last: where it is, the weights are


def load(folder: Path) -> Classifier:
    """Read a model that `save` wrote, in evaluation mode.

    Raises:
        BadInput: the folder holds no model, or its tensors don't fit its spec.
    """
    try:
        spec = specs.from_json(
            json.loads(read_bounded(folder / "spec.json", _SPEC_BYTES, "network"))
        )
        state = load_bytes(read_bounded(folder / "weights.safetensors", MOST_BYTES, "network"))
    except (ValueError, RecursionError, SafetensorError) as error:
        raise BadInput(f"{folder}: not a saved model ({error})") from error
    return fill(spec, state, str(folder))


def from_checkpoint(path: Path, spec: ModelSpec) -> Classifier:
    """Fill an architecture with the weights of somebody's checkpoint; see `foreign.read`.

    Raises:
        BadInput: no such file, not a checkpoint, or its tensors are another architecture's.
    """
    return fill(spec, foreign.read(path).tensors, str(path))


def fill(spec: Spec, state: dict[str, Tensor], where: str) -> Classifier:
    """A network with these tensors, in evaluation mode.

    Raises:
        BadInput: they are another architecture's (the sentence names the nearest one), or hold
            numbers that no training gives: not finite, huge, a negative variance.
    """
    _fits(spec, state, where)
    model = module_of(spec)
    model.load_state_dict({**model.state_dict(), **state})
    return model.eval()


def classes(state: dict[str, Tensor]) -> int | None:
    """How many classes a checkpoint's last layer tells apart."""
    head = state.get("fc.weight")
    return int(head.shape[0]) if head is not None and head.ndim == 2 else None


def _fits(spec: Spec, state: dict[str, Tensor], where: str) -> None:
    """Compare with the network as it would be, of which nothing is in memory yet."""
    try:
        with torch.device("meta"):
            model = module_of(spec)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{where}: spec.json describes no network: {first}") from error
    count = classes(state) if isinstance(spec, ModelSpec) else None
    if count is not None and count != spec.classes:
        raise BadInput(
            f"{where}: has {count} classes but the data have {spec.classes}; "
            f"use the data it was trained on, or say which of its outputs they are "
            f"(teacher.outputs)"
        )
    differences = recognition.differences(model, state)
    if differences:
        near = f"; {recognition.nearest(spec, state)}" if isinstance(spec, ModelSpec) else ""
        raise BadInput(f"{where}: is not a {spec.name}: it {differences}{near}")
    for key, value in state.items():
        if value.is_floating_point() and (fault := _fault(key, value)):
            raise BadInput(f"{where}: {key} holds {fault}; the checkpoint is broken")


def _fault(key: str, value: Tensor) -> str | None:
    """What no training gives, if a tensor holds it.

    A variance of 0 is none: a channel that is off has it.
    """
    if not bool(torch.isfinite(value).all()):
        return "NaN or infinite values"
    if not value.numel():
        return None
    variance = key.endswith("running_var")
    low, high = value.min().item(), value.max().item()
    if variance and low < 0:
        return f"a negative variance ({low:g})"
    size = max(-low, high)
    return f"a number of size {size:.3g}" if size > _LARGEST ** (1 + variance) else None
