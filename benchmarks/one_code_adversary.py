"""Whether answers can be guaranteed for runtimes that are known to be within one code a layer.

    .venv/bin/python benchmarks/one_code_adversary.py --data data/cifar10 --weights data/weights \\
        [--network resnet20] [--images 1000]

A bound over all such runtimes is a bound over the worst one. Here is one: it adds -1, 0 or 1 to
each code that a layer writes, by the sign of the gradient of the answer's lead. Printed: how many
images' top-1 it changes, which no guarantee can cover, and how many random -1, 0 and 1 change in
any of 20 draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from _cifar_networks import arguments, calibration, network, splits
from torch import Tensor

from edgeres.compression import ptq
from edgeres.compression.graph import wiring
from edgeres.network.module import NetworkModule
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

_BATCH, _DRAWS = 100, 20


def main() -> None:
    """Quantize, attack and print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", action="append", choices=["resnet20", "resnet56"])
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    train, _, test = splits(given.data)
    for name in given.network or ["resnet20"]:
        model = network(given.weights, name)
        folded, scales = ptq.quantize(model, calibration(train, 0), scheme="w8a8-portable")
        assert isinstance(folded, NetworkModule)
        worst = drawn = 0
        for part in test.images[: given.images].split(_BATCH):
            x = prepared(part, folded.spec.preprocess)
            found = _changed(folded, scales, x)
            worst, drawn = worst + found[0], drawn + found[1]
        print(f"{name}: the worst runtime within one code a layer changes {worst} of "
              f"{given.images} answers, random codes {drawn}", flush=True)  # fmt: skip


def _changed(model: NetworkModule, scales: ScaleTable, x: Tensor) -> tuple[int, int]:
    """How many answers change by the worst and by random steps."""
    steps: dict[str, Tensor] = {}
    logits = _answers(model, scales, x, steps)
    lead, second = logits.topk(2, 1).values.unbind(1)
    (lead - second).sum().backward()
    worst = {name: -step.grad.sign() for name, step in steps.items() if step.grad is not None}
    answers, by_chance = logits.argmax(1), torch.zeros(len(x), dtype=torch.bool)
    with torch.no_grad():
        by_worst = _answers(model, scales, x, worst).argmax(1) != answers
        for _ in range(_DRAWS):
            random = {n: torch.randint(-1, 2, step.shape).float() for n, step in worst.items()}
            by_chance |= _answers(model, scales, x, random).argmax(1) != answers
    return int(by_worst.sum()), int(by_chance.sum())


def _answers(
    model: NetworkModule, scales: ScaleTable, x: Tensor, steps: dict[str, Tensor]
) -> Tensor:
    """Logits; each layer's codes are rounded, and moved by its steps (made, if it has none)."""
    layers = {wire.name for wire in wiring(model.spec)}
    ended = {node.inputs[0]: node for node in model.spec.nodes if node.op in ("relu", "clamp")}
    values: dict[str, Tensor] = {"input": _coded(x, scales, "input", {}, relu=False)}
    for node in model.spec.nodes:
        value = model.get_submodule(node.name)(*(values[name] for name in node.inputs))
        if node.name in layers and node.name not in ended:
            value = _coded(value, scales, node.name, steps, relu=False)
        elif node.op in ("relu", "clamp"):
            value = _coded(value, scales, node.inputs[0], steps, relu=True)
        values[node.name] = value
    return values[model.spec.output]


def _coded(
    value: Tensor, scales: ScaleTable, name: str, steps: Mapping[str, Tensor], *, relu: bool
) -> Tensor:
    (scale,), (zero,) = scales[name].scale, scales[name].zero_point
    codes = value / scale
    codes = codes + (codes.round() - codes).detach()
    if name != "input":
        if name not in steps:
            assert isinstance(steps, dict)
            steps[name] = torch.zeros_like(codes, requires_grad=True)
        codes = codes + steps[name]
    return codes.clamp(0 if relu else -128 - zero, 127 - zero) * scale


if __name__ == "__main__":
    main()
