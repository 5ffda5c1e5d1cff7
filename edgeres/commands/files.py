"""Commands about model files: inspect, verify, benchmark."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import runtimes, scratch, stages, targets, terminal
from edgeres.artifact import Artifact
from edgeres.commands.chain import WEIGHTS
from edgeres.disk import contents_digest, file_sha256, folder_size
from edgeres.errors import BadInput, DeviceError, EdgeresError, MissingComponent, StorageError
from edgeres.progress import Progress
from edgeres.proof import require_related
from edgeres.runs import Run, find_run
from edgeres.runtimes._asking import ask, described, keep, kept
from edgeres.targets._conversion import examine, listed
from edgeres.types import TensorSpec, exported_file, to_json

if TYPE_CHECKING:
    from edgeres.recipe import BenchmarkSection
    from edgeres.records import Facts, Report
    from edgeres.text.files import (
        Benchmarked,
        Measured,
        Program,
        SelfTested,
        Unverified,
        Verdicts,
        Verified,
    )

_MODELS = {".onnx", ".tflite"}  # of weights, and of what runs them


def inspected(
    file: Path, on: Sequence[str] = (), compiled: Path | None = None
) -> Mapping[str, object]:
    """What is in a model file, as stored, and what its runtime makes of it; or in a program of
    `torch.export`, which no device runs as it is.

    Args:
        on: further runtimes that look at it; compiled: where what they compile goes.

    Raises:
        BadInput: no such runtime, or one that doesn't take such files; it is no model file.
        MissingComponent: a runtime can't be asked here.
    """
    if file.suffix == ".pt2" and file.is_file():
        for name in on:
            _require_takes(name, ["a program of torch.export"])
        return _program(file)
    if file.suffix in WEIGHTS - _MODELS and file.is_file():
        raise BadInput(f"{file}: holds weights and no operations; distill, prune, quantize and "
                       "export read a network of it")  # fmt: skip
    kind, _ = targets.of_file(file)
    for name in on:
        runtimes.require(name)
    found = listed(file)
    target = f"{kind}-{found['precision']}"
    asked = [_looked_at(name, file, target, compiled) for name in on]
    return {"file": str(file), "format": kind, "target": target, **_identity(file, found), **found,
            **({"runtimes": asked} if asked else {})}  # fmt: skip


def _program(file: Path) -> Program:
    """The network that a program of torch.export is read as; nothing in it runs."""
    from edgeres.models.modules import complexity
    from edgeres.models.shapes import shapes_of, sides
    from edgeres.network.from_torch import from_pt2

    read = from_pt2(file, mean=(0.5,), std=(0.5,))  # which no operation depends on
    network, size_px = read.module.spec, read.module.spec.preprocess.size_px
    parameters, macs = complexity(network)
    shapes = [s for s in shapes_of(read.module, size_px) if s.kind in ("conv", "linear")]
    return {
        "file": str(file), "format": "pt2", "sha256": file_sha256(file),
        "size_bytes": file.stat().st_size, "parameters": parameters, "macs": macs,
        "input": to_json(TensorSpec("input", (1, 3, size_px, size_px), "float32", "NCHW")),
        "output": to_json(TensorSpec("output", (1, network.classes), "float32", "NC")),
        "any_size": not read.fixed_size,
        "operators": dict(Counter(node.op for node in network.nodes)),
        "layers": [{"name": s.name, "kind": s.kind, "shape": [s.cout, *sides(s.px)],
                    "macs": s.macs, "weights": s.weights} for s in shapes],
        "notes": list(read.notes),
    }  # fmt: skip


def _looked_at(name: str, file: Path, target: str, compiled: Path | None) -> dict[str, object]:
    _require_takes(name, [target])
    with scratch.folder("runtime") as folder:
        (answer,) = ask(name, [(file, None)], folder)
        files = kept(answer, compiled / name if compiled else None)
    said = {"runtime": name, "how": runtimes.how(name), **described(answer)}
    return {**said, "compiled": files}


def _require_takes(name: str, found: Sequence[str]) -> None:
    takes = runtimes.load(name).TAKES
    if not set(takes).intersection(found):
        raise BadInput(f"--on {name}: takes {', '.join(takes)}, and this is {', '.join(found)}")


def _identity(path: Path, found: Facts) -> dict[str, object]:
    """Hash and size of a file with what it keeps beside itself."""
    own, beside = file_sha256(path), found["beside"]
    hashes = {name: told["sha256"] for name, told in beside.items()}
    more = sum(told["size_bytes"] for told in beside.values())
    return {"sha256": contents_digest({path.name: own, **hashes}) if hashes else own,
            "size_bytes": folder_size(path) + more}  # fmt: skip


def verified(
    what: Sequence[str],
    against: str | None,
    runs: Path,
    quiet: bool,
    on: Sequence[str] = (),
    compiled: Path | None = None,
    on_samples: int | None = None,
    prove: bool = False,
) -> Verified:
    """Verify a run's files anew, or single files against a run.

    A run needs only its own artifacts; nothing is trained.

    Args:
        on: further runtimes that are asked; compiled: where what they compile goes.
        on_samples: how many test images each of them answers, at most; None: as the recipe says.
        prove: ask for the same codes in every kind of kernel, for every image.

    Raises:
        BadInput: there is no such run or runtime, or a runtime takes none of the files.
        MissingComponent: a runtime can't be asked here.
        EdgeresError: no file can be verified; why not the first one. Where others can, the result's
            `unverified` says why each can't, and its `exit_code` is the lowest of theirs.
    """
    for name in on:
        runtimes.require(name)
    run, exports = _exports(what, against, runs)
    section = run.recipe.verify
    tried = {name: _unverifiable(run, name, artifact) for name, artifact in exports.items()}
    reasons = {name: reason for name, reason in tried.items() if reason}
    there = {name: artifact for name, artifact in exports.items() if name not in reasons}
    if not there:
        raise next(iter(reasons.values()))
    for name in on:
        _require_takes(name, [targets.as_runtimes_take(target) for target in there])
    if on_samples:
        _require_answering((*on, *(section.on if section else ())), there)
    for name in section.on if section else ():
        if why := runtimes.missing(name):
            terminal.remark(f"note: {name}, which the recipe names, isn't asked: {why}")
    found = _verify(run, there, quiet, on, compiled, on_samples, prove)
    unverified: list[Unverified] = [
        {"target": name, "why": str(reason)} for name, reason in reasons.items()
    ]
    if unverified and found["passed"]:
        code = min(reason.exit_code for reason in reasons.values())
        return {**found, "passed": False, "exit_code": code, "unverified": unverified}
    return {**found, "unverified": unverified}


def _unverifiable(run: Run, name: str, artifact: Artifact) -> EdgeresError | None:
    """Why a file of a run can't be verified here, and the mend; None if it can."""
    stored = replace(artifact, path=artifact.path.resolve())
    try:
        file = stored.file(exported_file(artifact.facts["exported"]).file)
        form = targets.compiled(name)
        if form is None:
            targets.require(name)
    except StorageError as error:
        return StorageError(f"{error}; to export it again, remove {stored.path} and "
                            f"{artifact.path}, then: {_exporting(run, artifact)}")  # fmt: skip
    except (BadInput, MissingComponent) as error:  # of a package's target, maybe
        return error
    for compiler in form.asked(file) if form else ():
        if lacks := runtimes.missing(compiler):
            return MissingComponent(f"{name} can't be compiled anew: {compiler}: {lacks}")
    return None


def _exporting(run: Run, artifact: Artifact) -> str:
    """The command that exports a file of a run."""
    section = artifact.section
    more = [f"--npu {','.join(section['npu'])}"] if section.get("npu") else []
    more += ["--gpu"] if section.get("gpu") else []
    return " ".join([f"edgeres export {run.path} --target {section['targets'][0]}", *more])


def _require_answering(asked: Sequence[str], exports: Mapping[str, Artifact]) -> None:
    """Raise BadInput unless one of those that are asked gives answers, so that it has samples."""
    own = [name for target, a in exports.items() if (form := targets.compiled(target))
           for name in form.asked(a.file(a.facts["exported"]["file"]))]  # fmt: skip
    if not asked and not own:
        raise BadInput("--on-samples: no other runtime is asked; name one with --on")
    if not any(map(runtimes.answers, (*asked, *own))):
        raise BadInput(f"--on-samples: {', '.join(dict.fromkeys((*asked, *own)))} only compile and "
                       "answer no image; name a runtime that does with --on")  # fmt: skip


def self_tested(what: Sequence[str], against: str | None, runs: Path, quiet: bool) -> SelfTested:
    """Plant faults in copies of a run's files, and see whether verification finds them."""
    from edgeres.recipe import VerifySection
    from edgeres.stages import verify

    run, exports = _exports(what, against, runs)
    progress = Progress(quiet)
    with contextlib.closing(progress):
        progress.started("self-test", "")
        trials = verify.self_test(
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
        if len(what) > 1 or against:
            raise BadInput(f"{what[0] if what else against}: a run is verified alone, all its "
                           "files; or name files, and their run with --against")  # fmt: skip
        run = find_run(what[0] if what else None, runs)
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    else:
        run = find_run(against, runs)
        exports = {}
        for path in map(Path, what):
            name, artifact = _matching(path, run)
            if name in exports:
                raise BadInput(f"{path}: is the second file for {name}; verify one at a time")
            exports[name] = artifact
    if not exports:
        raise BadInput(f"{run.path}: has no exported files; `edgeres export` makes some")
    require_related(run)
    return run, exports


def _matching(path: Path, run: Run) -> tuple[str, Artifact]:
    """A file as if the run had exported it: same target, this file's contents."""
    kind, target = targets.of_file(path)
    found = examine(path)  # first where a crash does no harm
    graph = target.read(path)
    exports = [a for a in run.artifacts.values() if a.stage == "export"]
    # The same type of input first: int8 and int16x8, or fp32 and fp16, are both there at times.
    for artifact in sorted(exports, key=lambda a: _input_type(a) != graph.input.dtype):
        exported = exported_file(artifact.facts["exported"])
        module, precision = targets.load(exported.target)
        if module is target and targets.is_integer(precision) == bool(graph.quantization):
            facts = {"exported": {**to_json(exported), "file": path.name,
                                  **_identity(path, found),
                                  "input": to_json(graph.input),
                                  "output": to_json(graph.output)}}  # fmt: skip
            return exported.target, Artifact("export", "-", "-", path.resolve().parent, {},
                                             artifact.section, facts, {}, 0.0)  # fmt: skip
    raise BadInput(f"{path}: {run.path} has no {kind} export of this precision to compare with")


def _input_type(artifact: Artifact) -> str:
    return exported_file(artifact.facts["exported"]).input.dtype


def _verify(
    run: Run, exports: Mapping[str, Artifact], quiet: bool, on: Sequence[str],
    compiled: Path | None, on_samples: int | None, prove: bool,
) -> Verdicts:  # fmt: skip
    from edgeres.recipe import VerifySection
    from edgeres.stages import verify

    progress = Progress(quiet)
    with scratch.folder("work") as folder, contextlib.closing(progress):
        progress.started("verify", "")
        context = stages.Context(0, folder, progress.tick)
        section = run.recipe.verify or VerifySection()
        own = (name for name in section.on if runtimes.missing(name) is None)
        section = section.model_copy(update={
            "on": tuple(dict.fromkeys((*own, *on))), "prove": prove or section.prove,
            "on_samples": on_samples or section.on_samples,
        })  # fmt: skip
        facts = verify.run(section, _inputs(run, exports), folder, context)
        if compiled is not None:
            for file in sorted((folder / "compiled").glob("*/*")):
                keep([file], compiled / file.parent.name)
    if compiled is None:
        for found in (found for row in facts["files"] for found in row.get("runtimes", ())):
            found["compiled"] = []
    return {
        "run": str(run.path),
        "passed": facts["passed"],
        "files": facts["files"],
        "failures": verify.failures(facts),
    }


def _inputs(run: Run, exports: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The verify stage's roles, from a run."""
    known: dict[str, Artifact] = {
        r: run.artifacts[r] for r in ("data", "quantize") if r in run.artifacts
    }
    return {**known, "model": _float_model(run), **exports}


def _float_model(run: Run) -> Artifact:
    for step in ("prune", "distill", "teacher"):
        if step in run.artifacts:
            return run.artifacts[step]
    raise BadInput(f"{run.path}: has no network yet; run it to its end first")


def benchmarked(
    what: str | None,
    devices: Sequence[str],
    preset: str,
    accuracy: bool,
    runs: Path,
    quiet: bool,
    against: str | None = None,
) -> Benchmarked:
    """Measure a run's files, or one file, anew; nothing is taken from the store.

    Args:
        against: of one file: the run whose test images it answers.

    Raises:
        BadInput: whose images they are, or how they are prepared, would have to be guessed.
    """
    section = _section(devices, preset, accuracy)
    path = Path(what) if what else None
    alone = bool(path and path.exists() and not (path / "recipe.lock.yaml").exists())
    if against is not None and not (alone and accuracy):
        raise BadInput(
            "--against says whose test images a file answers: give a file, and --accuracy"
        )
    known: dict[str, Artifact] = {}
    said = ""
    if path and alone:
        exports = {path.name: _alone(path)}
        if accuracy:
            known, exports, said = _test_of(exports, against, runs)
    else:
        run = find_run(what, runs)
        known = _test_set(run)
        exports = {a.section["targets"][0]: a for a in run.artifacts.values()
                   if a.stage == "export"}  # fmt: skip
    if not exports:
        raise BadInput("nothing to measure; `edgeres export` makes files")
    return {**_measured(section, {**exports, **known}, quiet), "accuracy_of": said}


def measured_in_turn(
    paths: Sequence[Path], devices: Sequence[str], preset: str, runs: Path, quiet: bool,
    against: str | None = None,
) -> list[list[Report]]:  # fmt: skip
    """Measure files in sessions that take turns; the reports of each.

    Accuracy is measured too, on the test images of the run `against`, or of the newest one if the
    files say that they are of its kind.

    Raises:
        BadInput: the files answer different questions, or `against` is no run for them.
    """
    exports = {chr(ord("A") + n): _alone(path) for n, path in enumerate(paths)}
    names = {which: x.facts["exported"]["target"] for which, x in exports.items()}
    for which, artifact in exports.items():  # several files may be of one target
        artifact.facts["exported"]["target"] = which
    gives = [math.prod(x.facts["exported"]["output"]["shape"][1:]) for x in exports.values()]
    for path, count in zip(paths, gives, strict=True):
        if count != gives[0]:
            raise BadInput(f"{paths[0]} gives {gives[0]} values and {path} {count}: they are "
                           "networks of different tasks, which can't be compared")  # fmt: skip
    known: dict[str, Artifact] = {}
    try:
        known, exports, _ = _test_of(exports, against, runs)
    except BadInput as error:
        if against:
            raise
        if not quiet:
            terminal.remark(f"note: top-1 isn't measured: {error}")
    section = _section(devices, preset, bool(known))
    result = _measured(section, {**exports, **known}, quiet)
    if result["error"]:
        raise DeviceError(result["error"])
    return [
        [{**r, "target": names[which]} for r in result["reports"] if r["target"] == which]
        for which in names
    ]


def _section(devices: Sequence[str], preset: str, accuracy: bool) -> BenchmarkSection:
    from edgeres.recipe import BenchmarkSection, checked

    sustained = preset == "sustained"  # for one look at a device, not for recipes
    given = {"devices": tuple(devices), "preset": "normal" if sustained else preset,
             "accuracy": accuracy}  # fmt: skip
    section = checked(BenchmarkSection, given)
    return section.model_copy(update={"preset": preset}) if sustained else section


def _measured(section: BenchmarkSection, inputs: dict[str, Artifact], quiet: bool) -> Measured:
    from edgeres.stages import benchmark

    progress = Progress(quiet)
    with scratch.folder("work") as folder, contextlib.closing(progress):
        progress.started("benchmark", "")
        context = stages.Context(0, folder, progress.tick)
        facts, samples = benchmark.measured(section, inputs, context)
    return {**facts, "samples": samples, "error": benchmark.sentence(facts["failures"])}


def _test_set(run: Run) -> dict[str, Artifact]:
    return {"model": _float_model(run), "data": run.artifacts["data"]}


def _test_of(
    exports: Mapping[str, Artifact], against: str | None, runs: Path
) -> tuple[dict[str, Artifact], dict[str, Artifact], str]:
    """A run's test set, the files with the way their images are prepared, and both in a sentence.

    A run that nobody named has to be of the files' own kind, as their notes say.

    Raises:
        BadInput: it isn't, or the files don't fit its images or classes.
    """
    run = find_run(against, runs)
    own = next((a for a in run.artifacts.values() if a.stage == "export"), None)
    if own is None or "data" not in run.artifacts:
        raise BadInput(f"{run.path}: has no export that says how images are prepared; "
                       "`edgeres export` makes one")  # fmt: skip
    prepared, classes = own.facts["preprocess"], run.artifacts["data"].facts["classes"]
    ready, said = {}, []
    for name, artifact in exports.items():
        noted, labels = _notes(artifact)
        path = artifact.file(artifact.facts["exported"]["file"])
        if against is None and (noted != prepared or labels != classes):
            raise BadInput(
                f"{path}: doesn't say that it is prepared and labelled like {run.name}, the newest "
                "run; name the run whose test images it is to answer: --against RUN"
            )
        _require_fit(path, artifact, noted or prepared, labels or classes, classes)
        ready[name] = replace(artifact, facts={**artifact.facts, "preprocess": noted or prepared})
        how = noted or prepared
        said.append(f"{path.name}: top-1 on the test images of {run.name}, prepared as "
                    f"{'the file' if noted else 'the run'} says: {how['size_px']} px, mean "
                    f"{_listed(how['mean'])}, std {_listed(how['std'])}")  # fmt: skip
    return _test_set(run), ready, "; ".join(said)


def _notes(artifact: Artifact) -> tuple[Facts | None, list[str] | None]:
    """How a file says that its images are prepared, and its labels; None where it doesn't."""
    metadata = artifact.facts["metadata"]
    try:
        found = json.loads(metadata.get("edgeres.preprocess", "null"))
        mean, std = (list(map(float, found[key])) for key in ("mean", "std"))
        usable = {len(mean), len(std)} <= {1, 3} and all(map(math.isfinite, mean + std))
        if not usable or min(std) <= 0:
            raise ValueError
        noted: Facts | None = {"size_px": int(found["size_px"]), "mean": mean, "std": std}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        noted = None
    labels = metadata.get("edgeres.labels")
    return noted, labels.split("\n") if labels else None


def _require_fit(
    path: Path, artifact: Artifact, prepared: Facts, labels: Sequence[str],
    classes: Sequence[str],
) -> None:  # fmt: skip
    exported = artifact.facts["exported"]
    spec, gives = exported["input"], math.prod(exported["output"]["shape"][1:])
    size = spec["shape"][1] if spec["layout"] == "NHWC" else spec["shape"][-1]
    if size != prepared["size_px"]:
        raise BadInput(f"{path}: takes images of {size} px, and the run's are prepared for "
                       f"{prepared['size_px']} px; its accuracy would mean nothing")  # fmt: skip
    if gives != len(classes):
        raise BadInput(f"{path}: gives {gives} values, and the run's test set has "
                       f"{len(classes)} classes")  # fmt: skip
    if list(labels) != list(classes):
        raise BadInput(f"{path}: its labels are others than the classes of the run's test set, or "
                       "in another order")  # fmt: skip


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _alone(path: Path) -> Artifact:
    """A model file by itself, as an export artifact."""
    kind, _ = targets.of_file(path)
    found = examine(path)  # first where a crash does no harm
    name = f"{kind}-{found['precision']}"
    exported = {"target": name, "file": path.name, **_identity(path, found),
                "input": found["input"], "output": found["output"]}  # fmt: skip
    facts: dict[str, object] = {"exported": exported, "metadata": found["metadata"]}
    return Artifact("export", "-", "-", path.resolve().parent, {},
                    {"targets": [name]}, facts, {}, 0.0)  # fmt: skip
