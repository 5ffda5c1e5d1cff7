"""The short form of the long work: memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("long_work.py")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What each kind of work took."""
    command = [sys.executable, SCRIPT, "--epochs", "40", "--queries", "2000", "--runs", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("work", ["training", "runs", "queries"])
def test_memory_stays_flat(work: str, found: dict[str, Any]) -> None:
    """An epoch or a run that keeps 0.2 MB would be found."""
    row = found[work]
    assert row["pieces"] >= 20
    assert row["growth_mb"] < 4, row
