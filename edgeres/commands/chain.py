"""Commands that run the chain or part of it: run, distill, prune, quantize, export."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import pipeline, procs, targets
from edgeres.artifact import Artifact, load
from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.progress import Progress
from edgeres.runs import Run, find_run, run_name, store_of
from edgeres.store import Store

if TYPE_CHECKING:
    from edgeres.recipe import Recipe

_AFTER = {"prune": ("quantize", "export"), "quantize": ("export",), "export": ()}


def planned(recipe: Recipe, runs: Path, until: str | None) -> dict[str, Any]:
    """The plan of a recipe: each step with its state."""
    chain = pipeline.until(pipeline.steps(recipe), until)
    rows = [
        {"step": p.step.id, "state": p.state, "key": p.key,
         "seconds": p.artifact.seconds if p.artifact else None}
        for p in pipeline.plan(recipe, chain, store_of(runs))
    ]  # fmt: skip
    return {"run": run_name(recipe), "steps": rows}


def perform(recipe: Recipe, runs: Path, until: str | None, quiet: bool) -> dict[str, Any]:
    """Run a recipe and say where everything is."""
    chain = pipeline.until(pipeline.steps(recipe), until)
    progress = Progress(quiet or not procs.first())
    if not progress.quiet:
        print(f"run {runs / run_name(recipe)}", file=sys.stderr)
    with contextlib.closing(progress):
        run = pipeline.perform(recipe, chain, store_of(runs), runs, progress)
    procs.leave()
    return described(run)


def described(run: Run) -> dict[str, Any]:
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


def shipped(name: str, settings: Mapping[str, Any], overrides: Sequence[str] | None) -> Recipe:
    """A shipped recipe with a command's options set (None leaves the recipe's value)."""
    from edgeres.recipe import load as load_recipe

    given = [f"{key}={value}" for key, value in settings.items() if value is not None]
    return load_recipe(name, [*given, *(overrides or [])])


def continued(
    model: str | None,
    architecture: str | None,
    data: str | None,
    runs: Path,
    stage: str,
    overrides: Sequence[str] | None,
    section: Mapping[str, Any],
) -> Recipe:
    """The recipe that made a model, with one more section.

    Args:
        model: a run, an artifact folder or a checkpoint file; the newest run if None.
        architecture: of a checkpoint file.
        section: settings of `stage`; later stages of the old recipe are dropped.
    """
    from edgeres.recipe import load_mapping

    for name in section.get("targets", ()):
        targets.require(name)
    document = origin(model, architecture, runs)
    for later in (*_AFTER[stage], "verify", "benchmark", "budgets", "report"):
        document.pop(later, None)
    document[stage] = {**(document.get(stage) or {}), **section}
    if stage == "export":
        document["verify"] = {}
        integer = any(targets.is_integer(targets.load(t)[1]) for t in section["targets"])
        if integer and not document.get("quantize"):
            document["quantize"] = {"method": "ptq"}
            print("the model is not quantized yet: post-training quantization", file=sys.stderr)
    given = [f"data={data}"] if data else []
    return load_mapping(document, [*given, *(overrides or [])], "the command line")


def origin(model: str | None, architecture: str | None, runs: Path) -> dict[str, Any]:
    """The recipe that a model came of, as plain values; a checkpoint file is its teacher."""
    from edgeres.recipe import to_mapping

    path = Path(model) if model else None
    if path and (path.is_file() or ((path / "spec.json").is_file()
                                    and not (path / "artifact.json").exists())):  # fmt: skip
        if architecture is None:
            return {"name": "checkpoint", "teacher": {"model": f"checkpoint:{path}"}}
        return {"name": "checkpoint", "teacher": {"model": architecture, "checkpoint": str(path)}}
    if path and (path / "artifact.json").exists():
        return _lineage(load(path), store_of(path.resolve().parents[2]))
    run = find_run(model, runs)
    if model is None:
        print(f"using {run.path} (the newest run)", file=sys.stderr)
    return to_mapping(run.recipe)


def _lineage(artifact: Artifact, store: Store) -> dict[str, Any]:
    """The recipe sections that led to an artifact, from its ancestors."""
    document: dict[str, Any] = {"name": "continued"}
    waiting = [artifact]
    while waiting:
        one = waiting.pop()
        if one.stage in ("data", "teacher", "distill", "prune", "quantize"):
            document[one.stage] = dict(one.section)
        waiting += [p for role in one.parents if (p := store.parent(one, role))]
    return document


def budget(text: str, device: str | None, max_drop: float | None) -> dict[str, Any]:
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
    settings = dict.fromkeys(BUDGETS) | {kind: said}
    rest = {"device": device, "max_drop": max_drop}
    return settings | {name: value for name, value in rest.items() if value is not None}


def copied(result: dict[str, Any], out: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """Copy exported files to a folder, and list them."""
    files = []
    for name in names:
        entry = result["artifacts"][f"export:{name}"]
        exported = entry["facts"]["exported"]
        path = Path(entry["path"]) / exported["file"]
        if out is not None:
            with storage_errors(out):
                out.mkdir(parents=True, exist_ok=True)
                copy = out / path.name
                if path.is_dir():
                    shutil.copytree(path, copy, dirs_exist_ok=True)
                else:
                    shutil.copyfile(path, copy)
                path = copy
        files.append({"target": name, "path": str(path), "size_bytes": exported["size_bytes"],
                      "input": exported["input"], "output": exported["output"]})  # fmt: skip
    return {**result, "files": files}
