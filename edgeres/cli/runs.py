"""What is done with finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeres import terminal
from edgeres.cli._options import DEFAULT_RUNS, Json, Run, Runs, show
from edgeres.commands import complete
from edgeres.errors import BadInput

Channel = Annotated[str, typer.Option("--to", help="stable or canary.")]


def bundle(
    run: Run = None,
    kind: Annotated[
        str,
        typer.Option(
            "--for",
            help="android, ios, jetson, linux, microcontroller, web or web-service.",
            autocompletion=complete.bundles,
        ),
    ] = "android",
    out: Annotated[
        Path | None,
        typer.Option(help="The archive; RUN-KIND.zip if left out."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 private key (PEM) to sign it with."),
    ] = None,
    check_aar: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Make no bundle: do the libraries of this .aar, .apk or .aab load with Android's "
            "memory pages of 16 KiB? Exit code 1 if not.",
        ),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Pack a file with golden outputs, card, SBOM and a sample app."""
    from edgeres.commands import bundle as command
    from edgeres.text import runs as text

    if check_aar is not None:
        if run or out or key:
            raise BadInput("--check-aar makes no bundle: leave RUN, --out and --key out")
        result = command.page_sizes(check_aar)
        show(result, as_json, text.page_sizes)
        raise typer.Exit(0 if result["passed"] else 1)
    show(command.bundled(run, kind, out, key, runs), as_json, text.bundle)


def trust(
    key: Annotated[
        Path | None,
        typer.Argument(metavar="KEY|BUNDLE", help="A public key (PEM), or a bundle signed by it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Whose it is; a key file's name if left out.")
    ] = None,
    remove: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT", help="Don't trust this key any more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the keys whose bundles you trust, or trust one more."""
    from edgeres.commands import bundle as command
    from edgeres.text import runs as text

    show(command.trusted(key, name, remove), as_json, text.trusted)


def drift(
    bundle: Annotated[Path, typer.Argument(help="The bundle that the device runs.")],
    log: Annotated[Path, typer.Argument(help="What it logged, as JSON lines.")],
    as_json: Json = False,
) -> None:
    """Say whether a device sees what the test set held. Exit code 1 if not."""
    from edgeres.commands import bundle as command
    from edgeres.text import runs as text

    result = command.drifted(bundle, log)
    show(result, as_json, text.drift)
    if result["drifted"]:
        raise typer.Exit(1)


def promote(
    run: Run = None,
    to: Channel = "canary",
    reason: Annotated[
        str, typer.Option(help="Promote although a gate isn't met, and keep this reason.")
    ] = "",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Make a run the stable one (@stable) or the canary (@canary)."""
    from edgeres.commands import registry
    from edgeres.text import runs as text

    show(registry.promoted(run, to, reason, runs), as_json, text.promoted)


def rollback(
    to: Annotated[str, typer.Option("--channel", help="stable or canary.")] = "stable",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Go back to what was promoted before."""
    from edgeres.commands import registry
    from edgeres.text import runs as text

    show(registry.rolled_back(to, reason, runs), as_json, text.promoted)


def history(
    channel: Annotated[
        str | None,
        typer.Argument(help="stable or canary; both if left out."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """List promotions and rollbacks."""
    from edgeres.commands import registry
    from edgeres.text import runs as text

    show(registry.history(channel, runs), as_json, text.history)


def report(
    run: Run = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write its drawings there too, as SVG files."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Write report.html and report.json of a run from what it has."""
    from edgeres.commands import housekeeping
    from edgeres.text import runs as text

    show(housekeeping.reported(run, runs, figures), as_json, text.report)


def track(
    run: Run = None,
    to: Annotated[str, typer.Option(help="mlflow or tensorboard.")] = "mlflow",
    experiment: Annotated[str, typer.Option(help="MLflow's experiment.")] = "edgeres",
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Tell MLflow or TensorBoard about a run.

    MLflow's server is MLFLOW_TRACKING_URI; without one, an `mlflow` program on the PATH keeps a
    local SQLite store in this folder.
    """
    from edgeres.commands import track as command
    from edgeres.text import runs as text

    show(command.tracked(run, to, experiment, runs), as_json, text.tracked)


Named = Annotated[str, typer.Argument(metavar="RUN", help="A run; see `edgeres list runs`.")]


def show_(run: Named, runs: Runs = DEFAULT_RUNS, as_json: Json = False) -> None:
    """Say what a run is, and where its steps and files are."""
    from edgeres.commands import runs as command
    from edgeres.text import runs as text

    show(command.shown(run, runs), as_json, text.shown)


def note(
    run: Named,
    text_: Annotated[str, typer.Argument(metavar="TEXT", help='What to remember; "" forgets it.')],
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Keep a note with a run; `edgeres list runs` shows it."""
    from edgeres.commands import runs as command
    from edgeres.text import runs as text

    show(command.noted(run, text_, runs), as_json, text.shown)


def rename(
    run: Named,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Give a run another name. Its recipe, run again, then starts a new run from stored results."""
    from edgeres.commands import runs as command
    from edgeres.text import runs as text

    show(command.renamed(run, name, runs), as_json, text.shown)


def delete(
    run: Named,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete it; without this nothing is.")
    ] = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """Delete a run's folder. What others use stays; `edgeres clean` frees the rest."""
    from edgeres.commands import runs as command
    from edgeres.text import runs as text

    show(command.deleted(run, yes, runs), as_json, text.deleted)


def clean(
    runs: Runs = DEFAULT_RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no run refers to, and unfinished work."""
    from edgeres.commands import housekeeping
    from edgeres.text import runs as text

    def tell(found: text.Cleaned) -> None:
        terminal.say(text.clean(found))

    show(housekeeping.cleaned(runs, dry_run, tell), as_json, text.cleaned)
