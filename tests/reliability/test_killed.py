"""The short form of the kill harness, with a full disk and other hardships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the harness says of a kill of each kind in one life."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, HARNESS, "--short", "--kills", "4", "--per-life", "4", "--seed", "1",
               "--hardships", "--folder", folder]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_killed_four_times_it_ends_with_the_same_bytes(outcome: dict[str, Any]) -> None:
    assert outcome["faults"] == []
    assert sum(outcome["kills"].values()) == 4
    assert set(outcome["kills"]) == {"moment", "storage", "rename", "pair"}
    assert outcome["completed"] >= 1
    assert outcome["largest_orphan_bytes"] <= outcome["largest_artifact_bytes"]


@pytest.mark.parametrize(
    "name", ["a_full_disk", "a_read_only_store", "a_wrong_clock", "no_more_processes"]
)
def test_a_hardship_is_a_sentence_and_then_the_run_completes(
    name: str, outcome: dict[str, Any]
) -> None:
    came_of_it = outcome["hardships"][name]
    if came_of_it.startswith("skipped"):
        pytest.skip(came_of_it)
    assert came_of_it == "passed"
