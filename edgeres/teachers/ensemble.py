"""Several teachers as one: the mean of their logits, or of their probabilities.

Mean logits weigh a teacher by how far apart its answers lie; mean probabilities (whose logarithm
is the answer) give each teacher the same say.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import teachers
from edgeres.errors import BadInput
from edgeres.teachers import Found, Wanted, describe

if TYPE_CHECKING:
    from torch import Tensor

    from edgeres.training.answers import Teacher

SUMMARY = "several of the others: `teacher.ensemble: [SOURCE:…, SOURCE:…]`"
BLACK_BOX = True


def check(rest: str) -> None:
    """Each member by its own source's rules."""
    for name, inner in _members(rest):
        teachers.source(name).check(inner)


def keyed(rest: str) -> object:
    """What identifies each member, in order."""
    return [[name, teachers.source(name).keyed(inner)] for name, inner in _members(rest)]


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Each member in a folder of its own below `out`."""
    from edgeres.models import modules, weights

    folders, names, parameters, notes = [], [], 0, list[str]()
    for number, (name, inner) in enumerate(_members(rest)):
        folder = out / f"member-{number}"
        folder.mkdir()
        found = teachers.source(name).fetch(inner, wanted, folder)
        count = found.parameters or 0
        if found.network is not None:
            weights.save(folder, found.network)
            count = modules.complexity(found.network.spec)[0]
        folders.append(folder.name)
        names.append(found.name)
        parameters += count
        notes += [f"{found.name}: {note}" for note in found.notes]
    describe(out, source="ensemble", members=folders, of=wanted.ensemble)
    return Found(" + ".join(names), parameters=parameters, notes=tuple(notes))


def open(folder: Path, document: dict[str, Any]) -> Teacher:
    """All members."""
    return Ensemble([teachers.load(folder / Path(m).name) for m in document["members"]],
                    probabilities=document["of"] == "probabilities")  # fmt: skip


class Ensemble:
    """The mean answer of several teachers."""

    def __init__(self, members: list[Teacher], *, probabilities: bool):
        self.members, self.probabilities = members, probabilities
        self.in_torch = all(getattr(member, "in_torch", False) for member in members)

    def compile(self, batch: int) -> None:
        """Answer batches of this size faster, where all members are `in_torch`."""
        for member in self.members:
            member.compile(batch)  # type: ignore[attr-defined]

    def answer(self, images: Tensor) -> Tensor:
        """Logits (N, C) of uint8 images (N, 3, H, W)."""
        import torch

        answers = torch.stack([member.answer(images) for member in self.members])
        if not self.probabilities:
            return answers.mean(0)
        return answers.log_softmax(2).logsumexp(0) - math.log(len(self.members))


def _members(rest: str) -> list[tuple[str, str]]:
    members = json.loads(rest)
    for text in members:
        if ":" not in text:
            raise BadInput(f"teacher.ensemble: '{text}' says no source; write e.g. "
                           f"checkpoint:FILE or torchvision:{text}")  # fmt: skip
    return [teachers.parse(text) for text in members]
