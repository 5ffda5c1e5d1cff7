"""Grad-CAM: where two networks look, on the test images to which they answer differently.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, on what goes into the global pool. An int8 network is explained through
its own quantized graph, the one its files were written from: forward it computes exactly that, and
backward the rounding is skipped (straight-through, within the range that isn't clipped).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter

from edgeres.models.modules import Classifier
from edgeres.training.inference import prepared

SHOWN = 6
_PICTURE_PX = 112
_OPACITY = 0.55
# Dark blue to yellow, as in matplotlib's plasma: readable in greyscale and by the colour-blind.
_COLOURS = np.array([[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]])
_ENDS = ("adaptive_avg_pool2d", "mean.dim", "flatten", "view.default")

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, 3, H, W) normalized images -> logits (N, C), and the features (N, K, h, w) they pool."""


def of_network(model: Classifier) -> Forward:
    """A float network in evaluation mode."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []

        def keep(end: nn.Module, args: tuple[Tensor, ...]) -> None:
            if _ends(args[0], isinstance(end, nn.AdaptiveAvgPool2d), bool(kept)):
                kept.append(args[0])

        ends = [m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d | nn.Flatten)]
        hooks = [end.register_forward_pre_hook(keep) for end in ends]
        try:
            logits = model.eval()(x.requires_grad_())
        finally:
            for hook in hooks:
                hook.remove()
        return logits, kept[-1]

    return forward


def of_graph(graph: GraphModule) -> Forward:
    """A quantized graph (compression/graph.py)."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        interpreter = _StraightThrough(graph)
        logits = interpreter.run(x.requires_grad_())
        assert interpreter.pooled is not None, "the graph's maps don't become a vector"
        return logits, interpreter.pooled

    return forward


def maps(forward: Forward, x: Tensor, classes: Tensor) -> Tensor:
    """Where the network sees each image's class: (N, H, W) from 0 to 1.

    Args:
        x: (N, 3, H, W) normalized; classes: (N,) int64.
    """
    with torch.enable_grad():
        logits, features = forward(x)
        scores = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, features)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = F.relu((weights * features.detach()).sum(1, keepdim=True))
    cam = F.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)


def compared(
    first: tuple[Forward, Classifier], second: tuple[Forward, Classifier],
    answers: Sequence[np.ndarray], images: Tensor, labels: Sequence[int],
) -> dict[str, object]:  # fmt: skip
    """Both networks' maps on the images where they are surest and still differ.

    Args:
        first, second: how to run a network, and the network itself for its preprocessing.
        answers: each one's logits (N, C) on all test images.
        images: (N, 3, H, W) uint8.

    Returns:
        {"n": images, "differ": how many get different answers, "samples": [{"index", "label",
        "image", "first", "second"}]} with PNGs as data URLs; first and second hold "class",
        "confidence" and "map".
    """
    shares = [np.exp(a - a.max(1, keepdims=True)) for a in answers]
    shares = [s / s.sum(1, keepdims=True) for s in shares]
    one, two = (s.argmax(1) for s in shares)
    differ = np.flatnonzero(one != two)
    sure = np.minimum(shares[0].max(1), shares[1].max(1))[differ]
    chosen = differ[np.argsort(-sure, kind="stable")][:SHOWN]
    found: list[dict[str, object]] = [
        {"index": int(i), "label": int(labels[i]), "image": _png(_pixels(images[i]))}
        for i in chosen
    ]
    for name, (forward, model), share in (("first", first, shares[0]),
                                          ("second", second, shares[1])):  # fmt: skip
        if not found:
            break
        x = prepared(images[chosen], model.spec.preprocess).contiguous()
        answered = share[chosen].argmax(1)
        drawn = maps(forward, x, torch.from_numpy(answered))
        for row, i, answer, cam in zip(found, chosen, answered, drawn, strict=True):
            row[name] = {"class": int(answer), "confidence": float(share[i, answer]),
                         "map": _png(_overlaid(_pixels(images[i]), cam.numpy()))}  # fmt: skip
    return {"n": len(one), "differ": len(differ), "samples": found}


def _ends(value: Tensor, pools: bool, known: bool) -> bool:
    """Whether it is the map that becomes a vector: what a pool reads, or else what is flattened."""
    return value.dim() == 4 and (pools or value.shape[-1] > 1 or not known)


class _Codes:
    """What is between quantize and dequantize: the codes, and what they were made from."""

    def __init__(self, codes: Tensor, x: Tensor, kept: Tensor):
        self.codes, self.x, self.kept = codes, x, kept


class _StraightThrough(Interpreter):
    """Runs a quantized graph with gradients; keeps what goes into the global pool."""

    def __init__(self, graph: GraphModule):
        super().__init__(graph)
        self.pooled: Tensor | None = None

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = str(target)
        if "quantized_decomposed.quantize_per_tensor" in name:
            x, scale, zero, low, high = args[:5]
            with torch.no_grad():
                codes = target(*args, **kwargs)
                steps = x / scale + zero
            return _Codes(codes, x, (steps >= low) & (steps <= high))
        if "quantized_decomposed.dequantize_per_tensor" in name and isinstance(args[0], _Codes):
            held = args[0]
            exact = target(held.codes, *args[1:], **kwargs)
            passed = torch.where(held.kept, held.x, held.x.detach())
            return exact + (passed - passed.detach())
        if any(end in name for end in _ENDS):
            pools = "pool" in name or "mean" in name
            if _ends(args[0], pools, self.pooled is not None):
                self.pooled = args[0]
        return super().call_function(target, args, kwargs)


def _pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _overlaid(pixels: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """The map in colours over the image in grey."""
    grey = pixels.mean(2, keepdims=True).repeat(3, 2)
    places = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(cam, places, _COLOURS[:, c]) for c in range(3)], 2)
    mixed: np.ndarray = (1 - _OPACITY) * grey + _OPACITY * colours
    return mixed


def _png(pixels: np.ndarray) -> str:
    """As a data URL; small images with their pixels enlarged, large ones reduced."""
    picture = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    larger = max(picture.size)
    way = Image.Resampling.NEAREST if larger < _PICTURE_PX else Image.Resampling.LANCZOS
    scale = _PICTURE_PX / larger
    picture = picture.resize((max(1, round(picture.width * scale)),
                              max(1, round(picture.height * scale))), way)  # fmt: skip
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
