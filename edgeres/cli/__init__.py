"""Every command's signature and help. Bodies import, make one call and print.

Results go to stdout (one JSON document with --json), everything else to stderr.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
import warnings
from typing import Annotated

import typer

from edgeres import __version__, terminal
from edgeres.cli import _ctrl_c, _limits, chain, files, here, runs, runtimes
from edgeres.cli._options import Command, labelled
from edgeres.commands import examples
from edgeres.errors import EdgeresError

_COMMANDS = (
    chain.run, chain.step, chain.distill, chain.prune, chain.search, chain.quantize, chain.export,
    files.diagnose, files.recalibrate, files.inspect, files.verify, files.benchmark,
    files.compare, files.check, runs.bundle, runs.trust, runs.drift, runs.promote,
    runs.rollback, runs.history, runs.report, runs.track, here.list_, here.init, here.doctor,
    runs.clean,
)  # fmt: skip
_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="edgeres", no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings=_OPTIONS,
    help="Distill, prune, quantize, export, verify and benchmark networks for edge devices.",
    epilog=examples.epilog("edgeres"),
)  # fmt: skip
_devices = typer.Typer(
    help="Look at devices.", no_args_is_help=True, context_settings=_OPTIONS, rich_markup_mode=None
)
_runs = typer.Typer(
    help="Look at runs, and keep order among them.", no_args_is_help=True,
    context_settings=_OPTIONS, rich_markup_mode=None,
)  # fmt: skip
_runtimes = typer.Typer(
    help="Install runtimes that files are asked on.", no_args_is_help=True,
    context_settings=_OPTIONS, rich_markup_mode=None,
)  # fmt: skip
_OF_RUNS = (runs.show_, runs.note, runs.rename, runs.delete)
for _group, _functions in (
    (app, _COMMANDS), (_devices, (here.probe, here.discover)), (_runs, _OF_RUNS),
    (_runtimes, (runtimes.install, runtimes.remove)),
):  # fmt: skip
    for _function in _functions:
        _name = _function.__name__.rstrip("_")
        _group.command(_name, cls=Command, epilog=examples.epilog(_name))(labelled(_function))
app.command("bench", cls=Command, hidden=True, epilog=examples.epilog("benchmark"))(files.benchmark)
app.add_typer(_devices, name="devices")
app.add_typer(_runs, name="runs")
app.add_typer(_runtimes, name="runtimes")


def _version(value: bool) -> None:
    if value:
        terminal.out(f"edgeres {__version__}")
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
    """Run the command line; every error becomes a sentence and an exit code."""
    if not sys.warnoptions and not os.environ.get("EDGERES_DEBUG"):
        warnings.simplefilter("ignore")  # libraries warn developers, not people
    with terminal.prepared():
        code = _run()
        if code == 130:
            terminal.say("")
            terminal.complain("interrupted; the same command continues from here")
    sys.exit(code)


def _run() -> int:
    """The exit code of the command; what stops it is told."""
    with _ctrl_c.noticed() as interrupted:
        try:
            code = app(standalone_mode=False)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except Exception as error:
            _debug()
            return 130 if interrupted() else _told(error)


def _debug() -> None:
    if os.environ.get("EDGERES_DEBUG"):
        for line in traceback.format_exc().splitlines():
            terminal.say(line)


def _told(error: Exception) -> int:
    """The exit code of an error, which is told."""
    if isinstance(error, EdgeresError):
        terminal.complain(str(error))
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of typer: bad usage
        usage = io.StringIO()
        error.show(usage)  # type: ignore[attr-defined]
        for line in usage.getvalue().splitlines():
            terminal.say(line)
        return int(error.exit_code)
    if refused := _limits.sentence(error):
        terminal.complain(refused)
        return _limits.EXIT_CODE
    terminal.complain(_unexpected(error))
    return 1


def _unexpected(error: Exception) -> str:
    """Keep the traceback of a bug in a file, and say where."""
    first = (str(error).splitlines() or [""])[0][:200]
    said = f"unexpected {type(error).__name__}: {first}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="edgeres-error-", suffix=".log", delete=False,
            encoding="utf-8", errors="backslashreplace",
        ) as log:  # fmt: skip
            log.write(f"edgeres {__version__}\n{sys.argv}\n\n{traceback.format_exc()}")
    except OSError:
        return f"{said}; --debug shows the traceback"
    return f"{said}; the traceback is in {log.name}"
