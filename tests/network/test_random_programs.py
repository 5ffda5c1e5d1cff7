"""Programs put together at random: what is read computes what was written, or is refused.

Views, copies that may be views, in-place operations, other names of one value: who keeps track of
them wrongly gives another function, and no later check could tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from network.onnx_files import PX, Node, answers, numbers, tail, written
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.network import from_onnx, from_torch

WIDTH = 8


def as_table(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w)


def as_map(x: Tensor) -> Tensor:
    n, a, b, h, w = x.shape
    return x.contiguous().view(n, a * b, h, w)


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": torch.relu_, "relu": torch.relu, "clamp_": nn.Hardtanh(0.0, 6.0, inplace=True),
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "view": lambda x: x.view(x.shape), "reshape": lambda x: x.reshape(x.shape),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=False),
    "first": lambda x: x[:, :4], "last": lambda x: x[:, -3:], "beyond": lambda x: x[:, -99:5],
    "half": lambda x: x.chunk(2, 1)[1], "pool": lambda x: nn.functional.max_pool2d(x, 3, 1, 1),
    "pad": lambda x: nn.functional.pad(x, (1, 1, 1, 1)), "table": as_table,
}  # fmt: skip
OFTEN = ("relu_", "relu_", "relu_", "channels last", "channels last", "table", "table", "beyond")
TABLES = {"turn": lambda x: x.transpose(1, 2), "map": as_map}


class Random(nn.Module):
    """A dozen operations on values that are there; its answer reads several of them."""

    def __init__(self, seed: int):
        super().__init__()
        draw = random.Random(seed)
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.convs = nn.ModuleList(nn.LazyConv2d(WIDTH, 1) for _ in range(3))
        self.out = nn.LazyLinear(5)
        self.plan = [(draw.random(), draw.random(), draw.random()) for _ in range(12)]
        self.last = draw.sample(range(13), 4)

    def forward(self, image: Tensor) -> Tensor:
        values = [self.stem(image)]
        convs = list(self.convs)
        for what, which, other in self.plan:
            x, y = (values[int(at * len(values))] for at in (which, other))
            if x.dim() == 5:
                values.append(list(TABLES.values())[int(what * 2)](x))
            elif what < 0.12 and convs:
                values.append(convs.pop()(x))
            elif what < 0.3 and y.dim() == 4 and y.shape[2:] == x.shape[2:]:
                values.append(torch.cat((x, y), 1))
            elif what < 0.36 and y.shape == x.shape:
                values.append(x.add_(y) if what < 0.33 else x + y)
            else:
                often = [*MAPS.values(), *[MAPS[key] for key in OFTEN]]
                step = often[int((what * 7919) % 1 * len(often))]
                values.append(step(x) if x.shape[1] % 2 == 0 else torch.relu(x))
        ends = [values[at] for at in self.last if values[at].dim() == 4]
        pooled = [nn.functional.adaptive_avg_pool2d(x, 1) for x in ends or values[:1]]
        return self.out(torch.flatten(torch.cat(pooled, 1), 1))


def test_programs_of_torch() -> None:
    """`from_module` itself compares; here each that it reads is compared once more, elsewhere."""
    read = refused = 0
    faults: list[tuple[int, str]] = []
    for seed in range(60):
        torch.manual_seed(seed)
        model = Random(seed).eval()
        x = torch.randn(2, 3, 12, 12)
        try:
            with torch.no_grad():
                want = model(x)
        except RuntimeError:  # PyTorch itself refuses it: a view that is written to
            continue
        unused = [c for c in model.convs if nn.parameter.is_lazy(c.weight)]
        model.convs = nn.ModuleList(c for c in model.convs if c not in unused)
        try:
            ours = from_torch.from_module(model, 12).module
        except BadInput as error:
            faults += [(seed, str(error))] if "fault of edgeres" in str(error) else []
            refused += 1
            continue
        with torch.no_grad():
            torch.testing.assert_close(ours(x), want, atol=1e-4, rtol=1e-4, msg=str(seed))
        read += 1
    assert faults == []
    assert read >= 15 and refused >= 5, (read, refused)


def test_what_is_read_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the importer's own is no silent one."""
    conv = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert from_torch.from_module(model, 12).module.spec.head == "4"
    monkeypatch.setitem(from_torch._CALLS, "relu.default", from_torch._same)
    with pytest.raises(BadInput, match=r"gives other answers than by itself .* fault of edgeres"):
        from_torch.from_module(model, 12)


KINDS = ("Identity", "Transpose", "bias", "Relu", "Concat", "Slice", "Add", "Conv", "MaxPool",
         "Dropout")  # fmt: skip


def random_file(path: Path, seed: int) -> Path:
    draw = random.Random(seed)
    nodes: list[Node] = [("Conv", ["x", "w", "b"], "v0", {"pads": [1, 1, 1, 1]})]
    tensors = {"w": numbers(WIDTH, 3, 3, 3), "b": numbers(WIDTH)}
    values = [("v0", WIDTH, False)]  # name, channels, whether they come last
    for at in range(1, 12):
        x, channels, last = draw.choice(values)
        name = f"v{at}"
        kind = draw.choice(KINDS)
        if kind == "Transpose":
            nodes.append(("Transpose", [x], name, {"perm": [0, 3, 1, 2] if last else [0, 2, 3, 1]}))
            values.append((name, channels, not last))
        elif kind == "bias":
            tensors[f"k{at}"] = numbers(channels) if last else numbers(1, channels, 1, 1)
            nodes.append(("Add", [x, f"k{at}"], name))
            values.append((name, channels, last))
        elif kind in ("Concat", "Add"):
            like = [v for v in values if v[2] == last and (kind == "Concat" or v[1] == channels)]
            y, more, _ = draw.choice(like)
            axis = {"axis": 3 if last else 1} if kind == "Concat" else {}
            nodes.append((kind, [x, y], name, axis))
            values.append((name, channels + more * (kind == "Concat"), last))
        elif kind == "Slice":
            first = draw.randrange(channels)
            start = first - channels if draw.random() < 0.3 else first
            ends = {"s": start, "e": 2**62, "a": 3 if last else 1}
            tensors |= {f"{key}{at}": np.array([value]) for key, value in ends.items()}
            nodes.append(("Slice", [x, f"s{at}", f"e{at}", f"a{at}"], name))
            values.append((name, channels - first, last))
        elif kind == "Conv" and not last:
            tensors[f"w{at}"] = numbers(WIDTH, channels, 1, 1)
            nodes.append(("Conv", [x, f"w{at}"], name))
            values.append((name, WIDTH, False))
        elif kind == "MaxPool" and not last:
            pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
            nodes.append(("MaxPool", [x], name, pool))
            values.append((name, channels, False))
        else:
            nodes.append((kind if kind in ("Relu", "Dropout") else "Identity", [x], name))
            values.append((name, channels, last))
    plain = [v for v in values if not v[2]]
    read = [draw.choice(plain) for _ in range(3)]
    nodes.append(("Concat", [name for name, *_ in read], "end", {"axis": 1}))
    more, theirs = tail("end", sum(count for _, count, _ in read))
    return written(path, [*nodes, *more], {**tensors, **theirs})


def test_files_of_onnx(tmp_path: Path) -> None:
    read = refused = 0
    for seed in range(250):
        path = random_file(tmp_path / "net.onnx", seed)
        x = torch.rand(3, 3, PX, PX)
        want = answers(path, x)
        try:
            ours = from_onnx.from_onnx(path, PX).module
        except BadInput:
            refused += 1
            continue
        with torch.no_grad():
            torch.testing.assert_close(ours(x), want, atol=1e-4, rtol=1e-4, msg=str(seed))
        read += 1
    assert read >= 200, (read, refused)
