"""What is wrong inside a network: a forward and a backward pass over real images, then findings.

Looked for: parameters and activations that aren't numbers, and where they begin; channels that are
never active; activations that grow or vanish from block to block; residual branches and shortcuts
that carry nothing; batch statistics that aren't those of the data; gradients that don't arrive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeres.training import _findings
from edgeres.training._findings import Finding
from edgeres.training._watching import Seen, watched

__all__ = ["Finding", "diverged", "examine", "profile"]


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
        return [_findings.nan_parameters(broken)]
    seen = Seen()
    model.eval()
    try:
        with watched(model, seen), torch.no_grad():
            model(inputs)
        if seen.broken:
            return [_findings.nan_activations(seen)]
        found = [
            *_findings.dead(seen), *_findings.paths(model, seen),
            *_findings.growth(model, seen), *_findings.statistics(model, seen),
        ]  # fmt: skip
        if labels is not None:
            blamed = {f.layer for f in found}
            found += [
                f for f in _findings.gradients(model, inputs, labels)
                if not any(_findings.related(f.layer, layer) for layer in blamed)
            ]  # fmt: skip
    finally:
        model.train(training)
    return found


def profile(model: nn.Module, inputs: Tensor) -> list[dict[str, object]]:
    """Root mean square and share of dead channels of each layer, in the order they are run."""
    seen = Seen()
    training = model.training
    model.eval()
    with watched(model, seen), torch.no_grad():
        model(inputs)
    model.train(training)
    return [{"layer": name, "rms": round(rms, 6), "dead": _findings.share_dead(seen, name)}
            for name, rms in seen.rms.items()]  # fmt: skip


def diverged(module: nn.Module, inputs: Tensor) -> str:
    """What `examine` finds of a network whose loss is no number, as one clause."""
    try:
        found = examine(module, inputs)
    except Exception:  # a graph that can't be watched has still diverged
        return ""
    return f"; {found[0].layer}: {found[0].says}" if found else ""
