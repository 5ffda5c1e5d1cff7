"""What looks at this machine and what edgeres brings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeres import terminal
from edgeres.cli._options import DEFAULT_RUNS, Data, ImageSize, Json, Programs, Runs, show, split
from edgeres.commands import complete


def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="recipes, models, datasets, losses, teachers, pretrained, targets, runtimes, "
            "devices or runs.",
            autocompletion=complete.lists,
        ),
    ],
    schema: Annotated[
        bool, typer.Option("--schema", help="With recipes: print their JSON schema.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="With recipes: print every key, as Markdown.")
    ] = False,
    runs: Runs = DEFAULT_RUNS,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from edgeres import listing

    if keys:
        from edgeres.recipe.reference import reference

        show({"page": reference()}, as_json, lambda result: "\n".join(result["page"]))
    elif schema:
        from edgeres.recipe import schema as recipe_schema

        show(recipe_schema(), True, str)
    else:
        show(listing.rows(what, runs), as_json, listing.text)


def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    base: Annotated[
        str,
        typer.Option(
            "--from", help="Shipped recipe to start from.", autocompletion=complete.recipes
        ),
    ] = "quickstart",
    data: Data = None,
    imgsz: ImageSize = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="The big network.", autocompletion=complete.models),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="The small network.", autocompletion=complete.models),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A file to write; repeat, or name,name.", autocompletion=complete.targets
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to measure; repeat, or name,name.", autocompletion=complete.devices
        ),
    ] = None,
    _programs: Programs = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Write a commented recipe of your own to start from.

    At a terminal it asks a few questions, unless an option answers one of them.
    """
    from edgeres.commands import start

    targets = split("--target", target, "`edgeres list targets`")
    devices = split("--device", device, "`edgeres list devices`")
    answers = start.Answers(data, imgsz, teacher, student, targets, devices)
    if answers == start.Answers() and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        answers = start.asked(base)
    terminal.out(start.initialized(file, base, answers))


def doctor(runs: Runs = DEFAULT_RUNS, as_json: Json = False) -> None:
    """Say what is installed here, and what is missing.

    Packages, programs, memory, disk and GPU.
    """
    from edgeres.commands import doctor as command

    show(command.rows(runs), as_json, command.text)


def probe(
    name: Annotated[str, typer.Argument(help="A device; see `edgeres list devices`.")],
    _programs: Programs = False,
    as_json: Json = False,
) -> None:
    """Say what a device is, how it is doing, and what it lacks."""
    from edgeres.commands import devices
    from edgeres.text import here as text

    show(devices.probed(name), as_json, text.device)


def discover(as_json: Json = False) -> None:
    """List attached phones, and the hosts of ~/.ssh/config."""
    from edgeres import listing
    from edgeres.commands import devices

    show(devices.discovered(), as_json, listing.text)
