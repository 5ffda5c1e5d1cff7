"""An NVIDIA Jetson that ssh reaches. In: a profile of kind jetson. Out: a Device.

Beside the settings of ssh there are `power_mode` (number or name of nvpmodel), `clocks` ("max" pins
them while it measures) and `sudo` (use it where root is needed).
"""

from __future__ import annotations

from edgeres.devices import DeviceProfile, _jetson, ssh
from edgeres.devices._base import settings
from edgeres.devices._jetson import Jetson, with_text_mode
from edgeres.devices.ssh import SshDevice

WHERE = ssh.WHERE
SETTINGS = {**ssh.SETTINGS, **_jetson.SETTINGS}


def connect(profile: DeviceProfile) -> JetsonDevice:
    """Open a Jetson.

    Raises:
        BadInput: a setting is unknown, missing or wrong.
        DeviceError: the board can't be reached.
    """
    profile = with_text_mode(profile)
    return JetsonDevice(profile, **settings(profile, SETTINGS))


class JetsonDevice(Jetson, SshDevice):
    """Implements Device with the system's ssh and NVIDIA's programs."""
