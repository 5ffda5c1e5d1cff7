"""Parity: does a file give the answers of the network it was written from?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parity:
    """A file's answers against a reference's, over the same samples.

    Attributes:
        agreement: share of samples with the same top-1 class.
        equal: share of outputs that are bit-equal.
        worst, mean: largest and mean absolute difference, in output codes for an integer file
            (one code = the output's scale), else in logits.
    """

    n: int
    agreement: float
    equal: float
    worst: float
    mean: float


def compare(reference: np.ndarray, answers: np.ndarray, step: float | None) -> Parity:
    """Compare logits.

    Args:
        reference, answers: (N, C) float32.
        step: the output's scale for an integer file, so that differences come in codes.
    """
    difference = np.abs(reference.astype(np.float64) - answers)
    if step is not None:
        difference = np.rint(difference / step)
    return Parity(
        len(reference),
        float((reference.argmax(1) == answers.argmax(1)).mean()),
        float((difference == 0).mean()),
        float(difference.max()),
        float(difference.mean()),
    )
