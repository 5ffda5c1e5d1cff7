"""Combinations by turns: a commit tests some of them, `make test-matrix` all.

For networks and seeds that go through code which other tests have, too: not for formats, runtimes
or errors, each of which has code of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest


def by_turns(options: Iterable[Any], out_of: int) -> list[Any]:
    """Parameters of which every `out_of`-th is tested; the others skip, and say how to ask them."""
    return [
        pytest.param(
            *(option if isinstance(option, tuple) else (option,)),
            marks=[pytest.mark.turns, *_skip(place % out_of, out_of)],
        )
        for place, option in enumerate(options)
    ]


def _skip(turn: int, out_of: int) -> list[pytest.MarkDecorator]:
    if "EDGERES_MATRIX" in os.environ or _turn() % out_of == turn:
        return []
    why = f"another commit's turn: EDGERES_TURN={turn}, or `make test-matrix`"
    return [pytest.mark.skip(reason=why)]


@cache
def _turn() -> int:
    """The environment's number, else the commit's, else 0."""
    if said := os.environ.get("EDGERES_TURN"):
        return int(said)
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, check=False
    )
    return int(asked.stdout or b"0", 16)
