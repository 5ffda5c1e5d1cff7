"""A network that takes raw pixels: its normalization goes into the first convolution.

`(p / 255 - mean_c) / std_c` of channel c is `a_c x + d_c` of `x = (p - 128) / 64`, whose int8 code
is `p - 128` exactly; a convolution with weights `w` is one with `a_c w` and a shift of
`sum(w d_c)`, which the batch norm behind it takes in.

At the border the two differ: a padded zero was the mean, and is now the pixel 128.
"""

from __future__ import annotations

import dataclasses

import torch

from edgeres.models.resnet import ResNet
from edgeres.models.spec import default_preprocess


@torch.no_grad()
def of_pixels(model: ResNet) -> ResNet:
    """The network for images prepared as `default_preprocess` says, in evaluation mode.

    The same one, where its own preprocessing already has exact int8 codes.
    """
    own = model.spec.preprocess
    if own.input_quantization() is not None:
        return model
    taken = default_preprocess(own.size_px)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    weight = state["conv1.weight"]
    std, mean = (torch.tensor(v, dtype=torch.float64).expand(3) for v in (own.std, own.mean))
    factor, offset = taken.std[0] / std, (taken.mean[0] - mean) / std
    shift = (weight.double() * offset.view(1, -1, 1, 1)).sum((1, 2, 3))
    state["conv1.weight"] = (weight.double() * factor.view(1, -1, 1, 1)).to(weight.dtype)
    name, sign = ("conv1.bias", 1) if model.spec.folded else ("bn1.running_mean", -1)
    state[name] = (state[name].double() + sign * shift).to(state[name].dtype)
    found = ResNet(dataclasses.replace(model.spec, preprocess=taken))
    found.load_state_dict(state)
    return found.eval()
