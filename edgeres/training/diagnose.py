"""What is wrong inside a network: a forward and a backward pass over real images, then findings.

Looked for: parameters and activations that aren't numbers, and where they begin; channels that are
never active; activations that grow or vanish from block to block; residual branches and shortcuts
that carry nothing; batch statistics that aren't those of the data; gradients that don't arrive.
Each limit is far outside what trained networks show (docs/diagnosis.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models.resnet import PreactBlock, ResidualBlock

DEAD = 0.5  # share of a layer's channels that are never above zero
GROWTH = 10.0  # of the root mean square over one block, either way
CARRIES = 1e-3  # least share of a path in the sum of a residual block
SHIFT, SPREAD = 1.0, 1.4  # of batch statistics: standard deviations; logarithm of the variances
FADED, LOUD = 1e-5, 1e4  # gradient by weight, beside the median layer's


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: "nan", "dead", "growth", "vanishing", "branch", "shortcut", "statistics", "gradient".
        layer: where it begins, by its name in the network.
        says: one sentence with the numbers.
        mend: what to do.
    """

    kind: str
    layer: str
    says: str
    mend: str


@dataclass
class _Seen:
    """What one pass showed of each layer."""

    rms: dict[str, float] = field(default_factory=dict)
    peak: dict[str, Tensor] = field(default_factory=dict)  # largest value of each channel
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    entered: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def examine(model: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> list[Finding]:
    """Everything that is wrong with a network, what lies deepest first.

    Args:
        model: a ResNet; of another module only NaN is looked for. Left as it was.
        inputs: prepared images (N, 3, H, W), N of some hundreds.
        labels: (N,), for the gradients; None leaves them out.
    """
    training = model.training
    broken = [k for k, v in model.state_dict().items()
              if v.is_floating_point() and not bool(torch.isfinite(v).all())]  # fmt: skip
    if broken:
        return [_nan_parameters(broken)]
    seen = _Seen()
    model.eval()
    try:
        with _watched(model, seen), torch.no_grad():
            model(inputs)
        if seen.broken:
            return [_nan_activations(seen)]
        found = [*_dead(seen), *_paths(model, seen), *_growth(model, seen),
                 *_statistics(model, seen)]  # fmt: skip
        if labels is not None:
            blamed = {f.layer for f in found}
            found += [f for f in _gradients(model, inputs, labels)
                      if not any(_related(f.layer, layer) for layer in blamed)]  # fmt: skip
    finally:
        model.train(training)
    return found


def profile(model: nn.Module, inputs: Tensor) -> list[dict[str, Any]]:
    """Root mean square and share of dead channels of each layer, in the order they are run."""
    seen = _Seen()
    training = model.training
    model.eval()
    with _watched(model, seen), torch.no_grad():
        model(inputs)
    model.train(training)
    return [{"layer": name, "rms": round(rms, 6), "dead": _share_dead(seen, name)}
            for name, rms in seen.rms.items()]  # fmt: skip


def diverged(module: nn.Module, inputs: Tensor) -> str:
    """What `examine` finds of a network whose loss is no number, as one clause."""
    try:
        found = examine(module, inputs)
    except Exception:  # a graph that can't be watched has still diverged
        return ""
    return f"; {found[0].layer}: {found[0].says}" if found else ""


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterator[Tensor]) -> int:
    """Replace batch norm's running statistics by the data's; return how many batches were used.

    The plain mean over batches of their mean and variance, the weights fixed (Wu and Johnson 2021,
    "Rethinking 'Batch' in BatchNorm", section 3.2: PreciseBN).

    Args:
        batches: prepared images (N, 3, H, W), of equal N.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    used = [model(batch).shape[0] for batch in batches]
    for norm, momentum in kept:
        norm.momentum = momentum
    model.eval()
    return len(used)


@contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if not name:
            continue
        leaf = not list(module.children())
        if leaf or isinstance(module, (ResidualBlock, PreactBlock, nn.Sequential)):
            handles.append(module.register_forward_hook(_note(name, module, seen)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(name: str, module: nn.Module, seen: _Seen) -> Any:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        if not bool(torch.isfinite(output).all()):
            seen.broken.append(name)
        seen.rms[name] = _rms(output)
        if inputs and isinstance(inputs[0], Tensor):
            seen.entered[name] = _rms(inputs[0])
        if output.ndim == 4:
            seen.peak[name] = output.amax(dim=(0, 2, 3))
        if isinstance(module, nn.BatchNorm2d):
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
            seen.moments[name] = (mean, variance)

    return hook


def _rms(x: Tensor) -> float:
    return float(x.float().square().mean().sqrt())


def _nan_parameters(broken: list[str]) -> Finding:
    more = f", as are {len(broken) - 1} more tensors" if len(broken) > 1 else ""
    return Finding(
        "nan", broken[0].rpartition(".")[0], f"{broken[0]} is NaN or infinite{more}",
        "go back to a checkpoint from before, lower train.learning_rate or set train.clip_norm",
    )  # fmt: skip


def _nan_activations(seen: _Seen) -> Finding:
    first = seen.broken[0]
    before = [rms for name, rms in seen.rms.items() if name not in seen.broken]
    return Finding(
        "nan", first,
        f"its output is NaN or infinite though its weights are numbers (largest before it: "
        f"{max(before, default=0):.3g})",
        "lower train.learning_rate or set train.clip_norm",
    )  # fmt: skip


def _dead(seen: _Seen) -> list[Finding]:
    return [
        Finding(
            "dead", name,
            f"{round(share * len(seen.peak[name]))} of its {len(seen.peak[name])} channels are "
            f"never above zero, so that the ReLU behind it lets nothing through",
            "train on with a lower learning rate, or prune the channels (they carry nothing)",
        )
        for name in seen.peak
        if (share := _share_dead(seen, name)) is not None and share >= DEAD
    ]  # fmt: skip


def _share_dead(seen: _Seen, name: str) -> float | None:
    """Of a layer that stands before a ReLU (every `bn…` but a block's last is), else None."""
    if name not in seen.peak or not name.rpartition(".")[2].startswith("bn"):
        return None
    block, _, last = name.rpartition(".")
    number = int(last.removeprefix("bn") or 0)
    order = list(seen.rms)
    conv = f"{block}.conv{number}"
    behind = conv in seen.rms and order.index(conv) < order.index(name)
    if block and behind and f"{block}.conv{number + 1}" not in seen.rms:
        return None  # a sum comes before the ReLU
    return float((seen.peak[name] <= 0).float().mean())


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, (ResidualBlock, PreactBlock))]


def _paths(model: nn.Module, seen: _Seen) -> list[Finding]:
    """Residual branches, and shortcuts, that add nothing to the sum of their block."""
    found = []
    for name, block in _blocks(model):
        branch = _branch(name, block, seen)
        projected = f"{name}.downsample" in seen.rms
        shortcut = seen.rms[f"{name}.downsample"] if projected else seen.entered[name]
        if branch < CARRIES * shortcut:
            found.append(Finding(
                "branch", name,
                f"its residual branch adds {branch:.2g} to a shortcut of {shortcut:.2g} (root mean "
                f"square): the block is the identity and learns nothing",
                "train on, or take the block out (a smaller depth does the same for less)",
            ))  # fmt: skip
        elif shortcut < CARRIES * branch:
            found.append(Finding(
                "shortcut", f"{name}.downsample" if projected else name,
                f"its identity path carries {shortcut:.2g} beside a branch of {branch:.2g} (root "
                f"mean square): what earlier layers found is lost here",
                "restore the shortcut's weights, or set its batch norm's weights to 1 and train on",
            ))  # fmt: skip
    return found


def _branch(name: str, block: nn.Module, seen: _Seen) -> float:
    """Root mean square of a block's residual branch, as it enters the sum."""
    depth = getattr(block, "depth", 0)
    if getattr(block, "se", None) is not None:
        return seen.rms[f"{name}.se.gate"] * _last(name, depth, seen)
    return _last(name, depth, seen)


def _last(name: str, depth: int, seen: _Seen) -> float:
    own = f"{name}.bn{depth}"
    after = f"{name}.conv{depth}"
    behind = own in seen.rms and list(seen.rms).index(own) > list(seen.rms).index(after)
    return seen.rms[own] if behind else seen.rms[after]


def _growth(model: nn.Module, seen: _Seen) -> list[Finding]:
    found = []
    for name, _ in _blocks(model):
        before, after = seen.entered[name], seen.rms[name]
        if after > GROWTH * before:
            found.append(Finding(
                "growth", name,
                f"its output is {after / max(before, 1e-30):,.0f} times its input (root mean "
                f"square {before:.3g} to {after:.3g})",
                "set train.clip_norm or lower train.learning_rate, and train from a checkpoint "
                "before; int8 would spend its codes on this block",
            ))  # fmt: skip
        elif before > GROWTH * after:
            found.append(Finding(
                "vanishing", name,
                f"its output is {after / before:.2g} of its input (root mean square {before:.3g} "
                f"to {after:.3g}): the signal ends here",
                "restore the block's weights from a checkpoint before",
            ))  # fmt: skip
    return found


def _statistics(model: nn.Module, seen: _Seen) -> list[Finding]:
    """Running statistics that are far from the data's; one finding, at the first such layer."""
    off = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm2d) or name not in seen.moments:
            continue
        mean, variance = seen.moments[name]
        assert module.running_mean is not None and module.running_var is not None
        own = module.running_var + module.eps
        shift = float(((mean - module.running_mean) / own.sqrt()).square().mean().sqrt())
        spread = float(((variance + module.eps) / own).log().square().mean().sqrt())
        if shift > SHIFT or spread > SPREAD:
            off.append((name, shift, spread))
    if not off:
        return []
    name, shift, spread = off[0]
    more = f", and {len(off) - 1} layers behind it" if len(off) > 1 else ""
    return [Finding(
        "statistics", name,
        f"its running statistics aren't those of these images{more}: means differ by {shift:.2g} "
        f"standard deviations, variances by a factor of {2.718281828 ** spread:.3g}",
        "re-estimate them: edgeres recalibrate MODEL --data NAME[:PATH]; or prepare the images as "
        "in training",
    )]  # fmt: skip


def _gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[Finding]:
    """Layers whose gradient is nothing, or drowns the others', by the norm of their weights."""
    kept = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        F.cross_entropy(model(inputs), labels).backward()
    share = {
        n.rpartition(".")[0]: float(p.grad.norm() / p.detach().norm().clamp_min(1e-12))
        for n, p in model.named_parameters()
        if p.grad is not None and p.ndim > 1
    }
    for n, p in model.named_parameters():
        p.grad = kept[n]
    middle = sorted(share.values())[len(share) // 2] if share else 0.0
    if not middle:
        return []
    found = []
    for layer, value in share.items():
        if FADED * middle <= value <= LOUD * middle:
            continue
        size = "next to no" if value < middle else "an overwhelming"
        found.append(Finding(
            "gradient", layer,
            f"it gets {size} gradient: {value / middle:.2g} of the median layer's",
            "look at the layers behind it" if value < middle else "set train.clip_norm",
        ))  # fmt: skip
    return found


def _related(layer: str, blamed: str) -> bool:
    """Whether two layers are in the same block."""
    block = ".".join(blamed.split(".")[:2])
    return layer == blamed or layer.startswith(f"{block}.")
