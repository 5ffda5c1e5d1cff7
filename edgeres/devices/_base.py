"""What every kind of device shares."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeres import errors
from edgeres.devices._events import identity, probe
from edgeres.devices._profiles import DeviceProfile, Setting
from edgeres.errors import BadInput

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeres.devices import Meter


class Base:
    """The parts of `Device` that don't depend on how it is reached."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self.name = profile.name
        self._identity: str | None = None

    def probe(self) -> dict[str, Any]:
        """The state that `_runner.py` reports."""
        return probe(self, self.profile.emulated)  # type: ignore[arg-type]

    def identity(self) -> str:
        """A stable id of the machine and its runtimes."""
        if self._identity is None:
            self._identity = identity(self.probe())
        return self._identity

    def steady(self) -> AbstractContextManager[dict[str, object]]:
        """Nothing to set."""
        return contextlib.nullcontext({})

    def meter(self) -> Meter | None:
        """No power to read."""
        return None

    def close(self) -> None:
        """Nothing to remove."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def settings(profile: DeviceProfile, known: Mapping[str, Setting]) -> dict[str, Any]:
    """The profile's settings, each of its type.

    Raises:
        BadInput: an unknown one, or one of another type.
    """
    for key, value in profile.settings.items():
        if key not in known:
            raise errors.unknown(f"setting of a {profile.kind} device", str(key), known)
        if type(value) is not known[key].type:
            what = {str: "text", int: "a whole number", bool: "true or false"}[known[key].type]
            raise BadInput(f"device '{profile.name}': the setting {key} must be {what}")
    return dict(profile.settings)
