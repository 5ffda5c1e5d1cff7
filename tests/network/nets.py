"""Somebody's networks: ordinary modules that edgeres knows nothing of."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn


class Inverted(nn.Module):
    """A block of MobileNetV2 (Sandler et al. 2018): wide inside, linear at its end."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        wide = 2 * channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.same = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class Mobile(nn.Module):
    """Stem, three inverted blocks, mean, dropout, linear layer."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            Inverted(16, 24, 2), Inverted(24, 24, 1), Inverted(24, 32, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Plain(nn.Module):
    """As LeNet (LeCun et al. 1998) and VGG: a map of several pixels is flattened."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3), nn.ReLU(), nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(12 * 3 * 6, 20), nn.ReLU(),
            nn.Linear(20, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Gated(nn.Module):
    """Everything else that is known.

    Gates, hard-swish of maps and vectors, SiLU, an average pool, a max pool, a norm without a
    convolution, a convolution with a bias, a shared module, two linear layers.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding="same"), nn.BatchNorm2d(16)
        self.act, self.swish = nn.ReLU(inplace=True), nn.Hardswish()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.halve = nn.AvgPool2d(2)
        self.conv = nn.Conv2d(16, 24, 3, 1, 2, dilation=2, bias=False)
        self.hidden, self.out = nn.Linear(24, 20), nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.swish(self.bn(self.stem(x))))
        gate = self.excite(self.act(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1))))
        x = self.halve(nn.functional.silu(self.norm(x * nn.functional.hardsigmoid(gate))))
        x = nn.functional.adaptive_avg_pool2d(torch.clamp(self.conv(x), 0, 6), (1, 1))
        return self.out(self.swish(self.hidden(torch.flatten(x, 1))))


class Ported(nn.Module):
    """Padded as TensorFlow pads: by zeros of its own in front of a convolution, more on one side
    where it strides."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(3, 16, 3, 2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(16), nn.ReLU6()
        self.wide = nn.Conv2d(16, 16, 5, 2, groups=16)
        self.tall, self.even = nn.Conv2d(16, 24, (3, 1), padding=(1, 0)), nn.Conv2d(24, 16, 2)
        self.same = nn.Conv2d(16, 16, 2, padding="same")
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        pad = nn.functional.pad
        x = self.act(self.bn(self.stem(self.static_padding(x))))
        x = self.act(self.wide(pad(x, (1, 2, 2, 1))))
        x = self.act(self.even(pad(self.tall(pad(x, (1, 1))), (1, 0, 0, 1))))
        return self.fc(pad(self.same(x), (0, 0, 0, 0)).mean((2, 3)))


class Grown(nn.Module):
    """A layer of DenseNet (Huang et al. 2017): norm, ReLU, convolution; its answer has no ReLU."""

    def __init__(self, channels: int, more: int):
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, more, 3, 1, 1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.conv(self.act(self.norm(torch.cat(maps, 1))))


class Joined(nn.Module):
    """Concatenations.

    Two layers of DenseNet behind a max pool, a fire module of SqueezeNet, a ReLU behind a
    concatenation, one of concatenations, and one that a sum reads.
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.first, self.second = Grown(16, 8), Grown(24, 8)
        self.squeeze, self.norm = nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8)
        self.one, self.three = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 3, padding=1)
        self.low, self.high = nn.Conv2d(24, 8, 1), nn.Conv2d(24, 16, 3, 1, 1)
        self.out = nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn(self.stem(x))), 2)
        maps = [x, self.first([x])]
        maps.append(self.second(maps))
        x = torch.relu(self.norm(self.squeeze(torch.cat(maps, 1))))
        x = torch.cat((torch.relu(self.one(x)), torch.relu(self.three(x))), 1)
        y = torch.relu(torch.cat((self.low(x), self.high(x)), dim=1))
        y = torch.cat((nn.functional.max_pool2d(x + y, 2), nn.functional.max_pool2d(x, 2)), 1)
        return self.out(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


class Split(nn.Module):
    """Slices and shuffles: a block of ShuffleNetV2 (Ma et al. 2018), one of Res2Net, a half."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                    nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU())  # fmt: skip
        self.wide, self.deep = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(12, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.shuffle = nn.ChannelShuffle(4)
        self.out = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat((kept, self.branch(changed)), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        a, b, rest = torch.split(x, [4, 4, 8], 1)
        y = self.deep(torch.cat((a, torch.relu(self.wide(b + a)), x[:, 12:]), 1))
        y = torch.relu(self.norm(y))
        y = torch.cat((self.shuffle(y)[:, :4], rest), 1)
        return self.out(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


class Squeezed(nn.Module):
    """Squeeze-and-excitation as it was first written (Hu et al. 2018), with linear layers.

    Args:
        shape: how the gate becomes a map again: "view", "none" (indexed by None), "expand".
    """

    def __init__(self, shape: str = "view", classes: int = 10):
        super().__init__()
        self.shape, self.conv, self.bn = shape, nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.fc = nn.Sequential(nn.Linear(16, 4, bias=False), nn.ReLU(inplace=True),
                                nn.Linear(4, 16, bias=False), nn.Sigmoid())  # fmt: skip
        self.deep, self.norm = nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm1d(20)
        self.wide, self.out = nn.Linear(16, 20), nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        n, c, h, w = x.shape
        y = self.fc(nn.functional.adaptive_avg_pool2d(x, 1).view(n, c))
        y = y[:, :, None, None] if self.shape == "none" else y.view(n, c, 1, 1)
        x = self.deep(x * (y.expand(n, c, h, w) if self.shape == "expand" else y))
        return self.out(torch.relu(self.norm(self.wide(torch.relu(x).mean((2, 3))))))


HEADS: dict[str, tuple[nn.Module, ...]] = {
    "norm": (nn.Flatten(), nn.BatchNorm1d(100), nn.Linear(100, 10)),
    "relu": (nn.Flatten(), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(100, 10)),
    "relu, norm": (nn.Flatten(), nn.ReLU6(), nn.BatchNorm1d(100), nn.BatchNorm1d(100),
                   nn.Linear(100, 10, bias=False)),
    "linear, norm": (nn.Flatten(), nn.Linear(100, 12), nn.BatchNorm1d(12), nn.ReLU(),
                     nn.Linear(12, 10)),
    "linear, relu, norm": (nn.Flatten(), nn.Linear(100, 12), nn.ReLU(), nn.BatchNorm1d(12),
                           nn.Linear(12, 10)),
    "pooled, norm": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 10)),
    "norm at the end": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
                        nn.BatchNorm1d(10)),
}  # fmt: skip
"""What classifiers make of a map of (4, 5, 5)."""


def headed(head: str) -> nn.Module:
    """A network that ends so."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 3), *copy.deepcopy(HEADS[head]))


class Spread(nn.Module):
    """A pixel made as large as a map, and something done with it that makes that count."""

    def __init__(self, way: str):
        super().__init__()
        self.way = way
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        pixel = x.mean((2, 3), keepdim=True)
        wide = pixel.expand_as(x)
        if self.way == "both":
            wide = wide * torch.sigmoid(pixel).expand_as(x)
        elif self.way == "constant":
            wide = wide * 2.5
        elif self.way == "added":
            wide = wide + 0.5
        elif self.way == "itself":
            wide = wide * wide
        return self.fc(torch.relu(self.b(wide)).mean((2, 3)))


SPREAD = ("alone", "both", "constant", "added", "itself")


def of(kind: type[nn.Module], px: int = 16, seed: int = 0) -> nn.Module:
    """One with batch statistics and scales as after a training, in evaluation mode."""
    torch.manual_seed(seed)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 3, px, px))
    return model.eval()


def saved(model: nn.Module, path: Path, px: int = 16) -> Path:
    """As `torch.export.save` writes it."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (torch.zeros(2, 3, px, px),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path
