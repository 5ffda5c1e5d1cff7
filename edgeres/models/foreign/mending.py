"""What is put right exactly, so that somebody's tensors are those of a plain ResNet.

Each function takes the tensors by name, changes them in place, and says what it did, if anything.
All of it is the same function of the image, in evaluation mode.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from edgeres.models.foreign.names import OURS

Tensors = dict[str, Tensor]

# Top modules that only training needs; others' tensors aren't passed over.
_FOR_TRAINING = re.compile(
    r"loss|criteri|proj|predict|queue|aux|center|arcface|margin|metric|acc|proto|n_averaged|total_"
    r"|ema|teacher|momentum|target|encoder_k|key_encoder|head|decay|num_updates|steps?$",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"^(module\.|model\.)*((fc|linear|classifier|cls|head|last_linear|output|logits|\d+)\.)"
)
_PROJECTED = re.compile(r"(^|\.)(encoder_q|encoder_k|queue)(\.|$|_)")
_COUNTED = ("total_ops", "total_params")  # by thop, in every layer
_SHOWN = 3


def masked(found: Tensors) -> str | None:
    """`torch.nn.utils.prune`: weights times their masks."""
    masks = {k: f"{k[:-5]}_mask" for k in found if k.endswith("_orig")}
    pruned = [k for k, mask in masks.items()
              if mask in found and found[mask].shape == found[k].shape]  # fmt: skip
    for name in pruned:
        found[name[:-5]] = found.pop(name) * found.pop(masks[name])
    return f"{len(pruned)} masks of torch.nn.utils.prune are multiplied in" if pruned else None


def unbiased(found: Tensors) -> str | None:
    """Biases of convolutions that a batch norm follows: taken off its mean."""
    if "bn.weight" in found:  # pre-activated: another batch norm follows
        return None
    done = 0
    for name in [k for k in found if re.search(r"(conv\d+|downsample\.0)\.bias$", k)]:
        norm = name.removesuffix("bias")
        norm = norm.replace("downsample.0.", "downsample.1.") if "downsample" in norm else \
            re.sub(r"conv(\d+)\.$", r"bn\1.", norm)  # fmt: skip
        mean = found.get(f"{norm}running_mean")
        if mean is not None and mean.shape == found[name].shape:
            found[f"{norm}running_mean"] = mean - found.pop(name)
            done += 1
    return f"the biases of {done} convolutions are put into the batch norm behind" if done else None


def one_head(found: Tensors, outside: Tensors) -> str | None:
    """The last layer as `fc`: one linear layer, wherever in a Sequential it stands.

    A batch norm between the pooling and it is folded in. If nothing can be made `fc`, all of it
    is taken away and the sentence says why.

    Args:
        outside: tensors beside the network; what is used of them is taken out.
    """
    if any(_PROJECTED.search(k) for k in outside):
        for name in [k for k in found if k.startswith("fc.")]:
            del found[name]
        return "its last layers are a projection for contrastive training, no classifier"
    parts = {k: v for k, v in found.items() if k.startswith("fc.")}
    source = found
    if not parts:
        parts = {k: v for k, v in outside.items() if _HEAD.match(k)}
        source = outside
    linear = [k for k, v in parts.items() if k.endswith("weight") and v.ndim == 2]
    if len(linear) == 1:
        (name,) = linear
        weight, bias = parts[name].float(), parts.get(f"{name[:-6]}bias")
        others = parts.keys() - {name, f"{name[:-6]}bias"}
        bias = torch.zeros(len(weight)) if bias is None else bias.float()
        norms = [
            k for k in others if k.endswith("running_var") and len(parts[k]) == weight.shape[1]
        ]
        said = None
        if len(norms) == 1:
            weight, bias = _normed(parts, norms[0].removesuffix("running_var"), weight, bias)
            others = {k for k in others if not k.startswith(norms[0].removesuffix("running_var"))}
            said = "the batch norm before its last layer is folded into it"
        if not others:
            for part in parts:
                del source[part]
            found["fc.weight"], found["fc.bias"] = weight, bias
            return said
    if not parts:
        return None
    for part in parts:
        del source[part]
    return (f"its last layers ({_some(parts)}) can't be one linear layer, "
            "so it is a network without a last layer")  # fmt: skip


def _normed(parts: Tensors, norm: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer with the batch norm before it in it."""
    mean, var = parts[f"{norm}running_mean"].float(), parts[f"{norm}running_var"].float()
    scale = parts.get(f"{norm}weight", torch.ones_like(mean)).float() / (var + 1e-5).sqrt()
    shift = parts.get(f"{norm}bias", torch.zeros_like(mean)).float() - mean * scale
    return weight * scale, bias + weight @ shift


def without_extras(found: Tensors, outside: Tensors) -> str | None:
    """Tensors of losses, projections and the like are left out; unknown ones go to the network's,
    where they are a difference to every architecture."""
    extras = [k for k in found if k.endswith(_COUNTED) or (not OURS.match(k)
              and _FOR_TRAINING.search(k.partition(".")[0]))]  # fmt: skip
    for name in extras:
        del found[name]
    for name, value in outside.items():
        if _FOR_TRAINING.search(name):
            extras.append(name)
        else:
            found[name] = value
    return f"passed over {len(extras)} tensors: {_some(extras)}" if extras else None


def normalization(found: Tensors) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """mean and std of a normalizing layer inside the network, in pixel / 255, taken out of it."""
    for name in [k for k in found if k.endswith("mean") and not OURS.match(k)]:
        other = f"{name.removesuffix('mean')}std"
        values = [found.get(k) for k in (name, other)]
        if all(v is not None and v.numel() in (1, 3) for v in values):
            mean, std = (tuple(v.float().flatten().tolist()) for v in values)  # type: ignore[union-attr]
            if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
                continue  # no such layer: it stays a difference to every network
            del found[name], found[other]
            if max(*mean, *std) > 2:
                mean, std = tuple(x / 255 for x in mean), tuple(x / 255 for x in std)
            return mean, std
    return None


def _some(names: object) -> str:
    names = sorted(map(str, names))  # type: ignore[call-overload]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(n[:60] for n in names[:_SHOWN]) + more
