"""Modules of edgeres in processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

_START = ("import runpy, sys; sys.path[:] = [*filter(None, sys.path), {root!r}]; "
          "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)")  # fmt: skip


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module, as `python -m` does, but loads nothing from the working folder.

    Python would look there first: a `numpy.py` that lies beside somebody's model would run.
    """
    root = str(Path(__file__).resolve().parents[1])
    return [sys.executable, "-c", _START.format(root=root, module=module), *arguments]
