"""What is special about an NVIDIA Jetson, however it is reached: power modes, clocks, power rails.

In: a device that runs programs on the board and keeps a guard there (`held`). Out: the same device
that sets the power mode it is measured in, reads its power, and knows which Jetson it is.

nvpmodel chooses a power mode, jetson_clocks pins the clocks to the mode's maxima, tegrastats prints
the power rails. The first two need root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from edgeres.devices import _events, _tegra
from edgeres.devices._base import Base
from edgeres.devices._profiles import DeviceProfile, Setting
from edgeres.devices._tegra import PowerMode
from edgeres.errors import BadInput, DeviceError, unknown

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeres.devices import Completed

SETTINGS = {
    "power_mode": Setting(str, starts_programs=False),
    "clocks": Setting(str, starts_programs=False),
    "sudo": Setting(bool, starts_programs=True),
}
_CLOCKS = ("", "max")
_MODEL, _RELEASE = "/proc/device-tree/model", "/etc/nv_tegra_release"
_SHORT_S, _SWITCH_S = 20.0, 120.0
_INTERVAL_MS = 100
_ROOT = ("log in as root, or set 'sudo: true' and let the user run nvpmodel and jetson_clocks by "
         "sudo without a password")  # fmt: skip
# Both streams in one. One status for all failures: of 127, a device says that `sh` isn't there.
_QUIET = '"$@" 2>&1 || exit 1'
# To the question whether to restart now the answer is no; a mode that needs it isn't entered.
_ANSWER_NO = 'echo no | "$@" 2>&1 || exit 1'
# In a session of its own, which must stand before this command ends: a device may then end all that
# is left in the command's process group.
_START = """
cd "$1" && shift || exit 1
$(command -v setsid) sh -c 'echo $$ >pid && exec "$@"' sh "$@" >log 2>&1 </dev/null &
until [ -s pid ]; do sleep 0.1; done
"""
_OVER_CURRENT = "cat /sys/class/hwmon/hwmon*/oc*_event_cnt"


def with_text_mode(profile: DeviceProfile) -> DeviceProfile:
    """The same profile, `power_mode: 2` written as text: a mode is named by number or by name."""
    mode = profile.settings.get("power_mode")
    if type(mode) is not int:
        return profile
    return replace(profile, settings={**profile.settings, "power_mode": str(mode)})


class Jetson(Base):
    """In front of a device's class: `class JetsonDevice(Jetson, SshDevice)`."""

    if TYPE_CHECKING:

        def run(self, argv: Sequence[str], timeout_s: float) -> Completed: ...

        @contextlib.contextmanager
        def held(self, restore: Sequence[Sequence[str]]) -> Iterator[None]: ...

    def __init__(
        self,
        profile: DeviceProfile,
        *,
        power_mode: str = "",
        clocks: str = "",
        sudo: bool = False,
        **reached_by: object,
    ) -> None:
        if clocks not in _CLOCKS:
            raise BadInput(f"device '{profile.name}': the setting clocks must be 'max' or ''")
        super().__init__(profile, **reached_by)
        self._power_mode, self._clocks = power_mode, clocks
        self._root = ("sudo", "-n") if sudo else ()

    def probe(self) -> dict[str, object]:
        """The state of any device, and which Jetson it is, its power mode and clocks."""
        state = super().probe()
        release = _tegra.release(self._said("cat", _RELEASE))
        mode = self._mode()
        clocks = _tegra.clocks(self._said(*self._root, "jetson_clocks", "--show"))
        line = self._said("sh", "-c", f"tegrastats --interval {_INTERVAL_MS} | head -n 1")
        stats = _tegra.stats(line)
        over = [int(x) for x in self._said("sh", "-c", _OVER_CURRENT).split() if x.isdecimal()]
        if over:  # the hardware brakes at these as it does for heat
            state["throttle_count"] = (state["throttle_count"] or 0) + sum(over)
        if stats and not state["temperatures_c"]:
            state["temperatures_c"] = stats.temperatures_c
        return state | {
            "board": _tegra.model(self._said("cat", _MODEL)),
            "l4t": release and release.l4t, "jetpack": release and release.jetpack,
            "power_mode": mode and mode.name,
            "clocks": {name: asdict(clock) for name, clock in clocks.items()} or None,
        }  # fmt: skip

    def identity(self) -> str:
        """A stable id of the board, its release (TensorRT comes with it) and its runtimes."""
        if self._identity is None:
            state = self.probe()
            parts = [_events.identity(state), state["board"], state["l4t"]]
            self._identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        return self._identity

    @contextlib.contextmanager
    def steady(self) -> Iterator[dict[str, object]]:
        """Enter the power mode, pin the clocks; the guard brings back what was there."""
        if not (self._power_mode or self._clocks):
            yield {}
            return
        before, wanted = self._mode(), self._wanted()
        if wanted and before is None:
            raise DeviceError(f"device '{self.name}': nvpmodel doesn't tell the power mode that is "
                              f"set, so that it can't be restored; {_ROOT}")  # fmt: skip
        folder = self._folder()
        stored = f"{folder}/clocks"  # a new one: jetson_clocks asks before it overwrites
        # The clocks are stored in the old mode, so they come back after it. Also where only the
        # mode changes: entering one sets clocks that somebody may have pinned before.
        restore = [(*self._root, "jetson_clocks", "--restore", stored), ("rm", "-rf", folder)]
        changes = wanted if wanted and before and wanted.id != before.id else None
        if changes and before:
            restore.insert(0, (*self._root, "nvpmodel", "-m", str(before.id)))
        with self.held(restore):
            self._as_root("jetson_clocks", "--store", stored)
            if changes:
                self._enter(changes)
            if self._clocks:
                self._as_root("jetson_clocks")
            yield {"power_mode": wanted and wanted.name, "clocks": self._clocks}

    def meter(self) -> TegraMeter | None:
        """A reader of the power rails; None where there is no tegrastats."""
        there = self._said("sh", "-c", "command -v tegrastats")
        return TegraMeter(self) if there else None

    def _mode(self) -> PowerMode | None:
        return _tegra.power_mode(self._said(*self._root, "nvpmodel", "-q"))

    def _wanted(self) -> PowerMode | None:
        """The power mode that the profile names, by number or by name."""
        if not self._power_mode:
            return None
        modes = _tegra.power_modes(self._said(*self._root, "nvpmodel", "-p", "--verbose"))
        if not modes:
            raise DeviceError(f"device '{self.name}': nvpmodel lists no power modes; {_ROOT}")
        for mode in modes:
            if self._power_mode in (str(mode.id), mode.name):
                return mode
        known = [mode.name for mode in modes]
        raise DeviceError(f"device '{self.name}': "
                          f"{unknown('power mode', self._power_mode, known)}")  # fmt: skip

    def _enter(self, mode: PowerMode) -> None:
        done = self._sh(_ANSWER_NO, (*self._root, "nvpmodel", "-m", str(mode.id)), _SWITCH_S)
        if _tegra.asks_to_reboot(done.stdout):
            raise DeviceError(
                f"device '{self.name}': power mode {mode.name} needs a restart of the board: run "
                f"'sudo nvpmodel -m {mode.id}' there, let it restart, and measure again"
            )
        now = self._mode()
        if now is None or now.id != mode.id:
            said = _events.last_line(done.stdout) or f"exit status {done.returncode}"
            raise DeviceError(f"device '{self.name}': nvpmodel did not enter power mode "
                              f"{mode.name} ({said}); {_ROOT}")  # fmt: skip

    def _as_root(self, *argv: str) -> None:
        """Run what needs root; jetson_clocks may complain and yet end with status 0."""
        done = self._sh(_QUIET, (*self._root, *argv), _SWITCH_S)
        if done.returncode != 0 or "Error:" in done.stdout:
            said = _events.last_line(done.stdout) or f"exit status {done.returncode}"
            raise DeviceError(f"device '{self.name}': {argv[0]} failed ({said}); {_ROOT}")

    def _folder(self) -> str:
        """A new folder on the board."""
        path = self._said("mktemp", "-d").strip()
        if not path.startswith("/"):
            raise DeviceError(f"device '{self.name}': can't make a temporary folder there")
        return path

    def _said(self, *argv: str) -> str:
        """What a program printed; "" if it failed or isn't there."""
        done = self._sh(_QUIET, argv, _SHORT_S)
        return done.stdout if done.returncode == 0 else ""

    def _sh(self, script: str, argv: Sequence[str], timeout_s: float) -> Completed:
        return self.run(["sh", "-c", script, "sh", *argv], timeout_s)


class TegraMeter:
    """Reads the power rails with tegrastats, which runs on the board while the block lasts."""

    def __init__(self, device: Jetson) -> None:
        self._device = device
        self._stack = contextlib.ExitStack()
        self._lines: list[str] | None = None

    def __enter__(self) -> Self:
        self._log = self._device._folder()
        # The guard stands before the program starts: nothing stays behind whatever happens.
        kill = 'kill "$(cat "$1/pid")"; rm -rf "$1"'
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._device.held([("sh", "-c", kill, "sh", self._log)]))
            argv = ("tegrastats", "--interval", str(_INTERVAL_MS))  # the rails need no root
            self._device._sh(_START, (self._log, *argv), _SHORT_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._lines = self._read()
        finally:
            self._stack.close()

    def watts(self) -> list[dict[str, float]]:
        """One reading per line: `total` and each rail, in watts."""
        lines = self._read() if self._lines is None else self._lines
        found = []
        for stats in map(_tegra.stats, lines):
            total = stats.total_w() if stats else None
            if stats and total is not None:
                found.append({**stats.rails_w, "total": total})
        return found

    def _read(self) -> list[str]:
        return self._device._said("cat", f"{self._log}/log").splitlines()
