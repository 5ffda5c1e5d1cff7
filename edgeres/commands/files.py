"""Commands about model files: inspect, verify, benchmark."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeres import stages, targets
from edgeres.artifact import Artifact
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput, DeviceError
from edgeres.progress import Progress
from edgeres.runs import Run, find_run
from edgeres.targets._conversion import examine
from edgeres.types import exported_file, to_json


def inspected(file: Path) -> dict[str, Any]:
    """What is in a model file."""
    kind, _ = targets.of_file(file)
    return {
        "file": str(file), "format": kind, "sha256": file_sha256(file),
        "size_bytes": folder_size(file), **examine(file),
    }  # fmt: skip


def verified(what: Sequence[str], against: str | None, runs: Path, quiet: bool) -> dict[str, Any]:
    """Verify a run's files anew, or single files against a run.

    A run needs only its own artifacts; nothing is trained.
    """
    run, exports = _exports(what, against, runs)
    return _verify(run, exports, quiet)


def self_tested(
    what: Sequence[str], against: str | None, runs: Path, quiet: bool
) -> dict[str, Any]:
    """Plant faults in copies of a run's files, and see whether verification finds them."""
    from edgeres.recipe import VerifySection

    module: Any = stages.load("verify")
    run, exports = _exports(what, against, runs)
    progress = Progress(quiet)
    with contextlib.closing(progress):
        progress.started("self-test", "")
        trials = module.self_test(
            run.recipe.verify or VerifySection(), _inputs(run, exports), progress.tick
        )
    missed = sum(t["planted"] and not t["caught"] for t in trials)
    return {"run": str(run.path), "passed": not missed, "trials": trials}


def _exports(
    what: Sequence[str], against: str | None, runs: Path
) -> tuple[Run, dict[str, Artifact]]:
    """Which files to verify, by target, and the run they belong to."""
    first = Path(what[0]) if what else None
    if first is None or not first.exists() or (first / "recipe.lock.yaml").exists():
        run = find_run(what[0] if what else None, runs)
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    else:
        run = find_run(against, runs)
        exports = {}
        for path in map(Path, what):
            name, artifact = _matching(path, run)
            exports[name] = artifact
    if not exports:
        raise BadInput(f"{run.path}: has no exported files; `edgeres export` makes some")
    return run, exports


def _matching(path: Path, run: Run) -> tuple[str, Artifact]:
    """A file as if the run had exported it: same target, this file's contents."""
    kind, target = targets.of_file(path)
    examine(path)  # first where a crash does no harm
    graph = target.read(path)
    exports = [a for a in run.artifacts.values() if a.stage == "export"]
    # The same type of input first: int8 and int16x8, or fp32 and fp16, are both there at times.
    for artifact in sorted(exports, key=lambda a: _input_type(a) != graph.input.dtype):
        exported = exported_file(artifact.facts["exported"])
        module, precision = targets.load(exported.target)
        if module is target and targets.is_integer(precision) == bool(graph.quantization):
            facts = {"exported": {**to_json(exported), "file": path.name,
                                  "sha256": file_sha256(path), "size_bytes": folder_size(path),
                                  "input": to_json(graph.input),
                                  "output": to_json(graph.output)}}  # fmt: skip
            return exported.target, Artifact("export", "-", "-", path.resolve().parent, {},
                                             artifact.section, facts, {}, 0.0)  # fmt: skip
    raise BadInput(f"{path}: {run.path} has no {kind} export of this precision to compare with")


def _input_type(artifact: Artifact) -> str:
    return exported_file(artifact.facts["exported"]).input.dtype


def _verify(run: Run, exports: Mapping[str, Artifact], quiet: bool) -> dict[str, Any]:
    from edgeres.recipe import VerifySection

    module: Any = stages.load("verify")
    progress = Progress(quiet)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(progress):
        progress.started("verify", "")
        context = stages.Context(0, Path(folder), progress.tick)
        section = run.recipe.verify or VerifySection()
        facts = module.run(section, _inputs(run, exports), Path(folder), context)
    return {"run": str(run.path), **facts, "failures": module.failures(facts)}


def _inputs(run: Run, exports: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The verify stage's roles, from a run."""
    known: dict[str, Artifact] = {
        r: run.artifacts[r] for r in ("data", "quantize") if r in run.artifacts
    }
    return {**known, "model": _float_model(run), **exports}


def _float_model(run: Run) -> Artifact:
    return next(run.artifacts[s] for s in ("prune", "distill", "teacher") if s in run.artifacts)


def benchmarked(
    what: str | None,
    devices: Sequence[str],
    preset: str,
    accuracy: bool,
    runs: Path,
    quiet: bool,
) -> dict[str, Any]:
    """Measure a run's files, or one file, anew; nothing is taken from the store."""
    section = _section(devices, preset, accuracy)
    path = Path(what) if what else None
    known: dict[str, Artifact] = {}
    if path and path.exists() and not (path / "recipe.lock.yaml").exists():
        exports = {path.name: _alone(path)}
        if accuracy:  # the newest run says which test images, and how they are prepared
            known, exports = _prepared_as(find_run(None, runs), exports)
    else:
        run = find_run(what, runs)
        known = _test_set(run)
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    if not exports:
        raise BadInput("nothing to measure; `edgeres export` makes files")
    return _measured(section, {**exports, **known}, quiet)


def measured_in_turn(
    a: Path,
    b: Path,
    devices: Sequence[str],
    preset: str,
    runs: Path,
    quiet: bool,
    against: str | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure two files in alternating sessions; the reports of each.

    Accuracy is measured too if there is a run that has a test set.
    """
    exports = {which: _alone(path) for which, path in (("A", a), ("B", b))}
    names = {which: x.facts["exported"]["target"] for which, x in exports.items()}
    for which, artifact in exports.items():  # two files may be of one target
        artifact.facts["exported"]["target"] = which
    known: dict[str, Artifact] = {}
    with contextlib.suppress(BadInput):
        known, exports = _prepared_as(find_run(None, runs), exports)
    section = _section(devices, preset, bool(known))
    result = _measured(section, {**exports, **known}, quiet)
    if result["error"]:
        raise DeviceError(result["error"])
    return tuple(  # type: ignore[return-value]
        [{**r, "target": names[which]} for r in result["reports"] if r["target"] == which]
        for which in ("A", "B")
    )


def _section(devices: Sequence[str], preset: str, accuracy: bool) -> Any:
    from edgeres.recipe import BenchmarkSection, checked

    sustained = preset == "sustained"  # for one look at a device, not for recipes
    given = {"devices": tuple(devices), "preset": "normal" if sustained else preset,
             "accuracy": accuracy}  # fmt: skip
    section = checked(BenchmarkSection, given)
    return section.model_copy(update={"preset": preset}) if sustained else section


def _measured(section: Any, inputs: dict[str, Artifact], quiet: bool) -> dict[str, Any]:
    module: Any = stages.load("benchmark")
    progress = Progress(quiet)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(progress):
        progress.started("benchmark", "")
        context = stages.Context(0, Path(folder), progress.tick)
        facts, samples = module.measured(section, inputs, context)
    return {**facts, "samples": samples, "error": module.sentence(facts["failures"])}


def _test_set(run: Run) -> dict[str, Artifact]:
    return {"data": run.artifacts["data"], "model": _float_model(run)}


def _prepared_as(
    run: Run, exports: Mapping[str, Artifact]
) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """A run's test set, and the files with its way of preparing images."""
    known = [a for a in run.artifacts.values() if a.stage == "export"]
    if not known:
        raise BadInput(f"{run.path}: has no export that says how images are prepared")
    preprocess = {"preprocess": known[0].facts["preprocess"]}
    return _test_set(run), {
        name: replace(a, facts={**a.facts, **preprocess}) for name, a in exports.items()
    }


def _alone(path: Path) -> Artifact:
    """A model file by itself, as an export artifact."""
    kind, target = targets.of_file(path)
    examine(path)  # first where a crash does no harm
    graph = target.read(path)
    wide = graph.input.dtype == "int16"
    precision = "int16x8" if wide else "int8" if graph.quantization else target.PRECISIONS[0]
    facts: dict[str, Any] = {
        "exported": {
            "target": f"{kind}-{precision}",
            "file": path.name,
            "sha256": file_sha256(path),
            "size_bytes": folder_size(path),
            "input": to_json(graph.input),
            "output": to_json(graph.output),
        }
    }
    return Artifact("export", "-", "-", path.resolve().parent, {},
                    {"targets": [f"{kind}-{precision}"]}, facts, {}, 0.0)  # fmt: skip
