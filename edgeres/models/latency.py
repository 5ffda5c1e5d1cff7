"""Latency predicted from measured layers: shapes in, nanoseconds out.

A table is a plain value; `edgeres.measurement.latency_table` measures one. Between the measured
channel counts a layer's time is interpolated bilinearly, as it is nearly bilinear in them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeres.errors import BadInput
from edgeres.models.shapes import LayerShape, Sides

Family = tuple[str, Sides, Sides, Sides, int]
"""Layers that differ in channels only: kind, px, kernel, stride, groups (0: depthwise)."""

_FAMILY = ("kind", "px", "kernel", "stride", "groups")
_GRID = (0.25, 0.5, 1.0)  # of a width: where layers are measured
_OWN_WIDTH = ("add", "mean")  # and depthwise layers: one width, in and out


@dataclass(frozen=True)
class LatencyTable:
    """What layers take on one device, with one runtime.

    Attributes:
        overhead_ns: of a file whose layer takes no time.
        points: family -> (cin, cout) -> nanoseconds without that overhead.
        factor: measured / predicted, of a whole network; see `corrected`.
    """

    device: str
    target: str
    overhead_ns: float
    points: Mapping[Family, Mapping[tuple[int, int], float]]
    factor: float = 1.0

    def predict(self, shapes: Iterable[LayerShape]) -> float:
        """Nanoseconds of one inference.

        Raises:
            BadInput: a layer of a kind that wasn't measured.
        """
        return self.overhead_ns + self.factor * sum(map(self.layer, shapes))

    def layer(self, shape: LayerShape) -> float:
        """Nanoseconds of one layer, without overhead and before correction.

        Batch norm is folded into a convolution, and takes none.
        """
        if shape.kind == "norm":
            return 0.0
        points = self.points.get(family(shape))
        if points is None:
            raise BadInput(f"the latency table has no layer such as {shape.name}; measure it anew")
        if one_width(shape):
            line = {cout: ns for (_, cout), ns in points.items()}
            return _interpolated(line, shape.cout)
        columns = {}
        for cin in {cin for cin, _ in points}:
            line = {cout: ns for (i, cout), ns in points.items() if i == cin}
            columns[cin] = _interpolated(line, shape.cout)
        return _interpolated(columns, shape.cin)

    def corrected(self, shapes: Sequence[LayerShape], measured_ns: float) -> LatencyTable:
        """The table that predicts this network's whole file as it was measured.

        Layers take what the overhead leaves. A file that is faster than predicted had less
        overhead, too, so that however the machine's pace changed, something is left for layers.
        """
        layers = max(sum(map(self.layer, shapes)), 1.0)
        overhead = self.overhead_ns * min(1.0, measured_ns / (self.overhead_ns + layers))
        return replace(self, overhead_ns=overhead, factor=(measured_ns - overhead) / layers)

    def to_json(self) -> dict[str, object]:
        """JSON-ready; a row per measured layer."""
        rows = [
            dict(zip(_FAMILY, kind, strict=True)) | {"cin": cin, "cout": cout, "ns": ns}
            for kind, points in self.points.items()
            for (cin, cout), ns in points.items()
        ]
        return {"schema": 1, "device": self.device, "target": self.target, "factor": self.factor,
                "overhead_ns": self.overhead_ns, "layers": rows}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Read a table back."""
        points: dict[Any, dict[tuple[int, int], float]] = {}
        for row in data["layers"]:
            kind = tuple(tuple(v) if isinstance(v := row[name], list) else v for name in _FAMILY)
            points.setdefault(kind, {})[row["cin"], row["cout"]] = row["ns"]
        return cls(data["device"], data["target"], data["overhead_ns"], points, data["factor"])


def family(shape: LayerShape) -> Family:
    """What the table calls this kind of layer."""
    groups = 0 if _depthwise(shape) else shape.groups
    return (shape.kind, shape.px, shape.kernel, shape.stride, groups)


def one_width(shape: LayerShape) -> bool:
    """Whether as many channels come out as go in, always."""
    return shape.kind in _OWN_WIDTH or _depthwise(shape)


def grid(shapes: Iterable[LayerShape], round_to: int) -> list[LayerShape]:
    """The layers to measure so that all slimmer forms of a network can be predicted."""
    wanted: dict[tuple[Family, int, int], LayerShape] = {}
    widest: dict[Family, tuple[LayerShape, int, int]] = {}
    for shape in shapes:
        if shape.kind == "norm":
            continue
        _, cin, cout = widest.get(family(shape), (shape, 0, 0))
        widest[family(shape)] = (shape, max(cin, shape.cin), max(cout, shape.cout))
    for shape, cin, cout in widest.values():
        fixed_in = cin <= 4  # the image's channels
        for i in [cin] if fixed_in else _widths(cin, round_to):
            for o in [cout] if shape.kind == "linear" else _widths(cout, round_to):
                if one_width(shape) and i != o:
                    continue
                if i % shape.groups and not one_width(shape):
                    continue
                slim = replace(shape.of_widths(i, o), name="")
                wanted[family(slim), i, o] = slim
    return list(wanted.values())


def _widths(width: int, round_to: int) -> list[int]:
    steps = {max(round_to, round(share * width / round_to) * round_to) for share in _GRID}
    return sorted({min(step, width) for step in steps | {width}})


def _depthwise(shape: LayerShape) -> bool:
    return shape.kind == "conv" and shape.groups == shape.cin == shape.cout > 1


def _interpolated(points: Mapping[int, float], at: int) -> float:
    """Linear between the two nearest points, and beyond the outermost two; never negative."""
    xs = sorted(points)
    if len(xs) == 1:
        return points[xs[0]] * at / xs[0]
    right = min(max(bisect_right(xs, at), 1), len(xs) - 1)
    low, high = xs[right - 1], xs[right]
    share = (at - low) / (high - low)
    return max(points[low] + share * (points[high] - points[low]), 0.0)
