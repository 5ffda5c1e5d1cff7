"""Profiles: the shipped ones load, wrong ones are refused with file, key and mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeres import devices
from edgeres.errors import BadInput

GOOD = "name: board\nkind: local\ndescription: a board\n"


def test_the_shipped_profiles_are_named_like_their_files() -> None:
    assert "host" in devices.names()
    assert [p.name for p in devices.profiles()] == devices.names()
    assert {p.kind for p in devices.profiles()} <= set(devices.kinds())
    assert all(p.description for p in devices.profiles())


def test_a_profile_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: board\nkind: ssh\ndescription: x\nthreads: 4\nemulated: true\n"
                    "runners: [python]\nsettings: {host: pi}\n")  # fmt: skip
    profile = devices.load(path)
    assert (profile.name, profile.threads, profile.emulated) == ("board", 4, True)
    assert profile.settings == {"host": "pi"} and profile.runners == ("python",)
    assert devices.load(str(path)) == profile


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown device 'hots' \(did you mean 'host'\?\)"):
        devices.load("hots")


@pytest.mark.parametrize("name", ["../host", "/etc/passwd", "", "host/../host"])
def test_a_name_is_no_way_out_of_the_folder(name: str) -> None:
    with pytest.raises(BadInput, match="unknown device"):
        devices.load(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it needs name, kind"),
        ("- a\n- b\n", "should hold `key: value` lines"),
        ("name: [\n", r":2:1: not valid YAML"),
        (GOOD + "treads: 2\n", r"unknown key 'treads' \(did you mean 'threads'\?\)"),
        (GOOD + "1: 2\n", "unknown key '1'"),
        (GOOD + "threads: '2'\n", "threads must be a whole number"),
        (GOOD + "threads: true\n", "threads must be a whole number"),
        (GOOD + "threads: 0\n", "threads must be between 1 and 1024"),
        (GOOD + "settings: [a]\n", "settings must be a mapping"),
        ("kind: local\ndescription: a\n", "the key 'name' is missing"),
        ("name: a/../b\nkind: local\ndescription: a\n", "name must be letters"),
        (GOOD + "settings: !!python/object/apply:os.system [ls]\n", "tag .* is not allowed"),
        (GOOD + "<<: {threads: 2}\n", r":4: a merge key \(<<\) is not read"),
        (GOOD + f"settings: {'[' * 20_000}\n", "more than 32 levels deep"),
        (GOOD + "# " + "x" * 70_000, "larger than 64 KiB"),
    ],
)
def test_a_wrong_profile_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        devices.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_aliases_that_multiply_are_survived(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(levels))
    with pytest.raises(BadInput, match="more than 10,000 values"):
        devices.load(path)


def test_bytes_that_are_no_text_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(BadInput, match="not a text file in UTF-8"):
        devices.load(path)
    with pytest.raises(BadInput, match="no such file"):
        devices.load(tmp_path / "missing.yaml")
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        devices.load(folder)


def test_hosts_of_the_ssh_configuration_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeres.devices import ssh

    monkeypatch.setenv("HOME", str(tmp_path))
    assert ssh.discover() == []
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host pi jetson-1\n  HostName 10.0.0.5\nHost *.local !x -oProxyCommand=evil\nhost=nas\n"
    )
    names = [found["device"] for found in ssh.discover()]
    assert names == ["board@pi", "board@jetson-1", "board@nas"]


def test_the_same_profile_at_another_place() -> None:
    profile = devices.load("board@pi.local")
    assert (profile.name, profile.settings["host"]) == ("board-pi.local", "pi.local")
    hostile = devices.load("phone@x; touch $(y)\n")
    assert hostile.settings["serial"] == "x; touch $(y)\n"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", hostile.name)
    with pytest.raises(BadInput, match="no other place"):
        devices.load("host@x")
