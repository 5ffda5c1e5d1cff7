"""Which tensors of a file are the network's: containers, and raw or averaged weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from edgeres.errors import BadInput
from edgeres.models.foreign import names
from edgeres.models.foreign._pickle import Inert, Stored

Weights = Literal["raw", "ema"]

# What trainers put weights under, in the order in which they are looked for.
CONTAINERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network",
    "params", "weights", "student", "online", "encoder", "backbone", "module", "_model",
)  # fmt: skip
AVERAGED = (
    "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "model_ema", "ema_model", "ema",
    "params_ema", "weights_ema", "teacher", "swa_state_dict", "swa_model", "averaged", "shadow",
)  # fmt: skip
# The same as parts of names: `teacher.backbone.conv1.weight`. Those that lag behind on purpose
# aren't what their papers evaluate.
_AVERAGED = re.compile(r"(^|[._])(ema|ema_model|model_ema|teacher|swa_model|averaged_model)\.")
_LAGGING = re.compile(r"(^|[._])(encoder_k|momentum_\w+|target_\w+|key_encoder)\.")
_MOST = 8  # networks in one file
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be a network's.

    Attributes:
        label: where in the file they are, for people.
        averaged: a running average of the weights (EMA, SWA, a momentum encoder).
        lagging: an average that is only there to train the others.
    """

    label: str
    tensors: dict[str, Tensor]
    averaged: bool
    lagging: bool = False


def chosen(
    found: list[Candidate], prefer: Weights | None, where: str
) -> tuple[Candidate, list[str]]:
    """The candidate to use, and what is to be said about it.

    Args:
        prefer: None takes the averaged weights where there are any but a momentum encoder's.

    Raises:
        BadInput: there is none of the kind that is asked for.
    """
    raw = next((c for c in found if not c.averaged), None)
    # Weights of another shape are another network, as the teacher in a distillation's checkpoint.
    averaged = next(
        (
            c
            for c in found
            if c.averaged and (raw is None or prefer == "ema" or _shapes(c) == _shapes(raw))
        ),
        None,
    )
    labels = ", ".join(c.label for c in found if c is not raw and c is not averaged
                       and (not c.averaged or averaged is None))  # fmt: skip
    notes = [f"further networks in it are not used: {labels}"] if labels else []
    if prefer is not None and (one := raw if prefer == "raw" else averaged) is None:
        there = " and ".join(c.label for c in found)
        raise BadInput(f"{where}: holds no {_WORDS[prefer]} weights, only {there}; "
                       "leave `weights` out")  # fmt: skip
    if raw is None or averaged is None:
        one = raw or averaged
        assert one is not None
        return one, notes
    if prefer is None:
        one = raw if averaged.lagging else averaged
    assert one is not None
    used, other = ("ema", "raw") if one is averaged else ("raw", "ema")
    notes.append(f"holds raw weights ({raw.label}) and averaged ones ({averaged.label}): the "
                 f"{_WORDS[used]} ones are used; `weights: {other}` takes the others")  # fmt: skip
    return _completed(one, raw, notes), notes


def _shapes(one: Candidate) -> Counter[tuple[int, ...]]:
    """Those of its convolutions, however they are named."""
    return Counter(tuple(value.shape) for value in one.tensors.values() if value.ndim == 4)


_WORDS = {"raw": "raw", "ema": "averaged"}


def _completed(one: Candidate, raw: Candidate, notes: list[str]) -> Candidate:
    """With the raw network's batch statistics, where only the parameters were averaged."""
    own, theirs = _bare(one), _bare(raw)
    lacking = theirs.keys() - own.keys()
    if one is raw or not lacking or not all(key.endswith(_BUFFERS) for key in lacking):
        return one
    notes.append("the averaged weights come without batch statistics: the raw network's are used")
    statistics = {key: theirs[key] for key in lacking}
    return Candidate(one.label, {**own, **statistics}, one.averaged)


def _bare(one: Candidate) -> dict[str, Tensor]:
    """Without the prefix that a wrapper gave all of the network's names."""
    prefix = next((prefix for prefix, _ in names.networks(one.tensors)), "")
    return {key.removeprefix(prefix): value for key, value in one.tensors.items()}


def candidates(tree: object, stems: Callable[[Collection[str]], list[str]]) -> list[Candidate]:
    """Every set of tensors in a file that begins as a network does, raw ones first.

    Args:
        tree: as `files.read` gives it.
        stems: (names of tensors) -> the prefixes of the networks among them.
    """
    found = []
    for label, averaged, tensors in _walk(tree, "", False, set()):
        averaged = averaged or "n_averaged" in tensors
        prefixes = stems(tensors)[:_MOST] or [""]
        if len(prefixes) == 1:
            found.append(Candidate(label or "the file itself", tensors, averaged))
            continue
        for prefix in prefixes:
            own = {k: v for k, v in tensors.items() if k.startswith(prefix) or not any(
                k.startswith(other) for other in prefixes)}  # fmt: skip
            lagging = bool(_LAGGING.search(prefix))
            also = averaged or lagging or bool(_AVERAGED.search(prefix))
            found.append(Candidate(prefix.rstrip("."), own, also, lagging))
    networks = [c for c in found if stems(c.tensors)]
    return networks or found


def _walk(
    node: object, label: str, averaged: bool, seen: set[int]
) -> Iterator[tuple[str, bool, dict[str, Tensor]]]:
    """(label, averaged, tensors) of a node and of the containers in it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if _is_network(node):
        yield label or "a whole pickled network", averaged, dict(_of_network(node, "", set()))
        return
    entries = _entries(node)
    tensors = {str(k): t for k, v in entries.items() if (t := _as_tensor(v)) is not None}
    if tensors:
        yield label, averaged, tensors
    for keys, is_average in ((CONTAINERS, averaged), (AVERAGED, True)):
        for name in keys:
            if name in entries and _as_tensor(entries[name]) is None:
                inner = f"{label}.{name}" if label else name
                yield from _walk(entries[name], inner, is_average, seen)


def _entries(node: object) -> Mapping[object, object]:
    """What a dict holds, or an object that stood for one."""
    if isinstance(node, Inert):
        return node.entries or (node.state if isinstance(node.state, dict) else {})
    return node if isinstance(node, dict) else {}


def _as_tensor(value: object) -> Tensor | None:
    if isinstance(value, Stored):
        return value.tensor()
    return value if isinstance(value, Tensor) else None


def _is_network(node: object) -> bool:
    return (isinstance(node, Inert) and isinstance(node.state, dict)
            and isinstance(node.state.get("_modules"), dict))  # fmt: skip


def _of_network(node: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a network that was pickled whole, without its class."""
    if not _is_network(node) or id(node) in seen:
        return
    seen.add(id(node))
    for kind in ("_parameters", "_buffers"):
        entries = node.state.get(kind)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            if (tensor := _as_tensor(value)) is not None:
                yield f"{prefix}{name}", tensor
    for name, inner in node.state["_modules"].items():
        yield from _of_network(inner, f"{prefix}{name}.", seen)
