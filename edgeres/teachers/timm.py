"""timm's published networks from the Hugging Face hub.

Its ResNets are ours, so that timm itself isn't needed; it builds the others.

`timm:ARCHITECTURE.TAG[@REVISION]`. The hub states each file's SHA-256; what is fetched must have
it, and stays in the cache.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput
from edgeres.models import spec
from edgeres.teachers import Found, Wanted
from edgeres.types import Preprocess

SUMMARY = "published weights on the Hugging Face hub: timm:mobilenetv3_small_100.lamb_in1k"
BLACK_BOX = False

_NAME = re.compile(r"(?P<model>[a-z0-9_]+)\.(?P<tag>[a-z0-9_]+)(@(?P<revision>[A-Za-z0-9._-]+))?")


def check(rest: str) -> None:
    """The name must be a ResNet's that we can build, or one of timm's own."""
    from edgeres.teachers import _library

    match = _match(rest)
    if not _ours(match["model"]):
        _library.require("timm", match["model"])


def keyed(rest: str) -> object:
    """The name with its revision."""
    _match(rest)
    return f"timm:{rest}"


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """The network, fetched if the cache hasn't got it, with the preprocessing that timm states."""
    from edgeres.teachers import _download, _library, _network

    match = _match(rest)
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    folder = f"{match['model']}.{match['tag']}"
    base = f"{hub}/timm/{folder}/resolve/{match['revision'] or 'main'}"
    kept = f"timm/{rest.replace('@', '-at-')}"
    path = _download.fetched(f"{base}/model.safetensors", f"{kept}.safetensors")
    stated = _stated(f"{base}/config.json", _download.cache() / f"{kept}.json")
    own = stated.get("pretrained_cfg", stated)
    size = (own.get("test_input_size") or own.get("input_size") or (3, 224, 224))[-1]
    mean = tuple(own.get("mean") or _network.IMAGENET_MEAN)
    std = tuple(own.get("std") or _network.IMAGENET_STD)
    where, prepared = f"timm:{rest}", Preprocess(int(size), mean, std)
    if _ours(match["model"]):
        return _network.found(path, wanted, where, match["model"], prepared)
    prepared = _network.asked(wanted, prepared)
    read, notes = _library.loaded("timm", match["model"], path, prepared)
    sized = replace(wanted, size_px=prepared.size_px)
    return _network.imported(read, sized, where, (prepared.mean, prepared.std), notes)


def _ours(name: str) -> bool:
    """Whether it is a ResNet that we can build."""
    try:
        spec.parse(name, 1000, spec.default_preprocess(224))
    except BadInput:
        return False
    return True


def _stated(url: str, kept: Path) -> dict[str, Any]:
    """config.json of the weights, from the cache if it is there."""
    import json

    from edgeres import door
    from edgeres.disk import storage_errors, write_whole
    from edgeres.errors import StorageError
    from edgeres.teachers import _download

    with contextlib.suppress(StorageError):  # not there, or damaged: fetched anew
        found = door.read_json(kept)
        if isinstance(found, dict):
            return found
    found = _download.document(url)
    with storage_errors(kept):
        write_whole(kept, json.dumps(found))
    return found


def _match(rest: str) -> re.Match[str]:
    match = _NAME.fullmatch(rest)
    if match is None:
        raise BadInput(f"teacher 'timm:{rest}': write timm:ARCHITECTURE.TAG, "
                       "e.g. timm:resnet50.a1_in1k")  # fmt: skip
    return match
