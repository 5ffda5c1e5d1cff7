"""What the shell may complete: the start of a name in, names out. Never fails, never prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def recipes(start: str) -> list[str]:
    """Shipped recipes."""
    from edgeres.recipe import recipes as known

    return _fitting(start, lambda: [name for name, _ in known()])


def targets(start: str) -> list[str]:
    """Export targets."""
    from edgeres import targets as module

    return _fitting(start, module.names)


def devices(start: str) -> list[str]:
    """Device profiles."""
    from edgeres import devices as module

    return _fitting(start, module.names)


def runtimes(start: str) -> list[str]:
    """Runtimes that can be asked."""
    from edgeres import runtimes as module

    return _fitting(start, module.names)


def npus(start: str) -> list[str]:
    """What files can be compiled for."""
    from edgeres import targets as module

    return _fitting(start, module.npus)


def datasets(start: str) -> list[str]:
    """Data sets."""
    from edgeres import datasets as module

    return _fitting(start, module.names)


def models(start: str) -> list[str]:
    """Networks."""
    from edgeres.models import spec

    return _fitting(start, spec.names)


def lists(start: str) -> list[str]:
    """What `edgeres list` lists."""
    from edgeres.listing import LISTS

    return _fitting(start, lambda: LISTS)


def bundles(start: str) -> list[str]:
    """What a bundle may be for."""
    from edgeres import bundle

    return _fitting(start, lambda: list(bundle.KINDS))


def _fitting(start: str, names: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return [name for name in names() if name.startswith(start)]
    except Exception:  # a broken profile must not break the shell's line
        return []
