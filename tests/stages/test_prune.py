"""The prune stage: steps, criteria, interruption, and a latency budget on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import network

from edgeres import devices
from edgeres.artifact import Artifact
from edgeres.commands import chain
from edgeres.compression import budgets, criteria
from edgeres.compression.prune import prune as cut
from edgeres.errors import BadInput, GateFailed
from edgeres.measurement import latency_table
from edgeres.measurement.runners import Preset
from edgeres.models.shapes import LayerShape, shapes_of
from edgeres.recipe import PruneSection, checked, load_mapping
from edgeres.stages import Context, _checkpoint, _latency, _pruning, data, prune

PX = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Digits, and a ResNet-20 as teacher and model."""
    root = tmp_path_factory.mktemp("prune")
    section = load_mapping({"name": "x", "data": {"source": "digits", "size": PX}}).data
    (root / "data").mkdir()
    context = Context(0, root, lambda *_: None)
    found = data.run(section, {}, root / "data", context)
    digits = Artifact("data", "k", "d", root / "data", {}, {}, found, {}, 0.0)
    (root / "model").mkdir()
    facts = _checkpoint.write(root / "model", network("resnet20", PX), digits, history=[])
    model = Artifact("teacher", "k", "d", root / "model", {}, {}, facts, {}, 0.0)
    return {"data": digits, "teacher": model, "model": model}


def run(inputs: dict[str, Artifact], out: Path, tick: Any = None, **settings: Any) -> dict:
    train = {"epochs": settings.pop("epochs", 1), "batch_size": 512, "learning_rate": 0.01}
    section = checked(PruneSection, {**settings, "train": train})
    for folder in (out / "work", out / "out"):
        folder.mkdir(parents=True, exist_ok=True)
    context = Context(0, out / "work", tick or (lambda *_: None))
    return prune.run(section, inputs, out / "out", context)


def test_steps_share_the_epochs_and_an_interruption_costs_one(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = {"macs": 0.5, "steps": 2, "epochs": 3, "criterion": "taylor", "blocks": 1}
    whole = run(inputs, tmp_path / "a", **settings)
    assert whole["epochs"] == 3
    assert 0.4 <= whole["macs_after"] / whole["macs_before"] <= 0.5
    rows = (tmp_path / "a" / "out" / "history.jsonl").read_text().splitlines()
    assert [json.loads(row)["part"] for row in rows] == ["step-1", "step-2", "step-2"]

    def tick(done: int, total: int, note: str) -> None:
        if (tmp_path / "b" / "work" / "step-1" / "done" / "history.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path / "b", tick, **settings)
    again = run(inputs, tmp_path / "b", **settings)
    assert again == whole
    same = [(tmp_path / x / "out" / "weights.safetensors").read_bytes() for x in "ab"]
    assert same[0] == same[1]


def test_group_sparsity_trains_before_it_prunes(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    facts = run(inputs, tmp_path, params=0.5, criterion="group-sparsity", sparse_epochs=2)
    assert facts["epochs"] == 3
    assert facts["parameters_after"] <= 0.5 * facts["parameters_before"]


def test_blocks_alone_are_a_budget(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    facts = run(inputs, tmp_path, blocks=2, epochs=0)
    assert facts["macs_after"] < facts["macs_before"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"macs": 0}, "between 0 and 1"), ({"macs": 1}, "between 0 and 1"),
     ({"params": 1.5}, "between 0 and 1"), ({"size": 90}, "'90' has no unit; write e.g. 90KB"),
     ({"size": "90kg"}, "unit 'kg' is unknown"), ({"latency": "5"}, "has no unit; write e.g. 5ms"),
     ({"latency": "0ms"}, "not above zero"), ({"latency": "fast"}, "no number with a unit"),
     ({"latency": "1x"}, "no share to keep; write one below 1x"), ({"latency": "0x"}, "above zero"),
     ({"macs": 0.5, "size": "9KB"}, "macs and size; keep one"), ({}, "has no budget; add one")],
)  # fmt: skip
def test_a_wrong_budget_is_refused_with_the_mend(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        checked(PruneSection, settings)


def test_a_network_that_lost_too_much_fails_the_run_and_is_kept(tmp_path: Path) -> None:
    values = {
        "name": "r", "data": {"source": "digits", "size": PX},
        "teacher": {"model": "resnet8", "train": {"epochs": 2, "batch_size": 64}},
        "prune": {"macs": 0.3, "max_drop": 0.5, "train": {"epochs": 0}},
    }  # fmt: skip
    with pytest.raises(
        GateFailed, match=r"prune: [\d.]+ points of test top-1 are lost \(n = .*0\.5"
    ):
        chain.perform(load_mapping(values), tmp_path, None, quiet=True)
    (stored,) = (tmp_path / "store" / "artifacts").glob("prune-*/artifact.json")
    made = stored.stat().st_mtime_ns
    values["prune"]["max_drop"] = None
    facts = chain.perform(load_mapping(values), tmp_path, None, quiet=True)["artifacts"]["prune"]
    assert facts["facts"]["lost_points"] > 0.5
    assert stored.stat().st_mtime_ns == made  # another limit prunes nothing again


def test_a_latency_may_be_a_share_of_the_unpruned_networks() -> None:
    before = {"paced_ns": 4e6}
    for text, limit in (("0.5x", 2e6), ("3ms", 3e6), (" 0.25x", 1e6)):
        section = checked(PruneSection, {"latency": text})
        assert _pruning._limit_ns(section, before) == limit


def test_the_command_says_both_halves_of_half_the_latency_for_one_point() -> None:
    found = chain.budget("latency=0.5x", 1.0)
    assert found == {"macs": None, "params": None, "size": None, "latency": "0.5x",
                     "max_drop": 1.0}  # fmt: skip
    assert "max_drop" not in chain.budget("macs=0.5", None)


def test_only_what_plays_a_part_is_keyed() -> None:
    plain = prune.keyed(checked(PruneSection, {"macs": 0.5}))
    assert not {"device", "target", "sparsity", "identity", "max_drop"} & set(plain)
    assert "target" in prune.keyed(checked(PruneSection, {"size": "9KB"}))
    assert prune.keyed(checked(PruneSection, {"latency": "1ms"}))["device"]["identity"]


def test_a_latency_budget_is_solved_measured_and_reported(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on this machine; how fast it is plays no part."""
    from edgeres.measurement import protocol

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_table, "PRESET", Preset(16, 0.001, 1.0, 0.01, sessions=1))
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(64, 0.01, 1.0, 0.1, sessions=2))
    model = network("resnet8-w0.25", PX)
    small = tmp_path / "model"
    small.mkdir()
    facts = _checkpoint.write(small, model, inputs["data"], history=[])
    artifact = replace(inputs["model"], path=small, facts=facts)
    mine = {**inputs, "model": artifact}
    found = run(mine, tmp_path / "a", latency="10s", epochs=0)["latency"]
    assert found["asked_ns"] == 10e9 and found["device"] == "host"
    assert found["predicted_ns"] > 0 and found["measured"]["n"] >= 128
    assert found["rounds"] and set(found["rounds"][0]) == {"predicted_ns", "measured_ns"}

    stored = list((tmp_path / "cache" / "edgeres" / "latency").glob("*.json"))
    assert len(stored) == 1 and "tflite-int8-1" in stored[0].name
    ticks: list[str] = []
    layers = shapes_of(model, PX)
    table = latency_table.build(
        layers, "tflite-int8", devices.load("host"), round_to=8, on_event=ticks.append
    )
    assert not ticks, "every layer comes from the cache"
    kept = json.loads((tmp_path / "a" / "out" / "latency_table.json").read_text())
    assert {**kept, "factor": 1.0, "overhead_ns": table.overhead_ns} == table.to_json()
    reach = r"latency: 1e-06ms can't be met .* [\d.e-]+ms is the least reachable for resnet8-w0.25"
    slimmest = budgets.latency(table, 1.0)
    with pytest.raises(BadInput, match=reach):
        cut(model, slimmest, round_to=8, criterion=lambda _: criteria.magnitude())


def test_a_machine_that_became_slower_asks_for_no_smaller_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same network takes twice as long the second time, and so does the one beside it."""
    pace = {"ms": 1e6}

    def whole_files(candidates: list[Any], *_: Any) -> dict[str, Any]:
        taken = {c.target: (0.5 if c.target == "network" and pace["ms"] > 1e6 else 1) * pace["ms"]
                 for c in candidates}  # fmt: skip
        return {n: {"median_ns": ns, "session_medians_ns": [ns, ns]} for n, ns in taken.items()}

    monkeypatch.setattr(latency_table, "whole_files", whole_files)
    meter = _latency.Meter("host", "tflite-int8", lambda note: None)
    assert meter.measure(network("resnet8-w0.5", PX))["paced_ns"] == 1e6
    pace["ms"] = 2e6
    found = meter.measure(network("resnet8-w0.25", PX))
    assert (found["median_ns"], found["paced_ns"]) == (1e6, 0.5e6)


def test_an_emulated_device_has_no_latency_table() -> None:
    profile = SimpleNamespace(emulated=True, name="bed")
    with pytest.raises(BadInput, match="'bed' is emulated, so its times mean nothing"):
        latency_table.build([], "tflite-int8", profile, round_to=8)  # type: ignore[arg-type]
    profile.emulated = False
    with pytest.raises(BadInput, match="no single-layer files for coreml-int8"):
        latency_table.build([], "coreml-int8", profile, round_to=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_every_kind_of_layer_is_a_file_that_runs_in_integers(target: str, tmp_path: Path) -> None:
    import numpy as np

    from edgeres import targets

    module, _ = targets.load(f"{target}-int8")
    kinds: dict[tuple, LayerShape] = {}
    for name in ("resnet20", "resnet8-mobile", "resnext29-8x64d-w0.125"):
        for shape in shapes_of(network(name), 16):
            depthwise = shape.groups == shape.cin > 1
            kinds.setdefault((shape.kind, shape.kernel, shape.stride, depthwise), shape)
    del kinds["norm", 1, 1, False]
    for number, shape in enumerate(kinds.values()):
        path = tmp_path / f"{number}{module.SUFFIX}"
        first, last = module.layer_file(shape, path)  # type: ignore[attr-defined]
        graph = module.read(path)
        assert not [op for op in graph.ops if op.floating], shape
        assert sum(op.macs for op in graph.ops) == shape.macs or not shape.weights
        session = module.session(path)
        assert session is not None
        answer = session.run(np.zeros((1, *first.shape[1:]), first.dtype))
        assert answer.shape[1:] == last.shape[1:] and answer.dtype == last.dtype


def test_the_widths_of_a_file_decide_its_size(quantized: Any, tmp_path: Path) -> None:
    """The size budget's estimate against the real file."""
    from edgeres import targets
    from edgeres.compression.budgets import file_bytes

    model, folded, scales = quantized
    for name in ("onnx-int8", "tflite-int8"):
        module, precision = targets.load(name)
        path = tmp_path / f"x{module.SUFFIX}"
        source = targets.Source(folded, targets.scales_for(name, scales))
        module.export(source, precision, path)
        told = file_bytes(shapes_of(model, 16), name)
        assert told == pytest.approx(path.stat().st_size, rel=0.04)
