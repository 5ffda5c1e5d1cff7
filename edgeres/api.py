"""The commands as Python functions: a network, a file or a run in, frozen values out.

`import edgeres` has them: `edgeres.quantize(model, data=…)`. Each does what the command of its name
does, in a run folder that the commands know, so that what was begun here goes on there.

A network is an `nn.Module` of (N, 3, H, H) float32 to (N, classes), a checkpoint or .pt2 file, a
run, or what a function here gave. Data are `NAME[:PATH]` as the commands take it, or arrays: a
mapping with `x_train`, `y_train`, `x_test`, `y_test` (uint8 (N, H, H, 3), whole numbers (N,)), and
`classes` if they have names.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from edgeres import datasets, preprocessing, scratch
from edgeres.disk import copy_whole, storage_errors, write_whole
from edgeres.errors import BadInput, unknown
from edgeres.runs import LOCK, Run, find_run

if TYPE_CHECKING:
    from torch import nn

    from edgeres.pipeline import Given
    from edgeres.recipe import Recipe
    from edgeres.records import Certified, Facts, Report

__all__ = ["Certificate", "File", "Measurement", "Result", "Step", "benchmark", "distill",
           "export", "inspect", "load", "prune", "quantize", "run", "verify"]  # fmt: skip

Data: TypeAlias = "str | Mapping[str, object]"
"""`NAME[:PATH]`, or arrays by name."""

Settings: TypeAlias = Mapping[str, object]
"""Recipe keys with dots and their values: `{"quantize.train.epochs": 3, "seed": 1}`."""


class Brought(TypedDict, total=False):
    """What is said of how images are prepared, as settings of a section."""

    preprocess: str
    mean: list[float]
    std: list[float]


_RUNS = "runs"
_ARRAYS = {f"{kind}_{part}" for kind in "xy" for part in ("train", "val", "test")} | {"classes"}


@dataclass(frozen=True)
class Step:
    """A network as a step of the chain left it.

    Attributes:
        name: teacher, distill, prune or quantize.
        correct, n: on the test split.
        notes: what was chosen, left out or assumed.
    """

    name: str
    model: str
    parameters: int | None
    macs: int | None
    correct: int
    n: int
    notes: tuple[str, ...]

    @property
    def top1(self) -> float:
        """Top-1 on the test split, 0 to 1."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        from edgeres.statistics import wilson

        return wilson(self.correct, self.n)


@dataclass(frozen=True)
class Certificate:
    """What verification found of one file.

    Attributes:
        failed: names of the gates that it failed, or why it can't be verified here.
        agreement: share of the test images with the same answer as the quantized graph.
        correct, n: of the file itself, on the test images; None where it wasn't run on them.
    """

    target: str
    passed: bool
    failed: tuple[str, ...]
    agreement: float | None
    correct: int | None
    n: int | None


@dataclass(frozen=True)
class File:
    """An exported file; `certificate` is None where it wasn't verified."""

    target: str
    path: Path
    size_bytes: int
    sha256: str
    certificate: Certificate | None


@dataclass(frozen=True)
class Measurement:
    """One file on one device. Times in nanoseconds; None is what wasn't measured."""

    device: str
    target: str
    runtime: str
    median_ns: float | None
    p90_ns: float | None
    n: int | None
    peak_rss_bytes: int | None


@dataclass(frozen=True)
class Result:
    """A run: its folder, its networks in the chain's order, its files.

    Attributes:
        notes: what was left out or assumed of its data.
    """

    path: Path
    steps: tuple[Step, ...]
    files: tuple[File, ...]
    report: Path | None
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> Step:
        """The network that the chain ends with."""
        return self.steps[-1]

    def module(self, step: str | None = None) -> nn.Module:
        """A step's network in float, in evaluation mode: (N, 3, H, H) normalized -> (N, classes).

        Args:
            step: its name; None for the last one. What `quantize` left has its weights and biases
                on their integer grids.
        """
        from edgeres.models import weights

        artifact = find_run(str(self.path), self.path.parent).artifacts[step or self.last.name]
        return weights.load(artifact.folder())

    def _repr_html_(self) -> str:
        rows = [f"<tr><td>{html.escape(s.name)}</td><td>{html.escape(s.model)}</td>"
                f"<td>{s.top1:.2%} of {s.n:,}</td><td></td></tr>" for s in self.steps]  # fmt: skip
        for file in self.files:
            found = file.certificate
            said = "not verified" if found is None else "verified" if found.passed else "FAILED"
            rows.append(f"<tr><td>{html.escape(file.target)}</td>"
                        f"<td>{html.escape(file.path.name)}</td>"
                        f"<td>{_share(found)}</td>"
                        f"<td>{file.size_bytes / 1000:,.0f} kB, {said}</td></tr>")  # fmt: skip
        head = "<tr><th>step</th><th>network or file</th><th>test top-1</th><th></th></tr>"
        return f"<table>{head}{''.join(rows)}</table><p>{html.escape(str(self.path))}</p>"


def _share(found: Certificate | None) -> str:
    if found is None or found.correct is None or not found.n:
        return ""
    return f"{found.correct / found.n:.2%} of {found.n:,}"


def run(
    recipe: str | PathLike[str] | Recipe, settings: Settings | None = None, *,
    until: str | None = None, runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> Result:  # fmt: skip
    """Run a recipe: a shipped one's name, a file, or a `Recipe`; see `edgeres run`.

    Args:
        until: the last stage, such as `quantize`.

    Raises:
        BadInput: it is wrong. GateFailed: what came out isn't good enough.
    """
    from edgeres.recipe import Recipe, load_mapping, to_mapping
    from edgeres.recipe import load as load_recipe

    said = _overrides(settings)
    if isinstance(recipe, Recipe):
        found = load_mapping(to_mapping(recipe), said, "settings") if said else recipe
    else:
        found = load_recipe(str(recipe), said)
    return _performed(found, Path(runs), until, quiet)


def distill(
    teacher: nn.Module | Result | str | PathLike[str], student: str, *, data: Data,
    settings: Settings | None = None, preprocess: str | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    size: int | None = None, runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> Result:  # fmt: skip
    """Train a student on a teacher's answers; see `edgeres distill`.

    Args:
        teacher: also an architecture or a source such as `torchvision:resnet50`.
        student: an architecture: `resnet20-w0.5`, `timm:mobilenetv3_small_050`.
        data, settings, preprocess, mean, std, size, runs, quiet: as `quantize` takes them.

    Raises:
        BadInput: something doesn't fit. GateFailed: the student isn't good enough.
    """
    from edgeres.commands import chain

    where, source = Path(runs), _data(data, Path(runs))
    own = {"data.source": source, "data.size": size, "distill.student": student}
    name, checkpoint, brought = None, None, _brought(preprocess, mean, std)
    if isinstance(teacher, str | PathLike | Result):
        name, checkpoint = _teacher(teacher, where)
    else:
        kept, brought = _model(teacher, source, size, where, brought)
        checkpoint = Path(kept)
    recipe = chain.distilling(name, checkpoint, brought, own, _overrides(settings))
    return _performed(recipe, where, "distill", quiet)


def _teacher(what: Result | str | PathLike[str], runs: Path) -> tuple[str | None, Path | None]:
    """An architecture or a source, or else a file or folder of weights: a run's last float one."""
    text = str(what.path) if isinstance(what, Result) else str(what)
    for run in (Path(text), runs / text):
        if (run / LOCK).exists():
            found = find_run(str(run), runs)
            floats = [a for step, a in found.artifacts.items()
                      if step in ("teacher", "distill", "prune")]  # fmt: skip
            if not floats:
                raise BadInput(f"{run}: has no network yet; run it first")
            return None, floats[-1].folder()
    path = Path(text)
    if path.is_file() or (path / "spec.json").is_file():
        return None, path
    return text, None


def prune(
    model: nn.Module | Result | str | PathLike[str], *, data: Data | None = None,
    budget: str = "macs=0.5", settings: Settings | None = None, preprocess: str | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    size: int | None = None, runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> Result:  # fmt: skip
    """Cut channels out and fine-tune; see `edgeres prune`.

    Args:
        budget: what to keep: `macs=0.5`, `params=0.3`, `size=90KB`, `latency=5ms`.
        data, settings, preprocess, mean, std, size, runs, quiet: as `quantize` takes them.

    Raises:
        BadInput: something doesn't fit. GateFailed: more was lost than may be.
    """
    from edgeres.commands import chain

    section = chain.budget(budget, None)
    return _continued("prune", section, model, data, settings, preprocess, mean, std, size, runs,
                      quiet)  # fmt: skip


def quantize(
    model: nn.Module | Result | str | PathLike[str], *, data: Data | None = None,
    method: str = "qat", scheme: str = "w8a8", settings: Settings | None = None,
    preprocess: str | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    size: int | None = None, runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> Result:  # fmt: skip
    """Quantize to integers; see `edgeres quantize`.

    Args:
        model, data: as the module says; of a run, data are those that it has.
        method: `qat` trains, `ptq` only calibrates.
        settings: recipe keys and values.
        preprocess, mean, std: how the network's images are prepared: a name (`imagenet`), or mean
            and std in units of pixel / 255. An `nn.Module` needs it said.
        size: height and width of the images in pixels; the data's own if None.
        runs: folder of runs.
        quiet: no progress on stderr.

    Raises:
        BadInput: something doesn't fit, an operation isn't known (it is named), or nobody says how
            a module's images are prepared.
    """
    return _continued("quantize", {"method": method, "scheme": scheme}, model, data, settings,
                      preprocess, mean, std, size, runs, quiet)  # fmt: skip


def export(
    model: nn.Module | Result | str | PathLike[str], targets: str | Sequence[str], *,
    data: Data | None = None, settings: Settings | None = None, preprocess: str | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    size: int | None = None, npu: str | Sequence[str] = (), runs: str | PathLike[str] = _RUNS,
    quiet: bool = True,
) -> Result:  # fmt: skip
    """Write and verify files for targets such as `tflite-int8`; see `edgeres export`.

    Args:
        npu: what compiled targets are compiled for, e.g. `ethos-u55-128`.

    Raises:
        BadInput: something doesn't fit. GateFailed: a file isn't the model.
    """
    from edgeres.commands import chain

    names = [targets] if isinstance(targets, str) else list(targets)
    npu = [npu] if isinstance(npu, str) else list(npu)
    where = Path(runs)
    source = _data(data, where)
    path, brought = _model(model, source, size, where, _brought(preprocess, mean, std))
    said = {"data.size": size, "export.npu": chain.for_npus(npu, names)}
    made = chain.exported(path, None, source, where, _overrides(settings), names, quiet, brought,
                          said)  # fmt: skip
    return load(made["added_to"] or made["run"])


def load(path: str | PathLike[str], runs: str | PathLike[str] = _RUNS) -> Result:
    """A run as it is: its folder, or its name below `runs`.

    Raises:
        BadInput: there is no such run, or it is damaged.
    """
    return _result(find_run(str(path), Path(runs)))


def verify(
    result: Result | str | PathLike[str], *, on: str | Sequence[str] = (),
    on_samples: int | None = None, prove: bool = False,
    runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> tuple[Certificate, ...]:  # fmt: skip
    """Verify a run's files anew; see `edgeres verify`. What failed is in the certificates.

    Args:
        on: other runtimes that are asked, too (docs/runtimes.md).
        on_samples: how many test images each of them answers, at most; None: as the recipe says.
        prove: every image must have the same codes in every kind of kernel (docs/proof.md).

    Raises:
        BadInput: it has no files, they were changed, or there is no such runtime.
        MissingComponent: a runtime can't be asked here; names the mend.
    """
    from edgeres.commands import files

    names = (on,) if isinstance(on, str) else tuple(on)
    found = files.verified([_path(result)], None, Path(runs), quiet, names,
                           on_samples=on_samples, prove=prove)  # fmt: skip
    unverified = [
        Certificate(row["target"], False, (f"not verified: {row['why']}",), None, None, None)
        for row in found["unverified"]
    ]
    return (*map(_certificate, found["files"]), *unverified)


def benchmark(
    model: Result | str | PathLike[str], devices: str | Sequence[str] = "host", *,
    preset: str = "normal", runs: str | PathLike[str] = _RUNS, quiet: bool = True,
) -> tuple[Measurement, ...]:  # fmt: skip
    """Measure a run's files, or one file, on devices; see `edgeres benchmark`.

    Raises:
        BadInput: there is nothing to measure, or no such device.
        DeviceError: the device can't be reached, or gives no result.
    """
    from edgeres.commands import files

    names = [devices] if isinstance(devices, str) else list(devices)
    found = files.benchmarked(_path(model), names, preset, False, Path(runs), quiet)
    return tuple(map(_measurement, found["reports"]))


def inspect(file: str | PathLike[str]) -> Mapping[str, Any]:
    """What is in a model file, as `edgeres inspect --json` prints it.

    Raises:
        BadInput: it is no model file, or a damaged one.
    """
    from edgeres.commands import files

    return files.inspected(Path(file))


def _continued(
    stage: str, section: Mapping[str, object], model: nn.Module | Result | str | PathLike[str],
    data: Data | None, settings: Settings | None,
    preprocess: str | None, mean: Sequence[float] | None, std: Sequence[float] | None,
    size: int | None, runs: str | PathLike[str], quiet: bool,
) -> Result:  # fmt: skip
    from edgeres.commands import chain

    where = Path(runs)
    source = _data(data, where)
    path, brought = _model(model, source, size, where, _brought(preprocess, mean, std))
    recipe, given = chain.continued(path, None, source, where, stage, _overrides(settings),
                                    section, brought, {"data.size": size})  # fmt: skip
    return _performed(recipe, where, stage, quiet, given)


def _performed(
    recipe: Recipe, runs: Path, until: str | None, quiet: bool, given: Given | None = None
) -> Result:
    from edgeres.commands import chain

    return load(chain.perform(recipe, runs, until, quiet, given=given)["run"])


def _model(
    model: object, data: str | None, size: int | None, runs: Path, brought: Brought
) -> tuple[str, Brought]:
    """The path of a network, and what is still to be said of it beside."""
    from torch import nn

    if isinstance(model, Result | str | PathLike):
        return _path(model), brought
    if not isinstance(model, nn.Module):
        raise BadInput(f"a network is an nn.Module, a file, a run or a function's result, not "
                       f"{type(model).__name__}")  # fmt: skip
    if not brought:
        raise BadInput("say how the module's images are prepared: preprocess='imagenet', or mean=… "
                       "and std=… in units of pixel / 255")  # fmt: skip
    if data is None:
        raise BadInput("a module needs data: data='imagefolder:PATH', or arrays")
    way = preprocessing.WAYS[brought["preprocess"]] if "preprocess" in brought else None
    mean, std = (way.mean, way.std) if way else (tuple(brought["mean"]), tuple(brought["std"]))
    return _kept(model, size or datasets.default_size(data), mean, std, runs), {}


def _kept(
    module: nn.Module, size_px: int, mean: tuple[float, ...], std: tuple[float, ...], runs: Path
) -> str:
    """A module as a folder of edgeres, named by its contents."""
    from edgeres import terminal
    from edgeres.disk import file_sha256
    from edgeres.models import weights
    from edgeres.network.from_torch import from_module

    read = from_module(module, size_px, mean=mean, std=std)
    for note in read.notes:
        terminal.remark(note)
    own = runs / "models"
    with storage_errors(own), scratch.folder("model") as folder:
        own.mkdir(parents=True, exist_ok=True)
        made = folder / "network"
        made.mkdir()
        weights.save(made, read.module)
        named = own / f"{read.module.spec.name}-{file_sha256(made)[:12]}"
        if not named.exists():
            copy_whole(made, named)
    return str(named)


def _data(data: object, runs: Path) -> str | None:
    """A source as a recipe writes it; arrays become a file below `runs`."""
    import numpy as np

    if data is None or isinstance(data, str):
        return data
    if not isinstance(data, Mapping):
        raise BadInput("data is NAME[:PATH], or a mapping with x_train, y_train, x_test, y_test")
    packed = io.BytesIO()
    if odd := sorted(map(str, set(data) - _ARRAYS)):
        raise BadInput(f"data: '{odd[0]}' isn't one of {', '.join(sorted(_ARRAYS))}")
    try:
        arrays = {str(key): np.asarray(value) for key, value in data.items()}
        np.savez_compressed(packed, allow_pickle=False, **arrays)
    except ValueError as error:  # of several lengths, or objects
        raise BadInput(f"data: not arrays of numbers: {error}") from error
    content = packed.getvalue()
    path = runs / "arrays" / f"{hashlib.sha256(content).hexdigest()[:16]}.npz"
    if not path.exists():
        _check_arrays(content)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    return f"arrays:{path}"


def _check_arrays(content: bytes) -> None:
    """Read a file of arrays as a run will, before it is kept; BadInput as `datasets.opened`."""
    with scratch.folder("arrays") as folder:
        path = folder / "data.npz"
        with storage_errors(path):
            write_whole(path, content)
        try:
            datasets.opened(f"arrays:{path}")
        except BadInput as error:
            said = str(error).replace(f"data 'arrays:{path}'", "data").replace(str(path), "data")
            raise BadInput(said) from None


def _brought(
    preprocess: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Brought:
    """What is said of how images are prepared, as settings of a section.

    Raises:
        BadInput: half of it or twice, no such name, or numbers that can't be meant.
    """
    if preprocess is not None and (mean is not None or std is not None):
        raise BadInput("preprocess says mean and std by name; leave one of them out")
    if (mean is None) != (std is None):
        raise BadInput("mean and std go together; give both, or preprocess='imagenet'")
    if preprocess is not None:
        if preprocess not in preprocessing.WAYS:
            raise unknown("preprocess", preprocess, preprocessing.WAYS)
        return {"preprocess": preprocess}
    if mean is None or std is None:
        return {}
    return {"mean": _numbers("mean", mean), "std": _numbers("std", std)}


def _numbers(name: str, value: Sequence[float]) -> list[float]:
    import numpy as np

    try:
        found = [float(v) for v in np.asarray(value, float).reshape(-1)]
    except (TypeError, ValueError):
        found = []
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise BadInput(f"{name}: one number or three for red, green, blue, e.g. 0.5")
    if name == "std" and min(found) <= 0:
        raise BadInput(f"std: {min(found):g} is not greater than 0; the mean's difference is "
                       "divided by it")  # fmt: skip
    if said := preprocessing.above_one(found):
        raise BadInput(f"{name}: {said}")
    return found


def _overrides(settings: Settings | None) -> list[str]:
    import json

    from edgeres.recipe import Recipe

    for key, value in (settings or {}).items():
        if value is None and "." not in key and key in Recipe.model_fields:
            raise BadInput(f"settings: {key}: None leaves no stage out; say until=STAGE, or {{}} "
                           "for its defaults")  # fmt: skip

    def plain(value: object) -> object:
        if isinstance(value, PathLike):
            return str(value)
        if hasattr(value, "tolist"):  # numpy's and PyTorch's numbers
            return value.tolist()
        raise BadInput(f"settings: {value!r:.80} can't be a recipe's value")

    return [f"{key}={json.dumps(value, default=plain)}" for key, value in (settings or {}).items()]


def _path(what: Result | str | PathLike[str]) -> str:
    return str(what.path if isinstance(what, Result) else what)


def _result(run: Run) -> Result:
    steps, files = [], []
    certificates = {}
    if "verify" in run.artifacts:
        rows = run.artifacts["verify"].facts["files"]
        certificates = {row["target"]: _certificate(row) for row in rows}
    for name, artifact in run.artifacts.items():
        facts = artifact.facts
        if "test" in facts and "model" in facts:
            steps.append(Step(name, facts["model"], facts["parameters"], facts["macs"],
                              facts["test"]["correct"], facts["test"]["n"],
                              (*facts.get("notes", ()), *_new_head(facts))))  # fmt: skip
        if artifact.stage == "export":
            told = facts["exported"]
            files.append(File(told["target"], artifact.file(told["file"]), told["size_bytes"],
                              told["sha256"], certificates.get(told["target"])))  # fmt: skip
    page = run.path / "report.html"
    data = run.artifacts.get("data")
    return Result(run.path, tuple(steps), tuple(files), page if page.exists() else None,
                  tuple(data.facts.get("notes", ())) if data else ())  # fmt: skip


def _new_head(facts: Facts) -> list[str]:
    from edgeres.stages import _finetuning

    said = _finetuning.summary(facts).removeprefix("; ")
    return [said] if said else []


def _certificate(row: Certified) -> Certificate:
    test = row.get("test")
    failed = tuple(gate["name"] for gate in row["gates"] if not gate["passed"])
    return Certificate(row["target"], row["passed"], failed, row.get("agreement"),
                       test["correct"] if test else None, test["n"] if test else None)  # fmt: skip


def _measurement(report: Report) -> Measurement:
    latency, memory = report.get("latency"), report.get("memory") or {}
    runtime = report.get("runtime") or {}
    return Measurement(
        report["device"] or "", report["target"],
        f"{runtime.get('name', '')} {runtime.get('version', '')}".strip(),
        latency["median_ns"] if latency else None, latency.get("p90_ns") if latency else None,
        latency["n"] if latency else None,
        memory.get("peak_rss_bytes"),
    )  # fmt: skip
