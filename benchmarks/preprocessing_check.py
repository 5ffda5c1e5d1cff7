"""How often wrong preprocessing is noticed, and how often right preprocessing is called wrong.

akamaster's networks are shown training images of CIFAR-10 as they were trained (mean and std of
ImageNet) and in every other way that the check knows; the check is the one that a loaded teacher
goes through. The right way is tried on several draws of images.

    python benchmarks/preprocessing_check.py --weights FOLDER --data FOLDER
"""

from __future__ import annotations

import _cifar_networks
import torch

from edgeres.preprocessing import WAYS
from edgeres.teachers import _prepared
from edgeres.training.answers import Network
from edgeres.types import Preprocess

_NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56")


def main() -> None:
    """Print a line per case, then the two counts."""
    parser = _cifar_networks.arguments(__doc__)
    parser.add_argument("--draws", type=int, default=5, help="of images, for the right way")
    given = parser.parse_args()
    train, _, _ = _cifar_networks.splits(given.data)
    noticed: dict[str, list[bool]] = {case: [] for case in ("bgr", *WAYS) if case != "imagenet"}
    alarms = []
    for name in _NETWORKS:
        for draw in range(given.draws):
            generator = torch.Generator().manual_seed(1 + draw)
            order = torch.randperm(len(train.labels), generator=generator)[:1000]
            teacher = Network(_cifar_networks.network(given.weights, name))
            said = _prepared.advice(teacher, train.images[order], train.labels[order])
            alarms.append(said is not None)
            print(f"{name} right, draw {draw}: {said}", flush=True)
        for case, seen in noticed.items():
            network = _cifar_networks.network(given.weights, name)
            way = WAYS["imagenet" if case == "bgr" else case]
            if case == "bgr":  # a network that takes blue first, shown red first
                network.conv1.weight.data = network.conv1.weight.data.flip(1)
            shown = Network(network).prepared_as(Preprocess(32, way.mean, way.std))
            said = _prepared.advice(shown, train.images, train.labels)
            seen.append(said is not None)
            print(f"{name} {case}: {said}", flush=True)
    for case, seen in noticed.items():
        print(f"{case}: noticed in {sum(seen)} of {len(seen)}")
    print(f"false alarms: {sum(alarms)} of {len(alarms)}")


if __name__ == "__main__":
    main()
