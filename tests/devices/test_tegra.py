"""What NVIDIA's programs print, of every generation: values that were counted by hand."""

from __future__ import annotations

import json

import pytest
from beds.jetson_board import MODEL, ORIN_NANO, RELEASE
from hypothesis import given
from hypothesis import strategies as st

from edgeres.devices import _tegra
from edgeres.devices._tegra import Clock, PowerMode, Release

NANO = (
    "RAM 1234/3956MB (lfb 123x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) "
    "CPU [12%@1479,off,off,7%@1479] EMC_FREQ 3%@1600 GR3D_FREQ 0%@76 APE 25 PLL@25C CPU@28.5C "
    "PMIC@100C GPU@27C AO@33C thermal@27.75C POM_5V_IN 2245/2250 POM_5V_GPU 0/10 POM_5V_CPU 408/401"
)
XAVIER = (
    "RAM 2000/31919MB (lfb 7000x4MB) MTS fg 1% bg 2% CPU [1%@1190,2%@1190] EMC_FREQ 0% "
    "GR3D_FREQ 10% VIC_FREQ 115 NVENC0 off GPU@28C AUX@26.5C CPU@29C "
    "GPU 1155/1155 CPU 462/500 SOC 1386/1386 CV 0/0 VDDRQ 231/231 SYS5V 2016/2016"
)
AGX_ORIN_7 = (
    "05-01-2026 10:11:12 RAM 5000/62841MB (lfb 9x4MB) CPU [0%@729,0%@729] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 5%@[1300,1300] cpu@52.9C/52.9C tj@53C/53C gpu@-256C/-256C "
    "VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 1200mW/1300mW/1250mW VIN_SYS_5V0 4000mW/4000mW"
)
THOR = (
    "08-28-2025 10:00:00 RAM 9000/125770MB CPU [1%@972] GR3D_FREQ @[1000,1000,1000] "
    "VDD_GPU 1000mW/1000mW VDD_CPU_SOC_MSS 6510mW/6510mW VIN_SYS_5V0 6520mW/6520mW "
    "VIN 28000mW/28000mW"
)


def test_a_jetson_nano() -> None:
    stats = _tegra.stats(NANO)
    assert stats is not None
    assert (stats.ram_mb, stats.swap_mb) == ((1234, 3956), (0, 1978))
    assert stats.cores == ((12, 1479), None, None, (7, 1479))
    assert (stats.gpu_percent, stats.gpu_mhz) == (0, (76,))
    assert (stats.emc_percent, stats.emc_mhz) == (3, 1600)
    assert stats.temperatures_c["CPU"] == 28.5 and stats.temperatures_c["thermal"] == 27.75
    assert stats.rails_w == {"POM_5V_IN": 2.245, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.408}
    assert stats.total_w() == 2.245


def test_one_name_is_a_temperature_and_a_rail() -> None:
    stats = _tegra.stats(XAVIER)
    assert stats is not None
    assert stats.temperatures_c == {"GPU": 28.0, "AUX": 26.5, "CPU": 29.0}
    assert stats.total_w() == pytest.approx(1.155 + 0.462 + 1.386 + 0 + 0.231 + 2.016)
    assert (stats.gpu_percent, stats.gpu_mhz) == (10, ())
    assert (stats.emc_percent, stats.emc_mhz) == (0, None)


def test_lists_of_clocks_units_and_sensors_that_are_off() -> None:
    stats = _tegra.stats(AGX_ORIN_7)
    assert stats is not None
    assert (stats.gpu_percent, stats.gpu_mhz) == (5, (1300, 1300))
    assert stats.temperatures_c == {"cpu": 52.9, "tj": 53.0}
    assert stats.total_w() == pytest.approx(5.139 + 1.2 + 4.0)
    thor = _tegra.stats(THOR)
    assert thor is not None
    assert (thor.gpu_percent, thor.gpu_mhz, thor.swap_mb) == (None, (1000, 1000, 1000), None)
    assert thor.total_w() == 28.0  # the board; the other rails are parts of it
    orin = _tegra.stats(ORIN_NANO.format(vdd_in=4321))
    assert orin is not None and orin.total_w() == 4.321 and orin.gpu_mhz == (1300,)


def test_power_modes() -> None:
    assert _tegra.power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n") == (
        PowerMode(0, "MAXN")
    )
    assert _tegra.power_mode("NV Fan Mode:quiet\nNV Power Mode: MODE_30W\n2") == (
        PowerMode(2, "MODE_30W")
    )
    assert _tegra.power_mode("NV Power Mode: \n") is None
    listed = "PM_CONFIG: DEFAULT=MAXN(0)\nPOWER_MODEL: ID=0 NAME=MAXN\nPOWER_MODEL: ID=1 NAME=5W\n"
    assert _tegra.power_modes(listed) == (PowerMode(0, "MAXN"), PowerMode(1, "5W"))
    assert _tegra.asks_to_reboot("NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:")
    assert not _tegra.asks_to_reboot("NVPM WARN: Golden image context is already created")


def test_clocks() -> None:
    shown = (
        "SOC family:tegra194  Machine:Jetson-AGX\n"
        "cpu0: Online=1 Governor=schedutil MinFreq=1190400 MaxFreq=2265600 CurrentFreq=1190400 "
        "IdleStates: C1=1 c7=1\n"
        "GPU MinFreq=318750000 MaxFreq=1377000000 CurrentFreq=318750000\n"
        "EMC MinFreq=204000000 MaxFreq=2133000000 CurrentFreq=? FreqOverride=0\n"
    )
    assert _tegra.clocks(shown) == {
        "cpu0": Clock(1190400, 2265600, 1190400, "schedutil"),
        "GPU": Clock(318750000, 1377000000, 318750000, None),
        "EMC": Clock(204000000, 2133000000, None, None),
    }
    assert _tegra.clocks("Error: Run this script(/usr/bin/jetson_clocks) as a root user") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RELEASE, Release("36.4.3", "6.2")),
        ("# R39 (release), REVISION: 2.0, GCID: 1", Release("39.2.0", "7.2")),
        ("# R38 (release), REVISION: 2.1, GCID: 1", Release("38.2.1", "7")),
        ("# R35 (release), REVISION: 4.1, GCID: 1", Release("35.4.1", "5.1.2")),
        ("# R36 (release), REVISION: 5.0, GCID: 1", Release("36.5.0", "6")),
        ("# R21 (release), REVISION: 5.0, GCID: 1", Release("21.5.0", None)),
        ("Debian", None),
    ],
)
def test_releases(text: str, expected: Release | None) -> None:
    assert _tegra.release(text) == expected


def test_the_board_s_name() -> None:
    assert _tegra.model(MODEL) == "NVIDIA Jetson Orin Nano Developer Kit"
    assert _tegra.model("\0\n") is None


PIECES = st.sampled_from(
    ["RAM ", "CPU [", "]", "GR3D_FREQ ", "10%", "@", "[", ",", "1/2", "VDD_IN ", "mW", "C ", "-",
     "NV Power Mode: ", "\n", "ID=", "NAME=", "POWER_MODEL: ", "MinFreq=", "MaxFreq=", "# R",
     " (release), REVISION: ", "9" * 40, "²", "٣", "\0", "cpu0: "]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
def test_garbage_gives_nothing_and_raises_nothing(text: str) -> None:
    stats = _tegra.stats(text)
    assert stats is None or stats.total_w() is None or stats.total_w() >= 0
    found = [read(text) for read in (_tegra.power_mode, _tegra.power_modes, _tegra.clocks,
                                     _tegra.release, _tegra.model)]  # fmt: skip
    assert json.dumps(found, allow_nan=False)  # a report can hold it


def test_a_long_hostile_line_takes_no_time() -> None:
    for piece in ("CPU [", "a@", "A 1/", "GR3D_FREQ @[1,", "NV Power Mode: x ", "MinFreq=1 "):
        line = piece * 50_000
        assert (_tegra.stats(line), _tegra.power_mode(line), _tegra.clocks(line)) == (
            None,
            None,
            {},
        )
