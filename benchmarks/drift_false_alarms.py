"""How often drift is seen where there is none, and whether it is seen where there is some.

    .venv/bin/python benchmarks/drift_false_alarms.py --data cifar10 --weights akamaster-cifar10

A pretrained ResNet-20 on CIFAR-10's test set. Each of `--baselines` random parts of 2,000 images
is a bundle's baseline; logs are drawn from the other 8,000 without replacement, 200 in all, then
brightened, or with classes left out.
"""

from __future__ import annotations

import numpy as np
from _cifar_networks import arguments, network, splits

from edgeres.measurement import drift
from edgeres.statistics import wilson
from edgeres.training.inference import in_layout, predict

_BASELINE = 2000


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--baselines", type=int, default=20)
    parser.add_argument("--length", type=int, default=500)
    given = parser.parse_args()
    model = network(given.weights, "resnet20")
    preprocess = model.spec.preprocess
    module = in_layout(model, preprocess)
    _, _, test = splits(given.data)
    brighter = (test.images[:_BASELINE].int() + 26).clamp(0, 255).byte()  # a tenth of the range
    told = drift.features(test.images.numpy(), predict(module, test.images, preprocess).numpy())
    shifted = drift.features(brighter.numpy(), predict(module, brighter, preprocess).numpy())
    seen = {name: np.asarray(values) for name, values in told.items()}
    shift = {name: np.asarray(values) for name, values in shifted.items()}
    labels = test.labels.numpy()
    counts = dict.fromkeys(("no drift", "brighter", "2 classes left out", "1 class left out"), 0)
    for part in range(given.baselines):
        random = np.random.default_rng(part)
        mixed = random.permutation(len(labels))
        known, fresh = mixed[:_BASELINE], mixed[_BASELINE:]
        reference = drift.learn({n: v[known] for n, v in seen.items()}, given.length, part)
        for _ in range(given.draws // given.baselines):
            gone = random.choice(10, 2, replace=False)
            pools = {"no drift": fresh,
                     "2 classes left out": fresh[~np.isin(labels[fresh], gone)],
                     "1 class left out": fresh[labels[fresh] != gone[0]]}  # fmt: skip
            for name, pool in pools.items():
                drawn = random.choice(pool, given.length, replace=False)
                counts[name] += flagged(reference, {n: v[drawn] for n, v in seen.items()})
            drawn = random.choice(_BASELINE, given.length, replace=False)
            counts["brighter"] += flagged(reference, {n: v[drawn] for n, v in shift.items()})
    n = given.draws // given.baselines * given.baselines
    for name, count in counts.items():
        low, high = wilson(count, n)
        print(f"{name:<20} flagged {count} of {n} logs of {given.length} inferences, "
              f"{count / n:.1%} ({low:.1%} to {high:.1%})")  # fmt: skip


def flagged(reference: drift.Reference, log: dict[str, np.ndarray]) -> bool:
    """Whether any feature is too far away."""
    return any(d.drifted for d in reference.judge(log))


if __name__ == "__main__":
    main()
