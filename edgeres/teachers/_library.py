"""Networks that torchvision's and timm's own code builds, by name, as graphs.

Their weights are files of tensors, which go in strictly; no code of anybody else's runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.errors import BadInput, MissingComponent, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeres.models.foreign import Weights
    from edgeres.models.modules import Classifier
    from edgeres.network._walk import Imported
    from edgeres.types import Preprocess

_LIBRARIES = ("torchvision", "timm")


def parse(name: str) -> tuple[str, str] | None:
    """`timm:mobilenetv3_small_050` -> library and architecture; None: of neither library."""
    library, _, architecture = name.partition(":")
    return (library, architecture) if library in _LIBRARIES and architecture else None


def require(library: str, architecture: str) -> ModuleType:
    """The library's module of networks.

    Raises:
        MissingComponent: it isn't installed, or not for this PyTorch.
        BadInput: it has no such classifier.
    """
    try:
        if library == "timm":
            import timm as models
        else:
            from torchvision import models
    except ImportError as error:
        raise MissingComponent(f"{library}:{architecture} is built by {library}'s own code: pip "
                               f"install {library} ({error})") from error  # fmt: skip
    except RuntimeError as error:  # torchvision's compiled operators don't fit
        said = str(error).splitlines()[0]
        raise MissingComponent(f"{library} can't be imported beside this PyTorch ({said}); install "
                               "a torchvision that was built for it") from error  # fmt: skip
    own = () if library == "timm" else (models,)
    known = models.list_models(*own)
    if architecture not in known:
        near = nearest(architecture, known)
        raise BadInput(
            f"unknown {library} model '{architecture[:80]}'{near}; its list_models() has them all"
        )
    return models


def built(library: str, architecture: str, classes: int, seed: int = 0) -> nn.Module:
    """The module as its library initializes it; raises like `require`."""
    import torch

    models = require(library, architecture)
    create = models.create_model if library == "timm" else models.get_model
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        made: nn.Module = create(architecture, num_classes=classes)
    return made


def fresh(library: str, architecture: str, classes: int, own: Preprocess, seed: int) -> Classifier:
    """A network of random weights."""
    return _imported(built(library, architecture, classes, seed), architecture, own).module


def loaded(
    library: str, architecture: str, path: Path, own: Preprocess, weights: Weights | None = None
) -> tuple[Imported, list[str]]:
    """The network with the weights of a file, for as many classes as they are of, and notes.

    Raises:
        BadInput: the tensors are another network's.
    """
    from edgeres.models import foreign

    module = built(library, architecture, classes=1000)
    wanted = module.state_dict()
    tensors, notes = foreign.named(path, wanted, weights)
    count = _classes(wanted, tensors)
    if count is not None:
        module = built(library, architecture, count)
        wanted = module.state_dict()
    _require_fit(f"{library}:{architecture}", path, wanted, tensors)
    module.load_state_dict({k: tensors.get(k, value) for k, value in wanted.items()})
    return _imported(module, architecture, own), notes


def _imported(module: nn.Module, name: str, own: Preprocess) -> Imported:
    from edgeres.network.from_torch import from_module

    return from_module(module, own.size_px, name=name, mean=own.mean, std=own.std)


def _classes(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> int | None:
    """Of how many classes the file is, if not of as many as the network."""
    other = {len(value) for key, value in tensors.items() if key in wanted and value.ndim
             and value.shape != wanted[key].shape and value.shape[1:] == wanted[key].shape[1:]
             }  # fmt: skip
    return other.pop() if len(other) == 1 else None


def _require_fit(
    name: str, path: Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    faults = [f"lacks {key}" for key in wanted if key not in tensors and not _spare(key)]
    faults += [f"has {key[:100]}, too" for key in tensors if key not in wanted]
    faults += [f"has {key} as {tuple(tensors[key].shape)}, not {tuple(value.shape)}"
               for key, value in wanted.items()
               if key in tensors and tensors[key].shape != value.shape]  # fmt: skip
    if faults:
        more = f", and {len(faults) - 1} further differences" if len(faults) > 1 else ""
        raise BadInput(f"{path}: is no {name}: it {faults[0]}{more}")


def _spare(key: str) -> bool:
    """A counter, or of a branch that is for training alone."""
    return key.endswith("num_batches_tracked") or key.startswith("aux")
