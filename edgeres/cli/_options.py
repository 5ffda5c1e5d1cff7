"""What several commands take, and how every one of them answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand
from typer.models import ArgumentInfo, OptionInfo

from edgeres import terminal
from edgeres.commands import complete
from edgeres.errors import BadInput

Runs = Annotated[Path, typer.Option("--runs", envvar="EDGERES_RUNS", help="Folder of runs.")]
DEFAULT_RUNS = Path("runs")
Run = Annotated[str | None, typer.Argument(help="A run, or @stable; the newest if left out.")]
Model = Annotated[
    str | None,
    typer.Argument(
        help="A run, an artifact folder, a checkpoint file or SOURCE:NAME "
        "(torchvision:resnet18, pretrained:cifar10-resnet8); newest run if left out."
    ),
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


def _allow(value: bool) -> bool:
    from edgeres import devices

    devices.allow_programs(value)
    return value


Programs = Annotated[
    bool,
    typer.Option(
        "--allow-device-programs",
        callback=_allow,
        help="Trust the programs and ssh settings in device profiles that are not your own.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", help="Of a checkpoint's input, as pixel / 255: 0.5 or R,G,B."),
]
Std = Annotated[
    str | None,
    typer.Option("--std", help="The same: what the difference is divided by."),
]
Size = Annotated[
    int | None,
    typer.Option("--size", min=8, help="Pixels of a checkpoint's input, if not the data's."),
]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        help="mean and std by name: imagenet, cifar, half (-1 to 1), unit (0 to 1), pixels (0 to "
        "255), edgeres.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="raw or ema, where a checkpoint holds both; default ema."),
]
NewHead = Annotated[
    bool,
    typer.Option("--new-head", help="Train a new last layer; for as many, but other classes."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="How many epochs are trained.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate of the training.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images per step.")]
ImageSize = Annotated[
    int | None,
    typer.Option("--imgsz", min=8, help="Pixels of the data's images."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _hush(command: typer.Context, value: bool) -> bool:
    terminal.hush(value)
    command.call_on_close(lambda: terminal.hush(False))
    return value


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_hush, help="Say nothing but the result."),
]


_WORDS = {int: "INTEGER", float: "FLOAT", Path: "PATH"}


class Command(TyperCommand):
    """A command whose help shows an argument by its name alone, without Python's type."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]


def labelled(command: Any) -> Any:
    """The command, whose help says of each option what it takes: TEXT, INTEGER, FLOAT, PATH.

    An argument without a name of its own is shown by its parameter's: RUN, FILE.
    """
    command.__annotations__ = get_type_hints(command, include_extras=True)
    for name, hint in command.__annotations__.items():
        kind, *infos = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        for info in infos:
            if isinstance(info, OptionInfo) and info.metavar is None and kind is not bool:
                kinds = [k for k in get_args(kind) if k is not type(None)] or [kind]
                info.metavar = _WORDS.get(kinds[0], "TEXT")
            elif isinstance(info, ArgumentInfo) and info.metavar is None:
                info.metavar = name.upper()
    return command


def split(option: str, given: list[str] | None, where: str) -> tuple[str, ...]:
    """The names of an option that may be repeated, or hold several with commas.

    Args:
        where: what shows them.

    Raises:
        BadInput: it is given, and names nothing.
    """
    parts = [name.strip() for text in given or () for name in text.split(",")]
    if given is not None and not any(parts):
        raise BadInput(f"{option} names nothing; {where} shows what there is")
    return tuple(dict.fromkeys(name for name in parts if name))


def show(result: object, as_json: bool, text: Callable[..., str]) -> None:
    """Print a result: as one JSON document, or as `text` puts it.

    The texts in a result may be anybody's: escaped, none of them adds a line.
    """
    if as_json:
        terminal.out(json.dumps(result, indent=1).replace("\x7f", "\\u007f"))
    else:
        terminal.out(text(terminal.cleaned(result)))
