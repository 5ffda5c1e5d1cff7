"""Stages: one module per step of the chain, found by its file name.

A stage reads its section of the recipe and the artifacts it needs, writes one folder, and returns
facts about it. It knows nothing of the stages after it, and handles no tensors itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from edgeres.artifact import Artifact
    from edgeres.plugins import Plugins
    from edgeres.recipe.sections.fields import Section


ORDER = ("data", "teacher", "labels", "distill", "prune", "quantize", "export", "verify",
         "benchmark", "budgets", "report")  # fmt: skip
"""The chain; what each step needs is written in edgeres.pipeline."""


@dataclass(frozen=True)
class Context:
    """What a stage may use beside its section and inputs.

    Attributes:
        work: folder for resume checkpoints; survives a crash, removed when the stage is done.
        run: name of the run that it is done for.
        tick: (steps done, steps in all, note) -> None, for the progress display.
        hashes: folder in which hashes of the data's files are remembered; None: nowhere.
    """

    seed: int
    work: Path
    tick: Callable[[int, int, str], None]
    run: str = ""
    hashes: Path | None = None


class Stage(Protocol):
    """What a module in this folder provides.

    `run` writes below `out` only, reads `inputs` only, and returns JSON-ready facts. `keyed` is
    what of the section (and of the files and machines it names) decides the result: it goes into
    the artifact's key in place of paths; that of `data` also takes `Context.hashes`. `VARIES`,
    where a module has it, names what of the artifact's description is another one each time.
    `asks(section)`, where a module has it, names the devices whose identity `keyed` asks for.
    `misses(section, facts)`, where a module has it, says which limits of the section the result
    misses: the run ends there, with exit code 1. `precheck(section, data)`, where a module has it,
    refuses what can be seen to be wrong before the first step of a run is performed; `data` is the
    recipe's section. `plugins(section)`, where a module has it, names those that its section asks
    for, each with its kind (`edgeres.plugins`).
    """

    VERSION: int
    LIBRARIES: tuple[str, ...]

    def keyed(self, section: Section) -> dict[str, object]:
        """The section as hashed."""
        ...

    def run(
        self, section: Section, inputs: Mapping[str, Artifact], out: Path, context: Context
    ) -> dict[str, object]:
        """Do the work."""
        ...


def load(name: str) -> Stage:
    """The module of a stage."""
    return cast("Stage", importlib.import_module(f"edgeres.stages.{name}"))


def device_keyed(name: str) -> dict[str, object]:
    """What of a device decides a measurement: what its profile asks for, and which machine it is;
    one that is away has no identity."""
    from edgeres import devices

    known = devices.measured_with(devices.load(name))
    return {**known, "identity": devices.identity_of(name)}


def device_plugin(name: str) -> tuple[Plugins, str]:
    """What stands for a device: its kind, or the runtime that estimates."""
    from edgeres import devices, runtimes

    profile = devices.load(name)
    if profile.kind == devices.ESTIMATE:
        return runtimes.PLUGINS, runtimes.module_name(profile.name)
    return devices.PLUGINS, profile.kind


def asked_devices(stage: Stage, section: Section) -> tuple[str, ...]:
    """The devices that have to be opened before the stage's key is known."""
    asks = getattr(stage, "asks", None)
    return tuple(asks(section)) if asks else ()


def provenance(stage: Stage, section: Section) -> list[Mapping[str, str]]:
    """The packages whose plugins a section asks for; none of edgeres' own."""
    asked = stage.plugins(section) if hasattr(stage, "plugins") else ()
    return [found for kind, name in asked if (found := kind.provenance(name))]


def keyed_as_is(section: Section) -> dict[str, object]:
    """The whole section decides the result, but not where it is computed.

    Nor does what is said of stored answers: they are a parent, if there are any.
    """
    document = dict(section.model_dump(mode="json"))
    document.pop("cache", None)
    if isinstance(document.get("train"), dict):
        del document["train"]["device"]
    return document
