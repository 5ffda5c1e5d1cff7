"""Commands that run the chain or part of it: run, distill, prune, quantize, export."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import (
    contract,
    datasets,
    pipeline,
    preprocessing,
    procs,
    registry,
    targets,
    terminal,
)
from edgeres.artifact import Artifact, load
from edgeres.disk import copy_whole, storage_errors
from edgeres.errors import BadInput, unknown
from edgeres.pipeline import Given, slurm
from edgeres.progress import Progress
from edgeres.runs import LOCK, Run, begin, event, find_run, link, open_run, run_folder, store_of

if TYPE_CHECKING:
    from edgeres.recipe import Recipe
    from edgeres.teachers import Peeked
    from edgeres.text.chain import Added, Exported, File, Plan, PlanRow, Ran, Script

WEIGHTS = {".pth", ".pt", ".pt2", ".th", ".tar", ".ckpt", ".bin", ".safetensors", ".onnx",
           ".tflite"}  # fmt: skip
"""Suffixes of files that a network can be read of."""
_LEADING = ("data", "teacher", "labels", "distill", "prune", "quantize")
_AFTER = {"prune": ("quantize", "export"), "quantize": ("export",), "export": ()}


def planned(recipe: Recipe, runs: Path, until: str | None) -> Plan:
    """The plan of a recipe: each step with its state."""
    chain = pipeline.until(pipeline.steps(recipe), until)
    rows: list[PlanRow] = [
        {"step": p.step.id, "state": p.state, "key": p.key,
         "seconds": p.artifact.seconds if p.artifact else None}
        for p in pipeline.plan(recipe, chain, store_of(runs))
    ]  # fmt: skip
    return {"run": run_folder(recipe, runs).name, "steps": rows}


def perform(
    recipe: Recipe, runs: Path, until: str | None, quiet: bool, step: str | None = None,
    given: Given | None = None,
) -> Ran:  # fmt: skip
    """Run a recipe, or one step of it, and say where everything is.

    Args:
        given: of a model that is continued, as `continued` has it.
    """
    chain = pipeline.until(pipeline.steps(recipe), until)
    chain = chain if step is None else pipeline.only(chain, step)
    progress = Progress(quiet or not procs.first())
    if not progress.quiet:
        terminal.remark(f"run {run_folder(recipe, runs)}")
    with contextlib.closing(progress):
        run = pipeline.perform(recipe, chain, store_of(runs), runs, progress, step, given)
    procs.leave()
    return described(run)


def submitting(
    recipe: Recipe, runs: Path, until: str | None, executor: str, number: int, programs: bool
) -> Script:
    """A script with the jobs of a recipe, whose run folder is made: they read the recipe there.

    Args:
        programs: whether the jobs may run programs of device profiles that aren't one's own.

    Raises:
        BadInput: there is no such executor.
    """
    if executor != "slurm-script":
        raise unknown("executor", executor, ["local", "slurm-script"])
    chain, folder = pipeline.until(pipeline.steps(recipe), until), runs.resolve()
    store, run = store_of(folder).open(), Run(run_folder(recipe, folder))
    with store.in_use(), store.lock("run", run.name):
        begin(run, recipe)
    more = ["--procs", str(number)] if number > 1 else []
    more += ["--allow-device-programs"] if programs else []
    command = [sys.executable, "-m", "edgeres", "step", "--runs", str(folder), *more,
               str(run.path / LOCK)]  # fmt: skip
    return {"run": str(run.path), "script": slurm.script(chain, run.name, command, Path.cwd())}


def described(run: Run) -> Ran:
    page = run.path / "report.html"
    return {
        "run": str(run.path),
        "report": str(page) if "report" in run.artifacts and page.exists() else None,
        "artifacts": {
            step: {"path": str(run.path / "artifacts" / step.replace(":", "-", 1)),
                   "digest": artifact.digest, "facts": artifact.facts}
            for step, artifact in run.artifacts.items()
        },
    }  # fmt: skip


def shipped(name: str, settings: Mapping[str, object], overrides: Sequence[str] | None) -> Recipe:
    """A shipped recipe with a command's options set (None leaves the recipe's value)."""
    from edgeres.recipe import load as load_recipe

    return load_recipe(name, [*_said(settings), *(overrides or [])])


def distilling(
    teacher: str | None, checkpoint: Path | None, brought: Mapping[str, object],
    settings: Mapping[str, object], overrides: Sequence[str] | None,
) -> Recipe:  # fmt: skip
    """The shipped recipe of `edgeres distill`, with a teacher that is trained here or brought.

    Args:
        teacher: its architecture or source; None: a checkpoint tells, else the recipe's.
        brought: of a checkpoint, as `brought` below gives it.

    Raises:
        BadInput: something is said of a checkpoint, and the teacher is trained here.
    """
    from edgeres import teachers

    if checkpoint is not None and teacher is None:
        teacher, checkpoint = f"checkpoint:{checkpoint}", None
    trained_here = checkpoint is None and (teacher is None or ":" not in teacher)
    own: dict[str, object] = {"teacher.model": teacher, "teacher.checkpoint": checkpoint}
    own |= {f"teacher.{key}": value for key, value in brought.items()}
    name = "distill" if trained_here else "distill-pretrained"
    recipe = shipped(name, {**own, **settings}, overrides)
    if brought and teachers.chosen(recipe.teacher) is None:
        raise BadInput(f"{_option(brought)} is for a teacher that is trained already; give "
                       "--checkpoint FILE or --teacher SOURCE:NAME")  # fmt: skip
    return recipe


def continued(
    model: str | None,
    architecture: str | None,
    data: str | None,
    runs: Path,
    stage: str,
    overrides: Sequence[str] | None,
    section: Mapping[str, object],
    brought: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[Recipe, Given]:
    """The recipe that made a model, with one more section; and what is made of it, to be taken as
    it is.

    Args:
        model: a run, an artifact folder, a checkpoint file or SOURCE:NAME; the newest run if None.
        architecture: of a checkpoint file.
        section: settings of `stage`; later stages of the old recipe are dropped.
        brought: of a checkpoint file, as `brought` below gives it.
        settings: further recipe keys and values; None leaves the recipe's.
    """
    from edgeres.recipe import load_mapping

    document, made = _origin(model, architecture, runs, brought)
    for later in (*_AFTER[stage], "verify", "benchmark", "budgets", "report"):
        document.pop(later, None)
    document[stage] = {**_section(document, stage), **section}
    if stage == "export":
        document["verify"] = {}
        names = section["targets"]
        assert isinstance(names, Sequence)
        integer = any(targets.is_integer(targets.load(t)[1]) for t in names)
        if integer and not document.get("quantize"):
            own = peeked(document)
            document["quantize"] = {"method": "file" if own and own.quantized else "ptq"}
            terminal.remark("the file is quantized already: its own scales are kept"
                        if own and own.quantized else
                        "the model is not quantized yet: post-training quantization")  # fmt: skip
    if data is None and "data" not in document and not _names_data(overrides):
        terminal.remark("no --data: the bundled digits are taken, gray figures of 16 px; say "
                        "--data imagefolder:PATH for pictures of your own")  # fmt: skip
    given = _said({"data": data, **(settings or {})})
    recipe = load_mapping(document, [*given, *(overrides or [])], "the command line")
    if "data" in made and made["data"].section.get("source") != recipe.data.source:
        terminal.remark("other data than it was trained on: its networks are trained anew on them")
    anew = (stage, *_AFTER[stage])  # what is asked for is made, by a seed that is said, for one
    return recipe, {step: artifact for step, artifact in made.items() if step not in anew}


def peeked(document: Mapping[str, object]) -> Peeked | None:
    """What the file says of itself that a recipe's last network is, as it is; None: another is."""
    from edgeres import teachers

    teacher = _section(document, "teacher")
    if document.get("distill") or document.get("prune"):
        return None
    file = teacher.get("checkpoint")
    return teachers.peek(f"checkpoint:{file}" if file else str(teacher.get("model", "")))


def _section(document: Mapping[str, object], stage: str) -> Mapping[str, object]:
    section = document.get(stage)
    return section if isinstance(section, Mapping) else {}


def _said(settings: Mapping[str, object]) -> list[str]:
    """Options as overrides of a recipe; those that were left out aren't among them."""
    return [f"{key}={value}" for key, value in settings.items() if value is not None]


def brought(
    mean: str | None, std: str | None, size: int | None, preprocess: str | None,
    weights: str | None, new_head: bool = False,
) -> dict[str, object]:  # fmt: skip
    """What is said of a checkpoint file, as settings of a section.

    Raises:
        BadInput: mean or std aren't one or three numbers in units of pixel / 255.
    """
    said = {"mean": _numbers("--mean", mean), "std": _numbers("--std", std), "size": size,
            "preprocess": preprocess, "weights": weights,
            "new_head": {"replace": "always"} if new_head else None}  # fmt: skip
    if (mean is None) != (std is None):
        raise BadInput("--mean and --std go together; give both, or --preprocess NAME")
    return {key: value for key, value in said.items() if value is not None}


def _option(brought: Mapping[str, object]) -> str:
    return f"--{next(iter(brought))}".replace("_", "-")


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if len(found) not in (1, 3):
        raise BadInput(f"{option} {text}: write one number or three for red, green, blue, e.g. "
                       "0.485,0.456,0.406")  # fmt: skip
    if said := preprocessing.above_one(found):
        raise BadInput(f"{option}: {said}")
    return found


def training(
    stage: str, epochs: int | None, rate: float | None, batch: int | None, image_px: int | None
) -> dict[str, object]:
    """Options of a training as recipe keys."""
    return {f"{stage}.train.epochs": epochs, f"{stage}.train.learning_rate": rate,
            f"{stage}.train.batch_size": batch, "data.size": image_px}  # fmt: skip


def for_gpus(asked: bool, names: Sequence[str]) -> bool | None:
    """`export.gpu`: as asked; else the recipe's (None), but for targets that have no such form."""
    if asked:
        return True
    return None if "tflite-int8" in names else False


def for_npus(asked: Sequence[str] | None, names: Sequence[str]) -> list[str] | None:
    """`export.npu`: as asked; else the recipe's (None), but for targets that aren't compiled."""
    if asked:
        return list(asked)
    return None if any(targets.compiled(name) for name in names) else []


def exported(
    model: str | None, architecture: str | None, data: str | None, runs: Path,
    overrides: Sequence[str] | None, names: Sequence[str], quiet: bool,
    brought: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None,
    verify: bool = True,
) -> Added:  # fmt: skip
    """Export a model and verify the files; what comes of a run is added to that run, too.

    Args:
        names: targets.
        brought, settings: as `continued` takes them.

    Raises:
        GateFailed: a file isn't the model; it is in its run, and goes nowhere else.
    """
    for name in names:
        targets.require(name)
    if model is None:
        model = str(find_run(None, runs).path)
        terminal.remark(f"using {model} (the newest run)")
    if data is None and not _names_data(overrides):
        data, more = _noise(origin(model, architecture, runs, brought), runs)
        overrides = [*more, *(overrides or [])]
    recipe, made = continued(
        model, architecture, data, runs, "export", overrides, {"targets": names}, brought, settings
    )
    given = None
    with contextlib.suppress(BadInput):
        given = find_run(model, runs)
    result = perform(recipe, runs, "verify" if verify else "export", quiet, given=made)
    had = given is not None and "verify" in given.artifacts
    added = _added(given, Path(result["run"])) if given else None
    return {**result, "added_to": added, "own_verification": had}


def _names_data(overrides: Sequence[str] | None) -> bool:
    return any(text.startswith(("data=", "data.source=")) for text in overrides or ())


def _noise(document: Mapping[str, object], runs: Path) -> tuple[str | None, list[str]]:
    """Images to compare files on where there are no others, and nothing is to be calibrated.

    Returns:
        A data source, and what else is to be set; None and nothing where the model has data, or
        needs some.
    """
    own = peeked(document) if "data" not in document else None
    if own is None or not own.quantized:
        return None, []
    terminal.remark("no --data: the files are compared on noise, and what is right or wrong says "
                    "nothing")  # fmt: skip
    return datasets.noise(runs / "arrays", own.classes, own.size_px), ["teacher.near_chance=go on"]


def _added(run: Run, made: Path) -> str | None:
    """Link what was exported of a run's network into that run; returns its path.

    None if it is of another network, or the run is promoted: then it stays what it was.
    """
    new = open_run(made)
    had = {step: artifact.digest for step, artifact in run.artifacts.items()}
    same = all(had.get(step) == artifact.digest for step, artifact in new.artifacts.items()
               if artifact.stage not in ("export", "verify")
               and (step != "quantize" or step in had))  # fmt: skip
    if not same or registry.channels_of(run.path.resolve().parent, run.name):
        return None
    for step, artifact in new.artifacts.items():
        if step not in run.artifacts:
            link(run, step, artifact)
            event(run, step=step, event="added", key=artifact.key)
    return str(run.path)


def origin(
    model: str | None, architecture: str | None, runs: Path,
    brought: Mapping[str, object] | None = None,
) -> dict[str, object]:  # fmt: skip
    """The recipe that a model came of, as plain values; a checkpoint file is its teacher.

    Raises:
        BadInput: something is said of a checkpoint file, and it isn't one.
    """
    return _origin(model, architecture, runs, brought)[0]


def _origin(
    model: str | None, architecture: str | None, runs: Path, brought: Mapping[str, object] | None
) -> tuple[dict[str, object], dict[str, Artifact]]:
    """The same, and what was made by it up to a network, by step."""
    from edgeres import teachers
    from edgeres.recipe import to_mapping

    path = Path(model) if model else None
    if path and model and ":" in model and not os.path.lexists(path):
        teachers.parse(model)
        if architecture is not None:
            raise BadInput(f"--model is for a checkpoint file; {model} knows what it is")
        return {"name": model.partition(":")[0], "teacher": {"model": model, **(brought or {})}}, {}
    if path and _is_checkpoint(path):
        teacher: dict[str, object] = {"model": f"checkpoint:{path}"} if architecture is None else \
            {"model": architecture, "checkpoint": str(path)}  # fmt: skip
        return {"name": "checkpoint", "teacher": {**teacher, **(brought or {})}}, {}
    if brought:
        raise BadInput(f"{_option(brought)} is for a checkpoint file; this is a run or an "
                       "artifact, which has its own: leave it out")  # fmt: skip
    if path and (path / "artifact.json").exists():
        made = _led(path)
        sections = {step: dict(a.section) for step, a in made.items() if step != "labels"}
        return {"name": "continued", **sections}, made
    if path and path.suffix in WEIGHTS and not path.exists() and not (runs / path).exists():
        raise BadInput(f"{path}: no such file; paths start in the current folder")
    run = find_run(model, runs)
    if model is None:
        terminal.remark(f"using {run.path} (the newest run)")
    return to_mapping(run.recipe), {s: a for s, a in run.artifacts.items() if s in _LEADING}


def _is_checkpoint(path: Path) -> bool:
    """A file of anybody's, or the folder of a float network without what it was made of."""
    if not (path / "artifact.json").exists():
        return path.is_file() or (path / "spec.json").is_file()
    lacks = any(one is None for one in _lineage(path).values())
    return lacks and load(path).stage in ("teacher", "distill", "prune")


def _lineage(path: Path) -> dict[str, Artifact | None]:
    """An artifact and its ancestors, by stage; None: it isn't in the store."""
    store, found = store_of(path.resolve() / "../../.."), dict[str, Artifact | None]()
    waiting = [load(path)]
    while waiting:
        one = waiting.pop()
        found[one.stage] = one
        for role, parent in one.parents.items():
            known = store.parent(one, role)
            waiting += [known] if known else []
            if known or parent["stage"] != "labels":  # which may be cleaned away
                found.setdefault(parent["stage"], known)
    return {stage: one for stage, one in found.items() if stage in _LEADING}


def _led(path: Path) -> dict[str, Artifact]:
    """An artifact and its ancestors, by stage.

    Raises:
        BadInput: what its network was made of isn't in the store.
    """
    found = _lineage(path)
    if lacks := [stage for stage, one in found.items() if one is None]:
        raise BadInput(f"{path}: what it was made of ({', '.join(lacks)}) isn't in a store around "
                       "it; name its run, or bring that whole folder of runs")  # fmt: skip
    return {stage: one for stage, one in found.items() if one}


def budget(text: str, max_drop: float | None) -> dict[str, object]:
    """`macs=0.5` or `latency=5ms` -> settings of the prune section, the other budgets unset.

    Raises:
        BadInput: another kind of budget, or not a number.
    """
    from edgeres.recipe.sections import BUDGETS

    kind, _, value = text.partition("=")
    if kind not in BUDGETS or not value:
        raise BadInput(f"--budget {text}: write macs=0.5, params=0.3 (shares to keep), size=90KB, "
                       f"latency=5ms or latency=0.5x")  # fmt: skip
    said: float | str = value
    if kind in ("macs", "params"):
        try:
            said = float(value)
        except ValueError:
            raise BadInput(f"--budget {text}: {value} is no share to keep; write one between 0 "
                           f"and 1, e.g. {kind}=0.5") from None  # fmt: skip
    settings: dict[str, object] = {**dict.fromkeys(BUDGETS), kind: said}
    return settings | ({} if max_drop is None else {"max_drop": max_drop})


def copied(result: Added, out: Path | None, names: Sequence[str]) -> Exported:
    """Copy exported files to a folder, and list them."""
    files: list[File] = []
    for name in names:
        entry = result["artifacts"][f"export:{name}"]
        exported = entry["facts"]["exported"]
        path = load(Path(entry["path"])).file(exported["file"])
        if out is not None:
            with storage_errors(out):
                out.mkdir(parents=True, exist_ok=True)
                copy_whole(path, out / path.name)
                copy_whole(load(Path(entry["path"])).file(contract.FILE),
                           out / f"{path.name}.{contract.FILE}")  # fmt: skip
                path = out / path.name
        files.append({"target": name, "path": str(path), "size_bytes": exported["size_bytes"],
                      "input": exported["input"], "output": exported["output"]})  # fmt: skip
    return {**result, "files": files}
