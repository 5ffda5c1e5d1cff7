"""Latency tables: interpolation, correction, and the way to JSON and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import network

from edgeres import targets
from edgeres.compression import budgets, criteria
from edgeres.compression.prune import prune
from edgeres.errors import BadInput
from edgeres.models.latency import LatencyTable, family, grid
from edgeres.models.shapes import LayerShape, shapes_of


def table_of(shapes: list[LayerShape]) -> LatencyTable:
    """A device that takes 1 ns for 100 multiply-accumulates, and 500 ns for a layer."""
    points: dict = {}
    for shape in grid(shapes, 8):
        at = points.setdefault(family(shape), {})
        at[shape.cin, shape.cout] = 500 + shape.macs / 100
    return LatencyTable("d", "tflite-int8", 3000, points)


def test_between_measured_widths_is_interpolated() -> None:
    shapes = shapes_of(network("resnet20", 32), 32)
    table = table_of(shapes)
    conv = next(s for s in shapes if s.name == "layer3.1.conv1").of_widths(24, 40)
    assert table.layer(conv) == pytest.approx(500 + conv.macs / 100)
    assert LatencyTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    with pytest.raises(BadInput, match="measure it anew"):
        table.predict([LayerShape("x", "conv", 8, 8, px=99)])


def test_few_layers_stand_for_many() -> None:
    shapes = shapes_of(network("resnet56", 32), 32)
    assert len(grid(shapes, 8)) <= 70
    assert {family(s) for s in shapes if s.kind != "norm"} == {family(s) for s in grid(shapes, 8)}
    depthwise = [s for s in grid(shapes_of(network("resnet8-mobile"), 16), 8) if s.groups > 1]
    assert depthwise and all(s.groups == s.cin == s.cout for s in depthwise)


def test_a_latency_budget_is_met_in_the_tables_terms_also_after_correction() -> None:
    model = network("resnet20", 32)
    shapes = shapes_of(model, 32)
    table = table_of(shapes)
    whole = table.predict(shapes)
    table = table.corrected(shapes, 2 * whole)
    assert table.predict(shapes) == pytest.approx(2 * whole)
    judge = criteria.magnitude()
    slim = prune(model, budgets.latency(table, whole), round_to=8, criterion=lambda _: judge)
    assert 0.93 * whole <= table.predict(shapes_of(slim, 32)) <= whole
    with pytest.raises(BadInput, match=r"prune\.latency: 0\.001ms can't be met .* 0\.\d+ms is the"):
        prune(model, budgets.latency(table, 1000), round_to=8, criterion=lambda _: judge)


def test_a_file_faster_than_the_overhead_leaves_time_for_its_layers() -> None:
    """Else no slimmer network would be any faster: as on a machine that was busy at first."""
    shapes, fewer = (shapes_of(network(name, 16), 16) for name in ("resnet20", "resnet8"))
    table = table_of(shapes)
    for measured in (table.overhead_ns / 2, table.overhead_ns, 3 * table.predict(shapes)):
        found = table.corrected(shapes, measured)
        assert found.predict(shapes) == pytest.approx(measured)
        assert found.predict(fewer) < found.predict(shapes)


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8"])
@pytest.mark.parametrize(
    "shape",
    [LayerShape("a", "conv", 16, 32, 1, 6), LayerShape("a", "conv", 8, 8, 8, 2, 2),
     LayerShape("a", "conv", 8, 8, (1, 3), (6, 1), groups=8)],
)  # fmt: skip
def test_a_layers_file_has_the_output_that_it_is_timed_for(
    name: str, shape: LayerShape, tmp_path: Path
) -> None:
    """An even kernel, too: as large as a flattened map."""
    target, _ = targets.load(name)
    first, last = target.layer_file(shape, tmp_path / "layer")
    session = target.session(tmp_path / "layer")
    assert session.run(np.zeros(first.shape, first.dtype)).shape == last.shape
