"""torchvision's published networks.

Its ResNets are ours, so that torchvision itself isn't needed; it builds the others.

The second digit string of a file's name is the beginning of its SHA-256, as torch.hub checks it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from edgeres.errors import BadInput
from edgeres.teachers import Found, Wanted
from edgeres.types import Preprocess

SUMMARY = "published ImageNet weights: torchvision:resnet50.v1, torchvision:mobilenet_v2"
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


_FILE = re.compile(r"[\w.]+-(?P<digest>[0-9a-f]{8,64})\.pth")


def check(rest: str) -> None:
    """The name must be in the table, or one of torchvision's own."""
    _published(rest)


def keyed(rest: str) -> object:
    """The name with its hash, which stands for the contents."""
    found = _published(rest)
    return f"torchvision:{found.name}-{found.digest}"


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """The network, fetched if the cache hasn't got it."""
    from edgeres.teachers import _library, _network
    from edgeres.teachers._download import fetched

    published, where = _published(rest), f"torchvision:{rest}"
    name = published.name.partition(".")[0]
    base = os.environ.get("EDGERES_TORCHVISION_URL", _BASE).rstrip("/")
    path = fetched(f"{base}/{published.file}", f"torchvision/{published.file}", published.digest)
    own = published.preprocess or Preprocess(224, _network.IMAGENET_MEAN, _network.IMAGENET_STD)
    claimed = None if wanted.outputs else published.top1
    if published.preprocess is None:
        return _network.found(path, wanted, where, name, own, claimed=claimed)
    own = _network.asked(wanted, own)
    read, notes = _library.loaded("torchvision", name, path, own)
    sized = replace(wanted, size_px=own.size_px)
    return _network.imported(read, sized, where, (own.mean, own.std), notes, claimed=claimed)


@dataclass(frozen=True)
class _Published:
    """Weights: name with version, file, hash, accuracy; how images are prepared, if it isn't one of
    the ResNets."""

    name: str
    file: str
    digest: str
    top1: float | None
    preprocess: Preprocess | None = None


def _published(rest: str) -> _Published:
    """Without a version, the newest."""
    from edgeres.teachers import _library

    for name in (rest, f"{rest}.v2", f"{rest}.v1"):
        if name in PUBLISHED:
            digest, top1 = PUBLISHED[name]
            return _Published(name, f"{name.partition('.')[0]}-{digest}.pth", digest, top1)
    name, _, version = rest.partition(".")
    models = _library.require("torchvision", name)
    kinds = {f"v{w.name.removeprefix('IMAGENET1K_V')}": w for w in models.get_model_weights(name)
             if w.name.startswith("IMAGENET1K_V")}  # fmt: skip
    if not kinds or (version and version not in kinds):
        there = ", ".join(kinds) or "none on ImageNet-1k"
        raise BadInput(f"teacher 'torchvision:{rest}': {name} has the versions {there}")
    version = version or max(kinds)
    weights, prepared = kinds[version], kinds[version].transforms()
    file = str(weights.url).rpartition("/")[2]
    match = _FILE.fullmatch(file)
    if match is None:
        raise BadInput(f"teacher 'torchvision:{rest}': {file[:80]} doesn't name its hash")
    top1 = weights.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    preprocess = Preprocess(prepared.crop_size[0], tuple(prepared.mean), tuple(prepared.std))
    return _Published(f"{name}.{version}", file, match["digest"], top1 and top1 / 100, preprocess)
