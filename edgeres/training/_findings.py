"""What a watched pass says: each thing that can be wrong, looked for by a function of its own.

Each limit is far outside what trained networks show (docs/diagnosis.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models.resnet import PreactBlock, ResidualBlock
from edgeres.training._watching import Seen
from edgeres.training.inference import for_gradients, narrow

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


def nan_parameters(broken: list[str]) -> Finding:
    """Parameters that are no numbers."""
    more = f", as are {len(broken) - 1} more tensors" if len(broken) > 1 else ""
    return Finding(
        "nan", broken[0].rpartition(".")[0], f"{broken[0]} is NaN or infinite{more}",
        "go back to a checkpoint from before, lower train.learning_rate or set train.clip_norm",
    )  # fmt: skip


def nan_activations(seen: Seen) -> Finding:
    """The first layer whose output is no number."""
    first = seen.broken[0]
    before = [rms for name, rms in seen.rms.items() if name not in seen.broken]
    return Finding(
        "nan", first,
        f"its output is NaN or infinite though its weights are numbers (largest before it: "
        f"{max(before, default=0):.3g})",
        "lower train.learning_rate or set train.clip_norm",
    )  # fmt: skip


def dead(seen: Seen) -> list[Finding]:
    """Layers of which most channels are never active."""
    return [
        Finding(
            "dead", name,
            f"{round(share * len(seen.peak[name]))} of its {len(seen.peak[name])} channels are "
            f"never above zero, so that the ReLU behind it lets nothing through",
            "train on with a lower learning rate, or prune the channels (they carry nothing)",
        )
        for name in seen.peak
        if (share := share_dead(seen, name)) is not None and share >= DEAD
    ]  # fmt: skip


def share_dead(seen: Seen, name: str) -> float | None:
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


def paths(model: nn.Module, seen: Seen) -> list[Finding]:
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


def _branch(name: str, block: nn.Module, seen: Seen) -> float:
    """Root mean square of a block's residual branch, as it enters the sum."""
    depth = getattr(block, "depth", 0)
    if getattr(block, "se", None) is not None:
        return seen.rms[f"{name}.se.gate"] * _last(name, depth, seen)
    return _last(name, depth, seen)


def _last(name: str, depth: int, seen: Seen) -> float:
    own = f"{name}.bn{depth}"
    after = f"{name}.conv{depth}"
    behind = own in seen.rms and list(seen.rms).index(own) > list(seen.rms).index(after)
    return seen.rms[own] if behind else seen.rms[after]


def growth(model: nn.Module, seen: Seen) -> list[Finding]:
    """Blocks whose output is far larger or smaller than their input."""
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


def statistics(model: nn.Module, seen: Seen) -> list[Finding]:
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


def gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[Finding]:
    """Layers whose gradient is nothing, or drowns the others', by the norm of their weights."""
    kept = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    plain = narrow(model)
    with torch.enable_grad(), for_gradients(model, plain):
        inputs = inputs.contiguous() if plain else inputs
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


def related(layer: str, blamed: str) -> bool:
    """Whether two layers are in the same block."""
    block = ".".join(blamed.split(".")[:2])
    return layer == blamed or layer.startswith(f"{block}.")
