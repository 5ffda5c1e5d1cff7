"""The runner in real processes with the real runtimes, and its rules on made-up numbers."""

from __future__ import annotations

import ast
import fnmatch
import gc
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from linear_model import INPUTS, expected, write_onnx

from edgeres import devices
from edgeres.devices import RUNNER, Device, _runner, run_runner
from edgeres.errors import DeviceError


def arguments(device: Device, mode: str, model: Path, inputs: Path) -> list[str]:
    there = device.push(model), device.push(inputs)
    return ["--mode", mode, "--model", there[0], "--inputs", there[1]]


def test_latency_reports_each_phase(host: Device, model: Path, inputs: Path) -> None:
    brief = ["--min-queries", "70", "--min-seconds", "0.01", "--warmup-min-seconds", "0.01"]
    events = run_runner(host, [*arguments(host, "latency", model, inputs), *brief], 60)
    assert list(events) == ["loaded", "first", "warm", "samples", "done"]
    samples = events["samples"]["ns"]
    assert len(samples) >= 70 and min(samples) > 0
    assert events["loaded"]["load_ns"] > 0 and events["first"]["first_ns"] > 0
    assert events["warm"]["count"] > 40
    name = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}[model.suffix]
    runtime = events["loaded"]["runtime"]
    assert (runtime["name"], bool(runtime["version"])) == (name, True)


@pytest.mark.parametrize(
    ("min_queries", "min_seconds", "max_seconds", "made"),
    [(64, 0, 10, 64), (64, 0.3, 10, 150), (64, 0, 0.1, 50)],
)
def test_a_session_ends_at_both_minima_or_at_the_cap(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: Path,
    min_queries: int,
    min_seconds: float,
    max_seconds: float,
    made: int,
) -> None:
    class Engine:
        info: ClassVar = {"name": "none", "version": "1"}

        def load(self, path: str) -> Any:
            return lambda batch: seen.append(batch)

    seen: list[np.ndarray] = []
    ticks = itertools.count(0, 1_000_000)  # two looks at the clock a query: 2 ms each
    monkeypatch.setattr(_runner, "clock", lambda: next(ticks))
    monkeypatch.setattr(_runner, "runtime", lambda args: Engine())
    limits = ["--min-queries", str(min_queries), "--min-seconds", str(min_seconds)]
    limits += ["--max-seconds", str(max_seconds), "--warmup-min-seconds", "0"]
    assert _runner.main(["--mode", "latency", "--inputs", str(inputs), *limits]) == 0
    gc.enable()  # the runner's own process would have ended here
    events = {e["event"]: e for e in map(json.loads, capsys.readouterr().out.splitlines())}
    assert events["samples"]["ns"] == [1_000_000] * made
    assert events["warm"] == {"event": "warm", "count": 42, "stable": True}
    measured = seen[-made:]
    assert all(batch.shape == (1, 4) for batch in seen)
    for i, batch in enumerate(measured):
        np.testing.assert_array_equal(batch[0], INPUTS[i % len(INPUTS)])


def test_accuracy_writes_the_outputs_of_every_input(
    host: Device, model: Path, inputs: Path, tmp_path: Path
) -> None:
    events = run_runner(
        host, [*arguments(host, "accuracy", model, inputs), "--outputs", "out.npy"], 60
    )
    host.pull("out.npy", tmp_path / "back.npy")
    outputs = np.load(tmp_path / "back.npy", allow_pickle=False)
    np.testing.assert_allclose(outputs, expected(INPUTS), rtol=1e-5, atol=1e-6)
    assert events["outputs"]["count"] == len(INPUTS)


def test_memory_of_a_model_stands_out_of_the_baseline(
    host: Device, tmp_path: Path, inputs: Path
) -> None:
    weight = np.ones((1_500_000, 4), np.float32)  # 24 MB
    model = write_onnx(tmp_path / "large.onnx", weight, np.zeros(1_500_000, np.float32))
    given = arguments(host, "memory", model, inputs)
    loaded = run_runner(host, given, 60)["memory"]
    baseline = run_runner(host, [*given, "--null"], 60)["memory"]
    assert loaded["definition"] == baseline["definition"]
    assert baseline["peak_rss_bytes"] > 5e6
    assert loaded["peak_rss_bytes"] - baseline["peak_rss_bytes"] > weight.nbytes


def test_state_describes_this_machine(host: Device) -> None:
    state = host.probe()
    json.dumps(state, allow_nan=False)
    assert state["cores"] >= 1 and state["cpu_model"]
    assert state["runtimes"]["numpy"] == np.__version__
    assert state["python"] == ".".join(map(str, sys.version_info[:3]))
    assert state["emulated"] is False
    assert "event" not in state


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "garbage.onnx",
            b"\x00not a model" * 20,
            "INVALID_PROTOBUF|InvalidProtobuf|parsing failed",
        ),
        ("garbage.tflite", b"\x00not a model" * 20, "not a valid Flatbuffer"),
        ("empty.tflite", b"", "."),
        ("model.bin", b"x", "no runtime for '.bin' files; known: .onnx, .tflite"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence(
    host: Device, inputs: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    model = tmp_path / name
    model.write_bytes(content)
    with pytest.raises(DeviceError, match=message) as caught:
        run_runner(host, arguments(host, "latency", model, inputs), 60)
    assert str(caught.value).startswith("device 'host': ")
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 5)])
def test_inputs_that_do_not_fit_are_refused(
    host: Device, model: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "wrong.npy"
    np.save(path, np.zeros(shape, np.float32), allow_pickle=False)
    with pytest.raises(DeviceError, match=r"batch axis|dimension"):
        run_runner(host, arguments(host, "accuracy", model, path), 60)


def test_inputs_of_another_dtype_are_refused(host: Device, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.npy"
    np.save(path, INPUTS.astype(np.int8), allow_pickle=False)
    with pytest.raises(DeviceError, match=r"(?i)type"):
        run_runner(host, arguments(host, "accuracy", model, path), 60)


def test_pickled_inputs_are_never_loaded(host: Device, model: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    path = tmp_path / "attack.npy"
    np.save(path, np.array([Attack()], dtype=object), allow_pickle=True)
    with pytest.raises(DeviceError, match="allow_pickle"):
        run_runner(host, arguments(host, "accuracy", model, path), 60)
    assert not (tmp_path / "attacked").exists()


def test_an_unknown_provider_is_named(host: Device, tmp_path: Path, inputs: Path) -> None:
    given = arguments(host, "latency", write_onnx(tmp_path / "linear.onnx"), inputs)
    with pytest.raises(DeviceError, match=r"no provider WarpExecutionProvider here; it has .*CPU"):
        run_runner(host, [*given, "--provider", "WarpExecutionProvider"], 60)


def test_a_board_without_the_runtime_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inputs: Path
) -> None:
    monkeypatch.setattr(_runner, "version", lambda package: None)
    for suffix, package in [("tflite", "ai-edge-litert"), ("onnx", "onnxruntime")]:
        argv = ["--mode", "latency", "--model", f"m.{suffix}", "--inputs", str(inputs)]
        assert _runner.main(argv) == 1
        event = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert event["event"] == "error" and package in event["message"]


def test_a_program_that_dies_without_a_word_is_reported_with_its_signal(
    host: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, sys; print('so far', file=sys.stderr, flush=True); os.abort()")
    monkeypatch.setattr("edgeres.devices._events.RUNNER", script)
    with pytest.raises(DeviceError, match="ended by signal 6; it last said: so far"):
        run_runner(host, [], 60)


def test_lines_of_a_talkative_runtime_are_skipped(
    host: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "talks.py"
    lines = ["INFO: hello", "[1, 2]", '{"no": "event"}', '{"event": "done"}']
    script.write_text("\n".join(f"print({line!r})" for line in lines))
    monkeypatch.setattr("edgeres.devices._events.RUNNER", script)
    assert run_runner(host, [], 60) == {"done": {"event": "done"}}


def test_a_steady_latency_settles_after_the_minima() -> None:
    warm = _runner.WarmUp(30, 0, 8)
    count = next(i for i in range(1, 1000) if warm.finished(1000))
    assert count == 42 and warm.stable  # the first sets both averages, then more than 40 alike
    patient = _runner.WarmUp(30, 1e-3, 8)
    assert next(i for i in range(1, 10_000) if patient.finished(1000)) == 1000  # 1 ms of 1 us each


def test_a_rising_latency_never_settles_and_ends_at_the_cap() -> None:
    warm = _runner.WarmUp(30, 0, 1e-3)
    count = next(i for i in range(1, 1000) if warm.finished(1000 * i))
    assert count == 45 and not warm.stable  # 1 + … + 45 us reach 1 ms
    assert warm.count == 45


def test_the_runner_stands_alone_on_an_old_python() -> None:
    tree = ast.parse(RUNNER.read_text("utf-8"), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= set(sys.stdlib_module_names) | {"numpy"}


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A made-up /proc and /sys: path -> content, as the runner reads it."""
    files: dict[str, str] = {}

    def matching(pattern: str) -> list[str]:
        parts = pattern.count("/")
        found = {"/".join(f.split("/")[: parts + 1]) for f in files}
        return sorted(f for f in found if fnmatch.fnmatch(f, pattern))

    monkeypatch.setattr(_runner, "read", files.get)
    monkeypatch.setattr(_runner.glob, "glob", matching)
    return files


def test_the_sensors_of_a_board_are_read(board: dict[str, str]) -> None:
    policy = "/sys/devices/system/cpu/cpufreq/policy4"
    thermal = "/sys/class/thermal"
    throttle = "/sys/devices/system/cpu/cpu0/thermal_throttle"
    board |= {
        f"{policy}/scaling_governor": "schedutil",
        f"{policy}/scaling_cur_freq": "1800000",
        f"{policy}/scaling_max_freq": "2400000",
        f"{thermal}/thermal_zone0/temp": "48312",
        f"{thermal}/thermal_zone0/type": "cpu-thermal",
        f"{thermal}/thermal_zone1/temp": "unreadable",
        f"{thermal}/cooling_device0/type": "cpufreq-cpu0",
        f"{thermal}/cooling_device0/cur_state": "2",
        f"{thermal}/cooling_device1/type": "pwm-fan",
        f"{thermal}/cooling_device1/cur_state": "9",
        "/sys/devices/system/cpu/cpu0/cpu_capacity": "446",
        "/sys/devices/system/cpu/cpu4/cpu_capacity": "1024",
        f"{throttle}/core_throttle_count": "3",
        f"{throttle}/package_throttle_count": "4",
    }
    assert _runner.frequencies() == {
        "policy4": {"governor": "schedutil", "khz": 1_800_000, "max_khz": 2_400_000}
    }
    assert _runner.temperatures() == {"thermal_zone0:cpu-thermal": 48.312}
    assert _runner.cooling() == 2  # a fan slows nothing down
    assert _runner.capacities() == {"cpu0": 446, "cpu4": 1024}
    assert _runner.total("/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count") == 7


def test_nothing_readable_is_none_not_zero(board: dict[str, str]) -> None:
    assert _runner.frequencies() == {} and _runner.temperatures() == {}
    assert _runner.cooling() is None and _runner.total("/sys/x/*") is None
    assert _runner.power_source() is None and _runner.capacities() == {}


@pytest.mark.parametrize(
    ("answer", "now", "bits"),
    [
        ("echo throttled=0x0", False, 0),
        ("echo throttled=0x50005", True, 0x50005),
        ("echo throttled=0xe0000", False, 0xE0000),  # it was, and has recovered
        ("echo VCHI initialization failed; exit 255", None, None),
        ("echo throttled=lots", None, None),
        (None, None, None),
    ],
)
def test_the_firmware_of_a_raspberry_pi_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answer: str | None,
    now: bool | None,
    bits: int | None,
) -> None:
    if answer:
        program = tmp_path / "vcgencmd"
        program.write_text(f'#!/bin/sh\n[ "$*" = get_throttled ] && {answer}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _runner.throttled() == {"throttled_now": now, "throttled_bits": bits}


def test_qemu_shows_itself_to_other_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "python" in _runner.interpreter_of_this()
    program = tmp_path / "cat"
    program.write_text(r"#!/bin/sh" + "\n" + r"printf '/usr/bin/qemu-aarch64\0/usr/bin/python3\0'")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _runner.emulated("aarch64", "0xd0b", "CPU part: 0xd0b") is True


@pytest.mark.parametrize(
    ("online", "status", "source"),
    [("1", "Discharging", "mains"), ("0", "Discharging", "battery"), ("0", "Full", "mains")],
)
def test_power_source(board: dict[str, str], online: str, status: str, source: str) -> None:
    power = "/sys/class/power_supply"
    board |= {
        f"{power}/AC/type": "Mains",
        f"{power}/AC/online": online,
        f"{power}/BAT0/type": "Battery",
        f"{power}/BAT0/status": status,
    }
    assert _runner.power_source() == source


def test_busy_cores_come_from_the_time_between(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["cpu  100 0 0 100 0 0 0 0 0 0\ncpu0", "cpu  130 0 0 190 10 0 0 0 0 0\ncpu0"])
    monkeypatch.setattr(_runner, "read", lambda path: next(texts))
    monkeypatch.setattr(_runner.os, "cpu_count", lambda: 4)
    # 130 ticks: 30 user, 90 idle and 10 waiting
    assert _runner.busy_cores(0) == round(4 * 30 / 130, 2)
    monkeypatch.setattr(_runner, "read", lambda path: None)
    assert _runner.busy_cores(0) is None


@pytest.mark.parametrize(
    ("machine", "handler", "cpu", "cpuinfo", "answer"),
    [
        ("x86_64", None, "Intel(R) Xeon(R)", "vendor_id: GenuineIntel", False),
        ("aarch64", None, "0xd0b", "CPU part: 0xd0b", False),
        ("aarch64", "enabled\ninterpreter /usr/bin/qemu-aarch64", "0xd0b", "", True),
        ("aarch64", None, "Intel", "vendor_id: GenuineIntel", True),
        ("x86_64", None, "QEMU TCG CPU version 2.5+", "vendor_id: AuthenticAMD", True),
    ],
)
def test_a_translated_processor_is_recognized(
    board: dict[str, str], machine: str, handler: str | None, cpu: str, cpuinfo: str, answer: bool
) -> None:
    if handler:
        board[f"/proc/sys/fs/binfmt_misc/qemu-{machine}"] = handler
    assert _runner.emulated(machine, cpu, cpuinfo) is answer


def test_identity_is_of_the_machine_not_of_the_moment(host: Device) -> None:
    state = host.probe()
    later = state | {"loadavg": [9.0, 9.0, 9.0], "busy_cores": 2.0, "temperatures_c": {"z": 90.0}}
    assert devices.identity(later) == devices.identity(state) == host.identity()
    for key, value in [("cpu_model", "other"), ("runtimes", {}), ("release", "1.0")]:
        assert devices.identity(state | {key: value}) != devices.identity(state)
