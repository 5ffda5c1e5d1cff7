"""Every command's signature and help. Bodies import, make one call and print.

Results go to stdout (one JSON document with --json), everything else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgeres import __version__
from edgeres.commands import complete, examples
from edgeres.errors import DeviceError, EdgeresError

_OPTIONS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="edgeres", no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings=_OPTIONS,
    help="Distill, prune, quantize, export, verify and benchmark ResNets for edge devices.",
    epilog=examples.epilog("edgeres"),
)  # fmt: skip

Runs = Annotated[Path, typer.Option("--runs", envvar="EDGERES_RUNS", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045  typer reads it at run time, also on Python 3.10
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. seed=1."),
]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(help="A run, an artifact folder or a checkpoint file; newest run if left out."),
]
Data = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--data",
        metavar="NAME[:PATH]",
        help="Data set; see `edgeres list datasets`.",
        autocompletion=complete.datasets,
    ),
]
Architecture = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", help="Architecture of a checkpoint file, e.g. resnet56-A."),
]
DEFAULT_RUNS = Path("runs")


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, or a shipped recipe's name.", autocompletion=complete.recipes
        ),
    ],
    overrides: Set = None,
    until: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop after this stage."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    number: Annotated[
        int, typer.Option("--procs", min=1, help="Train in so many processes of this machine.")
    ] = 1,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe: every stage that is not in the store already."""
    from edgeres import procs, text
    from edgeres.commands import chain
    from edgeres.recipe import load

    loaded = load(recipe, overrides or [])
    if dry_run:
        _print(chain.planned(loaded, runs, until), as_json, text.plan)
        return
    if number > 1 and procs.count() == 1:
        raise SystemExit(procs.launch(number, sys.argv[1:]))
    result = chain.perform(loaded, runs, until, quiet)
    if procs.first():
        _print(result, as_json, text.run)


@app.command()
def distill(
    teacher: Annotated[str, typer.Option(help="Teacher architecture.")] = "resnet50",
    student: Annotated[str, typer.Option(help="Student architecture.")] = "resnet18-w0.5",
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The teacher's weights; it is trained here if left out."),
    ] = None,
    data: Data = None,
    loss: Annotated[str, typer.Option(help="kd, or none to train on labels alone.")] = "kd",
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Epochs of the student."),
    ] = None,
    overrides: Set = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distill a big ResNet into a slimmer student."""
    from edgeres import text
    from edgeres.commands import chain

    settings = {"teacher.model": teacher, "distill.student": student, "distill.loss": loss,
                "teacher.checkpoint": checkpoint, "data": data,
                "distill.train.epochs": epochs}  # fmt: skip
    recipe = chain.shipped("distill", settings, overrides)
    _print(chain.perform(recipe, runs, "distill", quiet), as_json, text.run)


@app.command()
def prune(
    model: Model = None,
    budget: Annotated[
        str, typer.Option(help="macs=0.5, params=0.3, size=90KB or latency=5ms.")
    ] = "macs=0.5",
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Where a latency budget is measured; the host if left out."),
    ] = None,
    architecture: Architecture = None,
    data: Data = None,
    overrides: Set = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prune a model's channels to a budget, then fine-tune."""
    from edgeres import text
    from edgeres.commands import chain

    recipe = chain.continued(model, architecture, data, runs, "prune", overrides,
                                chain.budget(budget, device))  # fmt: skip
    _print(chain.perform(recipe, runs, "prune", quiet), as_json, text.run)


@app.command()
def search(
    latency: Annotated[str, typer.Option(help="What the int8 file may take, e.g. 2ms.")],
    device: Annotated[str, typer.Option(help="Where; see `edgeres list devices`.")] = "host",
    target: Annotated[str, typer.Option(help="tflite-int8 or onnx-int8.")] = "tflite-int8",
    recipe: Annotated[
        str, typer.Option(help="Whose data, teacher and training are used.")
    ] = "distill",
    student: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="An architecture to try; repeat for several."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the short trainings.")] = 3,
    tries: Annotated[int, typer.Option(min=1, help="How many candidates are trained.")] = 4,
    out: Annotated[Path, typer.Option(help="Where the recipe is written.")] = Path("searched.yaml"),
    data: Data = None,
    overrides: Set = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the best student within a latency, and write its recipe."""
    from edgeres import text
    from edgeres.commands import chain
    from edgeres.commands import search as command

    wish = command.Wish(device, latency, target, student or (), epochs, tries, out)
    loaded = chain.shipped(recipe, {"data": data}, overrides)
    _print(command.searched(loaded, wish, runs, quiet), as_json, text.search)


@app.command()
def quantize(
    model: Model = None,
    method: Annotated[str, typer.Option(help="qat or ptq.")] = "qat",
    scheme: Annotated[str, typer.Option(help="w8a8, w8a8-symmetric or w8a16.")] = "w8a8",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only measure each layer quantized alone.")
    ] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="Leave the fewest layers float that keep accuracy.")
    ] = False,
    accuracy_drop: Annotated[
        float, typer.Option(help="With --auto: points of validation top-1 that may be lost.")
    ] = 0.5,
    architecture: Architecture = None,
    data: Data = None,
    overrides: Set = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a model, with training (qat) or without (ptq)."""
    from edgeres import text
    from edgeres.commands import chain
    from edgeres.commands import quantize as command

    recipe = chain.continued(model, architecture, data, runs, "quantize", overrides,
                                {"method": method, "scheme": scheme})  # fmt: skip
    if sensitivity:
        _print(command.sensitivity(recipe, runs, quiet), as_json, text.sensitivity)
    elif auto:
        _print(command.auto(recipe, runs, accuracy_drop, quiet), as_json, text.auto)
    else:
        _print(chain.perform(recipe, runs, "quantize", quiet), as_json, text.run)


@app.command()
def export(
    model: Model = None,
    target: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A target; repeat for several. See `edgeres list targets`.",
            autocompletion=complete.targets,
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Copy the files here too."),
    ] = None,
    architecture: Architecture = None,
    data: Data = None,
    overrides: Set = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model; int8 targets quantize it first if need be."""
    from edgeres import text
    from edgeres.commands import chain

    targets = target or ["tflite-int8"]
    recipe = chain.continued(model, architecture, data, runs, "export", overrides,
                                {"targets": targets})  # fmt: skip
    result = chain.perform(recipe, runs, "export", quiet)
    _print(chain.copied(result, out, targets), as_json, text.export)


Samples = Annotated[int, typer.Option(min=2, help="How many training images are looked at.")]


@app.command()
def diagnose(
    model: Model = None,
    architecture: Architecture = None,
    data: Data = None,
    samples: Samples = 256,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong inside a network. Exit code 1 if something is."""
    from edgeres.commands import diagnose as command

    result = command.diagnosed(model, architecture, data, runs, samples, quiet)
    _print(result, as_json, command.diagnosis)
    if not result["healthy"]:
        raise typer.Exit(1)


@app.command()
def recalibrate(
    model: Model = None,
    architecture: Architecture = None,
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the network; NETWORK-DATA if left out."),
    ] = None,
    samples: Samples = 4096,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Re-estimate batch norm's statistics on other images."""
    from edgeres.commands import diagnose as command

    result = command.recalibrated(model, architecture, data, out, runs, samples, quiet)
    _print(result, as_json, command.recalibration)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .tflite, .onnx or .mlpackage, anybody's.")],
    as_json: Json = False,
) -> None:
    """Show a model file's operators, types and scales."""
    from edgeres import text
    from edgeres.commands import files

    _print(files.inspected(file), as_json, text.inspect)


@app.command()
def verify(
    what: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[RUN|FILE|BUNDLE]...", help="A run, files or a bundle; newest run if left out."
        ),
    ] = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The run that files must agree with."),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Plant faults in copies; each must be caught."),
    ] = False,
    public_key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Of a bundle's signer (PEM); it must be signed with it then."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check files anew against the model that was trained. Exit code 1 if one fails."""
    from edgeres import text
    from edgeres.bundle import checking
    from edgeres.commands import files

    show = text.self_test if self_test else text.verify
    if what and len(what) == 1 and checking.is_bundle(Path(what[0])):
        result, show = checking.check(Path(what[0]), public_key), text.checked_bundle
    else:
        check = files.self_tested if self_test else files.verified
        result = check(what or [], against, runs, quiet)
    _print(result, as_json, show)
    if not result["passed"]:
        raise typer.Exit(1)


@app.command()
@app.command("bench", hidden=True)
def benchmark(
    what: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[RUN|FILE]", help="A run or a model file; newest run if left out."),
    ] = None,
    device: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A device; repeat for several. See `edgeres list devices`.",
            autocompletion=complete.devices,
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="quick, normal, submission, or sustained (ten minutes on end).")
    ] = "normal",
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Also run the test set.")] = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency and memory anew on a device."""
    from edgeres import text
    from edgeres.commands import files

    result = files.benchmarked(what, device or ["host"], preset, accuracy, runs, quiet)
    _print(result, as_json, text.benchmark)
    if result["error"]:
        raise DeviceError(result["error"])


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A run, a result (.json) or a model file.")],
    b: Annotated[str, typer.Argument(help="What is to be judged against it.")],
    latency: Annotated[float, typer.Option(help="Tolerated, as a share of A's.")] = 0.05,
    memory: Annotated[float, typer.Option(help="Tolerated, as a share of A's.")] = 0.10,
    size: Annotated[float, typer.Option(help="Tolerated, as a share of A's.")] = 0.01,
    accuracy: Annotated[
        float, typer.Option(help="Tolerated loss of top-1, 0.01: a point.")
    ] = 0.005,
    device: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Where two model files are measured; the host if left out."),
    ] = None,
    preset: Annotated[str, typer.Option(help="quick, normal or submission.")] = "normal",
    markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether B is better than A, the same, or worse."""
    from edgeres import text
    from edgeres.commands import compare as command
    from edgeres.measurement.compare import Tolerance

    tolerance = Tolerance(latency, memory, size, accuracy)
    result = command.compared(a, b, tolerance, device or ["host"], preset, runs, quiet)
    _print(result, as_json, text.compare_markdown if markdown else text.compare)
    if result["verdict"] == "worse":
        raise typer.Exit(1)


@app.command()
def check(
    what: Annotated[str, typer.Argument(metavar="RUN|RESULT.json", help="What was measured.")],
    budgets: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A file of limits (docs/budgets.md); the run's own if left out."),
    ] = None,
    prometheus: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the results there as Prometheus text."),
    ] = None,
    grafana: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a Grafana dashboard (JSON) there."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Hold what was measured against budgets. Exit code 1 if one is not met."""
    from edgeres import text
    from edgeres.commands import check as command

    result = command.checked(what, budgets, runs, prometheus, grafana)
    _print(result, as_json, text.check)
    if not result["passed"]:
        raise typer.Exit(1)


Channel = Annotated[str, typer.Option("--to", help="stable or canary.")]


@app.command()
def bundle(
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A run, or @stable; the newest if left out."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--for", help="android, ios, jetson or web-service.", autocompletion=complete.bundles
        ),
    ] = "android",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The archive; RUN-KIND.zip if left out."),
    ] = None,
    key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Ed25519 private key (PEM) to sign it with."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Pack a file with golden outputs, card, SBOM and a sample app."""
    from edgeres import text
    from edgeres.commands import bundle as command

    _print(command.bundled(run, kind, out, key, runs), as_json, text.bundle)


@app.command()
def drift(
    bundle: Annotated[Path, typer.Argument(help="The bundle that the device runs.")],
    log: Annotated[Path, typer.Argument(help="What it logged, as JSON lines.")],
    as_json: Json = False,
) -> None:
    """Say whether a device sees what the test set held. Exit code 1 if not."""
    from edgeres import text
    from edgeres.commands import bundle as command

    result = command.drifted(bundle, log)
    _print(result, as_json, text.drift)
    if result["drifted"]:
        raise typer.Exit(1)


@app.command()
def promote(
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A run; the newest if left out."),
    ] = None,
    to: Channel = "canary",
    reason: Annotated[str, typer.Option(help="Why, though a gate is not met.")] = "",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Make a run the stable one (@stable) or the canary (@canary)."""
    from edgeres import text
    from edgeres.commands import registry

    _print(registry.promoted(run, to, reason, runs), as_json, text.promoted)


@app.command()
def rollback(
    to: Annotated[str, typer.Option("--channel", help="stable or canary.")] = "stable",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Go back to what was promoted before."""
    from edgeres import text
    from edgeres.commands import registry

    _print(registry.rolled_back(to, reason, runs), as_json, text.promoted)


@app.command()
def history(
    channel: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="stable or canary; both if left out."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """List promotions and rollbacks."""
    from edgeres import text
    from edgeres.commands import registry

    _print(registry.history(channel, runs), as_json, text.history)


@app.command()
def report(
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A run; the newest if left out."),
    ] = None,
    figures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Write its drawings there too, as SVG files."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Write report.html and report.json of a run from what it has."""
    from edgeres import text
    from edgeres.commands import housekeeping

    _print(housekeeping.reported(run, runs, figures), as_json, text.report)


@app.command()
def track(
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A run; the newest if left out."),
    ] = None,
    to: Annotated[str, typer.Option(help="mlflow or tensorboard.")] = "mlflow",
    experiment: Annotated[str, typer.Option(help="MLflow's experiment.")] = "edgeres",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Tell MLflow or TensorBoard about a run.

    MLflow's server is MLFLOW_TRACKING_URI; without one, an `mlflow` program on the PATH keeps a
    local SQLite store in this folder.
    """
    from edgeres import text
    from edgeres.commands import track as command

    _print(command.tracked(run, to, experiment, runs), as_json, text.tracked)


devices_app = typer.Typer(
    help="Look at devices.", no_args_is_help=True, context_settings=_OPTIONS, rich_markup_mode=None
)
app.add_typer(devices_app, name="devices")


@devices_app.command()
def probe(
    name: Annotated[str, typer.Argument(help="A device; see `edgeres list devices`.")],
    as_json: Json = False,
) -> None:
    """Say what a device is, how it is doing, and what it lacks."""
    from edgeres import text
    from edgeres.commands import devices

    _print(devices.probed(name), as_json, text.device)


@devices_app.command()
def discover(as_json: Json = False) -> None:
    """List attached phones, and the hosts of ~/.ssh/config."""
    from edgeres import listing
    from edgeres.commands import devices

    _print(devices.discovered(), as_json, listing.text)


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="recipes, models, datasets, targets, devices or runs.",
            autocompletion=complete.lists,
        ),
    ],
    schema: Annotated[
        bool, typer.Option("--schema", help="With recipes: print their JSON schema.")
    ] = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from edgeres import listing

    if schema:
        from edgeres.recipe import schema as recipe_schema

        _print(recipe_schema(), True, str)
    else:
        _print(listing.rows(what, runs), as_json, listing.text)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    base: Annotated[
        str,
        typer.Option(
            "--from", help="Shipped recipe to start from.", autocompletion=complete.recipes
        ),
    ] = "quickstart",
    data: Data = None,
    teacher: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The big network.", autocompletion=complete.models),
    ] = None,
    student: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The small network.", autocompletion=complete.models),
    ] = None,
    target: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A file to write; repeatable.", autocompletion=complete.targets),
    ] = None,
    device: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Where to measure; repeatable.", autocompletion=complete.devices),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Write a commented recipe of your own to start from.

    At a terminal it asks a few questions, unless an option answers one of them.
    """
    from edgeres.commands import start

    answers = start.Answers(data, teacher, student, tuple(target or ()), tuple(device or ()))
    if answers == start.Answers() and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        answers = start.asked(base)
    print(start.initialized(file, base, answers))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed here, and what is missing."""
    from edgeres import listing

    _print(listing.components(), as_json, listing.text)


@app.command()
def clean(
    runs: Runs = DEFAULT_RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no run refers to, and unfinished work."""
    from edgeres import text
    from edgeres.commands import housekeeping

    _print(housekeeping.cleaned(runs, dry_run), as_json, text.clean)


for _info in (*app.registered_commands, *devices_app.registered_commands):
    assert _info.callback is not None
    _info.epilog = examples.epilog(_info.callback.__name__.rstrip("_"))


def _version(value: bool) -> None:
    if value:
        print(f"edgeres {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["EDGERES_DEBUG"] = "1"


def _print(result: Any, as_json: bool, text: Any) -> None:
    print(json.dumps(result, indent=1) if as_json else text(result))


def main() -> None:
    """Run the command line; expected errors become one sentence and an exit code."""
    try:
        app()
    except EdgeresError as error:
        if os.environ.get("EDGERES_DEBUG"):
            raise
        print(f"edgeres: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:
            print("\nedgeres: interrupted; the same command continues from here", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if os.environ.get("EDGERES_DEBUG"):
            raise
        print(f"edgeres: {_unexpected(error)}", file=sys.stderr)
        sys.exit(1)


def _unexpected(error: Exception) -> str:
    """Keep the traceback of a bug in a file, and say where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="edgeres-error-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"edgeres {__version__}\n{sys.argv}\n\n{traceback.format_exc()}")
    first = (str(error).splitlines() or [""])[0][:200]
    return f"unexpected {type(error).__name__}: {first}; the traceback is in {log.name}"
