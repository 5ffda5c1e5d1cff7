"""What brings runtimes that edgeres asks, and takes them away."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeres import terminal
from edgeres.commands import complete

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="RUNTIME",
        help="See `edgeres list runtimes`.",
        autocompletion=complete.runtimes,
    ),
]


def install(
    names: Names,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You read the runtime's own licence.")
    ] = False,
) -> None:
    """Install runtimes, each in an environment of its own.

    Needs a package index, once.
    """
    from edgeres import runtimes

    for name in names:
        runtimes.load(name)  # a typo is told before the first one is installed
    for name in names:
        runtimes.install(name, accept_licence, terminal.out)


def remove(names: Names) -> None:
    """Delete runtimes' environments."""
    from edgeres import runtimes

    for name in names:
        gone = runtimes.remove(name)
        also = f", and with it {', '.join(others)}" if (others := runtimes.sisters(name)) else ""
        terminal.out(f"{name}: {f'removed{also}' if gone else 'there was nothing to remove'}")
