"""A small int8 network that LiteRT's GPU accelerator computes wrongly: a strided 1x1 shortcut.

`python benchmarks/litert_gpu_stride.py` prints, for strides 1 and 2 of a residual block's shortcut,
how far the GPU's codes are from the CPU's. Needs Vulkan (Debian: libvulkan1 and chromium).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from edgeres import runtimes
from edgeres.compression import ptq
from edgeres.network.from_torch import from_module
from edgeres.runtimes._asking import ask
from edgeres.targets import Source, tflite


class Block(torch.nn.Module):
    """Two convolutions of one input, added, and a classifier."""

    def __init__(self, stride: int, kernel: int):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride, 1)
        self.shortcut = torch.nn.Conv2d(3, 8, kernel, stride)
        if kernel == 2:  # a 1x1 convolution, written with zeros around it
            with torch.no_grad():
                self.shortcut.weight[:, :, 1, :] = self.shortcut.weight[:, :, :, 1] = 0
        self.fc = torch.nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x) + self.shortcut(x))
        return self.fc(torch.nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def main() -> None:
    """Print a line per form of the shortcut."""
    runtimes.require("litert-gpu")
    print("shortcut             worst difference of the GPU's codes from the CPU's, 16 images")
    for kernel, stride in ((1, 1), (1, 2), (2, 2)):
        torch.manual_seed(0)
        model = from_module(Block(stride, kernel), 16).module.eval()
        pixels = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
        folded, scales = ptq.quantize(model, pixels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "block.tflite"
            tflite.export(Source(folded, scales, {}), "int8", path)
            codes = np.random.default_rng(0).integers(-128, 128, (16, 16, 16, 3), np.int8)
            session = tflite.session(path)
            assert session is not None
            (asked := Path(folder) / "asked").mkdir()
            (answer,) = ask("litert-gpu", [(path, codes)], asked)
            if answer.outputs is None:
                print(f"{kernel}x{kernel}, stride {stride}: {answer.error}")
                continue
            worst = np.abs(session.run(codes).astype(int) - answer.outputs.astype(int)).max()
            print(f"{kernel}x{kernel}, stride {stride}        {worst}   ({answer.device})")


if __name__ == "__main__":
    main()
