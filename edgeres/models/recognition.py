"""Which architecture some tensors are of: read off their names and shapes, then named.

Widths, depths, kernels, groups and shortcuts are all in the tensors, so that a network which was
pruned or built by somebody else is described as exactly as one with a name. Strides aren't: they
are taken to be those of every ResNet, 2 where a later stage begins.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.models import spec as specs
from edgeres.models.resnet import ResNet
from edgeres.models.spec import Block, ModelSpec, Shortcut, Stem
from edgeres.types import Preprocess

_SHOWN, _NEAREST, _TRIED = 3, 3, 12
_KERNELS = {(3, 3): 2, (1, 3, 1): 3, (3, 1, 3, 1): 4}


@dataclass(frozen=True)
class Differences:
    """How tensors differ from a network's; it is false where they don't."""

    missing: list[str]
    surplus: list[str]
    reshaped: list[str]

    def __len__(self) -> int:
        return len(self.missing) + len(self.surplus) + len(self.reshaped)

    def __str__(self) -> str:
        return ", ".join(filter(None, [
            _listed("lacks", self.missing), _listed("has", self.surplus),
            _listed("differs in the shape of", self.reshaped)]))  # fmt: skip


def differences(model: nn.Module, state: dict[str, Tensor]) -> Differences:
    """Names that are missing, that are too many, and whose shape is another."""
    wanted = model.state_dict()
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    optional |= {k for k, p in model.named_parameters() if not p.requires_grad}  # option A's 0/1
    missing = [k for k in wanted if k not in state and k not in optional]
    surplus = [k for k in state if k not in wanted]
    reshaped = [k for k, v in state.items() if k in wanted and v.shape != wanted[k].shape]
    return Differences(missing, surplus, reshaped)


def described(
    state: dict[str, Tensor], name: str | None, classes: int, preprocess: Preprocess
) -> tuple[ModelSpec | None, str | None]:
    """The network that tensors are of, and what there is to say about it.

    Args:
        name: the architecture that somebody says it is; None to find it. A network of that shape
            but other widths (a pruned one) is taken, too, unless it has a name of its own.

    Returns:
        None if there is none that the tensors fit; with a name, that one's, whether they fit or
        not.

    Raises:
        BadInput: there is no such name.
    """
    asked = specs.parse(name, classes, preprocess, stem(state)) if name else None
    if asked and not _differences_of(asked, state):
        return asked, None
    found = read_off(state, classes, preprocess)
    if found is None or _differences_of(found, state):
        return asked, None
    known = next((s for s in _named(found) if _same(s, found)), None)
    if known:
        return (asked or known), None
    if asked and _form(asked) != _form(found):
        return asked, None
    near = asked.name if asked else _similar(state, found)[0].name
    return dataclasses.replace(found, name=near), (
        f"its widths are not those of {near}: they are read off the tensors, as of a pruned network"
    )


def stem(state: dict[str, Tensor]) -> Stem | None:
    """The kind of first convolution; None if it is neither."""
    shape = tuple(state["conv1.weight"].shape) if "conv1.weight" in state else ()
    if shape[2:] == (7, 7):
        return "imagenet"
    return "small" if shape[2:] == (3, 3) else None


def nearest(spec: ModelSpec, state: dict[str, Tensor]) -> str:
    """What the tensors are instead of `spec`, which somebody named: `it is a resnet32-A`, or the
    next three with what differs."""
    found = _ranked(state, spec.preprocess)
    if not found:
        return _stranger(state)
    if not found[0][1]:
        return f"it is a {found[0][0].name}"
    others = [f for f in found if f[0].name != spec.name][:_NEAREST]
    closer = "nearest" if found[0][0].name != spec.name else "next"
    return f"{closer} are {_compared(others)}"


def unfitting(state: dict[str, Tensor], preprocess: Preprocess) -> str:
    """Why there is no network that the tensors fit, with the nearest three; nobody named one."""
    found = _ranked(state, preprocess)
    if not found:
        return _stranger(state)
    return f"fits no network; nearest are {_compared(found[:_NEAREST])}"


def read_off(state: dict[str, Tensor], classes: int, preprocess: Preprocess) -> ModelSpec | None:
    """The network that the names and shapes of tensors describe; None if they describe none."""
    first = stem(state)
    if first is None:
        return None
    preact = "bn.weight" in state
    channels = width = len(state["conv1.weight"])
    stages: list[tuple[Block, ...]] = []
    while blocks := _blocks(state, f"layer{len(stages) + 1}"):
        stage: list[Block] = []
        for number in range(len(blocks)):
            path = f"layer{len(stages) + 1}.{number}."
            block = _block(state, path, channels, 2 if stages and not number else 1, preact)
            if block is None:
                return None
            stage.append(block)
            channels = block.widths[-1]
        stages.append(tuple(stage))
    if not stages:
        return None
    return ModelSpec("", first, width, tuple(stages), classes, preprocess, preact=preact)


def _block(
    state: dict[str, Tensor], path: str, channels: int, stride: int, preact: bool
) -> Block | None:
    convs: list[Tensor] = []
    while (conv := state.get(f"{path}conv{len(convs) + 1}.weight")) is not None and conv.ndim == 4:
        convs.append(conv)
    if _KERNELS.get(tuple(c.shape[2] for c in convs)) != len(convs) or not convs:
        return None
    widths = tuple(len(c) for c in convs)
    groups = 1
    if len(convs) == 3:
        groups = widths[0] // max(1, convs[1].shape[1])
    squeeze = state.get(f"{path}se.fc1.weight")
    shortcut = _shortcut(
        state, f"{path}downsample.", channels == widths[-1] and stride == 1, preact
    )
    return Block(widths, stride, shortcut, groups, 0 if squeeze is None else len(squeeze))


def _shortcut(state: dict[str, Tensor], path: str, plain: bool, preact: bool) -> Shortcut:
    direct, pooled = state.get(f"{path}0.weight"), state.get(f"{path}1.weight")
    if pooled is not None and pooled.ndim == 4:
        return "pooled"
    if direct is None:
        return "identity" if plain else "subsample"
    return "projection" if preact or pooled is not None else "subsample"


def _blocks(state: dict[str, Tensor], layer: str) -> set[str]:
    return {k.split(".")[1] for k in state if k.startswith(f"{layer}.")}


def _form(spec: ModelSpec) -> object:
    """Everything but widths."""
    return spec.stem, spec.preact, tuple(
        tuple((b.kernels, b.stride, b.shortcut, b.squeeze > 0) for b in stage)
        for stage in spec.stages)  # fmt: skip


def _same(a: ModelSpec, b: ModelSpec) -> bool:
    return (a.stem, a.stem_width, a.stages, a.preact) == (b.stem, b.stem_width, b.stages, b.preact)


def _named(found: ModelSpec) -> Iterator[ModelSpec]:
    """Every architecture with a name, in the width of a network's first convolution."""
    names = dict.fromkeys(specs.names())
    if len(found.stages) == 3:
        names[f"resnet{6 * len(found.stages[0]) + 2}"] = None
    for name in names:
        for option in ("", "-A", "-D", "-se", "-preact", "-mobile"):
            whole = _parsed(name + option, found)
            if whole is None:
                continue
            yield whole
            if found.stem_width != whole.stem_width and "-w" not in name:
                scaled = f"{whole.name}-w{found.stem_width / whole.stem_width:g}"
                if (narrow := _parsed(scaled, found)) is not None:
                    yield narrow


def _parsed(name: str, like: ModelSpec) -> ModelSpec | None:
    try:
        return specs.parse(name, like.classes, like.preprocess, like.stem)
    except BadInput:  # the option doesn't exist for that net, or the width is out of range
        return None


def _ranked(
    state: dict[str, Tensor], preprocess: Preprocess
) -> list[tuple[ModelSpec, Differences]]:
    """Named networks and what differs, the nearest first; none where nothing is a ResNet's."""
    layers = sorted({m[1] for k in state if (m := re.match(r"layer(\d+)\.\d+\.", k))}, key=int)
    if "conv1.weight" not in state or not layers:
        return []
    head = state.get("fc.weight")
    classes = len(head) if head is not None and head.ndim == 2 else 1
    width = len(state["conv1.weight"])
    like = ModelSpec("", stem(state) or "imagenet", width, (), classes, preprocess)
    depths = [len(_blocks(state, f"layer{n}")) for n in layers]
    rows = [(s, _differences_of(s, state)) for s in _by_depth(like, depths)]
    return sorted(rows, key=lambda row: (len(row[1]), len(row[0].name)))


def _by_depth(like: ModelSpec, depths: list[int]) -> list[ModelSpec]:
    """The named networks that come near in depth and width."""

    def distance(spec: ModelSpec) -> tuple[int, bool, int]:
        own = [len(stage) for stage in spec.stages]
        longest = max(len(own), len(depths))
        pad = lambda x: [*x, *[0] * (longest - len(x))]  # noqa: E731
        off = sum(abs(a - b) for a, b in zip(pad(own), pad(depths), strict=True))
        return off, spec.stem_width != like.stem_width, len(spec.name)

    return sorted(_named(like), key=distance)[:_TRIED]


def _similar(state: dict[str, Tensor], found: ModelSpec) -> list[ModelSpec]:
    """Named networks of the same form, or else the nearest."""
    same = [s for s in _named(found) if _form(s) == _form(found)]
    return same or [s for s, _ in _ranked(state, found.preprocess)] or [found]


def _differences_of(spec: ModelSpec, state: dict[str, Tensor]) -> Differences:
    """Compared with the network as it would be, of which nothing is in memory."""
    try:
        with torch.device("meta"):
            return differences(ResNet(spec), state)
    except (RuntimeError, TypeError, ValueError):  # no such network: groups that don't divide
        return Differences([], sorted(state), [])


def _compared(rows: list[tuple[ModelSpec, Differences]]) -> str:
    return ", ".join(f"{s.name} (the file {found})" for s, found in rows)


def _stranger(state: dict[str, Tensor]) -> str:
    if any(k.endswith("conv1.0.weight") for k in state):
        return (
            "its stem is several convolutions (timm's resnet50d and such), which isn't built here"
        )
    names = ", ".join(k[:60] for k in list(state)[:_SHOWN])
    return (f"its tensors ({names}, …) aren't named as a ResNet's; another kind of network can "
            "be brought as a program of torch.export, torch:FILE.pt2, or as onnx:FILE")  # fmt: skip


def _listed(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{verb} {', '.join(n[:80] for n in names[:_SHOWN])}{more}"
