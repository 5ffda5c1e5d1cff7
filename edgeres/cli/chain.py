"""What runs stages of the chain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeres.cli._options import (
    DEFAULT_RUNS,
    Architecture,
    BatchSize,
    Data,
    Epochs,
    ImageSize,
    Json,
    Mean,
    Model,
    NewHead,
    Preprocessing,
    Programs,
    Quiet,
    Rate,
    Runs,
    Set,
    Size,
    Std,
    Weights,
    show,
    split,
)
from edgeres.commands import complete

if TYPE_CHECKING:
    from edgeres.recipe import Recipe

Procs = Annotated[
    int, typer.Option("--procs", min=1, help="Train in so many processes of this machine.")
]


def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, or a shipped recipe's name.", autocompletion=complete.recipes
        ),
    ],
    overrides: Set = None,
    until: Annotated[
        str | None,
        typer.Option(help="Stop after this stage."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    number: Procs = 1,
    executor: Annotated[
        str,
        typer.Option(
            help="local, or slurm-script: print a script that submits each step as a job."
        ),
    ] = "local",
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe: every stage that is not in the store already."""
    from edgeres.commands import chain
    from edgeres.recipe import load
    from edgeres.text import chain as text

    loaded = load(recipe, overrides or [])
    if dry_run:
        show(chain.planned(loaded, runs, until), as_json, text.plan)
        return
    if executor != "local":
        script = chain.submitting(loaded, runs, until, executor, number, _programs)
        show(script, as_json, text.script)
        return
    _performed(loaded, runs, until, quiet, as_json, number)


def _performed(
    recipe: Recipe, runs: Path, until: str | None, quiet: bool, as_json: bool, number: int,
    step: str | None = None,
) -> None:  # fmt: skip
    """Perform a recipe, or one step, in so many processes; the first of them prints."""
    from edgeres import procs
    from edgeres.commands import chain
    from edgeres.text import chain as text

    if number > 1 and procs.count() == 1:
        raise SystemExit(procs.launch(number, sys.argv[1:]))
    result = chain.perform(recipe, runs, until, quiet, step)
    if procs.first():
        show(result, as_json, text.run)


def step(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, or a shipped recipe's name.", autocompletion=complete.recipes
        ),
    ],
    step: Annotated[str, typer.Argument(help="As --dry-run names it, e.g. quantize.")],
    overrides: Set = None,
    number: Procs = 1,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make one step of a recipe, as a job of a cluster does."""
    from edgeres.recipe import load

    _performed(load(recipe, overrides or []), runs, None, quiet, as_json, number, step)


def distill(
    teacher: Annotated[
        str | None,
        typer.Option(
            help="An architecture to train here, or a trained one: torchvision:NAME, "
            "checkpoint:FILE, …; left out: resnet50, or what --checkpoint holds.",
        ),
    ] = None,
    student: Annotated[str, typer.Option(help="Student architecture.")] = "resnet18-w0.5",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The teacher's weights; it is trained here if left out."),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    new_head: NewHead = False,
    data: Data = None,
    imgsz: ImageSize = None,
    loss: Annotated[
        str, typer.Option(help="kd, dkd, dist, mse, cosine; none: labels alone.")
    ] = "kd",
    epochs: Epochs = None,
    rate: Rate = None,
    batch_size: BatchSize = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where it is trained: cpu, cuda, mps, or auto (a CUDA GPU where there is one)."
        ),
    ] = None,
    overrides: Set = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distill a big ResNet into a slimmer student."""
    from edgeres.commands import chain
    from edgeres.text import chain as text

    settings = {"data": data, "distill.student": student, "distill.loss": loss,
                "teacher.train.device": device, "distill.train.device": device,
                **chain.training("distill", epochs, rate, batch_size, imgsz)}  # fmt: skip
    brought = chain.brought(mean, std, size, preprocess, weights, new_head)
    recipe = chain.distilling(teacher, checkpoint, brought, settings, overrides)
    show(chain.perform(recipe, runs, "distill", quiet), as_json, text.run)


def prune(
    model: Model = None,
    budget: Annotated[
        str, typer.Option(help="macs=0.5, params=0.3, size=90KB, latency=5ms or latency=0.5x.")
    ] = "macs=0.5",
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of test top-1 that may be lost; more is exit code 1. Left out: 5."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where a latency budget is measured, or estimated (ethos-u55-128); else the host."
        ),
    ] = None,
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    new_head: NewHead = False,
    data: Data = None,
    imgsz: ImageSize = None,
    epochs: Epochs = None,
    rate: Rate = None,
    batch_size: BatchSize = None,
    overrides: Set = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prune a model's channels to a budget, then fine-tune."""
    from edgeres.commands import chain
    from edgeres.text import chain as text

    brought = chain.brought(mean, std, size, preprocess, weights, new_head)
    recipe, given = chain.continued(
        model, architecture, data, runs, "prune", overrides, chain.budget(budget, max_drop),
        brought, {"prune.device": device,
                  **chain.training("prune", epochs, rate, batch_size, imgsz)},
    )  # fmt: skip
    show(chain.perform(recipe, runs, "prune", quiet, given=given), as_json, text.run)


def search(
    budget: Annotated[
        str | None,
        typer.Option(help="latency=2ms, or latency=0.5x of the recipe's own student's."),
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="The same: what the int8 file may take, e.g. 2ms.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points of validation top-1 it may lose against that student."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where; see `edgeres list devices`; or an estimate: ethos-u55-128.")
    ] = "host",
    target: Annotated[str, typer.Option(help="tflite-int8 or onnx-int8.")] = "tflite-int8",
    recipe: Annotated[
        str, typer.Option(help="Whose data, teacher and training are used.")
    ] = "distill",
    student: Annotated[
        list[str] | None,
        typer.Option(help="An architecture to try; repeat, or name,name."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the short trainings.")] = 3,
    tries: Annotated[int, typer.Option(min=1, help="How many candidates are trained.")] = 4,
    out: Annotated[Path, typer.Option(help="Where the recipe is written.")] = Path("searched.yaml"),
    data: Data = None,
    overrides: Set = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the best student within a latency, and write its recipe."""
    from edgeres.commands import chain
    from edgeres.commands import search as command
    from edgeres.text import chain as text

    fast = command.latency(budget, latency)
    students = split("--student", student, "`edgeres list models`")
    wish = command.Wish(device, fast, target, students, epochs, tries, out, max_drop)
    loaded = chain.shipped(recipe, {"data": data}, overrides)
    show(command.searched(loaded, wish, runs, quiet), as_json, text.search)


def quantize(
    model: Model = None,
    method: Annotated[
        str, typer.Option(help="qat, ptq, or file (the scales of a quantized file).")
    ] = "qat",
    scheme: Annotated[
        str, typer.Option(help="w8a8, w8a8-portable, w8a8-symmetric, w8a16 or w4a8.")
    ] = "w8a8",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only measure each layer quantized alone.")
    ] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="Leave the fewest layers float that keep accuracy.")
    ] = False,
    accuracy_drop: Annotated[
        float, typer.Option(help="With --auto: points of validation top-1 that may be lost.")
    ] = 0.5,
    device: Annotated[
        str,
        typer.Option(
            help="With --auto: where the cost is measured.", autocompletion=complete.devices
        ),
    ] = "host",
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    new_head: NewHead = False,
    data: Data = None,
    imgsz: ImageSize = None,
    epochs: Epochs = None,
    rate: Rate = None,
    batch_size: BatchSize = None,
    overrides: Set = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a model, with training (qat) or without (ptq)."""
    from edgeres.commands import chain
    from edgeres.commands import quantize as command
    from edgeres.text import chain as text

    brought = chain.brought(mean, std, size, preprocess, weights, new_head)
    recipe, given = chain.continued(
        model, architecture, data, runs, "quantize", overrides,
        {"method": method, "scheme": scheme}, brought,
        chain.training("quantize", epochs, rate, batch_size, imgsz),
    )  # fmt: skip
    if sensitivity:
        show(command.sensitivity(recipe, given, runs, quiet), as_json, text.sensitivity)
    elif auto:
        show(command.auto(recipe, given, runs, accuracy_drop, device, quiet), as_json, text.auto)
    else:
        show(chain.perform(recipe, runs, "quantize", quiet, given=given), as_json, text.run)


def export(
    model: Model = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A target; repeat, or name,name. See `edgeres list targets`.",
            autocompletion=complete.targets,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the files here too, if they are verified."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check each file against the model.")
    ] = True,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="TFLite int8 in the form that GPUs compute rightly.")
    ] = False,
    npu: Annotated[
        list[str] | None,
        typer.Option(
            help="What ethosu-, qnn- and rknn-int8 are compiled for, e.g. ethos-u55-128; repeat, "
            "or name,name.",
            autocompletion=complete.npus,
        ),
    ] = None,
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    new_head: NewHead = False,
    data: Data = None,
    imgsz: ImageSize = None,
    overrides: Set = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model and verify the files.

    int8 targets quantize it first if need be.
    """
    from edgeres.commands import chain
    from edgeres.text import chain as text

    targets = [*split("--target", target, "`edgeres list targets`")] or ["tflite-int8"]
    brought = chain.brought(mean, std, size, preprocess, weights, new_head)
    result = chain.exported(
        model, architecture, data, runs, overrides, targets, quiet, brought,
        {"data.size": imgsz, "export.gpu": chain.for_gpus(gpu, targets),
         "export.npu": chain.for_npus(split("--npu", npu, "`edgeres list runtimes`"), targets)},
        verify,
    )  # fmt: skip
    show(chain.copied(result, out, targets), as_json, text.export)
