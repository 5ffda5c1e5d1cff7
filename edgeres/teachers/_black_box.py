"""Teachers of other frameworks: how their images are prepared and what their answers mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeres.datasets import _batches
from edgeres.errors import BadInput
from edgeres.teachers import Wanted
from edgeres.types import Preprocess

_BATCH = 64
_LEAST_PROBABILITY = 1e-12

Run = Callable[[np.ndarray], np.ndarray]
"""Prepared float32 images as the file's layout has them -> answers (N, C)."""


@dataclass(frozen=True)
class Form:
    """How a black box is asked and understood.

    Attributes:
        preprocess: mean and std as R, G, B, whatever the order of the channels.
        channels: "rgb" or "bgr".
        layout: "NCHW" or "NHWC".
        probabilities: it answers with a softmax, whose logarithm is taken: that is the logits up
            to a constant per image, which no loss here sees.
        outputs: which of its outputs are the data's classes; None: all.
    """

    preprocess: Preprocess
    channels: str
    layout: str
    probabilities: bool
    outputs: tuple[int, ...] | None

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Form:
        """Read what `to_json` of types wrote."""
        p = d["preprocess"]
        outputs = None if d["outputs"] is None else tuple(d["outputs"])
        return cls(Preprocess(p["size_px"], tuple(p["mean"]), tuple(p["std"])), d["channels"],
                   d["layout"], d["probabilities"], outputs)  # fmt: skip


class BlackBox:
    """A teacher behind a function of arrays."""

    def __init__(self, run: Run, form: Form, where: str):
        self.run, self.form, self.where = run, form, where

    def answer(self, images: Tensor) -> Tensor:
        """Logits (N, C) of uint8 images (N, 3, H, W)."""
        prepared = (self._prepared(part) for part in images.cpu().split(_BATCH))
        answers = np.concatenate([self.run(part) for part in prepared])
        if answers.ndim != 2 or not np.isfinite(answers).all():
            raise BadInput(f"{self.where}: answers NaN, infinite values or no (N, classes) table")
        found = torch.from_numpy(answers.astype(np.float32))
        if self.form.probabilities:
            found = found.clamp_min(_LEAST_PROBABILITY).log()
        if self.form.outputs is not None:
            found = found[:, list(self.form.outputs)]
        return found.to(images.device)

    def _prepared(self, images: Tensor) -> np.ndarray:
        x = _batches.normalize(images, self.form.preprocess)
        x = x.flip(1) if self.form.channels == "bgr" else x
        x = x.permute(0, 2, 3, 1) if self.form.layout == "NHWC" else x
        return x.contiguous().numpy()


def check_outputs(count: int, wanted: Wanted, where: str) -> None:
    """Refuse a teacher whose answers aren't the data's classes.

    Raises:
        BadInput: the numbers differ, or `teacher.outputs` names outputs that it hasn't.
    """
    if wanted.outputs is None:
        if count != wanted.classes:
            raise BadInput(
                f"{where}: has {count} classes but the data have {wanted.classes}; use the data it "
                f"was trained on, or say which of its outputs they are (teacher.outputs)"
            )
        return
    if len(wanted.outputs) != wanted.classes:
        raise BadInput(
            f"teacher.outputs: {len(wanted.outputs)} outputs are named but the data have "
            f"{wanted.classes} classes; name one per class, in the classes' order"
        )
    if max(wanted.outputs) >= count:
        raise BadInput(
            f"teacher.outputs: {max(wanted.outputs)} is out of range, {where} has {count} outputs"
        )
