"""What phones say: recorded text is read exactly, garbage gives no answer and no error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from beds import phone as bed
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeres.devices import _android as android
from edgeres.devices import identity

PIXEL_BATTERY = bed.BATTERY.replace("USB powered: true", "USB powered: false").replace(
    "status: 2", "status: 3"
)
CACHED_ONLY = """\
IsStatusOverride: false
Thermal Status: 3
Cached temperatures:
 Temperature{mValue=41.5, mType=3, mName=SKIN, mStatus=3}
 Temperature{mValue=-3.5, mType=-1, mName=weird name, mStatus=0}
HAL Ready: false
"""


def test_getprop() -> None:
    text = "[a.b]: [c]\n[empty]: []\n[list]: [[x], y]\nnonsense\n[two]: [lines\nhere]\n[w]: [z]\r\n"
    assert android.properties(text) == {"a.b": "c", "empty": "", "list": "[x], y", "w": "z"}


@pytest.mark.parametrize(
    ("props", "chip"),
    [
        ({"ro.soc.manufacturer": "QTI", "ro.soc.model": "SM8650"}, "QTI SM8650"),
        ({"ro.soc.model": "SM8650"}, "SM8650"),
        ({"ro.board.platform": "msm8998", "ro.hardware": "taimen"}, "msm8998"),
        ({"ro.hardware": "taimen"}, "taimen"),
        ({}, None),
    ],
)
def test_chip(props: dict[str, str], chip: str | None) -> None:
    assert android.soc(props) == chip


def test_thermal() -> None:
    assert android.thermal(bed.THERMAL.format(status=0)) == {
        "status": 0,
        "temperatures_c": {"cpu:BIG": 31.2, "gpu:G3D": 30.5, "battery:battery": 25.6,
                           "skin:VIRTUAL-SKIN": 25.25},
    }  # fmt: skip
    assert android.thermal(CACHED_ONLY) == {
        "status": 3, "temperatures_c": {"skin:SKIN": 41.5, "other:weird name": -3.5},
    }  # fmt: skip
    nothing = {"status": None, "temperatures_c": {}}
    assert android.thermal("Can't find service: thermalservice") == nothing
    broken = "Temperature{mValue=NaN, mType=0, mName=a, mStatus=0}\nThermal Status: severe"
    assert android.thermal(broken) == nothing


def test_battery() -> None:
    assert android.battery(bed.BATTERY) == {
        "source": "mains", "charging": "charging", "level_percent": 87, "temperature_c": 26.8,
        "voltage_v": 4.21,
    }  # fmt: skip
    unplugged = android.battery(PIXEL_BATTERY)
    assert (unplugged["source"], unplugged["charging"]) == ("battery", "discharging")
    assert set(android.battery("").values()) == {None}


@pytest.mark.parametrize(
    ("present", "cpuinfo", "count"),
    [
        ("0-7\n", "", 8), ("0-3,6", "", 5), ("0", "", 1), ("6\n", "", 6),
        ("", "processor\t: 0\nprocessor\t: 1\n", 2), ("", "", None), ("7-0", "", None),
        ("garbage", "processor : 0", 1),
    ],
)  # fmt: skip
def test_cores(present: str, cpuinfo: str, count: int | None) -> None:
    assert android.cores(present, cpuinfo) == count


def test_frequencies_and_zones() -> None:
    text = "policy0|0 1 2 3|sched_pixel|1704000|1704000\npolicy8|8||3105000|\npolicy*||||\n|||\n"
    assert android.frequencies(text) == {
        "policy0": {"cpus": "0 1 2 3", "governor": "sched_pixel", "khz": 1704000,
                    "max_khz": 1704000},
        "policy8": {"cpus": "8", "governor": None, "khz": 3105000, "max_khz": None},
    }  # fmt: skip
    zones = "thermal_zone0|BIG|31200\nthermal_zone1||42\nthermal_zone2|x|\nthermal_zone3|y|nan\n"
    assert android.zones(zones) == {"thermal_zone0:BIG": 31.2, "thermal_zone1:zone": 42.0}


def test_load() -> None:
    before, after = "cpu  10 0 10 80 0 0 0 0 0 0\n", "cpu  35 0 35 130 0 0 0 0 0 0\n"
    assert android.busy_cores(before + after, 8) == 4.0
    for text in (before, before + before, after + before, "cpu x\ncpu y", before + "cpu 1 2"):
        assert android.busy_cores(text, 8) is None
    assert android.busy_cores(before + after, None) is None
    assert android.loadavg("1.5 2 0.25 3/900 77") == [1.5, 2.0, 0.25]
    assert android.loadavg("1.5 nan 2") is None and android.loadavg("") is None
    assert android.memory_available("MemTotal: 9 kB\nMemAvailable:    5678 kB\n") == 5678 * 1024


def test_sections_are_told_apart_by_their_mark() -> None:
    text = "noise\n#getprop\n[a]: [b]\n#battery\nlevel: 1\n  #thermal\n"
    assert android.sections(text, "#") == {"getprop": "[a]: [b]", "battery": "level: 1\n  #thermal"}


def test_a_phone_that_says_nothing_still_has_a_state() -> None:
    state = android.state({})
    assert state["cpu_model"] == "unknown" and state["emulated"] is False
    assert state["thermal_status"] is None and state["runtimes"] == {}
    assert len(identity(state)) == 16


LINES = st.sampled_from(
    [*bed.THERMAL.splitlines(), *bed.BATTERY.splitlines(),
     "cpu  1 2 3 4 5 6 7 8", "0-7", "1 2 3", "٣-٧", "processor : 0", "Hardware : \x00",
     "[ro.soc.model]: [x]", "[ro.build.version.sdk]: [34]", "MemAvailable: 999999999999999 kB",
     "policy0|0|x|1|2", "policy0|0|x|1e400|-",
     "thermal_zone0|x|99999999999999999999", "thermal_zone0|x|inf", "Thermal Status: 9",
     "Temperature{mValue=1e999, mType=0, mName=x, mStatus=0}", "  temperature: 1e999"]
)  # fmt: skip
SAID = st.dictionaries(
    st.sampled_from(sorted(android.QUESTIONS)),
    st.lists(LINES | st.text(max_size=60), max_size=12).map("\n".join),
)


@settings(max_examples=300, deadline=None)
@given(SAID)
def test_garbage_gives_a_state_that_json_and_the_cache_take(said: dict[str, str]) -> None:
    state: dict[str, Any] = android.state(said)
    json.dumps(state, allow_nan=False)
    assert len(identity(state)) == 16
    assert state["busy_cores"] is None or 0 <= state["busy_cores"] <= state["cores"]


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(min_size=1, max_size=4))
def test_sections_take_any_text(text: str, mark: str) -> None:
    assert all(isinstance(body, str) for body in android.sections(text, mark).values())
