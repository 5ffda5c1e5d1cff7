"""Small convolutional networks put together at random, with awkward weights, by a number.

A network is a plan: steps, each of which reads values of earlier ones. A plan that fails can be
made smaller (`shrunk`): steps are left out, one by one, while it still fails.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operation; `reads` are places in the list of values, of which the image is the first."""

    op: str
    reads: tuple[int, ...]
    args: dict[str, Any]

    def __str__(self) -> str:
        args = ", ".join(f"{k}={v}" for k, v in self.args.items())
        return f"{self.op}({', '.join(map(str, self.reads))}{'; ' if args else ''}{args})"


@dataclass(frozen=True)
class Plan:
    """A network but for its weights, which `seed` draws."""

    seed: int
    px: int
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        steps = "; ".join(f"{n + 1}={step}" for n, step in enumerate(self.steps))
        return f"seed {self.seed}, {self.px} px: {steps}"


class Of(nn.Module):
    """A function of its inputs, perhaps of modules inside."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values, **dict(self.named_children()))


def _conv(args: dict[str, Any], shape: Shape) -> nn.Module:
    channels, out = shape[0], args["out"]
    groups = {"depthwise": channels, "some": math.gcd(channels, args["out"])}.get(args["groups"], 1)
    out = channels if args["groups"] == "depthwise" else out
    if args["groups"] == "wider":
        out, groups = 2 * channels, channels
    conv = nn.Conv2d(channels, out, args["kernel"], args["stride"], args["padding"],
                     args["dilation"], groups, args["bias"])  # fmt: skip
    return nn.Sequential(nn.ZeroPad2d(args["pads"]), conv) if "pads" in args else conv


def _squeezed(args: dict[str, Any], shape: Shape) -> nn.Module:
    gate, inner = GATES[args["gate"]], max(2, shape[0] // 2)
    if args["linear"]:
        down, up = nn.Linear(shape[0], inner), nn.Linear(inner, shape[0])

        def by_vectors(x: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
            y = gate(up(torch.relu(down(x.mean((2, 3))))))
            return x * y.view(-1, shape[0], 1, 1)

        return Of(by_vectors, down=down, up=up)
    squeeze, excite = nn.Conv2d(shape[0], inner, 1), nn.Conv2d(inner, shape[0], 1)

    def by_maps(x: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
        return x * gate(up(torch.relu(down(F.adaptive_avg_pool2d(x, 1)))))

    return Of(by_maps, down=squeeze, up=excite)


def _shuffled(args: dict[str, Any], shape: Shape) -> nn.Module:
    groups = next(g for g in (3, 2, 1) if shape[0] % g == 0)
    if args["native"]:
        return nn.ChannelShuffle(groups)

    def by_views(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Of(by_views)


def _sliced(args: dict[str, Any], shape: Shape) -> nn.Module:
    first = int(args["first"] * shape[0])
    last = max(first + 1, math.ceil(args["last"] * shape[0]))
    return Of(lambda x: x[:, first:last])


def _constant(args: dict[str, Any], shape: Shape) -> nn.Module:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("value", torch.linspace(-1, 1, shape[0]).view(1, -1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.value if args["by"] else x + self.value

    return Constant()


GATES = {"sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "relu_": lambda: nn.ReLU(inplace=True), "relu6": nn.ReLU6,
    "clamp": lambda: Of(lambda x: torch.clamp(x, 0, 1.5)), "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid, "silu": nn.SiLU, "sigmoid": nn.Sigmoid,
}  # fmt: skip
STRANGE: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.1), "gelu": nn.GELU, "hardtanh": nn.Hardtanh,
    "twice": lambda: Of(lambda x: x * 2.5), "more": lambda: Of(lambda x: x + 0.75),
    "less": lambda: Of(lambda x: 1 - x), "half": lambda: Of(lambda x: x / 2),
    "turned": lambda: Of(lambda x: x.transpose(2, 3)),
    "upsample": lambda: nn.Upsample(scale_factor=2),
    "flipped": lambda: Of(lambda x: x.flip(3)), "softmax": lambda: nn.Softmax(1),
    "rows": lambda: Of(lambda x: x[:, :, 1:]), "step": lambda: Of(lambda x: x[:, ::2]),
    "group": lambda: nn.GroupNorm(1, 1, affine=False),
}  # fmt: skip
MAKERS: dict[str, Callable[..., nn.Module]] = {
    "conv": _conv, "norm": lambda args, shape: nn.BatchNorm2d(shape[0]),
    "act": lambda args, shape: ACTIVATIONS[args["kind"]](),
    "strange": lambda args, shape: STRANGE[args["kind"]](),
    "add": lambda args, *shapes: Of(torch.add), "mul": lambda args, *shapes: Of(torch.mul),
    "cat": lambda args, *shapes: Of(lambda *maps: torch.cat(maps, 1)),
    "slice": _sliced, "shuffle": _shuffled, "squeeze": _squeezed, "constant": _constant,
    "max": lambda args, shape: nn.MaxPool2d(**args),
    "avg": lambda args, shape: nn.AvgPool2d(**args),
    "adaptive": lambda args, shape: nn.AdaptiveAvgPool2d(args["size"]),
    "dropout": lambda args, shape: nn.Dropout(0.3),
    "mean": lambda args, shape: Of(lambda x: x.mean((2, 3), keepdim=True)),
    "flatten": lambda args, shape: nn.Flatten(),
    "linear": lambda args, shape: nn.Linear(shape[0], args["out"], bias=args["bias"]),
}  # fmt: skip


class Net(nn.Module):
    """A plan with weights; the last value is its answer.

    Raises:
        RuntimeError, ValueError, IndexError: its steps don't fit together.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.steps = nn.ModuleList()
        values: list[Tensor] = [images(16, plan)]
        for step in plan.steps:
            self.steps.append(self._made(step, values))
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(plan.seed)
                made = awkward(self.steps[-1], step, plan.seed).train()
                values.append(made(*[values[at].clone() for at in step.reads]))
            made.eval()
            if not values[-1].numel() or values[-1][0].numel() > 40_000:
                raise ValueError("nothing is left")
        self.shapes = [tuple(value.shape[1:]) for value in values]
        self.eval()

    def _made(self, step: Step, values: list[Tensor]) -> nn.Module:
        if step.op == "again":
            made = self.steps[step.args["module"]]
            if not isinstance(made, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                raise ValueError("has no weights")
            return made
        with torch.random.fork_rng():
            torch.manual_seed(self.plan.seed + len(self.steps))
            return MAKERS[step.op](step.args, *[tuple(values[at].shape[1:]) for at in step.reads])

    def forward(self, image: Tensor) -> Tensor:
        values = [image]
        for step, module in zip(self.plan.steps, self.steps, strict=True):
            values.append(module(*[values[at] for at in step.reads]))
        return values[-1]


@torch.no_grad()
def awkward(module: nn.Module, step: Step, seed: int) -> nn.Module:
    """Weights as broken or odd trainings leave them."""
    kind = step.args.get("weights")
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight, bias = layer.weight, layer.bias
            one = int(torch.randint(len(weight), (1,), generator=generator))
            if kind == "zeros":
                weight.zero_()
            elif kind == "dead":
                weight[one] = 0
            elif kind == "huge":
                weight[one] *= 300
            elif kind == "tiny":
                weight *= 1e-6
            elif kind == "negative":
                weight.copy_(-weight.abs())
                if bias is not None:
                    bias.copy_(-bias.abs() - 1)
            elif kind == "biased" and bias is not None:
                bias += 20
            elif kind == "signs":
                weight.copy_(weight.sign())
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0 if kind is None else 0.5
            one = int(torch.randint(layer.num_features, (1,), generator=generator))
            layer.bias.uniform_(-0.5, 0.5, generator=generator)
            layer.weight.uniform_(0.5, 1.5, generator=generator)
            if kind == "negative":
                layer.weight.neg_()
            elif kind == "dead":
                layer.weight[one] = 0
            elif kind == "huge":
                layer.bias[one] = 300
            elif kind == "tiny":
                layer.eps = 1e-12
    return module


def images(count: int, plan: Plan, seed: int = 1) -> Tensor:
    """Soft blots of colour, normalized: (N, 3, px, px)."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in plan.normalization)
    return (pixels(count, plan.px, seed) / 255 - mean) / std


def pixels(count: int, px: int, seed: int = 1) -> Tensor:
    """The same as uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    noise = torch.rand(count, 3, px, px, generator=generator) - 0.5
    fine = F.interpolate(coarse, size=(px, px), mode="bilinear") + 0.2 * noise
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


NORMALIZATIONS = (
    ((0.5,), (0.5,)), ((128 / 255,), (0.25,)), ((0.0,), (1.0,)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)  # fmt: skip
WEIGHTS = (None,) * 10 + ("zeros", "dead", "dead", "huge", "tiny", "negative", "biased", "signs")


def drawn(seed: int, wild: bool | None = None) -> Plan:
    """The plan of a number.

    Args:
        wild: with operations that nobody knows; None: now and then.
    """
    draw = random.Random(seed)
    wild = draw.random() < 0.15 if wild is None else wild
    plan = Plan(seed, draw.choice((8, 12, 16, 16, 17, 21)), draw.choice(NORMALIZATIONS), ())
    plan = _with(plan, lambda net: _convolution(draw, 0))
    for _ in range(draw.randint(2, 11)):
        plan = _with(plan, lambda net: _step(draw, net, wild))
    return _ended(draw, plan)


def _with(plan: Plan, propose: Callable[[Net], Step]) -> Plan:
    """With one step more: the first that fits of those proposed."""
    net = Net(plan)
    for _ in range(60):
        step = propose(net)
        made = replace(plan, steps=(*plan.steps, step))
        try:
            Net(made)
        except (RuntimeError, ValueError, IndexError):
            continue
        return made
    return plan


def _step(draw: random.Random, net: Net, wild: bool) -> Step:
    maps = [n for n, shape in enumerate(net.shapes) if len(shape) == 3]
    late = maps[-3:]
    x = draw.choice(late if draw.random() < 0.8 else maps)
    kind = draw.choice(("conv", "conv", "conv", "norm", "act", "act", "act", "add", "add", "mul",
                        "cat", "cat", "slice", "shuffle", "squeeze", "max", "avg", "dropout",
                        "adaptive", "again", "strange" if wild else "conv",
                        "constant" if wild else "norm"))  # fmt: skip
    if kind == "conv":
        return _convolution(draw, x)
    if kind == "norm":
        return Step("norm", (x,), {"weights": draw.choice(WEIGHTS)})
    if kind == "act":
        return Step("act", (x,), {"kind": draw.choice((*ACTIVATIONS, "relu", "relu6"))})
    if kind == "strange":
        return Step("strange", (x,), {"kind": draw.choice(list(STRANGE))})
    if kind in ("add", "mul"):
        y = draw.choice([m for m in maps if net.shapes[m] == net.shapes[x]])
        return Step(kind, (x, y), {})
    if kind == "cat":
        same = [m for m in maps if net.shapes[m][1:] == net.shapes[x][1:]]
        return Step("cat", tuple(draw.choice(same) for _ in range(draw.choice((2, 2, 3, 6)))), {})
    if kind == "slice":
        return Step("slice", (x,), {"first": draw.choice((0, 0, 0.25, 0.5)),
                                    "last": draw.choice((0.5, 0.75, 1))})  # fmt: skip
    if kind == "shuffle":
        return Step("shuffle", (x,), {"native": draw.random() < 0.5})
    if kind == "squeeze":
        return Step("squeeze", (x,), {"gate": draw.choice(list(GATES)), "linear":
                                      draw.random() < 0.4})  # fmt: skip
    if kind in ("max", "avg"):
        size = draw.choice((2, 2, 3, (1, 2), (3, 1)))
        args = {"kernel_size": size, "stride": draw.choice((1, 2, 2, 3, (2, 1))),
                "padding": draw.choice((0, 0, 1)) if size != (1, 2) else 0}  # fmt: skip
        args |= {"ceil_mode": True} if draw.random() < 0.2 else {}
        if kind == "avg":
            args |= {"padding": 0} if draw.random() < 0.8 else {"count_include_pad":
                                                                draw.random() < 0.5}  # fmt: skip
        elif draw.random() < 0.1:
            args["dilation"] = 2
        return Step(kind, (x,), args)
    if kind == "adaptive":
        return Step("adaptive", (x,), {"size": draw.choice((1, 2, 3, 4, 7))})
    if kind == "again":
        return Step("again", (x,), {"module": draw.randrange(len(net.steps))})
    return Step(kind, (x,), {"by": draw.random() < 0.5} if kind == "constant" else {})


def _convolution(draw: random.Random, x: int) -> Step:
    side = draw.choice((1, 1, 2, 3, 3, 3, 5))
    kernel = (side, side) if draw.random() < 0.8 else draw.choice(((1, 3), (3, 1), (1, 5), (2, 3)))
    args = {
        "out": draw.choice((1, 3, 4, 5, 6, 8, 8, 12)), "kernel": kernel,
        "stride": draw.choice((1, 1, 1, 2, 3, (2, 1))),
        "padding": tuple(draw.choice((k // 2, k // 2, 0, 1, 2)) for k in kernel),
        "dilation": draw.choice((1, 1, 1, 1, 2, (1, 2))),
        "groups": draw.choice(("one", "one", "depthwise", "some", "wider")),
        "bias": draw.random() < 0.6, "weights": draw.choice(WEIGHTS),
    }  # fmt: skip
    if draw.random() < 0.1:
        args |= {"padding": "same", "stride": 1}
    elif draw.random() < 0.12:
        args |= {"pads": tuple(draw.choice((0, 1, 1, 2)) for _ in range(4))}
    return Step("conv", (x,), args)


def _ended(draw: random.Random, plan: Plan) -> Plan:
    net = Net(plan)
    read = {at for step in plan.steps for at in step.reads}
    loose = [n for n in range(1, len(net.shapes)) if n not in read or n == len(plan.steps)]
    ends = []
    for at in loose[-4:]:
        kind = draw.choice(("mean", "adaptive", "adaptive", "max"))
        if kind == "max" and net.shapes[at][1:] != (1, 1):
            args = {"kernel_size": net.shapes[at][1:]}
        else:
            kind, args = ("mean", {}) if kind == "mean" else ("adaptive", {"size": 1})
        plan = replace(plan, steps=(*plan.steps, Step(kind, (at,), args)))
        ends.append(len(plan.steps))
    steps = list(plan.steps)

    def put(op: str, *reads: int, **args: Any) -> int:
        steps.append(Step(op, reads, args))
        return len(steps)

    at = put("cat", *ends) if len(ends) > 1 else ends[0]
    if draw.random() < 0.15:  # a convolution makes the answer
        at = put("conv", at, out=5, kernel=(1, 1), stride=1, padding=0, dilation=1, groups="one",
                 bias=True, weights=None)  # fmt: skip
        at = put("flatten", at)
    else:
        at = put("flatten", at)
        if draw.random() < 0.3:
            at = put("linear", at, out=draw.choice((3, 8, 10)), bias=draw.random() < 0.7,
                     weights=draw.choice(WEIGHTS))  # fmt: skip
            if draw.random() < 0.8:
                at = put("act", at, kind=draw.choice(list(ACTIVATIONS)))
        if draw.random() < 0.2:
            at = put("dropout", at)
        at = put("linear", at, out=draw.choice((2, 5, 10)), bias=draw.random() < 0.8, weights=None)
    if draw.random() < 0.05:
        put("act", at, kind=draw.choice(("relu", "sigmoid")))
    return replace(plan, steps=tuple(steps))


def shrunk(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The same failure with as few steps, and as plain ones, as leaving out gives."""
    again = True
    while again:
        again = False
        for smaller in _smaller(plan):
            try:
                Net(smaller)
            except (RuntimeError, ValueError, IndexError, StopIteration, ZeroDivisionError):
                continue
            if fails(smaller):
                plan, again = smaller, True
                break
    return plan


def _smaller(plan: Plan) -> list[Plan]:
    found = []
    for at in reversed(range(len(plan.steps))):
        gone = plan.steps[at]
        for instead in dict.fromkeys(gone.reads):
            steps = []
            for number, step in enumerate(plan.steps):
                if number == at:
                    continue
                reads = tuple(instead if r == at + 1 else r - (r > at + 1) for r in step.reads)
                args = dict(step.args)
                if step.op == "again":
                    args["module"] -= step.args["module"] > at
                steps.append(Step(step.op, reads, args))
            found.append(replace(plan, steps=tuple(steps)))
    plainer = {"weights": None, "stride": 1, "dilation": 1, "groups": "one", "kernel": (1, 1),
               "ceil_mode": False, "padding": 0}  # fmt: skip
    for at, step in enumerate(plan.steps):
        variants = (
            [{k: v for k, v in step.args.items() if k != "pads"}] if "pads" in step.args else []
        )
        variants += [{**step.args, key: value} for key, value in plainer.items()
                     if step.args.get(key, value) != value]  # fmt: skip
        found += [replace(plan, steps=(*plan.steps[:at], replace(step, args=args),
                                       *plan.steps[at + 1 :])) for args in variants]  # fmt: skip
    if plan.normalization != NORMALIZATIONS[0]:
        found.append(replace(plan, normalization=NORMALIZATIONS[0]))
    return found
