"""This machine as a device, and a tiny model in each format with its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from linear_model import INPUTS, write_onnx, write_tflite

from edgeres import devices
from edgeres.devices import Device


@pytest.fixture
def host() -> Iterator[Device]:
    """This machine, opened."""
    with devices.open_device(devices.load("host")) as device:
        yield device


@pytest.fixture(params=["onnx", "tflite"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The linear model, once per format the runner knows."""
    write = {"onnx": write_onnx, "tflite": write_tflite}[request.param]
    return write(tmp_path / f"linear.{request.param}")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """INPUTS as .npy."""
    path = tmp_path / "inputs.npy"
    np.save(path, INPUTS, allow_pickle=False)
    return path
