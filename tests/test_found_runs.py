"""Runs one can find again: how each stands, which is the newest, what may be changed."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import in_process
import pytest

from edgeres import disk, registry, run_state, runs
from edgeres.commands import chain
from edgeres.errors import BadInput, unknown

FIXTURE = Path(__file__).parent / "fixtures" / "run-v1.tar.xz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the stored run, under two names."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    (lock,) = tmp_path.glob("runs/*/recipe.lock.yaml")
    lock.parent.rename(tmp_path / "runs" / "first")
    return tmp_path / "runs"


def events(run: Path, *said: tuple[str, str]) -> None:
    with (run / "events.jsonl").open("a") as file:
        for step, what in said:
            event = {"time": "2026-11-26T10:00:00+00:00", "step": step, "event": what}
            file.write(f"{json.dumps(event)}\n")


def copied(folder: Path, name: str) -> Path:
    """The first run again, touched last."""
    shutil.copytree(folder / "first", folder / name, symlinks=True)
    os.utime(folder / name / "events.jsonl")
    return folder / name


@pytest.mark.parametrize(
    ("said", "word", "step"),
    [
        ([("data", "started"), ("data", "done")], "done", ""),
        ([("data", "done"), ("verify", "done"), ("verify", "gate failed")], "failed", "verify"),
        ([("verify", "gate failed"), ("verify", "started"), ("verify", "done")], "done", ""),
        ([("data", "done"), ("teacher", "started")], "unfinished", "teacher"),
        ([("teacher", "started"), ("teacher", "cached"), ("export:a", "added")], "done", ""),
    ],
)  # fmt: skip
def test_the_last_event_of_each_step_tells_how_a_run_stands(
    said: list[tuple[str, str]], word: str, step: str, tmp_path: Path
) -> None:
    events(tmp_path, *said)
    with (tmp_path / "events.jsonl").open("ab") as file:  # a killed process, and a stranger
        file.write(b'[1]\n{"step": 3}\n\xff\n' + b"[" * 5000 + b'\n{"time": "2026')
    state = run_state.of(tmp_path)
    assert (state.word, state.step, state.at) == (word, step, "2026-11-26T10:00:00+00:00")


def test_a_run_in_which_nothing_happened_yet_is_unfinished(tmp_path: Path) -> None:
    assert str(run_state.of(tmp_path)) == "unfinished"
    (tmp_path / "artifacts" / "data").mkdir(parents=True)
    assert str(run_state.of(tmp_path)) == "done"


@pytest.mark.parametrize(
    "wrong", ["data=imagefolder:nowhere", "data=arrays:no.npz", "teacher.model=checkpoint:text.pth"]
)
def test_a_run_that_is_refused_before_any_work_leaves_no_folder(wrong: str, tmp_path: Path) -> None:
    """Also where earlier steps are made already, of another run."""
    (tmp_path / "text.pth").write_text("no weights")
    first = in_process.edgeres("run", "quickstart", "-q", "--until", "data", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    done = in_process.edgeres("run", "quickstart", "-q", "--set", wrong, cwd=tmp_path)
    assert done.returncode == 2 and wrong.rpartition(":")[2] in done.stderr
    (row,) = json.loads(in_process.edgeres("list", "runs", "--json", cwd=tmp_path).stdout)
    assert row["state"] == "done"


def test_a_quiet_command_doesnt_say_which_run_it_takes(folder: Path) -> None:
    for command in ("quantize", "prune", "export"):
        line = (command, "--set", "seed=one")
        said = in_process.edgeres(*line, cwd=folder.parent).stderr.splitlines()
        assert said[0].startswith("using ") and said[-1].startswith("edgeres: "), said
        quiet = in_process.edgeres(*line, "-q", cwd=folder.parent).stderr.splitlines()
        assert quiet == said[-1:]


def test_a_failed_run_is_listed_apart_and_is_never_the_newest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = copied(folder, "second")
    events(failed, ("verify", "done"), ("verify", "gate failed"))
    assert runs.find_run(None, folder).name == "first"
    assert "second is failed (verify); taking" in capsys.readouterr().err
    rows = json.loads(in_process.edgeres("list", "runs", "--json", cwd=folder.parent).stdout)
    assert [(row["run"], row["state"]) for row in rows] == [("second", "failed (verify)"),
                                                            ("first", "done")]  # fmt: skip
    assert rows[1]["date"] and rows[1]["data"] == "digits" and "%" in rows[1]["top-1"]
    assert rows[1]["source"].startswith("resnet")
    events(folder / "first", ("teacher", "started"))
    os.utime(failed / "events.jsonl")
    assert runs.find_run(None, folder).name == "second"  # nothing else: the last one, and said
    assert "it is the only one" in capsys.readouterr().err
    assert runs.find_run("first", folder).name == "first"


def test_show_note_rename_and_delete(folder: Path) -> None:
    home = folder.parent

    def edgeres(*line: str) -> tuple[int, str]:
        done = in_process.edgeres("runs", *line, cwd=home)
        return done.returncode, done.stdout + done.stderr

    code, text = edgeres("note", "first", "old\n labels\x1b[2J")
    assert code == 0 and "old labels" in text and "\x1b" not in text
    code, text = edgeres("rename", "first", "spring")
    assert code == 0 and (folder / "spring" / "recipe.lock.yaml").exists()
    assert runs.find_run("spring", folder).artifacts
    code, text = edgeres("show", "spring", "--json")
    assert json.loads(text)["note"] == "old labels\x1b[2J" and json.loads(text)["steps"]
    for name in ("spring", "../out", "a/b", "", ".x", "store", "spring-7a886b"):
        assert edgeres("rename", "spring", name)[0] == 2
    code, text = edgeres("delete", "spring")
    assert code == 2 and "--yes" in text and (folder / "spring").exists()
    assert edgeres("delete", "spring", "--yes")[0] == 0
    assert not (folder / "spring").exists() and any(folder.glob("store/*"))


def test_a_promoted_run_keeps_its_name_and_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.Entry(1, "stable", "promote", "first", {}, True, (), "", "2026")
    monkeypatch.setattr(registry, "current", lambda runs, channel: entry)
    for line in (("rename", "first", "other"), ("delete", "first", "--yes")):
        done = in_process.edgeres("runs", *line, cwd=folder.parent)
        assert done.returncode == 2 and "is promoted (stable, canary)" in done.stderr
    assert (folder / "first").exists()


def test_nothing_is_changed_through_a_link(folder: Path) -> None:
    (folder / "linked").symlink_to("first")
    for line in (
        ("rename", "linked", "other"),
        ("delete", "linked", "--yes"),
        ("note", "linked", "x"),
    ):
        done = in_process.edgeres("runs", *line, cwd=folder.parent)
        assert done.returncode == 2 and "is a link" in done.stderr


def test_what_is_exported_of_a_run_is_added_to_it(folder: Path) -> None:
    made = copied(folder, "second")
    for link in (folder / "first" / "artifacts").glob("export-*"):
        link.unlink()
    run = runs.open_run(folder / "first")
    assert chain._added(run, made) == str(run.path)
    added, both = runs.open_run(folder / "first").artifacts, runs.open_run(made).artifacts
    assert {s: a.digest for s, a in added.items()} == {s: a.digest for s, a in both.items()}
    assert run_state.of(run.path).whole
    for link in (folder / "first" / "artifacts").glob("export-*"):
        link.unlink()
    other = runs.open_run(folder / "first")
    other.artifacts["teacher"] = replace(other.artifacts["teacher"], digest="of another network")
    assert chain._added(other, made) is None


def test_a_note_is_read_as_anybody_s(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "note.txt").symlink_to("secret")
    assert run_state.note(tmp_path) == ""
    (tmp_path / "note.txt").unlink()
    (tmp_path / "note.txt").write_bytes(b"\xff" * 100_000)
    assert len(run_state.note(tmp_path)) <= 2000
    with pytest.raises(BadInput):
        runs.find_run("nothing", tmp_path)


def test_a_run_named_by_a_dot_or_from_elsewhere_is_as_safe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that a run is in says whether it is promoted, wherever the command stands."""
    digests = {step: a.digest for step, a in runs.find_run("first", folder).artifacts.items()}
    registry.promote(folder, "stable", "first", digests, (), "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = sorted(p.name for p in (folder / "first").iterdir())
    for cwd, name in ((folder / "first", "."), (folder / "first" / "artifacts", ".."),
                      (elsewhere, str(folder / "first"))):  # fmt: skip
        for line in (("delete", name, "--yes"), ("rename", name, "other")):
            done = in_process.edgeres("runs", *line, cwd=cwd)
            assert done.returncode == 2 and "is promoted (stable)" in done.stderr
    assert sorted(p.name for p in (folder / "first").iterdir()) == kept
    monkeypatch.chdir(folder / "first")
    assert runs.find_run(".", folder).name == "first"


def test_nothing_rolls_back_to_a_run_that_is_gone_or_changed(folder: Path) -> None:
    second = copied(folder, "second")
    for name in ("first", "second"):
        digests = {step: a.digest for step, a in runs.find_run(name, folder).artifacts.items()}
        registry.promote(folder, "stable", name, digests, (), "")
    assert second.exists()
    (folder / "first").rename(folder / "away")
    done = in_process.edgeres("rollback", cwd=folder.parent)
    assert done.returncode == 2 and "first: was promoted to stable and is gone" in done.stderr
    (folder / "away").rename(folder / "first")
    link = next(p for p in (folder / "first" / "artifacts").iterdir() if "verify" in p.name)
    link.unlink()
    done = in_process.edgeres("rollback", cwd=folder.parent)
    assert done.returncode == 2 and "isn't any more what was promoted" in done.stderr
    assert len(registry.history(folder, "stable")) == 2


def test_an_exported_file_replaces_what_is_there(tmp_path: Path) -> None:
    """Nothing is written through a link, and nothing of an old package stays."""
    kept, out = tmp_path / "kept", tmp_path / "out"
    kept.write_bytes(b"mine")
    out.mkdir()
    (tmp_path / "net.tflite").write_bytes(b"new")
    (out / "net.tflite").symlink_to(kept)
    disk.copy_whole(tmp_path / "net.tflite", out / "net.tflite")
    assert kept.read_bytes() == b"mine" and (out / "net.tflite").read_bytes() == b"new"
    package, old = tmp_path / "net.mlpackage", out / "net.mlpackage"
    for folder, name in ((package, "new"), (old, "old")):
        folder.mkdir()
        (folder / name).write_text(name)
    disk.copy_whole(package, old)
    assert disk.file_sha256(old) == disk.file_sha256(package)
    assert sorted(p.name for p in out.iterdir()) == ["net.mlpackage", "net.tflite"]


def test_two_files_for_one_target_are_not_one(folder: Path) -> None:
    """Neither is passed over in silence; nor is what stands beside a run or a bundle."""
    (file,) = (folder / "first" / "artifacts").glob("export-tflite-int8/*.tflite")
    good = folder.parent / "good.tflite"
    shutil.copy(file, good)
    for line, says in (
        ((str(good), str(good)), "is the second file for tflite-int8"),
        (("first", str(good)), "a run is verified alone"),
        (("--against", "first"), "a run is verified alone"),
    ):
        done = in_process.edgeres("verify", *line, cwd=folder.parent)
        assert done.returncode == 2 and says in done.stderr, done.stderr


def test_a_name_that_may_be_a_file_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown run 'net'; there is none yet"):
        runs.find_run("net", tmp_path)
    with pytest.raises(BadInput, match=r"unknown run or file 'net\.tflite'"):
        runs.find_run("net.tflite", tmp_path)


def test_many_names_are_cut_short() -> None:
    said = str(unknown("run", "x", (f"run-{n:03}" for n in range(100))))
    assert "run-029 and 70 more" in said and "run-030" not in said
