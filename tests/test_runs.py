"""Run folders: names, links, and what one bad run does to the others."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import stored

from edgeres import listing, runs
from edgeres.artifact import load
from edgeres.commands import housekeeping, registry, track
from edgeres.datasets import _store
from edgeres.errors import BadInput, StorageError
from edgeres.recipe import Recipe, dump
from edgeres.recipe import load as load_recipe
from edgeres.runs import Run, all_runs, begin, event, find_run, link, run_folder, store_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return stored.unpacked(tmp_path)


def recipe(seed: int = 0) -> Recipe:
    return load_recipe("quickstart", [f"seed={seed}"])


def unneeded(folder: Path) -> set[str]:
    """The stages of what `clean` would remove."""
    rows = housekeeping.cleaned(folder, dry_run=True)["artifacts"]
    return {row["artifact"].partition("-")[0] for row in rows}


def test_a_name_has_twelve_digits_and_goes_on(tmp_path: Path) -> None:
    path = run_folder(recipe(), tmp_path)
    assert len(path.name.rpartition("-")[2]) == 12
    begin(Run(path), recipe())
    assert run_folder(recipe(), tmp_path) == path
    assert run_folder(recipe(1), tmp_path) != path


def test_an_older_versions_name_goes_on_if_its_recipe_is_equal(tmp_path: Path) -> None:
    new = run_folder(recipe(), tmp_path)
    old = tmp_path / new.name[:-6]
    begin(Run(old), recipe())
    assert run_folder(recipe(), tmp_path) == old
    (old / runs.LOCK).write_text(dump(recipe(1)))  # as two recipes of one name had it
    assert run_folder(recipe(), tmp_path) == new


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path = run_folder(recipe(), tmp_path)
    begin(Run(path), recipe(1))
    with pytest.raises(StorageError, match="holds another recipe than its name says"):
        run_folder(recipe(), tmp_path)


@pytest.mark.parametrize("place", ["archive", ".hidden", "a/b/c"])
def test_a_run_that_was_moved_keeps_its_artifacts_and_works(place: str, run: Path) -> None:
    folder = run.parent
    (folder / place).mkdir(parents=True)
    moved = run.rename(folder / place / run.name)
    assert unneeded(folder) == set()
    assert len(find_run(str(moved), folder).artifacts) == 9
    shutil.rmtree(moved)
    assert {"data", "teacher", "report"} <= unneeded(folder)


def test_clean_knows_every_folder_of_runs_that_uses_the_store(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "store").symlink_to(run.parent / "store")
    store_of(other).open().remember(other)
    begin(Run(other / "mine"), recipe())
    link(Run(other / "mine"), "data", load(stored.artifact_of(run, "data")))
    shutil.rmtree(run)
    assert "data" not in unneeded(run.parent)
    assert "data" not in unneeded(other)
    assert "teacher" in unneeded(other)
    away = other.rename(tmp_path / "away")
    with pytest.raises(StorageError, match=r"other: has runs that use .* bring it back"):
        housekeeping.cleaned(run.parent, dry_run=False)
    away.rename(other)
    told: list[dict] = []
    housekeeping.cleaned(run.parent, False, lambda found: told.append(
        {**found, "there": [(run.parent / "store/artifacts" / row["artifact"]).exists()
                            for row in found["artifacts"]]}))  # fmt: skip
    assert told[0]["artifacts"] and all(told[0]["there"]), "said before it is done"
    assert load(stored.artifact_of(other / "mine", "data"))


def test_clean_of_a_folder_that_moved_with_its_store(run: Path, tmp_path: Path) -> None:
    store_of(run.parent).open().remember(run.parent)
    moved = run.parent.rename(tmp_path / "elsewhere")
    assert unneeded(moved) == set()


def _gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _folder(path: Path) -> None:
    _gone(path)
    path.mkdir()


def _pipe(path: Path) -> None:
    _gone(path)
    os.mkfifo(path)


def _to(path: Path, target: str) -> None:
    _gone(path)
    path.symlink_to(target)


def _described(run: Path, step: str, text: str) -> None:
    (stored.artifact_of(run, step) / "artifact.json").write_text(text)


def _filed(path: Path, data: bytes) -> None:
    _gone(path)
    path.write_bytes(data)


BAD = {
    "artifact.json": lambda run: _described(run, "teacher", "{"),
    "nested": lambda run: _described(run, "data", "[" * 10**5),
    "recipe is a folder": lambda run: _folder(run / runs.LOCK),
    "recipe is a pipe": lambda run: _pipe(run / runs.LOCK),
    "recipe is binary": lambda run: _filed(run / runs.LOCK, b"\xff\xfe"),
    "dangling": lambda run: _to(run / "artifacts" / "data", "../../nowhere"),
    "artifacts is a link": lambda run: _to(run / "artifacts", "/"),
    "artifacts is a file": lambda run: _filed(run / "artifacts", b""),
    "a stranger": lambda run: (run / "artifacts" / "what").write_text("x"),
}


@pytest.mark.parametrize("how", BAD)
def test_one_bad_run_stops_nobody_else(
    how: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.parent
    good = folder / "good"
    shutil.copytree(run, good, symlinks=False)
    os.utime(good / "events.jsonl", (1, 1))  # the bad one is newer
    BAD[how](run)
    rows = {row["run"]: row["state"] for row in listing.rows("runs", folder)}
    if "recipe" not in how:
        assert rows["good"] == "done" and rows[run.name].startswith("damaged: ")
    assert find_run(None, folder).name == "good"
    assert "the newest run is passed over: " in capsys.readouterr().err
    housekeeping.cleaned(folder, dry_run=False)
    assert registry.promoted("good", "stable", "", folder)["passed"]
    assert find_run("@stable", folder).name == "good"
    with pytest.raises(BadInput):
        find_run(run.name, folder).recipe  # noqa: B018


@pytest.mark.parametrize("name", ["report.html", "report.json", "events.jsonl", runs.LOCK])
def test_nothing_is_written_through_a_link(name: str, run: Path, tmp_path: Path) -> None:
    (secret := tmp_path / "authorized_keys").write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(secret)
    for write in (
        lambda: housekeeping.reported(run.name, run.parent),
        lambda: begin(Run(run), recipe()),
        lambda: event(Run(run), step="x"),
    ):
        with contextlib.suppress(StorageError):
            write()
    assert secret.read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", runs.LOCK])
def test_no_link_is_uploaded(name: str, run: Path) -> None:
    (run / name).unlink()
    (run / name).symlink_to("/etc/hostname")
    with pytest.raises(StorageError, match="is a link"):
        track.tracked(run.name, "mlflow", "x", run.parent)


@pytest.mark.parametrize("name", ["", "artifacts"])
def test_a_run_folder_that_is_a_link_is_read_at_most(name: str, run: Path, tmp_path: Path) -> None:
    real = (run / name).rename(tmp_path / "real")
    (run / name).symlink_to(real)
    before = sorted(real.rglob("*"))
    for write in (lambda: begin(Run(run), recipe()), lambda: event(Run(run), step="x"),
                  lambda: housekeeping.reported(run.name, run.parent)):  # fmt: skip
        with pytest.raises(StorageError, match="is a link"):
            write()
    assert sorted(real.rglob("*")) == before


def test_a_killed_writer_leaves_nothing_for_long(run: Path) -> None:
    (run / ".report.html.0123.partial").write_text("x")
    (run / "artifacts" / ".data.4567.partial").symlink_to("x")
    begin(Run(run), load_recipe(run / runs.LOCK))
    assert not list(run.rglob(".*"))


def test_events_go_on_after_half_a_line(run: Path) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write('{"half')
    event(Run(run), step="x")
    lines = (run / "events.jsonl").read_text().splitlines()
    assert lines[-2] == '{"half' and json.loads(lines[-1])["step"] == "x"


def test_a_lock_file_extends_nothing(run: Path) -> None:
    (run / runs.LOCK).write_text("extends: /etc/shadow\nname: x\n")
    with pytest.raises(BadInput, match="extends"):
        all_runs(run.parent)[0].recipe  # noqa: B018


@pytest.mark.parametrize("odd", ["pipe", "link", "folder"])
def test_a_line_goes_to_a_plain_file_alone(tmp_path: Path, odd: str) -> None:
    """What stands where edgeres logs is refused in one sentence: nothing waits, nothing is written
    through."""
    log, elsewhere = tmp_path / "events.jsonl", tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    if odd == "pipe":
        os.mkfifo(log)
    elif odd == "link":
        log.symlink_to(elsewhere)
    else:
        log.mkdir()
    with pytest.raises(StorageError, match=r"events\.jsonl"):
        event(Run(tmp_path), step="x")
    assert elsewhere.read_text() == "mine"


def test_a_data_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    """Also where its hash fits: one sentence, no traceback."""
    (tmp_path / "data.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b'{"a": {}}       ' + b"rest")
    with pytest.raises(StorageError, match=r"data\.safetensors: isn't a whole safetensors file"):
        _store.read(tmp_path / "data.safetensors")
