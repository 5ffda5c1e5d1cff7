"""`edgeres search` on the embedded digits: ranks what fits, writes a recipe that can be planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import network

from edgeres import pipeline
from edgeres.commands import search
from edgeres.errors import BadInput, GateFailed
from edgeres.measurement import latency_table, protocol
from edgeres.measurement.runners import Preset
from edgeres.models.latency import Family, LatencyTable, family
from edgeres.models.modules import Classifier
from edgeres.models.shapes import LayerShape, macs
from edgeres.recipe import load
from edgeres.stages import _latency
from edgeres.text import chain as text


@pytest.fixture
def wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> search.Wish:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_table, "PRESET", Preset(16, 0.001, 1.0, 0.01, sessions=1))
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(64, 0.01, 1.0, 0.1, sessions=1))
    students = ("resnet8-w0.25", "resnet8-w0.5")
    return search.Wish("host", "1s", "onnx-int8", students, 1, 2, tmp_path / "found.yaml")


@pytest.fixture
def as_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes a nanosecond for every multiplication, whatever else the machine does."""

    def table(_: _latency.Meter, shapes: Sequence[LayerShape], __: int) -> LatencyTable:
        points: dict[Family, dict[tuple[int, int], float]] = {}
        for shape in shapes:
            ns = float(macs([shape])) or 1.0
            points.setdefault(family(shape), {})[shape.cin, shape.cout] = ns
        return LatencyTable("host", "onnx-int8", 0.0, points)

    def measure(_: _latency.Meter, model: Classifier) -> dict[str, Any]:
        return {"median_ns": float(macs(_latency.layers_of(model)))}

    monkeypatch.setattr(_latency.Meter, "table", table)
    monkeypatch.setattr(_latency.Meter, "measure", measure)


def test_the_winner_becomes_a_recipe(wish: search.Wish, tmp_path: Path) -> None:
    sets = ["data.size=8", "distill.train.batch_size=256", "distill.train.epochs=8"]
    found = search.searched(load("distill", sets), wish, tmp_path / "runs", quiet=True)
    rows = found["candidates"]
    assert {(r["student"], r["keep"]) for r in rows} >= {(s, 1.0) for s in wish.students}
    trained = [r for r in rows if r["top1"] is not None]
    assert len(trained) == 2
    assert max(r["macs"] for r in trained) == max(r["macs"] for r in rows)
    assert all(r["interval"][0] <= r["top1"] <= r["interval"][1] for r in trained)
    assert found["winner"]["top1"] == max(r["top1"] for r in trained)
    assert found["winner"]["pareto"]
    assert found["winner"]["student"] in text.search(found)
    recipe = load(tmp_path / "found.yaml")
    assert recipe.distill is not None and recipe.distill.student == found["winner"]["student"]
    assert recipe.distill.train.epochs == 8
    assert [s.id for s in pipeline.steps(recipe)][-3:] == ["verify", "benchmark", "report"]
    assert (recipe.prune is not None) == (found["winner"]["keep"] < 1)


def test_too_little_time_is_refused_with_what_is_reachable(wish: search.Wish) -> None:
    found = [search.Candidate(f"resnet{d}", 0.5, network("resnet8"), d, d * 1e6) for d in (20, 8)]
    with pytest.raises(BadInput, match=r"--latency 1s: no candidate .* 8ms is the least reachable"):
        search._promising(found, 1e6, wish)
    assert [c.student for c in search._promising(found, 9e6, wish)] == ["resnet8"]


@pytest.mark.usefixtures("as_computed")
def test_half_the_latency_and_at_most_so_many_points(wish: search.Wish, tmp_path: Path) -> None:
    sets = ["data.size=8", "distill.train.batch_size=256", "distill.student=resnet20"]
    asked = replace(wish, latency="0.9x", max_drop=100.0)
    found = search.searched(load("distill", sets), asked, tmp_path / "runs", quiet=True)
    (whole,) = (r for r in found["candidates"] if r["student"] == "resnet20" and r["keep"] == 1)
    assert found["limit_ns"] == pytest.approx(0.9 * whole["latency_ns"])
    assert whole["top1"] is not None and not whole["fits"]
    assert found["winner"]["fits"] and found["base"] == "resnet20"
    assert found["lost_points"] == pytest.approx(100 * (whole["top1"] - found["winner"]["top1"]))
    assert f"{-found['lost_points']:+.2f} points against resnet20" in text.search(found)
    pruned = load(tmp_path / "found.yaml").prune
    assert pruned is None or pruned.max_drop == 100

    (tmp_path / "found.yaml").unlink()
    with pytest.raises(GateFailed, match=r"loses .* points of validation top-1 against resnet20"):
        search.searched(load("distill", sets), replace(asked, max_drop=-100.0),
                        tmp_path / "runs", quiet=True)  # fmt: skip
    assert not (tmp_path / "found.yaml").exists()


def test_how_fast_is_said_once() -> None:
    assert search.latency("latency=0.5x", None) == "0.5x" and search.latency(None, "2ms") == "2ms"
    for budget, said in ((None, None), ("latency=2ms", "2ms")):
        with pytest.raises(BadInput, match="say how fast it is to be, once"):
            search.latency(budget, said)
    with pytest.raises(BadInput, match="a search keeps to a latency"):
        search.latency("macs=0.5", None)
