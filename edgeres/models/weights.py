"""Weights on disk: a spec and plain tensors, never a pickled module.

Our own checkpoints are a folder with `spec.json` and `weights.safetensors`. Foreign ones (.pth,
.pt, .th, .safetensors) are read as tensors only, and their keys mapped to torchvision's names.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from itertools import zip_longest
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
from edgeres.types import Preprocess

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
# DataParallel, torch.compile, Lightning and others put their own attribute in front.
_PREFIXES = re.compile(r"^((module|model|_orig_mod|net|backbone|network)\.)+")
_RENAMED = ((re.compile(r"^(linear|classifier)\."), "fc."),
            (re.compile(r"\.shortcut\."), ".downsample."))  # fmt: skip
_BLOCK = re.compile(r"(layer\d+)\.(\d+)\.")
_TRIED, _SHOWN = 8, 3
_LARGEST = 1e7  # of trained numbers; a float16 scale holds weights up to 8e6


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
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise BadInput(f"{folder}: not a saved model ({error})") from error
    return fill(spec, state, str(folder))


def from_checkpoint(path: Path, spec: ModelSpec) -> ResNet:
    """Fill an architecture with the weights of somebody's checkpoint; see `read` and `fill`.

    Raises:
        BadInput: no such file, not a checkpoint, or its tensors are another architecture's.
    """
    return fill(spec, read(path), str(path))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of somebody's checkpoint, named as torchvision names a ResNet's.

    Args:
        path: .pth, .pt, .th (tensors only; code in it is never run) or .safetensors. A state dict,
            or dicts around one (`state_dict`, `model`, …); keys as torchvision, timm,
            akamaster/pytorch_resnet_cifar10 or kuangliu/pytorch-cifar name them, below prefixes
            such as `module.`.

    Raises:
        BadInput: no such file, or it holds no tensors.
    """
    found = _renamed(_loaded(path))
    if not found:
        raise BadInput(f"{path}: holds no tensors; save the network's state_dict()")
    return found


def fill(spec: ModelSpec, state: dict[str, Tensor], where: str) -> ResNet:
    """A network with these tensors, in evaluation mode.

    Raises:
        BadInput: they are another architecture's (the sentence names the nearest one), or hold
            numbers that no training gives: not finite, huge, a negative variance.
    """
    _fits(spec, state, where)
    model = ResNet(spec)
    model.load_state_dict({**model.state_dict(), **state})
    return model.eval()


def classes(state: dict[str, Tensor]) -> int | None:
    """How many classes a checkpoint's last layer tells apart."""
    head = state.get("fc.weight")
    return int(head.shape[0]) if head is not None and head.ndim == 2 else None


def recognized(state: dict[str, Tensor], preprocess: Preprocess) -> tuple[str, int]:
    """The architecture that is nearest to some tensors, and how many of its tensors differ.

    Tried are the names that `edgeres list models` shows, of the width of the first convolution.
    """
    blocks = Counter(m[1] for k in state if (m := _BLOCK.match(k)))
    depths = tuple(_blocks_of(state, layer) for layer in sorted(blocks))
    trials = []
    for name in _candidates(state, preprocess):
        spec = specs.parse(name, classes(state) or 1, preprocess)
        own = tuple(len(stage) for stage in spec.stages)
        off = sum(abs(a - b) for a, b in zip_longest(own, depths, fillvalue=0))
        stem = state["conv1.weight"].shape[:1] if "conv1.weight" in state else ()
        trials.append((off, stem != (spec.stem_width,), len(name), name, spec))
    scored = []
    for *_, name, spec in sorted(trials, key=lambda t: t[:4])[:_TRIED]:
        with torch.device("meta"):
            found = _differences(ResNet(spec), state)
        scored.append((sum(map(len, found)), len(name), name))
    differing, _, name = min(scored)
    return name, differing


def _candidates(state: dict[str, Tensor], preprocess: Preprocess) -> list[str]:
    stem = state.get("conv1.weight")
    found = []
    for name in specs.names():
        for option in ("", "-A"):
            try:
                spec = specs.parse(name + option, 2, preprocess)
            except BadInput:  # the option doesn't exist for that net
                continue
            found.append(spec.name)
            if stem is not None and len(stem) != spec.stem_width and "-w" not in name:
                found.append(f"{spec.name}-w{len(stem) / spec.stem_width:g}")
    return [name for name in found if _exists(name, preprocess)]


def _exists(name: str, preprocess: Preprocess) -> bool:
    try:
        specs.parse(name, 2, preprocess)
    except BadInput:
        return False
    return True


def _blocks_of(state: dict[str, Tensor], layer: str) -> int:
    return len({k.split(".")[1] for k in state if k.startswith(f"{layer}.")})


def _loaded(path: Path) -> dict[str, Any]:
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
    except Exception as error:  # a damaged file makes the readers raise whatever they like
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: not a readable checkpoint ({first})") from error
    while isinstance(loaded, dict):
        inner = next((w for w in _WRAPPERS if isinstance(loaded.get(w), dict)), None)
        if inner is None:
            break
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _renamed(state: dict[str, Any]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            name = _PREFIXES.sub("", str(name))
            for old, new in _RENAMED:
                name = old.sub(new, name)
            renamed[name] = value
    return renamed


def _fits(spec: ModelSpec, state: dict[str, Tensor], where: str) -> None:
    """Compare with the network as it would be, of which nothing is in memory yet."""
    try:
        with torch.device("meta"):
            model = ResNet(spec)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{where}: spec.json describes no network: {first}") from error
    count = classes(state)
    if count is not None and count != spec.classes:
        raise BadInput(
            f"{where}: has {count} classes but the data have {spec.classes}; "
            f"use the data it was trained on, or say which of its outputs they are "
            f"(teacher.outputs)"
        )
    missing, surplus, reshaped = _differences(model, state)
    if missing or surplus or reshaped:
        said = [_listed("lacks", missing), _listed("has", surplus),
                _listed("differs in the shape of", reshaped)]  # fmt: skip
        raise BadInput(
            f"{where}: is not a {spec.name}: it {', '.join(filter(None, said))}; "
            f"{_nearest(spec, state)}"
        )
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


def _differences(model: ResNet, state: dict[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, that are too many, and whose shape is another."""
    wanted = model.state_dict()
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    optional |= {k for k, p in model.named_parameters() if not p.requires_grad}  # option A's 0/1
    missing = [k for k in wanted if k not in state and k not in optional]
    surplus = [k for k in state if k not in wanted]
    return missing, surplus, [k for k, v in state.items()
                              if k in wanted and v.shape != wanted[k].shape]  # fmt: skip


def _listed(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{verb} {', '.join(n[:80] for n in names[:_SHOWN])}{more}"


def _nearest(spec: ModelSpec, state: dict[str, Tensor]) -> str:
    name, differing = recognized(state, spec.preprocess)
    if differing == 0:
        return f"it is a {name}"
    if name == spec.name:
        return "no architecture fits better"
    return f"nearest is {name}, which {differing} of its tensors don't fit"
