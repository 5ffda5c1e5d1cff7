"""A network that takes raw pixels: its normalization goes into the first convolution.

`(p / 255 - mean_c) / std_c` of channel c is `a_c x + d_c` of `x = (p - 128) / 64`, whose int8 code
is `p - 128` exactly; a convolution with weights `w` is one with `a_c w` and a shift of
`sum(w d_c)`, which the batch norm behind it takes in.

At the border the two differ: a padded zero was the mean, and is now the pixel 128.
"""

from __future__ import annotations

import dataclasses

import torch

from edgeres.models.modules import Classifier, module_of, stem
from edgeres.models.spec import default_preprocess
from edgeres.network.graph import Network


@torch.no_grad()
def of_pixels(model: Classifier) -> Classifier:
    """The network for images prepared as `default_preprocess` says, in evaluation mode.

    The same one, where its own preprocessing already has exact int8 codes.
    """
    own = model.spec.preprocess
    if own.input_quantization() is not None:
        return model
    taken = default_preprocess(own.size_px)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first = stem(model)
    weight = state[f"{first}.weight"]
    std, mean = (torch.tensor(v, dtype=torch.float64).expand(3) for v in (own.std, own.mean))
    factor, offset = taken.std[0] / std, (taken.mean[0] - mean) / std
    shift = (weight.double() * offset.view(1, -1, 1, 1)).sum((1, 2, 3))
    state[f"{first}.weight"] = (weight.double() * factor.view(1, -1, 1, 1)).to(weight.dtype)
    name, sign = _shifted(model, first)
    state[name] = state.get(name, weight.new_zeros(len(weight))).double()
    state[name] = (state[name] + sign * shift).to(weight.dtype)
    spec = model.spec
    if isinstance(spec, Network) and name == f"{first}.bias":
        spec = spec.with_node(first, bias=True)
    found = module_of(dataclasses.replace(spec, preprocess=taken))
    found.load_state_dict(state)
    return found.eval()


def _shifted(model: Classifier, first: str) -> tuple[str, int]:
    """What takes in a shift of the first layer's answers, and its sign: a batch norm behind it,
    which has them to itself, or its bias."""
    spec = model.spec
    if not isinstance(spec, Network):
        return ("conv1.bias", 1) if spec.folded else ("bn1.running_mean", -1)
    readers = spec.users()[first]
    alone = len(readers) == 1 and spec.by_name.get(readers[0])
    if alone and alone.op == "batch_norm":
        return f"{alone.name}.running_mean", -1
    return f"{first}.bias", 1
