"""A recipe and the keys that a person set in it -> which of them have no effect, a sentence each.

A setting that nothing reads isn't wrong: others decide whether it counts. But who set it believes
that it does something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeres.documents import KeyPath
from edgeres.recipe.sections import Recipe

_TRAINED = ("teacher", "distill", "prune", "quantize")
_LOSSES_WITHOUT_TEMPERATURE = ("mse", "cosine")


@dataclass(frozen=True)
class _Idle:
    """Settings of a section that have no effect.

    Attributes:
        keys: each with all that is below it.
        when: of the section.
        why: ends a sentence.
    """

    keys: tuple[str, ...]
    when: Callable[[Any], bool]
    why: str


_OF_WEIGHTS = ("weights", "new_head")
_QAT = "that takes quantize.method=qat"
_IDLE: Mapping[str, Sequence[_Idle]] = {
    "teacher": (
        _Idle(("model",), lambda s: s.ensemble is not None, "teacher.ensemble names others"),
        _Idle(("average",), lambda s: s.ensemble is None, "that takes teacher.ensemble"),
        _Idle(
            (*_OF_WEIGHTS, "channels", "size", "outputs", "claimed", "near_chance"),
            lambda s: s.ensemble is None and not s.starts_trained(dict(s)),
            "that takes a teacher with weights, e.g. teacher.checkpoint=FILE",
        ),
    ),
    "distill": (
        _Idle(_OF_WEIGHTS, lambda s: s.checkpoint is None, "that takes distill.checkpoint=FILE"),
        _Idle(
            ("temperature", "alpha", "cache"), lambda s: s.loss == "none",
            "that takes another distill.loss, e.g. kd",
        ),
        _Idle(
            ("temperature",), lambda s: s.loss in _LOSSES_WITHOUT_TEMPERATURE,
            "that takes another distill.loss, e.g. kd",
        ),
    ),
    "prune": (
        _Idle(
            ("sparsity", "sparse_epochs"), lambda s: s.criterion != "group-sparsity",
            "that takes prune.criterion=group-sparsity",
        ),
        _Idle(("device",), lambda s: s.latency is None, "that takes prune.latency"),
        _Idle(
            ("target",), lambda s: s.latency is None and s.size is None,
            "that takes prune.latency or prune.size",
        ),
    ),
    "quantize": (
        _Idle(
            ("train", "learned_steps", "temperature", "alpha", "cache", "freeze_observers",
             "freeze_batchnorm"),
            lambda s: s.method != "qat", _QAT,
        ),
        _Idle(
            ("train.precision",), lambda s: s.method == "qat" and s.train.precision != "fp32",
            "quantization is trained in fp32",
        ),
        _Idle(("ranges",), lambda s: s.method == "file", "that takes quantize.method=ptq or qat"),
    ),
    "verify": (_Idle(("on_samples",), lambda s: not s.on, "that takes verify.on"),),
}  # fmt: skip


def leaves(tree: Mapping[str, object], above: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of each value in nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def sentences(
    recipe: Recipe, written: Iterable[Iterable[KeyPath]], shared: Mapping[str, Sequence[str]]
) -> list[str]:
    """What is to be said of a recipe.

    Args:
        written: the keys that a person set, by document. A section of which every key is set was
            written by edgeres itself, as in a run's record; nothing is said of it.
        shared: a key of `train` -> the stages that have it from there.
    """
    found: dict[str, list[str]] = {}
    for document in written:
        paths = list(document)
        for path in paths:
            section = getattr(recipe, str(path[0]), None)
            said = {other[1] for other in paths if other[0] == path[0] and len(other) > 1}
            if set(getattr(type(section), "model_fields", ())) <= said and section is not None:
                continue
            why = _of_train(recipe, path, shared) if path[0] == "train" else _why(recipe, path)
            if why is not None:
                found.setdefault(why, []).append(".".join(map(str, path)))
    return [
        f"{', '.join(dict.fromkeys(keys))} {'has' if len(set(keys)) == 1 else 'have'} no effect: "
        f"{why}"
        for why, keys in found.items()
    ]


def _why(recipe: Recipe, path: KeyPath) -> str | None:
    """Why a key of a section has no effect; None: it has one."""
    section = getattr(recipe, str(path[0]), None)
    key = ".".join(map(str, path[1:]))
    if section is None:
        return None
    if path[0] in _TRAINED and key == "train.momentum" and section.train.optimizer != "sgd":
        return f"that takes {path[0]}.train.optimizer=sgd"
    for idle in _IDLE.get(str(path[0]), ()):
        if any(f"{key}.".startswith(f"{one}.") for one in idle.keys) and idle.when(section):
            return idle.why
    return None


def _of_train(recipe: Recipe, path: KeyPath, shared: Mapping[str, Sequence[str]]) -> str | None:
    """The same of a key of `train`, which counts where a stage has it from there."""
    having = shared.get(str(path[1]), ()) if len(path) > 1 else _TRAINED
    reasons = [_why(recipe, (stage, *path)) for stage in having]
    if None in reasons:
        return None
    return reasons[0] if reasons else "each stage that trains has its own; set it there"
