"""Pictures of odd sizes, and what the contract's own lines make of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from edgeres import contract
from edgeres.types import Preprocess, QuantParams, Resize, TensorSpec

INPUTS = {
    "int8": TensorSpec("x", (1, 16, 16, 3), "int8", "NHWC", QuantParams((0.015625,), (0,), "int8")),
    "uint8": TensorSpec(
        "x", (1, 3, 16, 16), "uint8", "NCHW", QuantParams((0.0187,), (114,), "uint8")
    ),
    "float32": TensorSpec("x", (1, 3, 16, 16), "float32", "NCHW"),
}
MEANS = {
    "int8": ((0.5019607843137255,), (0.25098039215686274,)),
    "uint8": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "float32": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
}
RULES = [
    Resize(16, 20, "center", "bilinear"), Resize(16, 16, "center", "bicubic"),
    Resize(16, 18, "none", "lanczos"), Resize(16, 16, "none", "box"),
    Resize(16, 16, "center", "nearest"), Resize(16, 16, "none", "bilinear"), None,
]  # fmt: skip
SIZES = [(16, 16), (37, 23), (19, 40), (201, 150), (9, 12), (60, 130), (40, 60)]


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def cases() -> Iterator[tuple[Image.Image, dict[str, Any], np.ndarray]]:
    """A picture, its contract, and what the contract's own lines make of the two."""
    for size, rule, kind in itertools.product(SIZES, RULES, INPUTS):
        if rule is None and size != (16, 16):
            continue
        prepared = Preprocess(16, *MEANS[kind])
        said = contract.whole(prepared, rule, INPUTS[kind], ["a"])
        image = picture(*size)
        names = {"picture": image, "pixels": image, "np": np, "Image": Image}
        exec("\n".join(said["code"]), names)
        yield image, json.loads(json.dumps(said)), names["x"]
