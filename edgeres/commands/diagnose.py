"""Commands that look inside a network: diagnose and recalibrate."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from edgeres import pipeline, scratch, terminal
from edgeres.artifact import Artifact, load
from edgeres.commands.chain import origin
from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.progress import Progress
from edgeres.recipe import Recipe, load_mapping
from edgeres.runs import find_run, store_of
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.records import Counted
    from edgeres.training.views import Labelled

_BATCH = 64
_NETWORKS = ("prune", "distill", "teacher")


class Finding(TypedDict):
    """What is wrong with a layer, and the mend."""

    kind: str
    layer: str
    says: str
    mend: str


class Diagnosis(TypedDict):
    """What is wrong with a network."""

    model: str
    network: str
    data: str
    images: int
    healthy: bool
    findings: list[Finding]
    layers: Sequence[Mapping[str, object]]


class Recalibration(TypedDict):
    """A network before and after its statistics were estimated anew."""

    model: str
    network: str
    data: str
    out: str
    images: int
    before: Counted
    after: Counted


def diagnosed(
    model: str | None, architecture: str | None, brought: Mapping[str, object], data: str | None,
    runs: Path, samples: int, quiet: bool,
) -> Diagnosis:  # fmt: skip
    """Everything that is wrong with a network, shown `samples` of its training images."""
    from edgeres.training import diagnose
    from edgeres.training.inference import prepared

    network, where, folder = _opened(model, architecture, brought, data, runs, quiet)
    split = _drawn(_splits(folder)[0], samples)
    inputs = prepared(split.images, network.spec.preprocess)
    labels = split.labels if network.spec.classes == len(folder.facts["classes"]) else None
    found = diagnose.examine(network, inputs, labels)
    broken = any(f.kind == "nan" for f in found)
    return {
        "model": where, "network": network.spec.name, "data": folder.facts["name"],
        "images": len(split.labels), "healthy": not found,
        "findings": [to_json(f) for f in found],
        "layers": [] if broken else diagnose.profile(network, inputs),
    }  # fmt: skip


def diagnosis(result: Diagnosis) -> str:
    """A line per finding with its mend, or that there is none."""
    lines = []
    for f in result["findings"]:
        lines += [f"{f['layer']}: {f['says']}", f"    {f['mend']}"]
    shown = f"{result['network']} on {result['images']} images of {result['data']}"
    verdict = "nothing is wrong" if result["healthy"] else f"{len(result['findings'])} found"
    return "\n".join([*lines, f"{shown}: {verdict}"])


def recalibrated(
    model: str | None, architecture: str | None, brought: Mapping[str, object], data: str | None,
    out: Path | None, runs: Path, samples: int, quiet: bool,
) -> Recalibration:  # fmt: skip
    """Re-estimate batch norm's statistics on training images; write the network to a folder.

    Raises:
        BadInput: the network has no batch norm (any more), or the folder holds something else.
    """
    from edgeres.models import weights
    from edgeres.training import recalibration
    from edgeres.training.inference import evaluate, prepared
    from edgeres.training.loop import Trainee

    network, where, folder = _opened(model, architecture, brought, data, runs, quiet)
    if network.spec.folded:
        raise BadInput(f"{where}: its batch norm is folded into the weights; "
                       "name the network before quantization")  # fmt: skip
    out = out or Path(f"{network.spec.name}-{folder.facts['name']}")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_ours(out))):
        raise BadInput(f"{out}: is in the way; choose another --out")
    train, _, test = _splits(folder)
    preprocess = network.spec.preprocess
    trainee = Trainee.of(network, preprocess)
    before, _ = evaluate(trainee, test)
    images = _drawn(train, samples).images
    parts = images.split(min(_BATCH, len(images)))
    whole = [part for part in parts if len(part) == len(parts[0])]
    used = recalibration.recalibrate(network, (prepared(part, preprocess) for part in whole))
    after, _ = evaluate(trainee, test)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        weights.save(out, network)
    return {"model": where, "network": network.spec.name, "data": folder.facts["name"],
            "out": str(out), "images": used * len(parts[0]), "before": to_json(before),
            "after": to_json(after)}  # fmt: skip


def recalibration(result: Recalibration) -> str:
    """Test accuracy before and after, and where the network is."""
    from edgeres.text import accuracy

    return (f"{result['network']} on {result['data']}: test {accuracy(result['before'])} before, "
            f"{accuracy(result['after'])} after, from {result['images']} images\n"
            f"go on with it: edgeres export {result['out']} --data …")  # fmt: skip


def _opened(
    model: str | None,
    architecture: str | None,
    brought: Mapping[str, object],
    data: str | None,
    runs: Path,
    quiet: bool,
) -> tuple[Classifier, str, Artifact]:
    """The network, what it is called, and the data artifact it is looked at with."""
    path = Path(model) if model else None
    document = origin(model, architecture, runs, brought)
    if path and not data and "data" not in document:
        raise BadInput(f"{path}: say on which images, with --data NAME[:PATH]")
    recipe = load_mapping({k: document[k] for k in ("name", "data", "teacher") if k in document},
                          [f"data={data}"] if data else [])  # fmt: skip
    folder = _data(recipe, runs, quiet)
    named = path is not None and ":" in str(model) and not path.exists()
    if path and (named or (path.exists() and not (path / "recipe.lock.yaml").exists())):
        return _network(path, recipe, folder), str(path), folder
    run = find_run(model, runs)
    step = next((s for s in _NETWORKS if s in run.artifacts), None)
    if step is None:
        raise BadInput(f"{run.path}: has no network yet; `edgeres run` makes one")
    return _network(run.artifacts[step].folder(), recipe, folder), f"{run.path} ({step})", folder


def _network(path: Path, recipe: Recipe, data: Artifact) -> Classifier:
    from edgeres import teachers
    from edgeres.models import weights
    from edgeres.stages import _checkpoint
    from edgeres.stages.teacher import wanted

    if path.is_dir():
        if (path / "artifact.json").is_file() and not (path / "spec.json").is_file():
            raise BadInput(f"{path}: a {load(path).stage} artifact holds no network")
        if (path / "artifact.json").is_file():
            path = load(path).folder()
        return weights.load(path)
    asked = wanted(recipe.teacher, data)
    name, rest = teachers.chosen(recipe.teacher) or ("checkpoint", str(path))
    with scratch.folder("work") as folder:
        found = teachers.source(name).fetch(rest, asked, folder)
    if found.network is None:
        raise BadInput(f"{path}: only answers; there is no network of it to look into")
    for note in (*found.notes, *_checkpoint.advice(found.network, data)):
        terminal.remark(f"note: {note}")
    return found.network


def _data(recipe: Recipe, runs: Path, quiet: bool) -> Artifact:
    """The recipe's data artifact, from the store or made now; no run comes of it."""
    chain = pipeline.until(pipeline.steps(recipe), "data")
    progress = Progress(quiet)
    with scratch.folder("work") as folder, contextlib.closing(progress):
        run = pipeline.perform(recipe, chain, store_of(runs), folder, progress)
    return run.artifacts["data"]


def _splits(data: Artifact) -> tuple[Labelled, Labelled, Labelled]:
    from edgeres.stages import _checkpoint

    train, validation, test = _checkpoint.splits(data)
    return train, validation, test


def _drawn(split: Labelled, count: int) -> Labelled:
    """Some of a split, drawn at random, always the same."""
    import torch

    from edgeres.training.views import Labelled

    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[:count]
    return Labelled(split.images[order], split.labels[order])


def _is_ours(folder: Path) -> bool:
    return {p.name for p in folder.iterdir()} <= {"spec.json", "weights.safetensors"}
