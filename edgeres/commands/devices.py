"""Commands about devices: probe, discover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres import devices
from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.measurement import farm, runners

if TYPE_CHECKING:
    from edgeres.text.here import Device


def probed(name: str) -> Device:
    """What a device is and how it is doing, and what it lacks for the runners of its profile."""
    profile = devices.load(name)
    with devices.open_device(profile) as device, farm.reserved(device.address):
        state = device.probe()
        missing = [m for r in profile.runners for m in runners.load(r).missing(device, state)]
        return {"device": device.name, "address": device.address, "state": state,
                "identity": device.identity(), "missing": missing}  # fmt: skip


def discovered() -> list[dict[str, object]]:
    """What could be used with `--device`, by every kind of device that can look for some."""
    found: list[dict[str, object]] = []
    for kind in devices.kinds():
        try:
            look = getattr(devices.PLUGINS.load(kind), "discover", None)
            found += look() if look else []
        except (BadInput, DeviceError, MissingComponent) as error:
            found.append({"device": "-", "state": "-", "about": str(error)})
    return found
