"""Promotions: refused where gates fail, undone step by step, and whole whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeres import registry
from edgeres.errors import BadInput, GateFailed

PROMOTE = """
import sys
from pathlib import Path
from edgeres import registry
for i in range(int(sys.argv[2])):
    registry.promote(Path(sys.argv[1]), "stable", f"run-{i}", {"export": "0" * 64}, (), "")
"""


def promote(runs: Path, name: str, channel: str = "stable", findings: tuple = (), why: str = ""):
    return registry.promote(runs, channel, name, {"export": name}, findings, why)


def test_rollback_undoes_one_promotion_after_the_other(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        promote(tmp_path, name)
    promote(tmp_path, "other", "canary")
    assert registry.current(tmp_path, "stable").run == "c"
    assert registry.rollback(tmp_path, "stable", "too slow").run == "b"
    assert registry.rollback(tmp_path, "stable", "").run == "a"
    with pytest.raises(BadInput, match="no earlier run"):
        registry.rollback(tmp_path, "stable", "")
    promote(tmp_path, "d")
    assert registry.rollback(tmp_path, "stable", "").run == "a"
    assert registry.current(tmp_path, "canary").run == "other"
    entries = registry.history(tmp_path)
    assert [e.number for e in entries] == list(range(1, 9))
    assert entries[4].reason == "too slow"


def test_gates_that_fail_need_a_reason_which_is_kept(tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"agreement 0\.9, needs"):
        promote(tmp_path, "a", findings=("agreement 0.9, needs >= 0.99",))
    assert registry.current(tmp_path, "stable") is None
    entry = promote(tmp_path, "a", findings=("agreement 0.9, needs >= 0.99",), why="a demo")
    assert (entry.passed, entry.reason) == (False, "a demo")
    assert registry.current(tmp_path, "stable") == entry
    with pytest.raises(BadInput, match="no channel 'prod'"):
        promote(tmp_path, "a", "prod")


def test_killed_in_the_middle_the_registry_is_whole(tmp_path: Path) -> None:
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        before = len(registry.history(tmp_path))
        with subprocess.Popen([sys.executable, "-c", PROMOTE, tmp_path, "100000"]) as busy:
            while len(list((tmp_path / "registry").glob("0*.json"))) <= before:
                time.sleep(0.01)
            time.sleep(pause)
            busy.send_signal(signal.SIGKILL)
        entries = registry.history(tmp_path)  # every entry can be read
        assert [e.number for e in entries] == list(range(1, len(entries) + 1))
        assert len(entries) > before
    assert promote(tmp_path, "after").number == len(entries) + 1


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", PROMOTE, tmp_path, "40"]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert [e.number for e in registry.history(tmp_path)] == list(range(1, 81))


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    promote(tmp_path, "a")
    (tmp_path / "registry" / "000001.json").write_text("{}")
    with pytest.raises(BadInput, match=r"000001\.json"):
        registry.current(tmp_path, "stable")
