"""What looks at networks and files, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from edgeres.cli._options import (
    DEFAULT_RUNS,
    Architecture,
    Data,
    Json,
    Mean,
    Model,
    Preprocessing,
    Programs,
    Quiet,
    Runs,
    Size,
    Std,
    Weights,
    show,
    split,
)
from edgeres.commands import complete
from edgeres.errors import BadInput, DeviceError

AllowInvalid = Annotated[
    bool,
    typer.Option(
        "--allow-invalid", help="Judge times that are marked invalid, and other tools' logs."
    ),
]


JUnit = Annotated[Path | None, typer.Option(help="Write the results there as JUnit XML, for CI.")]


On = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RUNTIME",
        help="Also ask these; repeat, or name,name. See `edgeres list runtimes`.",
        autocompletion=complete.runtimes,
    ),
]
Compiled = Annotated[
    Path | None, typer.Option(help="Folder for what those runtimes compile; else not kept.")
]


OnSamples = Annotated[
    int | None,
    typer.Option(min=1, help="Test images that each of those answers; else the recipe's, 1000."),
]


def _names(on: list[str] | None, compiled: Path | None) -> tuple[str, ...]:
    names = split("--on", on, "`edgeres list runtimes`")
    if compiled and not names:
        raise BadInput("--compiled is for what the runtimes of --on compile; name some")
    return names


def _tolerated(what: str) -> OptionInfo:
    found: OptionInfo = typer.Option(min=0, help=f"Tolerated: {what}, as a share of A's.")
    return found


Samples = Annotated[int, typer.Option(min=2, help="How many training images are looked at.")]


def diagnose(
    model: Model = None,
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    data: Data = None,
    samples: Samples = 256,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong inside a network. Exit code 1 if something is."""
    from edgeres.commands import chain
    from edgeres.commands import diagnose as command

    brought = chain.brought(mean, std, size, preprocess, weights)
    result = command.diagnosed(model, architecture, brought, data, runs, samples, quiet)
    show(result, as_json, command.diagnosis)
    if not result["healthy"]:
        raise typer.Exit(1)


def recalibrate(
    model: Model = None,
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    preprocess: Preprocessing = None,
    weights: Weights = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the network; NETWORK-DATA if left out."),
    ] = None,
    samples: Samples = 4096,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Re-estimate batch norm's statistics on other images."""
    from edgeres.commands import chain
    from edgeres.commands import diagnose as command

    brought = chain.brought(mean, std, size, preprocess, weights)
    result = command.recalibrated(model, architecture, brought, data, out, runs, samples, quiet)
    show(result, as_json, command.recalibration)


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="A model file of anybody's: .tflite, .onnx, .mlpackage, .pte, .pt2, a SavedModel."
        ),
    ],
    on: On = None,
    compiled: Compiled = None,
    as_json: Json = False,
) -> None:
    """Show a model file's operators, types and scales."""
    from edgeres.commands import files
    from edgeres.text import files as text

    show(files.inspected(file, _names(on, compiled), compiled), as_json, text.inspect)


def verify(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|FILE|BUNDLE", help="A run, files or a bundle; newest run if left out."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The run that files must agree with."),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Plant faults in copies; each must be caught."),
    ] = False,
    on: On = None,
    on_samples: OnSamples = None,
    compiled: Compiled = None,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Every image must have the same codes in every kind of kernel."
        ),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(help="Of a bundle's signer (PEM); it must be signed with it then."),
    ] = None,
    require_signature: Annotated[
        bool,
        typer.Option("--require-signature", help="A bundle must be signed by a trusted key."),
    ] = False,
    junit: JUnit = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check files anew against the model that was trained. Exit code 1 if one fails."""
    from edgeres.bundle import checking
    from edgeres.commands import bundle, files
    from edgeres.commands import junit as xml
    from edgeres.text import files as text

    if junit and self_test:
        raise BadInput("--junit is for files, runs and bundles, not for --self-test")
    asked = _names(on, compiled)
    result: Mapping[str, object]
    rows: Callable[..., str]
    cases: list[xml.Case] = []
    if what and len(what) == 1 and checking.is_bundle(Path(what[0])):
        if self_test or against or on or on_samples or prove:
            raise BadInput("--self-test, --against, --on and --prove are for files and runs; a "
                           "bundle has its own golden test")  # fmt: skip
        result = found = bundle.checked(Path(what[0]), public_key, require_signature)
        rows, cases = text.checked_bundle, xml.bundle(found) if junit else []
    elif public_key or require_signature:
        raise BadInput("--public-key and --require-signature are for one bundle (a .zip or folder)")
    elif self_test:
        if on or on_samples or prove:
            raise BadInput("--on or --prove and --self-test are two checks; ask for one at a time")
        result, rows = files.self_tested(what or [], against, runs, quiet), text.self_test
    else:
        result = verified = files.verified(
            what or [], against, runs, quiet, asked, compiled, on_samples, prove
        )
        rows, cases = text.verify, xml.verify(verified) if junit else []
    if junit:
        xml.write(junit, "edgeres verify", cases)
    show(result, as_json, rows)
    if not result["passed"]:
        code = result.get("exit_code")
        raise typer.Exit(code if isinstance(code, int) else 1)


def benchmark(
    what: Annotated[
        str | None,
        typer.Argument(metavar="RUN|FILE", help="A run or a model file; newest run if left out."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="A device; repeat, or name,name. See `edgeres list devices`.",
            autocompletion=complete.devices,
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="quick, normal, submission, or sustained (ten minutes on end).")
    ] = "normal",
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Also run the test set.")] = False,
    _programs: Programs = False,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Of a file: the run whose test images it answers."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency and memory anew on a device."""
    from edgeres.commands import files
    from edgeres.text import files as text

    devices = [*split("--device", device, "`edgeres list devices`")] or ["host"]
    result = files.benchmarked(what, devices, preset, accuracy, runs, quiet, against)
    show(result, as_json, text.benchmark)
    if result["error"]:
        raise DeviceError(result["error"])


def compare(
    a: Annotated[
        str,
        typer.Argument(help="A run, a result file (ours or another tool's) or a model file."),
    ],
    b: Annotated[str, typer.Argument(help="What is to be judged against it.")],
    c: Annotated[str | None, typer.Argument(help="Another to be judged against A.")] = None,
    latency: Annotated[float, _tolerated("more latency")] = 0.05,
    cold: Annotated[float, _tolerated("more time to load, and for the first inference")] = 0.10,
    memory: Annotated[float, _tolerated("more peak resident memory")] = 0.10,
    energy: Annotated[float, _tolerated("more energy per inference")] = 0.10,
    size: Annotated[float, _tolerated("more bytes in the file")] = 0.01,
    accuracy: Annotated[
        float, typer.Option(min=0, max=100, help="Tolerated loss of top-1, in points.")
    ] = 0.5,
    allow_invalid: AllowInvalid = False,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Of two model files: whose test images they answer."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Where two model files are measured; the host if left out."),
    ] = None,
    preset: Annotated[str, typer.Option(help="quick, normal or submission.")] = "normal",
    markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there as a page, too.")
    ] = None,
    _programs: Programs = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether B (and C) is better than A, the same, or worse.

    Exit code 1 if one is worse in anything, or if something can't be judged.
    """
    from edgeres.commands import compare as command
    from edgeres.measurement.compare import Tolerance
    from edgeres.text import files as text

    tolerance = Tolerance(latency, cold, memory, energy, size, accuracy)
    if html:
        command.require_page(html, [a, b, c])
    devices = [*split("--device", device, "`edgeres list devices`")] or ["host"]
    result = command.compared(
        [a, b, *([c] if c else [])], tolerance, devices, preset, runs, quiet,
        allow_invalid, against,
    )  # fmt: skip
    show(result, as_json, text.compare_markdown if markdown else text.compare)
    if html:
        command.drawn(result, html)
    if result["verdict"] in ("worse", "not measurable"):
        raise typer.Exit(1)


def check(
    what: Annotated[
        str | None,
        typer.Argument(metavar="RUN|RESULT", help="What was measured; newest run if left out."),
    ] = None,
    budgets: Annotated[
        Path | None,
        typer.Argument(help="A file of limits (docs/budgets.md); the run's own if left out."),
    ] = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(help="Write the results there as Prometheus text."),
    ] = None,
    grafana: Annotated[
        Path | None,
        typer.Option(help="Write a Grafana dashboard (JSON) there."),
    ] = None,
    junit: JUnit = None,
    allow_invalid: AllowInvalid = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Hold what was measured against budgets. Exit code 1 if one is not met."""
    from edgeres.commands import check as command
    from edgeres.commands import junit as xml
    from edgeres.text import files as text

    result = command.checked(what, budgets, runs, prometheus, grafana, allow_invalid)
    if junit:
        xml.write(junit, "edgeres check", xml.check(result))
    show(result, as_json, text.check)
    if not result["passed"]:
        raise typer.Exit(1)
