"""Files on ARM's kernels, as a Raspberry Pi 4 and 5 choose them, compute what they do here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from beds.arm_board import CPUS, ArmBoard

from edgeres import datasets, devices, targets
from edgeres.commands import bundle
from edgeres.devices import Device, DeviceProfile
from edgeres.disk import file_sha256
from edgeres.measurement import protocol
from edgeres.measurement.protocol import Candidate
from edgeres.measurement.runners import Preset, Work, python
from edgeres.models.resnet import fold_batchnorm
from edgeres.training.inference import prepared

CROSS = "aarch64-linux-gnu-g++"


@pytest.fixture(scope="module", params=CPUS)
def device(request: pytest.FixtureRequest, arm_board: ArmBoard) -> Iterator[Device]:
    """Each of the boards."""
    settings = {"host": request.param, "config": str(arm_board.config)}
    profile = DeviceProfile(request.param, "ssh", "", emulated=True, settings=settings)
    with devices.open_device(profile) as opened:
        yield opened


@pytest.fixture(scope="module")
def works(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """Files of a tiny network in both formats and precisions, and digits of the test split."""
    model, folded, scales = quantized
    folder = tmp_path_factory.mktemp("works")
    digits = datasets.load("digits", seed=0).test
    shown = torch.from_numpy(digits.images[:500]).permute(0, 3, 1, 2)
    pixels = prepared(shown, folded.spec.preprocess).numpy()
    found = {}
    for name in ("tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8"):
        target, precision = targets.load(name)
        integer = targets.is_integer(precision)
        source = targets.Source(folded if integer else fold_batchnorm(model),
                                targets.scales_for(name, scales) if integer else None)  # fmt: skip
        path = folder / f"{name}{target.SUFFIX}"
        first, last = target.export(source, precision, path)
        (folder / name).mkdir()
        # Float kernels are slow under emulation; 500 images were equal to 1e-5 with them too.
        inputs = targets.encode(pixels if integer else pixels[:100], first)
        found[name] = Work(path, inputs, first, last, 1, folder / name)
    return found


@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8"])
def test_a_board_computes_what_this_machine_does(
    device: Device, works: dict[str, Work], name: str
) -> None:
    work = works[name]
    session = targets.of_file(work.path)[1].session(work.path)
    assert session is not None
    here, there = session.run(work.inputs), python.load(device, work).outputs(work.inputs)
    assert (here.shape, here.dtype) == (there.shape, there.dtype)
    if name.endswith("int8"):  # ARM's rounding may differ from x86's by one code
        assert np.abs(here.astype(np.int32) - there.astype(np.int32)).max() <= 1
    else:
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", CPUS[1:], indirect=True)
def test_a_measurement_there_says_that_it_is_emulated(
    device: Device, works: dict[str, Work], arm_board: ArmBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(4, 0.01, 1.0, 0.1, sessions=2))
    work = works["tflite-int8"]
    size, digest = work.path.stat().st_size, file_sha256(work.path)
    candidate = Candidate("tflite-int8", work.path, digest, size, work.input, work.output,
                          work.inputs)  # fmt: skip
    found = protocol.measure([candidate], device, "quick")
    assert found.failures == []
    report = found.reports[0]
    assert report["emulated"] is True and report["valid"] is False
    assert any("emulated" in reason for reason in report["reasons"])
    assert report["latency"]["n"] >= 4 and report["runtime"]["name"] == "ai-edge-litert"
    assert report["state_before"]["machine"] == "aarch64"
    assert Path(work.path).exists() and report["device"] == device.name
    told = json.dumps([report, found.samples])  # what artifacts and reports are made of
    (port,) = (port for cpu, port in arm_board.ports.items() if cpu == device.name)
    hidden = [
        str(arm_board.work),
        "user_key",
        "127.0.0.1",
        f":{port}",
        "pi@",
        "/home/",
        os.uname()[1],
    ]
    assert [word for word in hidden if word in told] == []


def test_a_bundle_passes_its_golden_test_in_an_empty_folder_there(
    arm_board: ArmBoard, stored_run: Path, tmp_path: Path
) -> None:
    """The bundle's own script, with the board's Python and runtimes; then with one byte changed."""
    bundle.bundled(str(stored_run), "android", tmp_path / "b.zip", None, stored_run.parent)
    shutil.unpack_archive(tmp_path / "b.zip", arm_board.root / "root" / "golden")
    said = arm_board.sh("PYTHONPATH=/opt/site python3 /root/golden/golden_test.py")
    assert said.endswith("passed\n"), said
    with (arm_board.root / "root" / "golden" / "labels.txt").open("ab") as labels:
        labels.write(b"x")
    said = arm_board.sh("PYTHONPATH=/opt/site python3 /root/golden/golden_test.py || echo refused")
    assert said == "CHANGED: labels.txt; unpack the bundle anew\nrefused\n"


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no `{CROSS}` on this system's PATH")
def test_a_bundles_cpp_program_passes_its_golden_test_there(
    arm_board: ArmBoard, stored_run: Path, tmp_path: Path
) -> None:
    bundle.bundled(str(stored_run), "linux", tmp_path / "b.zip", None, stored_run.parent)
    there = arm_board.root / "root" / "cpp"
    shutil.unpack_archive(tmp_path / "b.zip", there)
    source, program = there / "sample" / "classify.cc", there / "classify"
    flags = ("-O2", "-std=c++17", "-ffp-contract=off", "-static-libstdc++", "-ldl")
    subprocess.run([CROSS, source, "-o", program, *flags], check=True)
    for cpu in CPUS:
        said = arm_board.sh(
            "cd /root/cpp && ./classify $(find / -name libLiteRt.so | head -1) .", cpu
        )
        assert said.endswith("passed\n"), said
