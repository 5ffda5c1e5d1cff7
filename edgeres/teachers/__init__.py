"""Teachers: where people have them, in; something that answers uint8 images, out.

One module per source, found by its name (edgeres.plugins). A source whose weights fit our
Classifier gives a network, which can also be pruned, quantized and exported. Any other gives a
black box: it answers, and a student learns from its answers.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, cast

from edgeres.errors import BadInput
from edgeres.plugins import Plugins

if TYPE_CHECKING:
    from torch import Tensor

    from edgeres.artifact import Artifact
    from edgeres.models.modules import Classifier
    from edgeres.network._walk import Integers
    from edgeres.recipe import TeacherSection
    from edgeres.training.answers import Teacher

_DOCUMENT = "teacher.json"


@dataclass(frozen=True)
class Wanted:
    """What the recipe and the data ask of a teacher.

    Attributes:
        model: its architecture; None where the source knows, or the tensors tell.
        classes: of the data.
        outputs: which of the teacher's outputs these classes are; None: all, in order.
        data_px: size of the data's images.
        size_px, mean, std, channels: of its input (mean, std as R, G, B); None: the source's own.
        weights: raw or averaged ones, where a checkpoint holds both; None: see `models.foreign`.
        ensemble: how several answers become one.
        new_head: when to replace a network's last layer in place of refusing it: where it has
            another number of classes, or always.
    """

    model: str | None
    classes: int
    outputs: tuple[int, ...] | None
    data_px: int
    size_px: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    weights: Literal["raw", "ema"] | None = None
    ensemble: Literal["logits", "probabilities"] = "logits"
    new_head: Literal["never", "other", "always"] = "never"


@dataclass(frozen=True)
class Peeked:
    """What a file that holds a graph says before anything is asked of it.

    Attributes:
        size_px: of its images; 224 where it takes any.
        quantized: it has codes, and scales of its own for them.
    """

    classes: int
    size_px: int
    quantized: bool


@dataclass(frozen=True)
class Found:
    """A teacher as a source found it.

    Attributes:
        name: for the report.
        network: its network; None for a black box, of which `teacher.json` was written.
        parameters: of a black box, if it tells.
        claimed: top-1 that its publisher states, 0 to 1.
        notes: what was chosen, left out or assumed, a sentence each.
        replaced: how many classes its last layer had, where it was replaced by one of zeros.
        integers: what its file says of its codes, where that is quantized and nothing was changed.
    """

    name: str
    network: Classifier | None = None
    parameters: int | None = None
    claimed: float | None = None
    notes: tuple[str, ...] = ()
    replaced: int | None = None
    integers: Integers | None = None


class Source(Protocol):
    """What a source's module provides (PEP 544: a module fits, `self` is ignored).

    `precheck(rest, wanted)`, where a module has it, looks at the weights before there are data,
    with 0 as their classes, and raises as `fetch` would. `unknown(rest)`, where it has that, says
    why one of its teachers is a black box; None: it is a network. `peek(rest)`, where it has that,
    gives a `Peeked` of a file that holds a graph; None: of any other.
    """

    SUMMARY: str
    BLACK_BOX: bool

    def check(self, rest: str) -> None:
        """Refuse a wrong name, a missing file or component before any work."""
        ...

    def keyed(self, rest: str) -> object:
        """What identifies the teacher, wherever its file lies."""
        ...

    def fetch(self, rest: str, wanted: Wanted, out: Path) -> Found:
        """Find it; a black box writes what `open` needs below `out`."""
        ...


class BlackBoxes(Source, Protocol):
    """What a source of black boxes provides, too."""

    def open(self, folder: Path, document: dict[str, object]) -> Teacher:
        """A black box that `fetch` wrote."""
        ...


def _unfit(module: ModuleType) -> str | None:
    """Why a package's source can't be one all the same; None if it can."""
    lacks = module.BLACK_BOX and not callable(getattr(module, "open", None))
    return "it is a black box, and lacks open()" if lacks else None


PLUGINS = Plugins("teacher source", __name__, Source, _unfit)


def names() -> tuple[str, ...]:
    """Every source a recipe can name in front of a colon."""
    return PLUGINS.names()


def parse(text: str) -> tuple[str, str]:
    """`SOURCE:REST` -> the source and the rest.

    Raises:
        BadInput: there is no such source.
        MissingComponent: it is a package's, and can't be used.
    """
    name, _, rest = text.partition(":")
    source(name)
    if not rest.strip():
        raise BadInput(f"teacher '{text}': write {name}:NAME or {name}:FILE")
    return name, rest.strip()


def chosen(section: TeacherSection) -> tuple[str, str] | None:
    """The source and the rest that a section names; None: the teacher is trained here."""
    if section.ensemble is not None:
        return "ensemble", json.dumps(section.ensemble)
    if section.checkpoint is not None:
        return "checkpoint", section.checkpoint
    return parse(section.model) if ":" in section.model else None


def sources(section: TeacherSection) -> list[str]:
    """The sources of a teacher; none if it is trained here."""
    found = chosen(section)
    members = [parse(text)[0] for text in section.ensemble or ()]
    return [found[0], *members] if found else []


def black_box(section: TeacherSection) -> str | None:
    """Why a teacher only answers, so that nothing can be made of it but a student; None: it is a
    network."""
    found = chosen(section)
    if found is None:
        return None
    module = source(found[0])
    unknown = getattr(module, "unknown", None)
    if unknown is not None:
        return unknown(found[1])  # type: ignore[no-any-return]
    return f"{found[0]}: is a black box" if module.BLACK_BOX else None


def peek(model: str) -> Peeked | None:
    """What the file of `SOURCE:REST` says of itself; None: nothing that is known."""
    name, colon, rest = model.partition(":")
    look = getattr(PLUGINS.find(name), "peek", None) if colon else None
    return look(rest) if look is not None else None


def check(section: TeacherSection) -> None:
    """Refuse what can't be a teacher before any work; raises like a source's `check`."""
    found = chosen(section)
    if found is not None:
        source(found[0]).check(found[1])
    if section.checkpoint is not None:
        check_architecture(section.model)


def check_architecture(name: str) -> None:
    """Refuse a network's name that nobody can build; see `docs/models.md`.

    Raises:
        BadInput: there is no such network.
        MissingComponent: its library isn't installed.
    """
    from edgeres.models import spec
    from edgeres.teachers import _library

    if (named := _library.parse(name)) is not None:
        _library.require(*named)
    else:
        spec.parse(name, classes=2, preprocess=spec.default_preprocess(32))


def precheck(name: str, rest: str, wanted: Wanted) -> None:
    """Look at a teacher's weights before the data are decoded; raises like `Source.fetch`."""
    look = getattr(source(name), "precheck", None)
    if look is not None:
        look(rest, wanted)


def source(name: str) -> Source:
    """The module of a source; raises as `parse`."""
    return PLUGINS.load(name)  # type: ignore[no-any-return]


def describe(folder: Path, **document: object) -> None:
    """Write what `load` needs to know of a black box."""
    text = json.dumps({"schema": 1, **document}, indent=1)
    (folder / _DOCUMENT).write_text(text, "utf-8")


class OnDemand:
    """The teacher of a teacher artifact (`training.answers.Teacher`), loaded when it is first
    asked: never, where all its answers are stored."""

    def __init__(self, artifact: Artifact):
        self._artifact = artifact

    def answer(self, images: Tensor) -> Tensor:
        """Logits float32 (N, C) of uint8 images (N, 3, H, W)."""
        return self._loaded.answer(images)

    @property
    def in_torch(self) -> bool:
        """Whether it computes where the images are."""
        return getattr(self._loaded, "in_torch", False)

    def compile(self, batch: int) -> None:
        """Answer batches of this size faster, of a teacher that is `in_torch`."""
        self._loaded.compile(batch)  # type: ignore[attr-defined]

    @functools.cached_property
    def _loaded(self) -> Teacher:
        return load(self._artifact.folder())


def load(folder: Path) -> Teacher:
    """The teacher of a teacher artifact.

    Raises:
        BadInput: the folder holds no teacher, or a damaged one.
    """
    from edgeres.models import weights
    from edgeres.training.answers import Network

    if not (folder / _DOCUMENT).exists():
        return Network(weights.load(folder))
    try:
        document = json.loads((folder / _DOCUMENT).read_text("utf-8"))
        return cast("BlackBoxes", source(str(document["source"]))).open(folder, document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder}: not a saved teacher ({error!r})") from error
