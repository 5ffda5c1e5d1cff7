"""Small real things that several tests share."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.models import resnet, spec
from edgeres.models.resnet import ResNet
from edgeres.network.module import NetworkModule
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

pytest_plugins = (
    "beds.arm_board", "beds.bundles", "beds.jetson_board", "beds.phone", "beds.zoo",
)  # fmt: skip
PX = 16

# Where the environment says so, as images do, each of hundreds of processes would compile what it
# imports: TensorFlow in 14 s in place of 5.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A job in a shell's background ignores ctrl-C, and so would every process that is started here.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def needs(package: str) -> None:
    """Skip what needs a package that isn't installed, without loading it: Core ML's converter,
    where edgeres doesn't load it, loads TensorFlow and others, too."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


def images(count: int, px: int = PX, seed: int = 0) -> torch.Tensor:
    """Random uint8 images (N, 3, px, px)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, px, px), generator=generator, dtype=torch.uint8)


def network(name: str, px: int = PX, classes: int = 10, seed: int = 0) -> ResNet:
    """A network whose batch statistics have seen a few batches, in evaluation mode."""
    model = resnet.build(spec.parse(name, classes, spec.default_preprocess(px)), seed=seed)
    model.train()
    with torch.no_grad():
        for step in range(3):
            model((images(8, px, seed=step).float() / 255 - 0.5) / 0.25)
    return model.eval()


@pytest.fixture(scope="session")
def quantized() -> tuple[ResNet, ResNet, ScaleTable]:
    """A float ResNet-8, its folded form on its grids, and its PTQ scales."""
    model = network("resnet8")
    folded, scales = ptq.quantize(model, images(64))
    return model, folded, scales


@pytest.fixture(scope="session")
def four_bits() -> tuple[ResNet, ResNet, ScaleTable]:
    """The same with 4-bit weights in all but its first and last layers."""
    model = network("resnet8")
    folded, scales = ptq.quantize(model, images(64), scheme="w4a8")
    return model, folded, scales


@pytest.fixture(scope="session")
def portable() -> tuple[NetworkModule, ScaleTable, np.ndarray, np.ndarray]:
    """A network of w8a8-portable, its scales, images as it takes them, and its answers."""
    folded, scales = ptq.quantize(network("resnet8"), images(32), scheme="w8a8-portable")
    x = prepared(images(32, seed=3), folded.spec.preprocess).contiguous()
    with torch.no_grad():
        answers = integer_graph(folded, scales)(x)
    assert isinstance(folded, NetworkModule)
    return folded, scales, x.numpy(), answers.numpy()


@pytest.fixture
def real_data() -> Path:
    """The folder of real data and weights; skips where there is none."""
    folder = os.environ.get("EDGERES_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("EDGERES_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
