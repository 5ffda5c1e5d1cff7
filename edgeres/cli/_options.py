"""What several commands take, and how every one of them answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeres import terminal
from edgeres.commands import complete

Runs = Annotated[Path, typer.Option("--runs", envvar="EDGERES_RUNS", help="Folder of runs.")]
DEFAULT_RUNS = Path("runs")
Run = Annotated[str | None, typer.Argument(help="A run, or @stable; the newest if left out.")]
Model = Annotated[
    str | None,
    typer.Argument(help="A run, an artifact folder or a checkpoint file; newest run if left out."),
]
Architecture = Annotated[
    str | None,
    typer.Option("--model", help="Architecture of a checkpoint file, e.g. resnet56-A."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME[:PATH]",
        help="Data set; see `edgeres list datasets`.",
        autocompletion=complete.datasets,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. seed=1."),
]


def _allow(value: bool) -> None:
    from edgeres import devices

    devices.allow_programs(value)


Programs = Annotated[
    bool,
    typer.Option(
        "--allow-device-programs",
        callback=_allow,
        help="Trust the programs and ssh settings in device profiles that are not your own.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")]


def show(result: Any, as_json: bool, text: Any) -> None:
    """Print a result: as one JSON document, or as `text` puts it.

    The texts in a result may be anybody's: escaped, none of them adds a line.
    """
    if as_json:
        terminal.out(json.dumps(result, indent=1).replace("\x7f", "\\u007f"))
    else:
        terminal.out(text(terminal.cleaned(result)))
