"""Grids on which every kind of integer kernel gives the same codes, for every image.

A kernel multiplies a sum of products by `input scale * weight scale / output scale` and rounds.
XNNPACK, onnxruntime and ExecuTorch do it once, in float32; LiteRT's own kernels, TFLite Micro and
CMSIS-NN do it twice, in fixed point. They differ where a sum lies halfway between two codes, or
nearly so. Here no sum does:

- The multiplier is `2^-k * (1 - 2^-23)` with a whole k, so that codes end at whole sums.
- Codes of weights are even and those of biases odd. Then every sum is odd, and a half code, which
  is 2^(k-1), even, is none. The nearest sum is 2^-k of a code away, far more than float32 loses.
- The multiplier's 31 bits are all ones but the last few: the first of the two roundings in fixed
  point gives a sum below 2^22 back as it is.

So all operations are convolutions, linear layers and what only moves codes, and residual adds,
whose scales `ties` chooses: an average pool becomes a convolution of fixed weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import torch
from torch import Tensor

from edgeres.compression import rounding
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier
from edgeres.network import from_torch
from edgeres.network._walk import maker
from edgeres.network.fold import channels_of, depthwise
from edgeres.network.graph import INPUT, Network, Node, picks
from edgeres.network.module import NetworkModule

SCHEME = "w8a8-portable"
_MOST = 63  # of a weight, in steps of two codes
_BELOW_ONE = 1 - 2.0**-23
_LEAST, _SHIFT = 2, 13  # of k: below, half a code is odd; above, sums pass 2^22 before codes end
_BIAS = 2.0**21  # in sums
_SIDE = 64  # of a pool: more taps cost more than a mean
_TAPS = 25  # XNNPACK's fast kernels for depthwise convolutions have no more


def sums_only(model: Classifier) -> NetworkModule:
    """The same function, whose sums are those of layers with a bias.

    Args:
        model: with or without batch norm; left as it was.

    Returns:
        In evaluation mode. A pool of more than 64 rows or columns stays one.
    """
    made = as_network(model)
    state = {k: v.detach().clone() for k, v in made.state_dict().items()}
    spec, nodes = made.spec, []
    users, by_name, widths, areas = spec.users(), spec.by_name, channels_of(spec), _areas(made)
    for node in spec.nodes:
        if node.op in ("avg_pool", "global_avg_pool") and max(areas[node.name]) <= _SIDE:
            layers = _mean(node, widths[node.name], areas[node.name], by_name.keys())
            *before, node = layers
            nodes.extend(before)
            for one in layers:
                weight = torch.full((one.number("out"), 1, *one.pair("kernel")), 1.0)
                state[f"{one.name}.weight"] = weight / math.prod(one.pair("kernel"))
                state[f"{one.name}.bias"] = torch.zeros(one.number("out"))
        if node.op in ("conv2d", "linear") and not _moves(spec, node):
            normed = [by_name[n].op for n in users[node.name] if n] == ["batch_norm"]
            node = node if normed else node.changed(bias=True)
            if node.values["bias"]:
                state.setdefault(f"{node.name}.bias", torch.zeros(node.number("out")))
        nodes.append(node)
    found = NetworkModule(spec.with_nodes(tuple(nodes)))
    found.load_state_dict(state)
    return found.eval()


def _mean(pool: Node, channels: int, size: tuple[int, int], taken: Collection[str]) -> list[Node]:
    """A pool as a layer, or as two where there are many pixels: over the rows, then the columns."""
    rows, columns = size
    stride = pool.pair("stride") if pool.op == "avg_pool" else (1, 1)
    if math.prod(size) <= _TAPS or 1 in size:
        parts = [(pool, size, stride)]
    else:
        name = f"{pool.name}_rows"
        while name in taken:
            name += "_"
        down = dataclasses.replace(pool, name=name)
        across = dataclasses.replace(pool, inputs=(down.name,))
        parts = [(down, (rows, 1), (stride[0], 1)), (across, (1, columns), (1, stride[1]))]
    return [depthwise(node, channels, kernel, step, bias=True).changed(trained=False)
            for node, kernel, step in parts]  # fmt: skip


def as_network(model: Classifier) -> NetworkModule:
    """A residual network as a graph, of copies of its weights; a graph as it is."""
    if isinstance(model, NetworkModule):
        return model
    spec = model.spec
    px = spec.preprocess.size_px
    read = from_torch.from_module(model, px, name=spec.name).module
    fixed = {name.rpartition(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    nodes = [n.changed(trained=n.name not in fixed) if n.op == "conv2d" else n
             for n in read.spec.nodes]  # fmt: skip
    network = dataclasses.replace(read.spec, nodes=tuple(nodes), preprocess=spec.preprocess)
    made = NetworkModule(network)
    made.load_state_dict(read.state_dict())
    return made.eval()


def _areas(model: NetworkModule) -> dict[str, tuple[int, int]]:
    """Over how many rows and columns each average pool goes."""
    found: dict[str, tuple[int, int]] = {}
    hooks = []
    for node in model.spec.nodes:
        if node.op == "avg_pool":
            found[node.name] = node.pair("kernel_size")
        elif node.op == "global_avg_pool":
            hooks.append(model.get_submodule(node.name).register_forward_pre_hook(
                lambda _, args, name=node.name: found.update({name: tuple(args[0].shape[2:])})
            ))  # fmt: skip
    px = model.spec.preprocess.size_px
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, px, px))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _moves(spec: Network, node: Node) -> bool:
    """Whether it only picks channels and has the scale of what it reads, see `graph.concatenated`;
    that of the image and of a sigmoid is fixed, and nobody else's."""
    source = maker(spec, node.inputs[0])
    return picks(node) and source != INPUT and spec.by_name[source].op != "sigmoid"


def require_fit(layer: str, weight: Tensor, read: float, written: float) -> None:
    """Refuse weights for which no scale is large enough: one would fill a quarter of all codes.

    Raises:
        BadInput: names the layer and its first such channel.
    """
    peaks = weight.flatten(1).abs().amax(1).double()
    wrong = peaks * read > 2 * _MOST * _BELOW_ONE * written / 2**_LEAST
    if wrong.any():
        channel = int(wrong.nonzero()[0])
        raise BadInput(
            f"{layer}: the weight {float(peaks[channel]):.3g} of channel {channel} turns a code of "
            f"its input into {float(peaks[channel]) * read / written:.0f} of its output, more than "
            f"{SCHEME} holds; say quantize.scheme=w8a8, or let the layer stay float "
            "(quantize.exclude)"
        )


def fitted(
    weight: Tensor, bias: Tensor | None, read: float, written: float, moment: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes on the grid, and its scales.

    Each channel has the finest scale that clips none of its weights, or the next finer one where
    that changes its outputs less. What no scale holds (`require_fit`) is clipped.

    Args:
        weight: (O, ...).
        bias: (O,), or None.
        read, written: scales of the tensors that the layer reads and writes.
        moment: of the layer's inputs (`rounding.Moments`); None rounds to nearest.

    Returns:
        Weights' codes as `weight`, their scales (O,), biases' codes (O,) or None; float64.
    """
    values, ratio = weight.double(), torch.tensor([written / read], dtype=torch.float64)
    most = torch.full_like(values.flatten(1)[:, 0], _SHIFT)
    if bias is not None:
        most = most.minimum((_BIAS * written / bias.double().abs()).log2().floor())
    codes, scale = _better(values, ratio, most, moment)
    scale = scale.float().double()
    if bias is None:
        return 2 * codes, scale, None
    return 2 * codes, scale, 2 * (bias.double() / (2 * scale * read) - 0.5).round() + 1


def rounded(weight: Tensor, ratio: Tensor) -> Tensor:
    """On the grid, each weight by itself: what a training computes with.

    Args:
        weight: (O, ...).
        ratio: output scale / input scale, (1,), or (O,) if each channel is yet to be multiplied;
            NaN while it isn't known, and weights stay as they are.
    """
    codes, scale = _better(weight, ratio, torch.full_like(weight.flatten(1)[:, 0], _SHIFT), None)
    return torch.where(ratio.isnan().any(), weight, codes.mul_(_column(2 * scale, weight)))


def _better(
    weight: Tensor, ratio: Tensor, most: Tensor, moment: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Codes in steps of two, and scales, (O,); `most` is the largest k of each channel."""
    unit = ratio * _BELOW_ONE
    values = weight.flatten(1)
    peaks = torch.maximum(values.amax(1), -values.amin(1)).clamp_min(1e-30)
    widest = (2 * _MOST * unit / peaks).log2().floor().minimum(most).clamp_min(_LEAST)
    finer = (widest + 1).minimum(most).clamp_min(_LEAST)
    (wide, cost), (fine, less) = (_coded(weight, unit * 2.0**-k, moment) for k in (widest, finer))
    better = less < cost
    scale = unit * 2.0 ** -torch.where(better, finer, widest)
    return torch.where(_column(better, weight), fine, wide), scale


def _column(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *[1] * (weight.ndim - 1))


def _coded(weight: Tensor, scale: Tensor, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes in steps of two, and what they cost each channel, (O,)."""
    column = _column(2 * scale, weight)
    if moment is None:
        codes = (weight / column).round().clamp(-_MOST, _MOST)
        return codes, (weight - codes * column).square().flatten(1).sum(1)
    codes = rounding.rounded(weight, 2 * scale, moment, -_MOST, _MOST)
    return codes, rounding.loss(weight - codes * column, moment)
