"""Numbers with units as people write them: `90KB` or `5ms` in, bytes or nanoseconds out."""

from __future__ import annotations

import math
import re

from edgeres.errors import BadInput

BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "KiB": 1024.0, "MiB": 1024.0**2}
NANOSECONDS = {"us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


def parse(text: str, units: dict[str, float], example: str) -> float:
    """The number in the smallest of the units.

    Args:
        example: a right one, for messages.

    Raises:
        BadInput: no number, no unit, an unknown one, or nothing above zero.
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-zµ]*)\s*", text)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise BadInput(f"'{text[:40]}' is no number with a unit; write e.g. {example}")
    if match[2] not in units:
        wrong = f"the unit '{match[2]}' is unknown" if match[2] else f"'{text[:40]}' has no unit"
        raise BadInput(f"{wrong}; write e.g. {example} (units: {', '.join(units)})")
    if number <= 0:
        raise BadInput(f"'{text[:40]}' is not above zero; write e.g. {example}")
    return number * units[match[2]]


def size(text: str) -> float:
    """Bytes; KB is 1,000 of them, KiB 1,024."""
    return parse(text, BYTES, "90KB")


def time_or_share(text: str) -> tuple[float, bool]:
    """Nanoseconds and False, or of `0.5x` the share 0.5 and True.

    Raises:
        BadInput: as `parse`, or a share that keeps all.
    """
    if not text.strip().endswith("x"):
        return time(text), False
    share = parse(text, {"x": 1.0}, "0.5x")
    if share >= 1:
        raise BadInput(f"'{text[:40]}' is no share to keep; write one below 1x, e.g. 0.5x")
    return share, True


def time(text: str) -> float:
    """Nanoseconds."""
    return parse(text, NANOSECONDS, "5ms")
