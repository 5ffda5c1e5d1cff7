"""Every command's signature and help. Bodies import, make one call and print.

Results go to stdout (one JSON document with --json), everything else to stderr.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from edgeres import __version__
from edgeres.cli import chain, files, here, runs
from edgeres.commands import examples
from edgeres.errors import EdgeresError

_COMMANDS = (
    chain.run, chain.distill, chain.prune, chain.search, chain.quantize, chain.export,
    files.diagnose, files.recalibrate, files.inspect, files.verify, files.benchmark,
    files.compare, files.check, runs.bundle, runs.trust, runs.drift, runs.promote,
    runs.rollback, runs.history, runs.report, runs.track, here.list_, here.init, here.doctor,
    runs.clean,
)  # fmt: skip
_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="edgeres", no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings=_OPTIONS,
    help="Distill, prune, quantize, export, verify and benchmark ResNets for edge devices.",
    epilog=examples.epilog("edgeres"),
)  # fmt: skip
_devices = typer.Typer(
    help="Look at devices.", no_args_is_help=True, context_settings=_OPTIONS, rich_markup_mode=None
)
for _group, _functions in ((app, _COMMANDS), (_devices, (here.probe, here.discover))):
    for _function in _functions:
        _name = _function.__name__.rstrip("_")
        _group.command(_name, epilog=examples.epilog(_name))(_function)
app.command("bench", hidden=True, epilog=examples.epilog("benchmark"))(files.benchmark)
app.add_typer(_devices, name="devices")


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


def main() -> None:
    """Run the command line; expected errors become one sentence and an exit code."""
    if not sys.warnoptions and not os.environ.get("EDGERES_DEBUG"):
        warnings.simplefilter("ignore")  # libraries warn developers, not people
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
