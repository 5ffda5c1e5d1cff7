"""The residual network: a `ModelSpec` in, an `nn.Module` with torchvision's parameter names out.

Every form here is one that TFLite, onnxruntime and Core ML run in integers without extra operators:
see `Block.shortcut` for option A and `_MaxPool` for the stem.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models.spec import Block, ModelSpec


class ResidualBlock(nn.Module):
    """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1) block, by the number of widths."""

    def __init__(self, channels: int, block: Block, folded: bool):
        super().__init__()
        kernels = (3, 3) if len(block.widths) == 2 else (1, 3, 1)
        strided = 0 if len(kernels) == 2 else 1
        self.depth = len(kernels)
        before = channels
        for i, (width, kernel) in enumerate(zip(block.widths, kernels, strict=True), 1):
            stride = block.stride if i - 1 == strided else 1
            self.add_module(f"conv{i}", _conv(before, width, kernel, stride, folded))
            self.add_module(f"bn{i}", nn.Identity() if folded else nn.BatchNorm2d(width))
            before = width
        self.downsample = _shortcut(channels, block, folded)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stem, stages, global average pool, linear layer."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
        self.conv1 = _conv(3, spec.stem_width, kernel, stride, spec.folded)
        self.bn1 = nn.Identity() if spec.folded else nn.BatchNorm2d(spec.stem_width)
        channels = spec.stem_width
        for number, stage in enumerate(spec.stages, 1):
            blocks = []
            for block in stage:
                blocks.append(ResidualBlock(channels, block, spec.folded))
                channels = block.widths[-1]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, classes) logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.spec.stem == "imagenet":
            x = F.max_pool2d(x, 3, 2, 1)
        for number in range(1, len(self.spec.stages) + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def build(spec: ModelSpec, *, seed: int = 0, zero_init_residual: bool = False) -> ResNet:
    """A freshly initialized network: He (fan out) convolutions, unit batch norm.

    Args:
        seed: of the initialization; the global generator is left as it was.
        zero_init_residual: start every block as the identity (Goyal et al. 2017, section 5.1).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(spec)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in model.modules():
                if isinstance(module, ResidualBlock) and not spec.folded:
                    nn.init.zeros_(getattr(module, f"bn{module.depth}").weight)
    return model


def fold_batchnorm(model: ResNet) -> ResNet:
    """The same function of its input, in eval mode, with every batch norm in its convolution."""
    folded = ResNet(dataclasses.replace(model.spec, folded=True)).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    target = folded.state_dict()
    for name, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        conv = _conv_of(name)
        assert module.running_mean is not None and module.running_var is not None
        weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
            state[f"{conv}.weight"], None, module.running_mean, module.running_var,
            module.eps, module.weight, module.bias,
        )  # fmt: skip
        target[f"{conv}.weight"], target[f"{conv}.bias"] = weight.detach(), bias.detach()
    for name in target:
        if name.startswith("fc.") or (name in state and f"{name[:-7]}.bias" not in target):
            target[name] = state[name]  # the linear layer and option A's fixed 0/1 weights
    folded.load_state_dict(target)
    for parameter, original in zip(folded.parameters(), folded.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return folded


def _conv_of(batchnorm: str) -> str:
    """`layer1.0.bn2` -> `layer1.0.conv2`; `layer2.0.downsample.1` -> `layer2.0.downsample.0`."""
    if batchnorm.endswith("downsample.1"):
        return batchnorm[:-1] + "0"
    return batchnorm.replace("bn", "conv")


@torch.no_grad()
def complexity(spec: ModelSpec) -> tuple[int, int]:
    """Trainable parameters and multiply-accumulates of one image, counted on the meta device."""
    macs = 0

    def count(module: nn.Module, _args: object, output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += module.weight.numel()

    with torch.device("meta"):
        model = ResNet(spec).eval()
        for module in model.modules():
            module.register_forward_hook(count)
        model(torch.zeros(1, 3, spec.preprocess.size_px, spec.preprocess.size_px))
    return sum(p.numel() for p in model.parameters() if p.requires_grad), macs


def _conv(cin: int, cout: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=bias)


def _shortcut(channels: int, block: Block, folded: bool) -> nn.Module | None:
    width = block.widths[-1]
    if block.shortcut == "identity":
        return None
    if block.shortcut == "projection":
        conv = _conv(channels, width, 1, block.stride, folded)
        return nn.Sequential(conv, nn.Identity() if folded else nn.BatchNorm2d(width))
    conv = _conv(channels, width, 1, block.stride, bias=False)
    with torch.no_grad():  # input channel i goes to output channel i + half of the new ones
        conv.weight.zero_()
        offset = (width - channels) // 2
        for i in range(min(channels, width)):
            conv.weight[i + offset, i] = 1.0
    conv.weight.requires_grad_(False)
    return nn.Sequential(conv)
