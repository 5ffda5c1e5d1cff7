"""A Jetson's power mode and clocks are set and always come back; its rails become watts.

NVIDIA's programs are stood in for (tests/beds/jetson): what is tested is what we do with them.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from beds.jetson_board import JetsonBoard, LocalJetson

from edgeres.errors import BadInput, DeviceError

BEFORE = ("0", "mode-0")
SIMILAR = "RAM 1/2MB CPU [1%@100] VDD_CPU {}mW/1mW VDD_SOC 500mW/500mW\n"


def left(board: JetsonBoard) -> tuple[str, str]:
    """The power mode and the clocks that the board is in."""
    return board.get("mode"), board.get("clocks")


def wait_for(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


@pytest.mark.parametrize("mode", [2, "2", "MAXN_SUPER"])
def test_the_mode_and_clocks_are_set_and_come_back(jetson: JetsonBoard, mode: int | str) -> None:
    with jetson.open(power_mode=mode, clocks="max") as device:
        with device.steady() as settings:
            assert settings == {"power_mode": "MAXN_SUPER", "clocks": "max"}
            assert left(jetson) == ("2", "max")
        assert left(jetson) == BEFORE


def test_they_come_back_after_an_error(jetson: JetsonBoard) -> None:
    def interrupted() -> None:
        with jetson.open(power_mode="7W") as device, device.steady():
            assert left(jetson) == ("1", "mode-1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(jetson) == BEFORE


def test_clocks_that_were_pinned_stay_pinned(jetson: JetsonBoard) -> None:
    jetson.set(clocks="max")  # somebody ran jetson_clocks before us; entering a mode undoes it
    with jetson.open(power_mode="7W") as device, device.steady():
        assert left(jetson) == ("1", "mode-1")
    assert left(jetson) == ("0", "max")


def test_nothing_is_touched_unasked(jetson: JetsonBoard) -> None:
    with jetson.open() as device, device.steady() as settings:
        assert settings == {}
    with jetson.open(clocks="max") as device, device.steady() as settings:
        assert settings == {"power_mode": None, "clocks": "max"}
    with jetson.open(power_mode="15W") as device, device.steady():
        pass  # it is in that mode
    assert not any("-m" in call for call in jetson.calls("nvpmodel"))
    assert left(jetson) == BEFORE


def test_kill_9_of_this_process_brings_them_back(jetson: JetsonBoard, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from beds.jetson_board import JetsonBoard\n"
        "board = JetsonBoard(Path(sys.argv[1]))\n"
        "device = board.open(power_mode='MAXN_SUPER', clocks='max')\n"
        "with device.steady(), device.meter():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(300)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(jetson.programs)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."]), "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert left(jetson) == ("2", "max")
    wait_for((jetson.state / "tegrastats_pids").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: left(jetson) == BEFORE)
    wait_for(lambda: not running(jetson))


def test_a_mode_that_needs_a_restart_is_refused(jetson: JetsonBoard) -> None:
    jetson.set(reboot="2\n")
    with (
        jetson.open(power_mode="MAXN_SUPER", clocks="max") as device,
        pytest.raises(DeviceError, match=r"needs a restart.*sudo nvpmodel -m 2"),
        device.steady(),
    ):
        pass
    assert not (jetson.state / "rebooted").exists()
    assert left(jetson) == BEFORE


def test_root_comes_from_sudo_or_is_asked_for(jetson: JetsonBoard) -> None:
    jetson.set(needs_root="")
    with (
        jetson.open(power_mode="7W") as device,
        pytest.raises(DeviceError, match=r"jetson_clocks failed \(Error: .* 'sudo: true'"),
        device.steady(),
    ):
        pass
    with jetson.open(power_mode="7W", clocks="max", sudo=True) as device, device.steady():
        assert left(jetson) == ("1", "max")
    assert left(jetson) == BEFORE
    jetson.set(password="")
    with (
        jetson.open(clocks="max", sudo=True) as device,
        pytest.raises(DeviceError, match="a password is required"),
        device.steady(),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "says"),
    [("MAXN", r"unknown power mode 'MAXN' \(did you mean 'MAXN_SUPER'\?\); known: 15W, 7W"),
     (9, "unknown power mode '9'"), ("; touch hit", "unknown power mode '; touch hit'")],
)  # fmt: skip
def test_an_unknown_mode_names_the_board_s_own(
    jetson: JetsonBoard, mode: int | str, says: str
) -> None:
    with (
        jetson.open(power_mode=mode) as device,
        pytest.raises(DeviceError, match=says),
        device.steady(),
    ):
        pass
    assert left(jetson) == BEFORE


def test_a_mode_that_could_not_come_back_is_not_left(jetson: JetsonBoard) -> None:
    program = jetson.programs / "nvpmodel"
    program.write_text(program.read_text().replace("NV Power Mode", "NV Power"))
    with (
        jetson.open(power_mode="7W") as device,
        pytest.raises(DeviceError, match="so that it can't be restored"),
        device.steady(),
    ):
        pass
    assert left(jetson) == BEFORE


def test_wrong_settings_are_refused(jetson: JetsonBoard) -> None:
    with pytest.raises(BadInput, match="clocks must be 'max'"):
        jetson.open(clocks="maximum")


def running(board: JetsonBoard) -> list[int]:
    """The stand-in tegrastats that haven't ended."""
    log = board.state / "tegrastats_pids"
    pids = [int(line) for line in log.read_text().split()] if log.exists() else []
    alive = []
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                alive.append(pid)
        except OSError:
            pass
    return alive


def measured(device: LocalJetson, readings: int) -> list[dict[str, float]]:
    meter = device.meter()
    assert meter is not None
    with meter:
        wait_for(lambda: len(meter.watts()) >= readings)
    return meter.watts()


def test_power_is_what_the_rails_say(jetson: JetsonBoard) -> None:
    """VDD_IN feeds everything: it is the total, the other rails are parts of it."""
    with jetson.open() as device:
        watts = measured(device, 3)
    assert [w["total"] for w in watts[:3]] == [4.0, 5.0, 9.0]
    assert watts[0] == {"total": 4.0, "VDD_IN": 4.0, "VDD_CPU_GPU_CV": 1.0, "VDD_SOC": 1.5}
    assert jetson.calls("tegrastats") == ["tegrastats --interval 100"]
    assert not running(jetson)


def test_without_a_total_the_rails_are_summed(jetson: JetsonBoard) -> None:
    jetson.set(tegrastats="garbage\n" + SIMILAR.format(2500) + "RAM 1/2MB CPU [off]\n")
    with jetson.open(sudo=True) as device:
        assert measured(device, 1)[0] == {"total": 3.0, "VDD_CPU": 2.5, "VDD_SOC": 0.5}
    assert not running(jetson)


def test_an_error_in_the_block_stops_tegrastats(jetson: JetsonBoard) -> None:
    def interrupted() -> None:
        with jetson.open() as device:
            meter = device.meter()
            assert meter is not None
            with meter:
                wait_for(lambda: running(jetson))
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not running(jetson)


def test_a_board_without_the_programs(
    jetson: JetsonBoard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("tegrastats", "nvpmodel", "jetson_clocks"):
        (jetson.programs / name).unlink()
    with jetson.open(power_mode="7W") as device:
        assert device.meter() is None
        state = device.probe()
        assert (state["power_mode"], state["clocks"]) == (None, None)
        with pytest.raises(DeviceError, match="nvpmodel lists no power modes"), device.steady():
            pass


def test_the_probe_says_which_jetson_it_is(jetson: JetsonBoard) -> None:
    with jetson.open() as device:
        state = device.probe()
        assert state["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
        assert (state["l4t"], state["jetpack"]) == ("36.4.3", "6.2")
        assert state["power_mode"] == "15W"
        assert state["clocks"]["GPU"]["max"] == 624_750_000
        assert state["temperatures_c"]
        assert state["cores"] >= 1
        first = device.identity()
    jetson.set(nv_tegra_release="# R36 (release), REVISION: 4.4, GCID: 1\n")
    with jetson.open() as device:  # another release brings another TensorRT
        assert device.identity() != first


def test_garbage_from_every_program_is_survived(jetson: JetsonBoard) -> None:
    for name in ("tegrastats", "nvpmodel", "jetson_clocks"):
        program = jetson.programs / name
        program.write_text(
            f"#!/bin/sh\nprintf {shlex.quote(chr(92) + '377')}garbage%s 'RAM CPU ['\n"
        )
    jetson.set(model="", nv_tegra_release="R36?")
    with jetson.open(clocks="max") as device:
        state = device.probe()
        assert (state["board"], state["jetpack"], state["power_mode"]) == (None, None, None)
        meter = device.meter()
        assert meter is not None
        with meter:
            pass
        assert meter.watts() == []
