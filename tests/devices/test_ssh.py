"""A board behind a real sshd: what runs there, what failures say, and that nothing stays."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beds.arm_board import ArmBoard

from edgeres import devices
from edgeres.devices import DeviceProfile, _process, _ssh_link, ssh
from edgeres.devices.ssh import SshDevice
from edgeres.errors import BadInput, DeviceError

HOSTILE = ["a b", "it's", 'say "hi"', "; touch hit", "$(touch hit)", "`touch hit`", "* ?", "\\",
           "new\nline; touch hit", "-rf", "grüße", "'; touch hit; '"]  # fmt: skip


def profile(arm_board: ArmBoard, **more: Any) -> DeviceProfile:
    settings = {"host": "cortex-a76", "config": str(arm_board.config), **more}
    return DeviceProfile("pi", "ssh", "", settings=settings)


@pytest.fixture(scope="module", autouse=True)
def sockets() -> Iterator[Path]:
    """Where ssh's sockets go: a folder of ours, with a short path."""
    with (
        tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def shared(arm_board: ArmBoard) -> Iterator[SshDevice]:
    """One connection for the tests that don't break it."""
    with ssh.connect(profile(arm_board)) as device:
        yield device


@pytest.fixture
def pi(shared: SshDevice, arm_board: ArmBoard) -> Iterator[SshDevice]:
    """The board; afterwards none of our programs runs there, and no argument was executed."""
    yield shared
    assert settles(lambda: not running(arm_board, "sleep"))
    assert not hit(arm_board)


def hit(arm_board: ArmBoard) -> list[Path]:
    """The canary, wherever a shell may have put it."""
    places = [arm_board.root / "home/pi", arm_board.root / "tmp", arm_board.root / "small"]
    return [path for place in [*places, Path.cwd()] for path in place.glob("**/hit")]


def settles(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def running(arm_board: ArmBoard, words: str) -> list[int]:
    """The processes on the board that were started with these words."""
    pattern = rf"(^|[ /]){re.escape(words)}\b"
    return [pid for pid, line in arm_board.processes().items()
            if re.search(pattern, line) and "/bin/sh" not in line]  # fmt: skip


def sessions(arm_board: ArmBoard, workdir: str = "home/pi/.cache/edgeres") -> set[str]:
    return {path.name for path in (arm_board.root / workdir).glob("*")}


def test_a_board_takes_runs_gives_and_describes(pi: SshDevice, tmp_path: Path) -> None:
    source = tmp_path / "data.txt"
    source.write_bytes(bytes(range(256)) * 5000)
    there = pi.push(source)
    assert pi.push(source) == there and there.endswith("-data.txt")
    copy = "import shutil, sys; shutil.copy(sys.argv[1], 'copy.txt'); print('ok'); sys.exit(7)"
    done = pi.run([*pi.python(), "-c", copy, there], 60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "ok\n", "")
    pi.pull("copy.txt", tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_bytes() == source.read_bytes()
    state = pi.probe()
    assert (state["machine"], state["emulated"]) == ("aarch64", True)
    assert state["cpu_model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert {"numpy", "onnxruntime", "ai-edge-litert"} <= set(state["runtimes"])
    assert state["throttled_now"] is None  # no firmware to ask
    assert re.fullmatch(r"ssh:127\.0\.0\.1:\d+", pi.address)


def test_one_machine_has_one_address(arm_board: ArmBoard, pi: SshDevice) -> None:
    port = arm_board.ports["cortex-a76"]
    other = _ssh_link.Address("127.0.0.1", port=port, config=str(arm_board.config))
    assert _ssh_link.resolved("other", other) == pi.address


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 128", 128), ("exit 255", 255)]
    + [(f"kill -{name} $$", -int(getattr(signal, f"SIG{name}")))
       for name in ("INT", "TERM", "KILL", "SEGV")],
)  # fmt: skip
def test_exit_codes_and_signals_are_true(pi: SshDevice, script: str, status: int) -> None:
    done = pi.run(["sh", "-c", f"echo out; printf err >&2; {script}"], 60)
    assert (done.returncode, done.stdout) == (status, "out\n")
    said = done.stderr.replace(
        "qemu: uncaught target signal 11 (Segmentation fault) - core dumped\n", ""
    )
    assert said == "err"


def test_arguments_never_meet_a_shell(pi: SshDevice) -> None:
    done = pi.run(["printf", "%s|", *HOSTILE], 60)
    assert done.stdout == "".join(f"{word}|" for word in HOSTILE)


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 200])
def test_files_with_any_name_arrive_and_come_back(pi: SshDevice, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.onnx").write_bytes(name.encode())
    there = pi.push(tmp_path / f"{name}.onnx")
    assert there.endswith(".onnx")
    pi.run(["cp", there, f"./{name}"], 60)
    pi.pull(name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == name.encode()


def test_files_that_are_not_there(pi: SshDevice, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"device 'pi': can't take .*missing.onnx"):
        pi.push(tmp_path / "missing.onnx")
    with pytest.raises(DeviceError, match=r"can't give out\.npy: .*No such file"):
        pi.pull("out.npy", tmp_path / "back.npy")
    with pytest.raises(DeviceError, match=r"can't start /no/such/program: .*not found"):
        pi.run(["/no/such/program"], 60)
    assert list(tmp_path.iterdir()) == []


def test_what_a_login_prints_is_no_part_of_anything(
    arm_board: ArmBoard, pi: SshDevice, tmp_path: Path
) -> None:
    rc = arm_board.root / "home/pi/.ssh/rc"
    rc.parent.mkdir(exist_ok=True)
    rc.write_text("echo welcome; echo welcome >&2\n")
    try:
        (tmp_path / "a").write_text("content")
        pi.pull(pi.push(tmp_path / "a"), tmp_path / "b")
        done = pi.run(["echo", "hello"], 60)
        with pi.held([["true"]]):
            pass
    finally:
        rc.unlink()
    assert (tmp_path / "b").read_text() == "content"
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_a_hung_program_is_killed_with_all_it_started(pi: SshDevice, arm_board: ArmBoard) -> None:
    script = "sleep 300 & trap '' TERM INT HUP; echo waiting; sleep 300; sleep 300"
    with pytest.raises(DeviceError, match="sh did not finish in 3 s; it last said: waiting"):
        pi.run(["sh", "-c", script], 3)
    with pytest.raises(DeviceError, match=r"sleep did not finish in 0\.5 s and said nothing"):
        pi.run(["sleep", "300"], 0.5)


def test_what_a_program_leaves_running_ends_with_it(pi: SshDevice) -> None:
    started = time.monotonic()
    assert pi.run(["sh", "-c", "sleep 300 & echo done"], 60).stdout == "done\n"
    assert time.monotonic() - started < 30


def test_an_interruption_leaves_nothing_running(
    pi: SshDevice, arm_board: ArmBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _process.Process.read

    def interrupted(process: _process.Process, *arguments: Any) -> None:
        monkeypatch.setattr(_process.Process, "read", read)
        assert settles(lambda: bool(running(arm_board, "sleep")))
        raise KeyboardInterrupt

    monkeypatch.setattr(_process.Process, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pi.run(["sleep", "300"], 300)


def test_what_a_board_prints_is_bounded_and_harmless(
    pi: SshDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "_MOST_BYTES", 1 << 20)
    with pytest.raises(DeviceError, match="a program prints without end"):
        pi.run(["yes"], 60)
    monkeypatch.undo()
    with pytest.raises(DeviceError, match=r"sh did not finish in 2 s"):
        pi.run(["sh", "-c", "while echo a; do :; done"], 2)
    script = r"printf '\033]0;title\007\033[2J%0400d' 1; sleep 300"
    with pytest.raises(DeviceError) as caught:
        pi.run(["sh", "-c", script], 2)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_the_shell_of_busybox_is_enough(pi: SshDevice, arm_board: ArmBoard, tmp_path: Path) -> None:
    shell = arm_board.root / "bin/sh"
    shell.unlink()
    shell.symlink_to("busybox")
    try:
        assert "BusyBox" in pi.run(["sh", "--help"], 60).stderr
        (tmp_path / "a").write_text("content")
        pi.pull(pi.push(tmp_path / "a"), tmp_path / "b")
        assert (tmp_path / "b").read_text() == "content"
        done = pi.run(["sh", "-c", "echo out; echo err >&2; kill -KILL $$"], 60)
        assert done == devices.Completed(-9, "out\n", "err\n")
        with pytest.raises(DeviceError, match=r"can't start no-such-program: .*not found"):
            pi.run(["no-such-program"], 60)
        with pytest.raises(DeviceError, match="sh did not finish in 1 s; it last said: waiting"):
            pi.run(["sh", "-c", "sleep 300 & echo waiting; sleep 300; true"], 1)
        assert settles(lambda: not running(arm_board, "sleep"))
        with pi.held([["touch", "/tmp/restored-by-busybox"]]):
            assert not (arm_board.root / "tmp/restored-by-busybox").exists()
        assert (arm_board.root / "tmp/restored-by-busybox").exists()
        before = sessions(arm_board)
        ssh.connect(profile(arm_board)).close()
        assert settles(lambda: sessions(arm_board) == before)
    finally:
        shell.unlink()
        shell.symlink_to("dash")


# --- what is held


def test_what_was_set_is_restored_when_the_block_ends(pi: SshDevice, arm_board: ArmBoard) -> None:
    target = arm_board.root / "tmp/mode it's; $(touch "
    restore = ["touch", "/tmp/mode it's; $(touch "]
    with pi.held([["sh", "-c", "echo noise; echo noise >&2"], restore]):
        time.sleep(0.5)
        assert not target.exists()
    assert target.exists()
    with pytest.raises(ZeroDivisionError), pi.held([["rm", "/tmp/mode it's; $(touch "]]):
        raise ZeroDivisionError
    assert not target.exists()
    message = r"not restored: `sh -c 'exit 4'` .* exit status 4"
    with pytest.raises(DeviceError, match=message), pi.held([["sh", "-c", "exit 4"], restore]):
        pass
    assert target.exists()  # the others are restored all the same


CLIENT = """
from edgeres import devices
from edgeres.devices import DeviceProfile
profile = DeviceProfile("pi", "ssh", "", settings={settings!r})
with devices.open_device(profile) as device:
    with device.held([["sleep", "0.1"], ["touch", "/tmp/{mark}"]]):
        print("held", flush=True)
        device.run(["sleep", "301"], 300)
"""


def client(arm_board: ArmBoard, mark: str) -> subprocess.Popen[str]:
    """A process of its own that holds and runs something; it does so when this returns."""
    script = CLIENT.format(settings=dict(profile(arm_board).settings), mark=mark)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(devices.__file__).parents[2])},
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "held\n"
    assert settles(lambda: bool(running(arm_board, "sleep 301")))
    assert not (arm_board.root / "tmp" / mark).exists()
    return process


def test_a_killed_client_leaves_a_restored_and_empty_board(arm_board: ArmBoard) -> None:
    before = sessions(arm_board)
    process = client(arm_board, "restored-after-kill")
    assert len(sessions(arm_board) - before) == 1
    process.kill()
    process.communicate()
    assert settles((arm_board.root / "tmp/restored-after-kill").exists)
    assert settles(lambda: not running(arm_board, "sleep 301"))
    assert settles(lambda: sessions(arm_board) == before)


def test_a_cut_connection_is_told_and_leaves_a_restored_and_empty_board(
    arm_board: ArmBoard,
) -> None:
    before, others = sessions(arm_board), set(running(arm_board, "sshd: pi@notty"))
    process = client(arm_board, "restored-after-cut")
    for pid in set(running(arm_board, "sshd: pi@notty")) - others:
        os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert re.search(r"DeviceError: device 'pi': the connection to cortex-a76 was lost", stderr)
    assert settles((arm_board.root / "tmp/restored-after-cut").exists)
    assert settles(lambda: not running(arm_board, "sleep 301"))
    assert settles(lambda: sessions(arm_board) == before)


def test_closing_removes_everything_on_both_sides(
    arm_board: ArmBoard, sockets: Path, tmp_path: Path
) -> None:
    before, here = sessions(arm_board), set(sockets.iterdir())
    (tmp_path / "a").write_text("a")
    device = ssh.connect(profile(arm_board))
    device.push(tmp_path / "a")
    assert sessions(arm_board) != before and set(sockets.iterdir()) != here
    device.close()
    device.close()
    assert settles(lambda: sessions(arm_board) == before)
    assert set(sockets.iterdir()) == here
    with pytest.raises(DeviceError, match="device 'pi'"):
        device.run(["true"], 5)


# --- what can't be reached or used


def refused(arm_board: ArmBoard, **settings: Any) -> str:
    """The sentence that a board which can't be used ends with."""
    here = set(Path(tempfile.gettempdir()).iterdir())
    with pytest.raises(DeviceError) as caught:
        ssh.connect(profile(arm_board, **settings)).close()
    assert set(Path(tempfile.gettempdir()).iterdir()) == here
    text = str(caught.value)
    assert text.startswith("device 'pi': ") and text.isprintable() and len(text) < 700
    return text


def configured(arm_board: ArmBoard, tmp_path: Path, known_hosts: str) -> str:
    """The test bed's configuration with other known hosts."""
    (tmp_path / "known_hosts").write_text(known_hosts)
    text = arm_board.config.read_text().replace(
        f"{arm_board.work}/known_hosts", f"{tmp_path}/known_hosts"
    )
    (tmp_path / "config").write_text(text)
    return str(tmp_path / "config")


def test_a_changed_host_key(arm_board: ArmBoard, tmp_path: Path) -> None:
    port, key = arm_board.ports["cortex-a76"], (arm_board.work / "authorized_keys").read_text()
    config = configured(arm_board, tmp_path, f"[127.0.0.1]:{port} {key}")
    assert re.search("host key of cortex-a76 is not the one known.*ssh-keygen -R",
                     refused(arm_board, config=config))  # fmt: skip


def test_an_unknown_host_key(arm_board: ArmBoard, tmp_path: Path) -> None:
    config = configured(arm_board, tmp_path, "")
    assert re.search("host key of cortex-a76 is not known; run `ssh .*cortex-a76` once",
                     refused(arm_board, config=config))  # fmt: skip


def test_logins_that_are_refused(arm_board: ArmBoard) -> None:
    text = refused(arm_board, user="nobody")
    assert re.search(r"can't log in to nobody@cortex-a76 \(.*Permission denied \(publickey\)", text)
    assert f"check that `ssh -F {arm_board.config} -l nobody cortex-a76` works" in text
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = refused(arm_board, port=port)
    assert re.search(rf"cortex-a76:{port} refuses .*Connection refused.*check the port", text)


def test_hosts_that_do_not_exist(arm_board: ArmBoard, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    text = refused(arm_board, host="no-such-board.invalid", config=str(tmp_path / "empty"))
    assert "can't find no-such-board.invalid (" in text
    for host in ("$(id>hit)", "`id>hit`", "';id>hit;'"):
        with pytest.raises(BadInput, match="the setting host can't be"):
            refused(arm_board, host=host, config=str(tmp_path / "empty"))
    assert not hit(arm_board)
    text = refused(arm_board, config=str(tmp_path / "missing"))
    assert "can't use its configuration" in text and "missing" in text


def test_a_host_that_says_nothing(arm_board: ArmBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = [o.replace("ConnectTimeout=10", "ConnectTimeout=1") for o in _ssh_link._OPTIONS]
    monkeypatch.setattr(_ssh_link, "_OPTIONS", tuple(patient))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = refused(arm_board, port=silent.getsockname()[1])
    assert re.search("can't be reached .*timed out.*check that it is on", text)


@pytest.mark.parametrize("value", ["-oProxyCommand=touch hit", "a b", "a\nb", "a\x00b", "\x1b[1m"])
@pytest.mark.parametrize("key", ["host", "user"])
def test_addresses_that_ssh_could_misread(key: str, value: str) -> None:
    settings = {"host": "board", key: value}
    with pytest.raises(BadInput, match=f"the setting {key} can't be"):
        devices.open_device(DeviceProfile("pi", "ssh", "", settings=settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "host, python and workdir need text"),
        ({"host": "a", "port": "22"}, "port must be a whole number"),
        ({"host": "a", "port": 70000}, "port must be between"),
        ({"host": "a", "workdir": "-x"}, "workdir can't be"),
        ({"hots": "a"}, "did you mean 'host'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        devices.open_device(DeviceProfile("pi", "ssh", "", settings=settings))


def test_a_board_that_is_full(arm_board: ArmBoard, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(200_000))
    (tmp_path / "small").write_bytes(bytes(2_000))
    with ssh.connect(profile(arm_board, workdir="/small/work")) as device:
        with pytest.raises(DeviceError, match=r"cortex-a76 has no space left .*free some"):
            device.push(tmp_path / "large")
        there = device.push(tmp_path / "small")  # the part that had come was removed
        assert device.run(["ls"], 60).stdout.split() == [there.rpartition("/")[2]]


def test_folders_that_can_not_be_written(arm_board: ArmBoard) -> None:
    for folder, why in [("/frozen/x", "Read-only file system"), ("/root/x", "ermission denied")]:
        text = refused(arm_board, workdir=folder)
        assert re.search(rf"cortex-a76 can't be written to .*{why}.*set `workdir`", text)


def test_a_work_folder_with_any_name(arm_board: ArmBoard, tmp_path: Path) -> None:
    name = "it's; touch hit $(touch hit)"
    (tmp_path / "a").write_text("a")
    with ssh.connect(profile(arm_board, workdir=f"~/{name}")) as device:
        device.pull(device.push(tmp_path / "a"), tmp_path / "b")
        assert len(sessions(arm_board, f"home/pi/{name}")) == 1
        assert device.run(["pwd"], 60).stdout.startswith(f"/home/pi/{name}/session-")
    assert settles(lambda: not sessions(arm_board, f"home/pi/{name}"))
    assert not hit(arm_board)


def test_sessions_that_a_power_cut_left_are_removed_later(arm_board: ArmBoard) -> None:
    work = arm_board.root / "home/pi/left"
    for name, days in [("session-0123456789abcdef", 9), ("session-fedcba9876543210", 1),
                       ("mine", 99)]:  # fmt: skip
        (work / name).mkdir(parents=True)
        os.utime(work / name, times=(time.time() - days * 86400,) * 2)
    arm_board.sh("chown -R pi /home/pi/left")
    ssh.connect(profile(arm_board, workdir="~/left")).close()
    assert sessions(arm_board, "home/pi/left") == {"session-fedcba9876543210", "mine"}


def test_a_board_without_python_or_packages_is_told_the_mend(arm_board: ArmBoard) -> None:
    for python in ("~/no such; touch hit", "/bin/no-python"):
        message = r"can't start .*sudo apt install python3.*set `python`"
        with (
            ssh.connect(profile(arm_board, python=python)) as device,
            pytest.raises(DeviceError, match=message),
        ):
            device.probe()
    bare = arm_board.root / "home/pi/bare"
    bare.write_text('#!/bin/sh\nexec python3 -S "$@"\n')
    bare.chmod(0o755)
    with ssh.connect(profile(arm_board, python="~/bare")) as device:
        assert device.python() == ("/home/pi/bare",)
        assert device.probe()["runtimes"] == {}
        arguments = ["--mode", "latency", "--model", "a.onnx", "--inputs", "x.npy"]
        with pytest.raises(DeviceError, match=r"numpy is not installed .*-m pip install numpy`"):
            devices.run_runner(device, arguments, 60)
    assert not hit(arm_board)


def test_a_profile_that_is_shipped_needs_only_an_alias(arm_board: ArmBoard, tmp_path: Path) -> None:
    text = arm_board.config.read_text().replace("Host cortex-a76", "Host raspberrypi-5")
    (tmp_path / "config").write_text(text)
    shipped = devices.load("raspberry-pi-5")
    settings = {**shipped.settings, "config": str(tmp_path / "config")}
    with devices.open_device(dataclasses.replace(shipped, settings=settings)) as device:
        assert device.run(["uname", "-m"], 60).stdout == "aarch64\n"
