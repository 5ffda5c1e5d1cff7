"""What each command does: arguments in, a JSON-ready result out (`edgeres.text` renders it)."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import pipeline, stages, targets
from edgeres.artifact import Artifact, Store, file_sha256, load, storage_errors
from edgeres.errors import BadInput
from edgeres.pipeline import Run
from edgeres.progress import Progress
from edgeres.types import exported_file, to_json

if TYPE_CHECKING:
    from edgeres.recipe import Recipe

_AFTER = {"prune": ("quantize", "export"), "quantize": ("export",), "export": ()}


def store_of(runs: Path) -> Store:
    """The store that a folder of runs shares."""
    return Store(runs / "store")


def planned(recipe: Recipe, runs: Path, until: str | None) -> dict[str, Any]:
    """The plan of a recipe: each step with its state."""
    chain = pipeline.until(pipeline.steps(recipe), until)
    rows = [
        {"step": p.step.id, "state": p.state, "key": p.key,
         "seconds": p.artifact.seconds if p.artifact else None}
        for p in pipeline.plan(recipe, chain, store_of(runs))
    ]  # fmt: skip
    return {"run": pipeline.run_name(recipe), "steps": rows}


def perform(recipe: Recipe, runs: Path, until: str | None, quiet: bool) -> dict[str, Any]:
    """Run a recipe and say where everything is."""
    chain = pipeline.until(pipeline.steps(recipe), until)
    progress = Progress(quiet)
    if not quiet:
        print(f"run {runs / pipeline.run_name(recipe)}", file=sys.stderr)
    with contextlib.closing(progress):
        run = pipeline.perform(recipe, chain, store_of(runs), runs, progress)
    return _described(run)


def _described(run: Run) -> dict[str, Any]:
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


def shipped(
    name: str, settings: Mapping[str, Any], overrides: Sequence[str] | None
) -> Recipe:
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

    document = _origin(model, architecture, runs)
    for later in (*_AFTER[stage], "verify", "benchmark", "report"):
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


def _origin(model: str | None, architecture: str | None, runs: Path) -> dict[str, Any]:
    from edgeres.recipe import to_mapping

    path = Path(model) if model else None
    if path and path.is_file():
        if architecture is None:
            raise BadInput(f"{path}: say which network it is, e.g. --model resnet56-A")
        return {"name": "checkpoint", "teacher": {"model": architecture, "checkpoint": str(path)}}
    if path and (path / "artifact.json").exists():
        return _lineage(load(path), store_of(path.resolve().parents[2]))
    run = pipeline.find_run(model, runs)
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


def budget(text: str) -> dict[str, Any]:
    """`macs=0.5` -> {"macs": 0.5}.

    Raises:
        BadInput: another kind of budget, or not a number.
    """
    kind, _, value = text.partition("=")
    try:
        if kind == "macs":
            return {"macs": float(value)}
    except ValueError:
        pass
    raise BadInput(f"--budget {text}: write macs=SHARE, e.g. macs=0.5 to keep half of the MACs")


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


def inspected(file: Path) -> dict[str, Any]:
    """What is in a model file."""
    kind, target = targets.of_file(file)
    graph = target.read(file)
    return {
        "file": str(file), "format": kind, "sha256": file_sha256(file),
        "size_bytes": _size(file), "operators": graph.operators(),
        "float_operators": graph.float_operators(), "transposes": graph.count("transpose"),
        "residual_adds": graph.count("add"), "delegate_partitions": graph.partitions,
        "input": to_json(graph.input), "output": to_json(graph.output),
        "scales": to_json(dict(graph.quantization)),
    }  # fmt: skip


def verified(
    what: Sequence[str], against: str | None, runs: Path, quiet: bool
) -> dict[str, Any]:
    """Verify a run's files anew, or single files against a run.

    A run needs only its own artifacts; nothing is trained.
    """
    first = Path(what[0]) if what else None
    if first is None or not first.exists() or (first / "recipe.lock.yaml").exists():
        run = pipeline.find_run(what[0] if what else None, runs)
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    else:
        run = pipeline.find_run(against, runs)
        exports = {}
        for path in map(Path, what):
            name, artifact = _matching(path, run)
            exports[name] = artifact
    if not exports:
        raise BadInput(f"{run.path}: has no exported files; `edgeres export` makes some")
    return _verify(run, exports, quiet)


def _matching(path: Path, run: Run) -> tuple[str, Artifact]:
    """A file as if the run had exported it: same target, this file's contents."""
    kind, target = targets.of_file(path)
    graph = target.read(path)
    integer = bool(graph.quantization)
    for artifact in run.artifacts.values():
        if artifact.stage != "export":
            continue
        exported = exported_file(artifact.facts["exported"])
        module, precision = targets.load(exported.target)
        if module is target and targets.is_integer(precision) == integer:
            facts = {"exported": {**to_json(exported), "file": path.name,
                                  "sha256": file_sha256(path), "size_bytes": _size(path),
                                  "input": to_json(graph.input),
                                  "output": to_json(graph.output)}}  # fmt: skip
            return exported.target, Artifact("export", "-", "-", path.resolve().parent, {},
                                             artifact.section, facts, {}, 0.0)  # fmt: skip
    raise BadInput(f"{path}: {run.path} has no {kind} export of this precision to compare with")


def _verify(run: Run, exports: Mapping[str, Artifact], quiet: bool) -> dict[str, Any]:
    from edgeres.recipe import VerifySection

    module: Any = stages.load("verify")
    inputs = {**run.artifacts, **exports}
    inputs["model"] = next(run.artifacts[s] for s in ("prune", "distill", "teacher")
                           if s in run.artifacts)  # fmt: skip
    inputs = {role: a for role, a in inputs.items()
              if role in (*exports, "data", "model", "quantize")}  # fmt: skip
    progress = Progress(quiet)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(progress):
        progress.started("verify", "")
        context = stages.Context(0, Path(folder), progress.tick)
        section = run.recipe.verify or VerifySection()
        facts = module.run(section, inputs, Path(folder), context)
    return {"run": str(run.path), **facts, "failures": module.failures(facts)}


def benchmarked(
    what: str | None,
    devices: Sequence[str],
    preset: str,
    accuracy: bool,
    runs: Path,
    quiet: bool,
) -> dict[str, Any]:
    """Measure a run's files, or one file, anew; nothing is taken from the store."""
    from edgeres.recipe import BenchmarkSection, checked

    section = checked(
        BenchmarkSection, {"devices": tuple(devices), "preset": preset, "accuracy": accuracy}
    )
    module: Any = stages.load("benchmark")
    path = Path(what) if what else None
    data = None
    if path and path.exists() and not (path / "recipe.lock.yaml").exists():
        exports = {path.name: _alone(path)}
        if accuracy:
            data = pipeline.find_run(None, runs).artifacts["data"]
    else:
        run = pipeline.find_run(what, runs)
        data = run.artifacts["data"]
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    if not exports:
        raise BadInput("nothing to measure; `edgeres export` makes files")
    inputs = exports | ({"data": data} if data else {})
    progress = Progress(quiet)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(progress):
        progress.started("benchmark", "")
        context = stages.Context(0, Path(folder), progress.tick)
        return dict(module.run(section, inputs, Path(folder), context))


def _alone(path: Path) -> Artifact:
    """A model file that no run made, as an export artifact."""
    kind, target = targets.of_file(path)
    graph = target.read(path)
    precision = "int8" if graph.quantization else target.PRECISIONS[0]
    facts = {"exported": {"target": f"{kind}-{precision}", "file": path.name,
                          "sha256": file_sha256(path), "size_bytes": _size(path),
                          "input": to_json(graph.input), "output": to_json(graph.output)}}
    return Artifact("export", "-", "-", path.resolve().parent, {},
                    {"targets": [f"{kind}-{precision}"]}, facts, {}, 0.0)  # fmt: skip


def reported(name: str | None, runs: Path, quiet: bool) -> dict[str, Any]:
    """Write the report of whatever a run has."""
    run = pipeline.find_run(name, runs)
    recipe = run.recipe
    inputs = {step: a for step, a in run.artifacts.items() if step != "report"}
    module: Any = stages.load("report")
    with tempfile.TemporaryDirectory() as folder:
        context = stages.Context(recipe.seed, Path(folder), lambda *_: None)
        from edgeres.recipe import ReportSection

        module.run(recipe.report or ReportSection(), inputs, Path(folder), context)
        with storage_errors(run.path):
            for file in ("report.html", "report.json"):
                shutil.copyfile(Path(folder) / file, run.path / file)
    return {**_described(run), "report": str(run.path / "report.html")}


def initialized(file: Path, base: str) -> str:
    """Write a recipe that extends a shipped one."""
    from edgeres.recipe import load as load_recipe

    recipe = load_recipe(base)
    if file.exists():
        raise BadInput(f"{file}: exists already; choose another name")
    text = (
        f"# Starts from the shipped recipe '{base}'; what stands here wins over it.\n"
        f"# All keys: edgeres list recipes --schema\n"
        f"extends: {base}\nname: {file.stem}\n\n"
        f"data: {recipe.data.source}   # NAME[:PATH], see `edgeres list datasets`\n"
        f"seed: {recipe.seed}\n"
    )
    with storage_errors(file):
        file.write_text(text, "utf-8")
    load_recipe(file)
    return f"wrote {file}; run it with: edgeres run {file}"


def cleaned(runs: Path, dry_run: bool) -> dict[str, Any]:
    """Remove artifacts that no run refers to, and unfinished work."""
    store = store_of(runs)
    rows = []
    for artifact in pipeline.unreferenced(store, runs):
        rows.append({"artifact": artifact.path.name, "size_bytes": _size(artifact.path)})
        if not dry_run:
            with storage_errors(artifact.path):
                shutil.rmtree(artifact.path)
    work = _size(store.root / "work")
    if not dry_run:
        store.sweep_work()
    return {"removed": not dry_run, "artifacts": rows, "work_bytes": work,
            "freed_bytes": work + sum(r["size_bytes"] for r in rows)}  # fmt: skip


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())


