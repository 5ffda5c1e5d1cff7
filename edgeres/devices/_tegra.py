"""What NVIDIA's programs on a Jetson print, as values. Pure functions: text in, values out.

Lines differ between the generations of L4T (NVIDIA's Linux for Tegra) and with the user's rights,
so that every part may be absent. Text that isn't theirs gives None or an empty value, never an
error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# A rail that all the others hang on: of Thor; of Orin Nano and NX, Xavier NX and TX2; of Nano. An
# AGX Orin or AGX Xavier has none: its rails stand side by side.
_TOTALS = ("VIN", "VDD_IN", "POM_5V_IN")
_NO_SENSOR_C = -200.0  # a sensor that is off reads -256
_LONGEST = 8192  # characters of a line; they have a few hundred
_NUMBER = r"(\d{1,9})"

_RAM = re.compile(rf"\bRAM {_NUMBER}/{_NUMBER}MB")
_SWAP = re.compile(rf"\bSWAP {_NUMBER}/{_NUMBER}MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(rf"{_NUMBER}%@{_NUMBER}")
_GPU = re.compile(r"\bGR3D_FREQ (?=[\d@])(?:(\d{1,3})%)?(?:@(?:\[([\d,]+)\]|(\d{1,9})))?(?=\s|$)")
_EMC = re.compile(rf"\bEMC_FREQ (\d{{1,3}})%(?:@{_NUMBER})?")
_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z][\w-]{0,40})@(-?\d{1,6}(?:\.\d{1,6})?)C(?=[/\s]|$)")
_RAIL = re.compile(
    rf"(?<!\S)([A-Za-z]\w{{0,40}}) {_NUMBER}(?:mW)?/{_NUMBER}(?:mW)?(?:/{_NUMBER}(?:mW)?)?(?=\s|$)"
)


@dataclass(frozen=True)
class Stats:
    """One line of tegrastats; what it doesn't say is None or empty.

    Attributes:
        ram_mb, swap_mb: used and all.
        cores: per core, its load in percent and its clock in MHz; None for one that is off.
        gpu_percent, gpu_mhz: load, and the clock of each part of the GPU.
        emc_percent, emc_mhz: the same of the memory controller.
        temperatures_c: sensor -> degrees Celsius.
        rails_w: power rail -> watts at that moment.
    """

    ram_mb: tuple[int, int] | None = None
    swap_mb: tuple[int, int] | None = None
    cores: tuple[tuple[int, int] | None, ...] = ()
    gpu_percent: int | None = None
    gpu_mhz: tuple[int, ...] = ()
    emc_percent: int | None = None
    emc_mhz: int | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    rails_w: dict[str, float] = field(default_factory=dict)

    def total_w(self) -> float | None:
        """The board's power: of the rail that feeds all, else the sum; None without rails."""
        for name in _TOTALS:
            if name in self.rails_w:
                return self.rails_w[name]
        return sum(self.rails_w.values()) if self.rails_w else None


def stats(line: str) -> Stats | None:
    """One line of `tegrastats`; None if it is none."""
    line = line[:_LONGEST]
    ram, cpu, gpu, emc = (p.search(line) for p in (_RAM, _CPU, _GPU, _EMC))
    rails = {m[1]: int(m[2]) / 1000 for m in _RAIL.finditer(line)}
    if not (ram or cpu or rails):
        return None
    swap = _SWAP.search(line)
    found = ((m[1], float(m[2])) for m in _TEMPERATURE.finditer(line))
    clocks = (gpu[2] or gpu[3] or "") if gpu else ""
    return Stats(
        ram_mb=(int(ram[1]), int(ram[2])) if ram else None,
        swap_mb=(int(swap[1]), int(swap[2])) if swap else None,
        cores=tuple(map(_core, cpu[1].split(","))) if cpu and cpu[1] else (),
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
        gpu_mhz=tuple(int(x[:9]) for x in clocks.split(",") if x),
        emc_percent=int(emc[1]) if emc else None,
        emc_mhz=int(emc[2]) if emc and emc[2] else None,
        temperatures_c={name: degrees for name, degrees in found if degrees > _NO_SENSOR_C},
        rails_w=rails,
    )


def _core(text: str) -> tuple[int, int] | None:
    match = _CORE.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class PowerMode:
    """A power mode of nvpmodel; a name such as "MAXN" or "15W" where it is known."""

    id: int
    name: str


def power_mode(text: str) -> PowerMode | None:
    """The mode that `nvpmodel -q` says is set, among its warnings."""
    match = re.search(r"NV Power Mode:[ \t]*(\S[^\n]{0,80}?)[ \t\r]*\n\s*(\d{1,4})[ \t\r]*$", text,
                      re.MULTILINE)  # fmt: skip
    return PowerMode(int(match[2]), match[1]) if match else None


def power_modes(text: str) -> tuple[PowerMode, ...]:
    """The modes that `nvpmodel -p --verbose` lists."""
    found = re.finditer(r"POWER_MODEL:?[ \t]+ID=(\d{1,4})[ \t]+NAME=(\S{1,80})", text)
    return tuple(PowerMode(int(m[1]), m[2]) for m in found)


def asks_to_reboot(text: str) -> bool:
    """Whether `nvpmodel -m` wants a restart before it changes the mode."""
    return "reboot" in text.lower()


@dataclass(frozen=True)
class Clock:
    """A line of `jetson_clocks --show`: a processor's limits and clock (CPU: kHz; GPU, EMC: Hz)."""

    min: int
    max: int
    current: int | None
    governor: str | None


def clocks(text: str) -> dict[str, Clock]:
    """`jetson_clocks --show`: what (cpu0, GPU, EMC, …) -> its clock."""
    found = {}
    for line in text.splitlines():
        line = line[:_LONGEST]
        fields = dict(re.findall(r"\b([A-Za-z]\w{0,40})=(\w{1,40})", line))
        name = re.match(r"\s*(\w{1,40})\b", line)
        low, high, now = (_integer(fields.get(k)) for k in ("MinFreq", "MaxFreq", "CurrentFreq"))
        if name and low is not None and high is not None:
            found[name[1]] = Clock(low, high, now, fields.get("Governor"))
    return found


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


_JETPACKS: Sequence[tuple[tuple[int, ...], str]] = (
    # the start of L4T's version -> JetPack; of one that isn't listed only the first number is known
    ((39, 2), "7.2"), ((39,), "7"), ((38,), "7"),
    ((36, 4, 4), "6.2.1"), ((36, 4, 3), "6.2"), ((36, 4, 0), "6.1"), ((36, 3), "6.0"), ((36,), "6"),
    ((35, 6, 0), "5.1.4"), ((35, 5), "5.1.3"), ((35, 4), "5.1.2"), ((35, 3), "5.1.1"),
    ((35, 2), "5.1"), ((35, 1), "5.0.2"), ((35,), "5"), ((32, 7), "4.6"), ((32,), "4"),
)  # fmt: skip


@dataclass(frozen=True)
class Release:
    """L4T's version such as "36.4.3", and the JetPack it belongs to; None if that isn't known."""

    l4t: str
    jetpack: str | None


def release(text: str) -> Release | None:
    """The first line of /etc/nv_tegra_release."""
    match = re.search(
        r"# R(\d{1,4}) \(release\), REVISION: (\d{1,4}(?:\.\d{1,4}){0,2})(?![\d.])", text
    )
    if not match:
        return None
    l4t = f"{match[1]}.{match[2]}"
    version = tuple(int(part) for part in l4t.split("."))
    jetpack = next((name for start, name in _JETPACKS if version[: len(start)] == start), None)
    return Release(l4t, jetpack)


def model(text: str) -> str | None:
    """The board's name from /proc/device-tree/model, which ends in a zero byte."""
    name = " ".join(text.replace("\0", " ").split())
    return name[:200] or None
