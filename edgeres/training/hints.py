"""What a student learns from inside its teacher: features of named layers, beside the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgeres.errors import BadInput, nearest
from edgeres.recipe import HintSection
from edgeres.training import losses
from edgeres.training.answers import Network, Teacher
from edgeres.training.inference import prepared
from edgeres.training.loop import Extra
from edgeres.types import Preprocess


class Hints(Extra):
    """Weighted distances between layers of a teacher and of its student.

    The adapters that bring a student's channels to the teacher's are parameters of this module:
    they are trained and resumed with the student, and are no part of it.

    Args:
        sections: which layers, how compared, with which weight over the training.
        teacher: must run here in PyTorch.
        student: the network that will be trained.

    Raises:
        BadInput: one of them has no such layer, or it gives no feature map.
    """

    def __init__(self, sections: Sequence[HintSection], teacher: Network, student: nn.Module,
                 preprocess: Preprocess):  # fmt: skip
        super().__init__()
        self.sections = tuple(sections)
        self._teacher = [teacher]  # in a list: not a part of this module's state
        self._theirs = Taps(teacher.module, [s.teacher for s in sections], "the teacher")
        self._own = Taps(student, [s.student for s in sections], "the student")
        self.adapters = nn.ModuleList(self._adapters(student, preprocess))
        self.weights: Tensor
        self.register_buffer("weights", torch.zeros(len(self.sections)), persistent=False)
        self.start_step(0.0)

    @classmethod
    def of(
        cls, sections: Sequence[HintSection], teacher: Teacher, student: nn.Module,
        preprocess: Preprocess,
    ) -> Hints | None:  # fmt: skip
        """None where there are no hints; BadInput where the teacher has no layers to look at."""
        if not sections:
            return None
        if not isinstance(teacher, Network):
            raise BadInput("distill.hints: this teacher answers only, its layers can't be seen; "
                           "leave the hints out or take a single ResNet checkpoint")  # fmt: skip
        return cls(sections, teacher, student, preprocess)

    in_torch = True

    def answer(self, images: Tensor) -> Tensor:
        """The teacher's logits (N, C) of uint8 images; its features are kept for `distance`."""
        return self._teacher[0].answer(images)

    def start_step(self, progress: float) -> None:
        """Weigh the hints as their schedules say."""
        for weight, section in zip(self.weights, self.sections, strict=True):
            weight.fill_(section.weight * _share(section.schedule, progress))

    def distance(self) -> Tensor:
        """The sum over hints, of the features that both networks showed last."""
        total = torch.zeros((), device=self.weights.device)
        for section, adapter, weight in zip(
            self.sections, self.adapters, self.weights, strict=True
        ):
            own, theirs = self._own.take(section.student), self._theirs.take(section.teacher)
            total = total + weight * _distance(section.loss, adapter(own), theirs)
        return total

    def close(self) -> None:
        """Leave both networks as they were."""
        self._own.close()
        self._theirs.close()

    def _adapters(self, student: nn.Module, preprocess: Preprocess) -> Iterator[nn.Module]:
        """One for each hint: a 1x1 convolution, or nothing for maps without channels."""
        pixels = torch.zeros(1, 3, preprocess.size_px, preprocess.size_px, dtype=torch.uint8)
        with _evaluating(student), torch.no_grad():
            student(prepared(pixels, preprocess))
        self.answer(pixels)
        for section in self.sections:
            own, theirs = self._own.take(section.student), self._theirs.take(section.teacher)
            for side, name, seen in (("student", section.student, own),
                                     ("teacher", section.teacher, theirs)):  # fmt: skip
                if seen.ndim != 4:
                    raise BadInput(f"distill.hints: the {side}'s layer '{name}' gives no feature "
                                   f"map; name a convolution, block or stage")  # fmt: skip
            if section.loss == "attention":
                yield nn.Identity()
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    yield nn.Conv2d(own.shape[1], theirs.shape[1], 1)


class Taps:
    """The last outputs of some named layers of a network.

    Raises:
        BadInput: there is no such layer.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], whose: str):
        self._seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        layers = {name: layer for name, layer in module.named_modules() if name}
        for name in dict.fromkeys(names):
            if name not in layers:
                top = ", ".join(name for name, _ in module.named_children())
                raise BadInput(f"distill.hints: {whose} has no layer '{name}'"
                               f"{nearest(name, layers)}; its parts: {top}")  # fmt: skip
            self._handles.append(layers[name].register_forward_hook(self._keep(name)))

    def take(self, name: str) -> Tensor:
        """What the layer gave last: (N, C, H, W)."""
        return self._seen[name]

    def close(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    def _keep(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._seen[name] = output

        return hook


def _distance(kind: str, own: Tensor, theirs: Tensor) -> Tensor:
    """Features of other sizes are averaged down to the smaller one."""
    own, theirs = own.float(), theirs.float()  # squares of float16 overflow beyond 255
    size = (min(own.shape[2], theirs.shape[2]), min(own.shape[3], theirs.shape[3]))
    if kind == "attention":
        maps = (losses.attention_map(own), losses.attention_map(theirs))
        mine, other = (F.adaptive_avg_pool2d(m[:, None], size).flatten(1) for m in maps)
        return losses.attention(mine, other)
    return losses.hint(F.adaptive_avg_pool2d(own, size), F.adaptive_avg_pool2d(theirs, size))


def _share(schedule: str, progress: float) -> float:
    """What is left of a weight: all, or falling to 0 along a line or half a cosine."""
    if schedule == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
