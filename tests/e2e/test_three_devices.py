"""A board, a phone and a host that isn't there, at once: two results, one clear failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from beds import benchmark_model
from beds.arm_board import ArmBoard
from beds.phone import Phone
from conftest import images

from edgeres import targets
from edgeres.devices import DeviceProfile
from edgeres.disk import file_sha256
from edgeres.measurement import farm, protocol
from edgeres.measurement.protocol import Candidate
from edgeres.measurement.runners import Preset
from edgeres.training.inference import prepared


def test_one_that_is_away_leaves_the_others_their_results(
    arm_board: ArmBoard, phone: Phone, quantized: tuple, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(4, 0.01, 1.0, 0.1, sessions=1))
    _, folded, scales = quantized
    target, _ = targets.load("tflite-int8")
    path = tmp_path / "m.tflite"
    first, last = target.export(targets.Source(folded, scales), "int8", path)
    inputs = targets.encode(prepared(images(4), folded.spec.preprocess).numpy(), first)
    candidate = Candidate(
        "tflite-int8", path, file_sha256(path), path.stat().st_size, first, last, inputs, inputs,
        lambda outputs: {"classes": outputs.argmax(1).tolist()},
    )  # fmt: skip
    tool = str(benchmark_model.write(tmp_path / "benchmark_model", "classic"))
    config = {"config": str(arm_board.config)}
    profiles = [
        DeviceProfile("board", "ssh", "", emulated=True, settings={"host": "cortex-a76", **config}),
        DeviceProfile("gone", "ssh", "", settings={"host": "no-such-host.invalid"}),
        phone.profile(tools={"benchmark_model": tool}),
    ]  # fmt: skip
    board, gone, on_phone = farm.measure([candidate], profiles, "quick")
    assert (board.failures, on_phone.failures, gone.reports) == ([], [], [])
    session = target.session(path)
    assert session is not None
    here = session.run(inputs).argmax(1).tolist()
    for measured in (board, on_phone):
        (report,) = measured.reports
        assert report["emulated"] and not report["valid"]
        assert report["accuracy"] == {"classes": here}
    (failure,) = gone.failures
    assert "no-such-host.invalid" in failure["message"] and "\n" not in failure["message"]
