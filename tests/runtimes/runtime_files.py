"""What tests of runtimes share."""

from __future__ import annotations

import pytest

from edgeres import runtimes

IMAGES = 24


def needs(name: str) -> None:
    """Skip what asks a runtime that isn't here, and say why."""
    if why := runtimes.missing(name):
        pytest.skip(f"{name}: {why}")
