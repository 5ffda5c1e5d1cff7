"""What a residual network is built of: convolutions, shortcuts, squeeze-and-excitation, blocks.

Every form here is one that TFLite, onnxruntime and Core ML run in integers without extra operators:
see `Block.shortcut` for option A, `norm` for a batch norm that has no convolution before it,
`_pooling` for average pools, and `SqueezeExcite` for its sigmoid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models._values import Block, ModelSpec


class SqueezeExcite(nn.Module):
    """Scale each channel by a number between 0 and 1 that all of them decide (Hu et al. 2018).

    Named as timm names it. The gate is a sigmoid: all runtimes compute it from a table of 256
    codes, while hard-sigmoid needs two more operations in TFLite and has no integer kernel in
    onnxruntime.
    """

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x * self.gate(self.fc2(F.relu(self.fc1(self.pool(x)))))


class ResidualBlock(nn.Module):
    """Convolutions with batch norm beside a shortcut (see `Block`); ReLU behind their sum.

    Attributes:
        skipped: share of images for which training leaves the convolutions out; what trains the
            network sets it, a saved network hasn't got it.
    """

    def __init__(self, channels: int, block: Block, spec: ModelSpec):
        super().__init__()
        self.depth = len(block.widths)
        _add_convolutions(self, channels, block, spec.folded)
        self.se = SqueezeExcite(block.widths[-1], block.squeeze) if block.squeeze else None
        self.skipped = 0.0
        for i, width in enumerate(block.widths, 1):
            self.add_module(f"bn{i}", nn.Identity() if spec.folded else nn.BatchNorm2d(width))
        self.downsample = _shortcut(channels, block, spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = F.relu(y)
        y = _branch(self, y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class PreactBlock(nn.Module):
    """The same with batch norm and ReLU before each convolution, and nothing behind the sum.

    A shortcut that is a convolution reads what conv1 reads. The network's first block has no bn1:
    what it reads is activated already, for both of its paths.
    """

    def __init__(self, channels: int, block: Block, spec: ModelSpec, first: bool):
        super().__init__()
        self.depth = len(block.widths)
        self.bn1 = None if first else norm(channels, spec.folded)
        _add_convolutions(self, channels, block, spec.folded)
        self.se = SqueezeExcite(block.widths[-1], block.squeeze) if block.squeeze else None
        self.skipped = 0.0
        for i, width in enumerate(block.widths[:-1], 2):
            self.add_module(f"bn{i}", nn.Identity() if spec.folded else nn.BatchNorm2d(width))
        self.downsample = _shortcut(channels, block, spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = active = x if self.bn1 is None else F.relu(self.bn1(x))
        for i in range(1, self.depth + 1):
            if i > 1:
                y = F.relu(getattr(self, f"bn{i}")(y))
            y = getattr(self, f"conv{i}")(y)
        y = _branch(self, y)
        return y + (x if self.downsample is None else self.downsample(active))


def _branch(block: ResidualBlock | PreactBlock, y: Tensor) -> Tensor:
    """The end of a block's convolutions: squeeze-and-excitation, stochastic depth.

    Dropped per image, the others scaled up so that the mean stays (Huang et al. 2016, as timm
    trains it). Never in an exported graph, whatever mode it is exported in.
    """
    y = y if block.se is None else block.se(y)
    if not block.training or not block.skipped or torch.compiler.is_exporting():
        return y
    kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= block.skipped
    return y * (kept.to(y.dtype) / (1 - block.skipped))


def convolution(
    cin: int, cout: int, kernel: int, stride: int, bias: bool, groups: int = 1
) -> nn.Conv2d:
    """With the padding that keeps the size at stride 1."""
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=bias)


def norm(width: int, folded: bool) -> nn.Module:
    """A batch norm that no convolution stands before.

    Folded, it is a depthwise 1x1 convolution: one weight per channel is exact in int8 (its code is
    127 or -127), and every runtime fuses the ReLU behind it.
    """
    return convolution(width, width, 1, 1, True, width) if folded else nn.BatchNorm2d(width)


def _add_convolutions(module: nn.Module, channels: int, block: Block, bias: bool) -> None:
    """conv1, conv2, …"""
    strided = block.kernels.index(3)
    before = channels
    for i, (width, kernel) in enumerate(zip(block.widths, block.kernels, strict=True)):
        groups = 1
        if kernel == 3:
            groups = width if len(block.widths) == 4 else block.groups
        stride = block.stride if i == strided else 1
        conv = convolution(before, width, kernel, stride, bias, groups)
        module.add_module(f"conv{i + 1}", conv)
        before = width


def _shortcut(channels: int, block: Block, spec: ModelSpec) -> nn.Module | None:
    width = block.widths[-1]
    if block.shortcut == "identity":
        return None
    if block.shortcut == "subsample":
        return nn.Sequential(_subsampling(channels, width, block.stride))
    pooled = block.shortcut == "pooled"
    parts = [_pooling(channels, block.stride, spec.folded)] if pooled else []
    stride = 1 if pooled else block.stride
    bare = spec.folded or spec.preact
    parts.append(convolution(channels, width, 1, stride, spec.folded))
    return nn.Sequential(*parts, *([] if bare else [nn.BatchNorm2d(width)]))


def _pooling(channels: int, side: int, folded: bool) -> nn.Module:
    """Average over `side` x `side` pixels.

    Folded, a depthwise convolution of fixed weights, whose codes are exact: XNNPACK takes no int8
    average pool, so that TFLite would run the network in pieces.
    """
    if not folded:
        return nn.AvgPool2d(side)
    conv = nn.Conv2d(channels, channels, side, side, groups=channels, bias=False)
    nn.init.constant_(conv.weight, 1 / side**2)
    conv.weight.requires_grad_(False)
    return conv


def _subsampling(channels: int, width: int, stride: int) -> nn.Conv2d:
    """Option A: input channel i goes to output channel i + half of the new ones."""
    conv = convolution(channels, width, 1, stride, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        offset = (width - channels) // 2
        for i in range(min(channels, width)):
            conv.weight[i + offset, i] = 1.0
    conv.weight.requires_grad_(False)
    return conv
