"""torchvision's published ResNets, as our own network; torchvision itself isn't needed.

The second digit string of a file's name is the beginning of its SHA-256, as torch.hub checks it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeres.errors import unknown
from edgeres.teachers import Found, Wanted
from edgeres.types import Preprocess

SUMMARY = "published ImageNet weights: torchvision:resnet50, torchvision:resnet50.v1"
BLACK_BOX = False

_BASE = "https://download.pytorch.org/models"
# name: (beginning of the SHA-256, ImageNet top-1); torchvision/models/resnet.py, `meta`.
PUBLISHED = {
    "resnet18.v1": ("f37072fd", 0.69758), "resnet34.v1": ("b627a593", 0.73314),
    "resnet50.v1": ("0676ba61", 0.76130), "resnet50.v2": ("11ad3fa6", 0.80858),
    "resnet101.v1": ("63fe2227", 0.77374), "resnet101.v2": ("cd907fc2", 0.81886),
    "resnet152.v1": ("394f9c45", 0.78312), "resnet152.v2": ("f82ba261", 0.82284),
    "resnext50_32x4d.v1": ("7cdf4587", 0.77618), "resnext50_32x4d.v2": ("1a0047aa", 0.81198),
    "resnext101_32x8d.v1": ("8ba56ff5", 0.79312), "resnext101_32x8d.v2": ("110c445d", 0.82834),
    "resnext101_64x4d.v1": ("173b62eb", 0.83246),
    "wide_resnet50_2.v1": ("95faca4d", 0.78468), "wide_resnet50_2.v2": ("9ba9bcbe", 0.81602),
    "wide_resnet101_2.v1": ("32ee1156", 0.78848), "wide_resnet101_2.v2": ("d733dc28", 0.82510),
}  # fmt: skip


def check(rest: str) -> None:
    """The name must be in the table."""
    _published(rest)


def keyed(rest: str) -> Any:
    """The name with its hash, which stands for the contents."""
    name, digest, _ = _published(rest)
    return f"torchvision:{name}-{digest}"


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """The network, fetched if the cache hasn't got it."""
    from edgeres.teachers import _network
    from edgeres.teachers._download import fetched

    published, digest, top1 = _published(rest)
    name = published.partition(".")[0]
    base = os.environ.get("EDGERES_TORCHVISION_URL", _BASE).rstrip("/")
    file = f"{name}-{digest}.pth"
    path = fetched(f"{base}/{file}", f"torchvision/{file}", digest)
    preprocess = Preprocess(224, _network.IMAGENET_MEAN, _network.IMAGENET_STD)
    model, replaced = _network.network(path, wanted, f"torchvision:{rest}", name, preprocess)
    claimed = None if wanted.outputs or replaced else top1
    return Found(name, model, claimed=claimed, replaced=replaced)


def _published(rest: str) -> tuple[str, str, float]:
    """Name with version, hash and accuracy; without a version, the newest."""
    for name in (rest, f"{rest}.v2", f"{rest}.v1"):
        if name in PUBLISHED:
            return name, *PUBLISHED[name]
    raise unknown("torchvision model", rest, PUBLISHED)
