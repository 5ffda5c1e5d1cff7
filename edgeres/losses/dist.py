"""Relations instead of values: `T^2 (1 - corr of rows + 1 - corr of columns)` of softmax(x / T).

Pearson's correlation, over the classes of each sample and over the batch for each class.

Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", equations 6 to 9, with
both weights 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "DIST: correlations within and between images"
ONE_LABEL = False


def measure(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Of rows and of columns."""
    import torch.nn.functional as F

    mine = F.softmax(student / temperature, dim=1)
    theirs = F.softmax(teacher.detach() / temperature, dim=1)
    rows, columns = _correlation(mine, theirs), _correlation(mine.t(), theirs.t())
    return (2 - rows.mean() - columns.mean()) * temperature**2


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row."""
    import torch.nn.functional as F

    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=1, eps=1e-8)
