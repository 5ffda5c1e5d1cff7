"""Weights on disk: a spec and plain tensors, never a pickled module.

Our own checkpoints are a folder with `spec.json` and `weights.safetensors`. Foreign ones (.pth,
.pt, .th, .safetensors) are read as tensors only, and their keys mapped to torchvision's names.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from edgeres.errors import BadInput
from edgeres.models import spec as specs
from edgeres.models.resnet import ResNet
from edgeres.models.spec import ModelSpec

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_RENAMED = {"module.": "", "model.": "", "linear.": "fc."}


def save(folder: Path, model: ResNet) -> None:
    """Write `spec.json` and `weights.safetensors`; the same model gives the same bytes."""
    document = json.dumps(specs.to_json(model.spec), indent=1)
    (folder / "spec.json").write_text(document, "utf-8")
    state = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    (folder / "weights.safetensors").write_bytes(save_bytes(state))


def load(folder: Path) -> ResNet:
    """Read a model that `save` wrote, in evaluation mode.

    Raises:
        BadInput: the folder holds no model, or its tensors don't fit its spec.
    """
    try:
        spec = specs.from_json(json.loads((folder / "spec.json").read_text("utf-8")))
        state = load_bytes((folder / "weights.safetensors").read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput(f"{folder}: not a saved model ({error})") from error
    return _with_state(ResNet(spec), state, str(folder))


def from_checkpoint(path: Path, spec: ModelSpec) -> ResNet:
    """Fill an architecture with the weights of somebody's checkpoint.

    Args:
        path: .pth, .pt, .th (tensors only; code in it is never run) or .safetensors. A state dict,
            or a dict that holds one under `state_dict` or `model`; keys as torchvision or
            akamaster/pytorch_resnet_cifar10 name them.

    Raises:
        BadInput: no such file, not a checkpoint, or its tensors are another architecture's.
    """
    return _with_state(ResNet(spec), _renamed(_read(path)), str(path))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_bytes(path.read_bytes())
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path}: is damaged or holds more than tensors, and its code is never run; "
            f"save its state_dict() alone"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile,
            SafetensorError) as error:  # fmt: skip
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a readable checkpoint ({first})") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _renamed(state: dict[str, Any]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        for old, new in _RENAMED.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        renamed[name] = value
    return renamed


def _with_state(model: ResNet, state: dict[str, Tensor], where: str) -> ResNet:
    wanted = model.state_dict()
    name = model.spec.name
    head = state.get("fc.weight")
    if head is not None and head.ndim == 2 and head.shape[0] != model.spec.classes:
        raise BadInput(
            f"{where}: has {head.shape[0]} classes but the data have {model.spec.classes}; "
            f"use the data it was trained on"
        )
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    optional |= {k for k, p in model.named_parameters() if not p.requires_grad}  # option A's 0/1
    missing = sorted(set(wanted) - set(state) - optional)
    surplus = sorted(set(state) - set(wanted))
    if missing or surplus:
        what = f"lacks {missing[0]}" if missing else f"has {surplus[0]}, which that net has not"
        raise BadInput(f"{where}: is not a {name} ({what}); name the right model")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise BadInput(
                f"{where}: {key} has shape {tuple(value.shape)}, but {name} needs "
                f"{tuple(wanted[key].shape)}; name the right model"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(f"{where}: {key} holds NaN or infinite values; the checkpoint is broken")
    model.load_state_dict({**wanted, **state})
    return model.eval()
