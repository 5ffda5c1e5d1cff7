"""Every kind of device: what its profile may say, and, where one is here, what it does."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from edgeres import devices
from edgeres.devices import DeviceProfile
from edgeres.errors import BadInput, DeviceError, MissingComponent

OTHER: dict[type, object] = {str: ["text"], int: "three", bool: "yes"}


@pytest.fixture(params=devices.kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _profile(kind: str, **settings: object) -> DeviceProfile:
    return DeviceProfile("x", kind, "a test", settings=settings)


@pytest.fixture
def device(kind: str) -> devices.Device:
    """One of a kind that is this machine; others are tested where their other end is faked."""
    try:
        found = devices.open_device(_profile(kind))
    except (BadInput, DeviceError, MissingComponent) as error:
        pytest.skip(f"none is here: {error}")
    if found.address != "local":
        pytest.skip("it is another machine")
    return found


def test_its_settings_have_types_and_say_what_starts_programs(kind: str) -> None:
    module = devices.PLUGINS.load(kind)
    for setting in module.SETTINGS.values():
        assert setting.type in OTHER and isinstance(setting.starts_programs, bool)
    assert getattr(module, "WHERE", None) in (None, *module.SETTINGS)


def test_a_wrong_setting_is_one_sentence(kind: str) -> None:
    module = devices.PLUGINS.load(kind)
    known, where = module.SETTINGS, getattr(module, "WHERE", None)
    there = {where: "nobody.invalid"} if where else {}
    for name, value in [("colour", "red"), *((n, OTHER[s.type]) for n, s in known.items())]:
        with pytest.raises((BadInput, MissingComponent)) as refused:
            devices.open_device(_profile(kind, **{**there, name: value}))
        assert "\n" not in str(refused.value) and name in str(refused.value)


def test_what_cannot_be_reached_is_one_sentence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any program of this machine's, and with nobody at the other end."""
    module = devices.PLUGINS.load(kind)
    if (where := getattr(module, "WHERE", None)) is None:
        pytest.skip("it is no other machine")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "9")
    with pytest.raises((DeviceError, MissingComponent)) as refused, \
            devices.open_device(_profile(kind, **{where: "nobody.invalid"})) as opened:  # fmt: skip
        opened.probe()
    assert "\n" not in str(refused.value)


def test_files_go_and_come_back(device: devices.Device, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(bytes(range(256)) * 100)
    with device:
        there = device.push(tmp_path / "given")
        assert device.push(tmp_path / "given") == there
        device.pull(there, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == (tmp_path / "given").read_bytes()
        with pytest.raises(DeviceError):
            device.pull("not there", tmp_path / "none")


def test_programs_run_fail_and_end_in_time(device: devices.Device) -> None:
    with device:
        code = "import sys; print('out'); print('words', file=sys.stderr); sys.exit(3)"
        done = device.run([*device.python(), "-c", code], 60)
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "words\n")
        with pytest.raises(DeviceError, match="1 s"):
            device.run([sys.executable, "-c", "import time; time.sleep(60)"], 1)
        said = ""
        try:
            found = device.run(["no-such-program"], 5)
            said = found.stderr if found.returncode else ""
        except DeviceError as error:
            said = str(error)
        assert "no-such-program" in said


def test_it_says_what_it_is_the_same_each_time(device: devices.Device) -> None:
    with device:
        assert device.identity() == device.identity()
        assert device.probe()["machine"]
        with device.steady() as said:
            assert isinstance(said, dict)
        meter = device.meter()
        assert meter is None or hasattr(meter, "watts")
    device.close()  # again


def test_what_decides_a_measurement_isnt_its_words(device: devices.Device) -> None:
    said = dataclasses.replace(device.profile, description="other words")
    assert devices.measured_with(said) == devices.measured_with(device.profile)
    threads = dataclasses.replace(device.profile, threads=2)
    assert devices.measured_with(threads) != devices.measured_with(device.profile)
    device.close()
