"""Numbers as text."""

from __future__ import annotations

import pytest

from edgeres.reporting import _units


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


@pytest.mark.parametrize(("text", "expected"), [
    (_units.percent(0.93), "93.0 %"), (_units.percent(1.0), "100.0 %"),
    (_units.percent(0.99999), "99.9 %"), (_units.percent(0.99833, 2), "99.83 %"),
    (_units.percent_range(0.914, 0.9535), "91.4–95.3 %"),
    (_units.points(-4.5), "−4.5"), (_units.points(0.7), "+0.7"), (_units.points(-0.01), "0.0"),
    (_units.p_value(0.72), "p = 0.72"), (_units.p_value(0.0039), "p = 0.0039"),
    (_units.p_value(1e-9), "p < 0.001"),
    (_units.size(999), "999 B"), (_units.size(57_912), "57.9 kB"),
    (_units.size(999_999), "1.00 MB"), (_units.size(1_089_896), "1.09 MB"),
    (_units.quantity(272_474), "272 k"), (_units.quantity(1_855_808), "1.86 M"),
    (_units.quantity(4_089_000_000), "4.09 G"), (_units.quantity(10), "10"),
    (_units.ratio(1.236), "1.24×"), (_units.ratio(18.82), "18.8×"), (_units.ratio(240.4), "240×"),
    (_units.time(47_300), "47.3 µs"), (_units.time(1_230_000), "1.23 ms"),
    (_units.time(47_300, ("ms", 1e6)), "0.0473 ms"), (_units.time(99, ("ms", 1e6)), "0.0000990 ms"),
    (_units.time(0), "0 µs"), (_units.time(12_345_678_900), "12,346 ms"),
    (_units.time_range([47_000, 47_700], ("µs", 1e3)), "47.0–47.7 µs"),
    (_units.seconds(8.71), "8.7 s"), (_units.seconds(725), "12.1 min"),
    (_units.number(0.99833), "0.9983"), (_units.number(7.63e-6), "7.6×10⁻⁶"),
    (_units.number(0), "0"), (_units.number(123_456), "123,456"),
])  # fmt: skip
def test_text(text: str, expected: str) -> None:
    assert plain(text) == expected
