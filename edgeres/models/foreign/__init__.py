"""Checkpoints of anybody's: a file in, tensors named as torchvision names a ResNet's out.

The way is one: `files` reads what there is, `choice` takes the network's tensors out of their
containers, `names` puts their names into our words, `mending` makes exact what others keep apart
(masks, biases, heads). What is chosen, left out or assumed on the way is said in `notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edgeres.errors import BadInput
from edgeres.models.foreign import choice, files, mending, names
from edgeres.models.foreign.choice import Weights

__all__ = ["Foreign", "Weights", "named", "read"]

_WORDS = "a network's state_dict()"


@dataclass(frozen=True)
class Foreign:
    """The network in somebody's file.

    Attributes:
        tensors: by torchvision's names; names that no ResNet has are kept, as a difference.
        notes: what was chosen, left out or put together, a sentence each.
        normalization: mean and std (R, G, B, as pixel / 255) of a layer in the file, if any.
        named: whether the names are those of a ResNet.
        headless: why it has no last layer, if it hasn't.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    named: bool = True
    headless: str | None = None


def read(path: Path, weights: Weights | None = None) -> Foreign:
    """The network in a file.

    Args:
        path: of `torch.save` (old or new format) or .safetensors. What lies beside the tensors is
            read as inert data; no code in the file is ever run.
        weights: which, where raw and averaged ones are there; None is `choice.chosen`'s default.

    Raises:
        BadInput: no such file, a damaged one, one without tensors, or weights in whole numbers.
    """
    tensors, notes = _chosen(path, weights, lambda found: [p for p, _ in names.networks(found)])
    networks = names.networks(tensors)
    if not networks:
        return Foreign(tensors, tuple(notes), named=False)
    prefix, naming = networks[0]
    inside = {names.renamed(k.removeprefix(prefix), naming): v
              for k, v in tensors.items() if k.startswith(prefix)}  # fmt: skip
    outside = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    normalization = mending.normalization(inside) or mending.normalization(outside)
    headless = mending.one_head(inside, outside)
    notes += filter(None, [headless, mending.unbiased(inside),
                           mending.without_extras(inside, outside)])  # fmt: skip
    has_head = "fc.weight" in inside
    return Foreign(inside, tuple(notes), normalization, headless=None if has_head else headless)


def named(
    path: Path, keys: Collection[str], weights: Weights | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a network whose names are known, and what is to be said of them.

    Args:
        path, weights: as `read` takes them.
        keys: the network's names, which the file's may have a prefix before.

    Raises:
        BadInput: as `read` does.
    """
    first = next(iter(keys))

    def prefixes(found: Collection[str]) -> list[str]:
        fronts = [k.removesuffix(first) for k in found if k.endswith(first)]
        return [p for p in fronts if not p or p.endswith(".")]

    tensors, notes = _chosen(path, weights, prefixes)
    prefix = next(iter(prefixes(tensors)), "")
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, notes


def _chosen(
    path: Path, weights: Weights | None, prefixes: Callable[[Collection[str]], list[str]]
) -> tuple[dict[str, Tensor], list[str]]:
    tree = files.read(path)
    found = choice.candidates(tree, prefixes)
    if not found:
        raise BadInput(f"{path}: {_nothing_in(tree)}; save {_WORDS}: "
                       "torch.save(model.state_dict(), 'weights.pth')")  # fmt: skip
    one, notes = choice.chosen(found, weights, str(path))
    tensors = dict(one.tensors)
    notes += filter(None, [mending.masked(tensors)])
    whole = [k for k, v in tensors.items() if k.endswith("weight") and not v.is_floating_point()]
    if whole:
        raise BadInput(f"{path}: {whole[0][:80]} holds whole numbers, as quantized networks do; "
                       "give the network before it was quantized")  # fmt: skip
    return tensors, notes


def _nothing_in(tree: object) -> str:
    kind = getattr(tree, "kind", "") or type(tree).__name__.lstrip("_").lower()
    inner = sorted(str(k)[:40] for k in tree) if isinstance(tree, dict) else []
    beside = f" with {', '.join(inner[:6])}" if inner else ""
    code = _first_class(tree, 0)
    said = f"; {code} in it is code, which is never run" if code else ""
    return f"holds a {kind}{beside}, and no tensors{said}"


def _first_class(tree: object, depth: int) -> str:
    """The name of an inert object in what was read."""
    if kind := getattr(tree, "kind", ""):
        return str(kind)
    inner = tree.values() if isinstance(tree, dict) and depth < 4 else ()
    return next(filter(None, (_first_class(v, depth + 1) for v in inner)), "")
