"""The residual network: a `ModelSpec` in, an `nn.Module` with torchvision's parameter names out."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models._blocks import PreactBlock, ResidualBlock, SqueezeExcite, convolution, norm
from edgeres.models._values import Block, ModelSpec

__all__ = ["PreactBlock", "ResNet", "ResidualBlock", "build", "fold_batchnorm", "int8_bytes",
           "slimmed", "spec_of"]  # fmt: skip


class ResNet(nn.Module):
    """Stem, stages, global average pool, linear layer."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
        self.conv1 = convolution(3, spec.stem_width, kernel, stride, spec.folded)
        self.bn1 = nn.Identity() if spec.folded else nn.BatchNorm2d(spec.stem_width)
        channels = spec.stem_width
        for number, stage in enumerate(spec.stages, 1):
            blocks: list[nn.Module] = []
            for block in stage:
                first = number == 1 and not blocks
                blocks.append(PreactBlock(channels, block, spec, first) if spec.preact
                              else ResidualBlock(channels, block, spec))  # fmt: skip
                channels = block.widths[-1]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.bn = norm(channels, spec.folded) if spec.preact else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, classes) logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.spec.stem == "imagenet":
            x = F.max_pool2d(x, 3, 2, 1)
        for number in range(1, len(self.spec.stages) + 1):
            x = getattr(self, f"layer{number}")(x)
        if self.bn is not None:
            x = F.relu(self.bn(x))
        return self.fc(self.avgpool(x).flatten(1))


def build(
    spec: ModelSpec, *, seed: int = 0, zero_init_residual: bool = False, skip_scale: bool = False,
    stochastic_depth: float = 0.0,
) -> ResNet:  # fmt: skip
    """A freshly initialized network: He (fan out) convolutions, unit batch norm.

    Args:
        seed: of the initialization; the global generator is left as it was.
        zero_init_residual: start every block as the identity (Goyal et al. 2017, section 5.1).
        skip_scale: start every block's convolutions at 1 / L of their size in a network of L
            blocks (the step of Haber and Ruthotto 2017); the last batch norm's scale holds it,
            so that it is trained, and costs nothing in a file.
        stochastic_depth: share of images for which training leaves out the last block's
            convolutions; block l of L has l / L of it (Huang et al. 2016, section 3).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(spec)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    blocks = [m for m in model.modules() if isinstance(m, (ResidualBlock, PreactBlock))]
    for number, block in enumerate(blocks, 1):
        block.skipped = stochastic_depth * number / len(blocks)
        if zero_init_residual:
            _scale_branch(block, 0.0)
        elif skip_scale:
            _scale_branch(block, 1 / len(blocks))
    return model


@torch.no_grad()
def _scale_branch(block: ResidualBlock | PreactBlock, factor: float) -> None:
    """Multiply what a block adds to its input."""
    kind = "bn" if isinstance(block, ResidualBlock) else "conv"
    getattr(block, f"{kind}{block.depth}").weight.mul_(factor)


def fold_batchnorm(model: ResNet) -> ResNet:
    """The same function of its input, in eval mode, with every batch norm in a convolution.

    In the one before it, or, where its input is needed as it is (before a pre-activation), in a
    depthwise 1x1 convolution of its own.
    """
    folded = ResNet(dataclasses.replace(model.spec, folded=True)).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        conv = _conv_of(name, model.spec.preact)
        assert module.running_mean is not None and module.running_var is not None
        own = torch.ones(module.num_features, 1, 1, 1, dtype=module.running_mean.dtype)
        weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
            own if conv == name else state[f"{conv}.weight"], None, module.running_mean,
            module.running_var, module.eps, module.weight, module.bias,
        )  # fmt: skip
        found[f"{conv}.weight"], found[f"{conv}.bias"] = weight.detach(), bias.detach()
    kept = {k: v.zero_() if k.endswith("bias") else v for k, v in folded.state_dict().items()}
    kept |= {k: v for k, v in state.items() if k in kept}
    folded.load_state_dict({**kept, **found})
    return folded


def _conv_of(batchnorm: str, preact: bool) -> str:
    """The convolution that a batch norm goes into; its own name if it becomes one.

    `layer1.0.bn2` -> `layer1.0.conv2` (pre-activated: `conv1`); `downsample.1` -> `downsample.0`.
    """
    path, _, last = batchnorm.rpartition(".")
    if last.isdigit():
        return f"{path}.{int(last) - 1}"
    number = int(last.removeprefix("bn") or 1)
    if not preact or (last == "bn1" and not path):
        return batchnorm.replace("bn", "conv")
    return f"{path}.conv{number - 1}" if number > 1 else batchnorm


def spec_of(model: ResNet) -> ModelSpec:
    """Read the widths and groups off a network's modules, whatever was cut out of them."""
    stages = tuple(
        tuple(_block_of(module, block) for module, block in zip(
            getattr(model, f"layer{number}"), stage, strict=True))
        for number, stage in enumerate(model.spec.stages, 1)
    )  # fmt: skip
    return dataclasses.replace(model.spec, stem_width=model.conv1.out_channels, stages=stages)


def slimmed(model: ResNet) -> ResNet:
    """A network with channels cut out of its modules as a fresh one of its present widths."""
    slim = ResNet(spec_of(model))
    slim.load_state_dict(model.state_dict())
    return slim.eval()


def _block_of(module: ResidualBlock | PreactBlock, block: Block) -> Block:
    convs = [getattr(module, f"conv{i}") for i in range(1, len(block.widths) + 1)]
    widths = tuple(conv.out_channels for conv in convs)
    groups = convs[1].groups if len(convs) == 3 else 1
    squeeze = module.se.fc1.out_channels if module.se is not None else 0
    return dataclasses.replace(block, widths=widths, groups=groups, squeeze=squeeze)


def int8_bytes(spec: ModelSpec) -> int:
    """Estimated size of its int8 TFLite file, without labels and notes.

    One byte per weight; per output channel 28 (an int32 bias, and for weight and bias each a
    float32 scale and an int64 zero point); as measured, 640 per operation with weights, 210 per
    other one, and 1,500 per file.
    """
    with torch.device("meta"):
        model = ResNet(dataclasses.replace(spec, folded=True))
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    excited = [m for m in model.modules() if isinstance(m, SqueezeExcite)]
    moving = [m for m in layers if isinstance(m, nn.Conv2d) and max(m.stride) < max(m.kernel_size)
              and max(m.stride) > 1]  # each with a PAD of its own  # fmt: skip
    stem = 2 if spec.stem == "imagenet" else 0  # max pool and its PAD
    others = 3 * len(excited) + len(moving) + stem + 1 + sum(map(len, spec.stages))
    channels = sum(m.weight.shape[0] for m in layers)
    weights = sum(m.weight.numel() for m in layers)
    return weights + 28 * channels + 640 * len(layers) + 210 * others + 1_500
