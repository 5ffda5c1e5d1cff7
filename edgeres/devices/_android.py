"""What a phone says about itself. In: the text of its own tools. Out: its state, JSON-ready.

The text comes from a device: every line may be missing, of another Android, or garbage. What can't
be read is None or left out. Keys that `_runner.py` reports too mean the same here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

CPU = "/sys/devices/system/cpu"

# section -> the shell command that prints it; one that fails leaves its section empty
QUESTIONS = {
    "getprop": "getprop",
    "uname": "uname -r; uname -m",
    "cores": f"cat {CPU}/present || nproc",
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "loadavg": "cat /proc/loadavg",
    "stat": "head -n 1 /proc/stat; sleep 0.25; head -n 1 /proc/stat",
    "frequency": f"for p in {CPU}/cpufreq/policy*; do "
    'echo "${p##*/}|$(cat $p/related_cpus)|$(cat $p/scaling_governor)|'
    '$(cat $p/scaling_cur_freq)|$(cat $p/scaling_max_freq)"; done',
    "zones": "for z in /sys/class/thermal/thermal_zone*; do "
    'echo "${z##*/}|$(cat $z/type)|$(cat $z/temp)"; done',
    "thermal": "dumpsys thermalservice",
    "battery": "dumpsys battery",
}

# HardwareProperties' and Temperature's types, as far as they have a name here
_SENSORS = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 9: "npu"}
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=([-+\d.eE]{1,20}), mType=(-?\d{1,3}), mName=([^,}\n]{1,80}), mStatus=\d"
)
_CHARGING = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
_EMULATORS = ("goldfish", "ranchu", "cutf_cvm")


def script(mark: str) -> str:
    """One shell script that asks everything; `mark` announces each section."""
    parts = [f"echo '{mark}{name}'; {{ {ask}; }} 2>/dev/null" for name, ask in QUESTIONS.items()]
    return "; ".join(parts)


def sections(text: str, mark: str) -> dict[str, str]:
    """The answers to `script(mark)` by name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(mark):
            lines = found.setdefault(line[len(mark) :].strip(), [])
        else:
            lines.append(line)
    return {name: "\n".join(said) for name, said in found.items()}


def state(said: Mapping[str, str], emulated: bool = False) -> dict[str, Any]:
    """What the phone is and how it is doing, from its `sections`; `emulated` is the profile's."""
    props = properties(said.get("getprop", ""))
    kernel, machine, *_ = [*said.get("uname", "").split(), None, None]
    counted = cores(said.get("cores", ""), said.get("cpuinfo", ""))
    heat, power = thermal(said.get("thermal", "")), battery(said.get("battery", ""))
    fingerprint = props.get("ro.build.fingerprint")
    return {
        "machine": machine or props.get("ro.product.cpu.abi"),
        "cpu_model": soc(props) or _hardware(said.get("cpuinfo", "")) or "unknown",
        "cores": counted,
        "system": "Android",
        "release": props.get("ro.build.version.release"),
        "kernel": kernel,
        "python": None,
        # drivers and kernels of NNAPI and GPU come with the build
        "runtimes": {"android": fingerprint} if fingerprint else {},
        "manufacturer": props.get("ro.product.manufacturer"),
        "model": props.get("ro.product.model"),
        "abi": props.get("ro.product.cpu.abi"),
        "sdk": _integer(props.get("ro.build.version.sdk")),
        "frequency": frequencies(said.get("frequency", "")),
        "throttle_count": None,
        "cooling_state": None,
        "thermal_status": heat["status"],
        "temperatures_c": heat["temperatures_c"] or zones(said.get("zones", "")),
        "loadavg": loadavg(said.get("loadavg", "")),
        "busy_cores": busy_cores(said.get("stat", ""), counted),
        "memory_available_bytes": memory_available(said.get("meminfo", "")),
        "power_source": power.pop("source"),
        "battery": power,
        "virtualized": None,
        "emulated": emulated or is_emulator(props),
        "context": "shell",  # an app in the foreground is scheduled differently
    }


def properties(text: str) -> dict[str, str]:
    """`[key]: [value]` lines of getprop."""
    return dict(re.findall(r"^\[([^\]\n]{1,200})\]: \[(.{0,1000})\]\s*$", text, re.M))


def soc(props: Mapping[str, str]) -> str | None:
    """The chip: its maker and model since Android 12, the platform's name before."""
    parts = [props.get(f"ro.soc.{key}", "") for key in ("manufacturer", "model")]
    named = " ".join(part for part in parts if part)
    return named or props.get("ro.board.platform") or props.get("ro.hardware") or None


def is_emulator(props: Mapping[str, str]) -> bool:
    """Whether it is Android's emulator or another virtual phone."""
    flags = any(props.get(key) == "1" for key in ("ro.kernel.qemu", "ro.boot.qemu"))
    return flags or props.get("ro.hardware", "") in _EMULATORS


def cores(present: str, cpuinfo: str = "") -> int | None:
    """How many cores there are: "0-7", "0-3,5", or a plain number of them."""
    ranges = re.fullmatch(r"\s*(\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*)\s*", present)
    if ranges and not re.fullmatch(r"[1-9]\d*", ranges[1]):
        ends = [part.split("-") for part in ranges[1].split(",")]
        return sum(max(int(end[-1]) - int(end[0]) + 1, 0) for end in ends) or None
    listed = len(re.findall(r"^processor\s*:", cpuinfo, re.M))
    return int(ranges[1]) if ranges else listed or None


def frequencies(text: str) -> dict[str, dict[str, Any]]:
    """Per cluster: its cores, governor, current and highest allowed frequency."""
    found = {}
    for name, cpus, governor, now, highest in _fields(text, 5):
        if name.startswith("policy"):
            found[name] = {"cpus": cpus or None, "governor": governor or None,
                           "khz": _integer(now), "max_khz": _integer(highest)}  # fmt: skip
    return {name: f for name, f in found.items() if any(v is not None for v in f.values())}


def zones(text: str) -> dict[str, float]:
    """Degrees Celsius per thermal zone; some makers count in thousandths, some don't."""
    found = {}
    for name, kind, value in _fields(text, 3):
        degrees = _number(value)
        if degrees is not None and name.startswith("thermal_zone"):
            found[f"{name}:{kind or 'zone'}"] = degrees / 1000 if abs(degrees) > 200 else degrees
    return found


def thermal(text: str) -> dict[str, object]:
    """`dumpsys thermalservice`: status 0 (none) to 6 (shutdown), and the sensors that are there."""
    status = re.search(r"^\s*Thermal Status: (\d)\s*$", text, re.M)
    _, _, current = text.partition("Current temperatures from HAL")  # what follows is the newest
    sensors = {}
    for value, kind, name in _TEMPERATURE.findall(current or text):
        degrees = _number(value)
        if degrees:  # 0.0 stands for a sensor that isn't there
            sensors[f"{_SENSORS.get(int(kind), 'other')}:{name.strip()}"] = degrees
    return {"status": int(status[1]) if status else None, "temperatures_c": sensors}


def battery(text: str) -> dict[str, object]:
    """`dumpsys battery`, in percent, degrees, volts; `source` is "mains" while it is plugged in."""
    pairs = dict(re.findall(r"^\s*([A-Za-z ]{1,40}): (\S{1,40})\s*$", text, re.M))
    plugs = [value == "true" for key, value in pairs.items() if key.endswith(" powered")]
    status = _integer(pairs.get("status"))
    tenths, millivolts = _number(pairs.get("temperature")), _number(pairs.get("voltage"))
    return {
        "source": ("mains" if any(plugs) else "battery") if plugs else None,
        "charging": None if status is None else _CHARGING.get(status, "unknown"),
        "level_percent": _integer(pairs.get("level")),
        "temperature_c": None if tenths is None else tenths / 10,
        "voltage_v": None if millivolts is None else millivolts / 1000,
    }


def memory_available(text: str) -> int | None:
    """Bytes a program could still have."""
    found = re.search(r"^MemAvailable:\s*(\d{1,15}) kB", text, re.M)
    return int(found[1]) * 1024 if found else None


def loadavg(text: str) -> list[float] | None:
    """The three averages."""
    numbers = [_number(word) for word in text.split()[:3]]
    return numbers if len(numbers) == 3 and None not in numbers else None  # type: ignore[return-value]


def busy_cores(text: str, count: int | None) -> float | None:
    """How many of `count` cores were busy between two readings of /proc/stat's first line."""
    readings = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["cpu"]:
            ticks = [_integer(word) for word in words[1:9]]
            readings.append([tick for tick in ticks if tick is not None])
    if count is None or len(readings) != 2 or min(map(len, readings)) < 5:
        return None
    elapsed = sum(readings[1]) - sum(readings[0])
    idle = sum(readings[1][3:5]) - sum(readings[0][3:5])
    return round(count * min(max(1 - idle / elapsed, 0.0), 1.0), 2) if elapsed > 0 else None


def _hardware(cpuinfo: str) -> str | None:
    found = re.search(r"^(?:Hardware|model name|Model)\s*:\s*(\S.{0,100})$", cpuinfo, re.M)
    return found[1].strip() if found else None


def _fields(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == count:
            yield fields


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text.strip()) else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
