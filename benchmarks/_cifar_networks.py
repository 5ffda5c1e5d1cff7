"""akamaster's pretrained CIFAR-10 ResNets and the data they know, for the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from edgeres import datasets
from edgeres.models import resnet, spec, weights
from edgeres.training.views import Labelled
from edgeres.types import Preprocess

_PREPROCESS = Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FILES = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th",
          "resnet44": "resnet44-014dd654.th", "resnet56": "resnet56-4bfd9763.th"}  # fmt: skip
_CALIBRATION = 512


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that asks where the data and the checkpoints are."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="a folder with akamaster's")
    return parser


def network(folder: Path, name: str) -> resnet.ResNet:
    """resnet20, 32, 44 or 56 with option A shortcuts, in evaluation mode."""
    described = spec.parse(f"{name}-A", 10, _PREPROCESS)
    return weights.from_checkpoint(folder / _FILES[name], described).eval()


def splits(folder: Path) -> tuple[Labelled, Labelled, Labelled]:
    """Train (45,000), validation (5,000) and test (10,000)."""
    data = datasets.load(f"cifar10:{folder}", size_px=32, seed=0)
    train, validation, test = (
        Labelled(torch.from_numpy(s.images).permute(0, 3, 1, 2).contiguous(),
                 torch.as_tensor(np.asarray(s.labels), dtype=torch.int64))
        for s in (data.train, data.validation, data.test)
    )  # fmt: skip
    return train, validation, test


def calibration(train: Labelled, seed: int = 0) -> torch.Tensor:
    """512 training images, uint8 (N, 3, 32, 32)."""
    chosen = np.random.default_rng(seed).choice(len(train.labels), _CALIBRATION, replace=False)
    return train.images[torch.from_numpy(chosen)]
