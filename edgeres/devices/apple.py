"""A Mac, or an iPhone or iPad attached to it. In: a profile of kind apple. Out: a Device on macOS.

Apple's devices are reached by coremltools, which builds and installs its own runner app with Xcode
(its `remote_device` module); the only runner for them is `coreml`. Elsewhere than on macOS
connecting fails with a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from edgeres.devices import DeviceProfile, Setting
from edgeres.devices._base import settings
from edgeres.devices.local import LocalDevice
from edgeres.errors import BadInput, DeviceError
from edgeres.quiet import quiet

if TYPE_CHECKING:
    from coremltools.models.ml_program.experimental import remote_device as apple

SETTINGS = {
    "type": Setting(str, starts_programs=False),
    "device": Setting(str, starts_programs=False),
    "development_team": Setting(str, starts_programs=True),  # Xcode builds and signs an app
}
_TYPES = ("iphone", "ipad")


def connect(profile: DeviceProfile) -> AppleDevice:
    """Open this Mac, or with `type: iphone` the attached phone of that name or identifier.

    Raises:
        BadInput: a setting is unknown or wrong.
        DeviceError: this isn't a Mac, or the phone isn't attached or not ready for development.
    """
    chosen = settings(profile, SETTINGS)
    if chosen.get("type", "mac") not in ("mac", *_TYPES):
        raise BadInput(f"device '{profile.name}': type is one of mac, {', '.join(_TYPES)}")
    if sys.platform != "darwin":
        raise DeviceError(f"device '{profile.name}': Apple's devices are reached from a Mac with "
                          "Xcode only; run this command there")  # fmt: skip
    return AppleDevice(profile, **chosen)


_T = TypeVar("_T")


class AppleDevice(LocalDevice):
    """This Mac, and what hangs on it.

    Attributes:
        remote: coremltools' own device, ready to run models; None for the Mac itself.
    """

    def __init__(
        self, profile: DeviceProfile, type: str = "mac", device: str = "",
        development_team: str = "",
    ) -> None:  # fmt: skip
        super().__init__(profile)
        self.remote = self._attached(type, device, development_team) if type in _TYPES else None
        self.address = f"apple:{self.remote.udid}" if self.remote else "local"

    def _attached(self, type: str, device: str, team: str) -> apple.Device:
        from coremltools.models.ml_program.experimental import remote_device as apple

        with quiet(f"preparing {self.name} with Xcode"):
            found = apple.Device.get_connected_devices(apple.DeviceType(type))
            named = [d for d in found if device in ("", d.name, d.udid, d.identifier)]
            if len(named) != 1:
                there = ", ".join(d.name for d in found) or "none"
                raise DeviceError(f"device '{self.name}': {len(named)} attached devices fit; "
                                  f"attached: {there}; set settings.device")  # fmt: skip
            credentials = apple.AppSigningCredentials(development_team=team)
            return _waited(named[0].prepare_for_model_debugging(credentials))

    def probe(self) -> dict[str, object]:
        """The Mac's state, and which phone hangs on it."""
        state = super().probe()
        if self.remote:
            state |= {"cpu_model": self.remote.name, "system": self.remote.type.value,
                      "release": self.remote.os_version, "temperatures_c": {},
                      "busy_cores": None}  # fmt: skip
        return state


def _waited(awaitable: Awaitable[_T]) -> _T:
    import asyncio

    async def one() -> _T:
        return await awaitable

    return asyncio.run(one())
