"""Quantities as a person reads them: numbers in, text with its unit out (1 kB = 1000 B)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_NARROW = "\u202f"  # narrow no-break space, between a number and its unit
_SPACE = "\u00a0"
NONE = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float | None, digits: int = 1) -> str:
    """`93.0 %`; what isn't quite everything never rounds up to 100 %."""
    if share is None:
        return NONE
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{text}{_NARROW}%"


def percent_range(low: float, high: float) -> str:
    """`91.4–95.4 %`."""
    return f"{100 * low:.1f}–{100 * high:.1f}{_NARROW}%"


def points(value: float) -> str:
    """`+0.7` or `−0.5`, in percentage points."""
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def points_range(low: float, high: float) -> str:
    """`−1.9 to +0.9`."""
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """`p = 0.45`, `p < 0.001`."""
    if p < 0.001:
        return f"p{_SPACE}<{_SPACE}0.001"
    return f"p{_SPACE}={_SPACE}{p:.2g}" if p < 0.1 else f"p{_SPACE}={_SPACE}{p:.2f}"


def size(count: int | None) -> str:
    """Bytes as `57.9 kB` or `1.09 MB`."""
    if count is None:
        return NONE
    if count >= 999_995_000:
        return f"{count / 1e9:,.2f}{_NARROW}GB"
    if count >= 999_950:
        return f"{count / 1e6:,.2f}{_NARROW}MB"
    return f"{count / 1e3:.1f}{_NARROW}kB" if count >= 1000 else f"{count}{_NARROW}B"


def quantity(count: int | None) -> str:
    """A large count as `272 k` or `10.2 M`."""
    if count is None:
        return NONE
    for limit, factor, unit in ((999_500_000, 1e9, "G"), (999_500, 1e6, "M"), (1000, 1e3, "k")):
        if count >= limit:
            return f"{count / factor:.3g}{_NARROW}{unit}"
    return str(count)


def ratio(value: float) -> str:
    """`1.24×`, `18.8×`."""
    return f"{value:.{2 if value < 2 else 1 if value < 100 else 0}f}×"


def time_unit(nanoseconds: Iterable[float]) -> tuple[str, float]:
    """The unit that fits a column of times, and how many ns it has."""
    return ("µs", 1e3) if max(nanoseconds, default=1e6) < 1e6 else ("ms", 1e6)


def time(nanoseconds: float, unit: tuple[str, float] | None = None) -> str:
    """`43.2 µs` or `1.23 ms`, in the given unit or the one that fits."""
    name, factor = unit or time_unit([nanoseconds])
    return f"{_significant(nanoseconds / factor)}{_NARROW}{name}"


def time_range(bounds: Sequence[float], unit: tuple[str, float]) -> str:
    """`42.9–43.6 µs`."""
    name, factor = unit
    low, high = bounds
    return f"{_significant(low / factor)}–{_significant(high / factor)}{_NARROW}{name}"


def seconds(value: float) -> str:
    """`8.7 s`, `12 min`, `3.4 h`."""
    for factor, unit in ((3600, "h"), (60, "min")):
        if value >= 2 * factor:
            return f"{value / factor:.1f}{_NARROW}{unit}"
    return f"{value:.1f}{_NARROW}s"


_UNITS = {"ms": 1e6, "kb": 1e3, "mb": 1e6}
_SHARES = ("agreement", "accuracy")


def measure(name: str) -> str:
    """A budget's measure in words: `latency p95`, `size`."""
    words = name.split("_")
    return " ".join(words[:-1] if len(words) > 1 and words[-1] in (*_UNITS, "points") else words)


def measured(name: str, value: float | None) -> str:
    """A budget's value with the unit that its name ends in: `5.00 ms`, `51.4 kB`, `99 %`."""
    unit = name.rpartition("_")[2]
    if value is None:
        return NONE
    if unit == "ms":
        return time(value * _UNITS[unit])
    if unit in _UNITS:
        return size(round(value * _UNITS[unit]))
    if unit == "points":
        return f"{value:.4g}{_SPACE}points"
    return f"{100 * value:.4g}{_NARROW}%" if name in _SHARES else number(value)


def number(value: float) -> str:
    """A plain number: `0.9983`, `1,077`, `7.6×10⁻⁶`."""
    if value and abs(value) < 1e-3:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _significant(value: float) -> str:
    """Three digits, and never an exponent."""
    if value <= 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"
