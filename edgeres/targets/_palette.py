"""A weight as a table and indices into it: k-means in one dimension, the same on every machine.

coremltools' own k-means adds in an order that depends on the number of threads, which shows in its
bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Bits of a palettized weight. Of a trained ResNet-20's top-1 answers (CIFAR-10, 2000 images) 8 bits
# leave 99.65 % as they were, 6 bits 98.60 %; the files have 326 kB and 252 kB (float16: 580 kB).
PALETTE_BITS = 8
LARGEST_PLAIN = 2048  # values of a weight that isn't worth a table; coremltools' default
_ROUNDS = 50
_BINS = 64  # few enough that the tails of a small weight are smooth


def palette(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose 2^bits values and the nearest of them for each weight, least squares (Lloyd 1982).

    The start follows the density to the power 1/3, the optimum for many levels (Panter and Dite,
    "Quantization distortion in pulse-count modulation with nonuniform spacing of levels", 1951).

    Returns:
        The table (2^bits,), ascending, in the weight's type; the indices (weight.size,) uint8.
    """
    import numpy as np

    values, inverse, counts = np.unique(weight, return_inverse=True, return_counts=True)
    size = 1 << bits
    table = np.full(size, values[-1], np.float64)
    if len(values) <= size:
        table[: len(values)] = values
        return table.astype(weight.dtype), inverse.reshape(-1).astype(np.uint8)
    exact = values.astype(np.float64)
    table = _start(exact, counts, size)
    mass = np.concatenate([[0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(exact * counts)])
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], _borders(exact, table), [len(exact)]])
        members = np.diff(mass[ends])
        means = np.diff(moment[ends]) / np.maximum(members, 1)
        table = np.where(members > 0, means, table)
    table = np.sort(table.astype(weight.dtype))
    nearest = np.searchsorted(_borders(exact, table.astype(np.float64)), np.arange(len(exact)),
                              "right")  # fmt: skip
    return table, nearest[inverse.reshape(-1)].astype(np.uint8)


def _start(values: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    import numpy as np

    density, edges = np.histogram(values, _BINS, weights=counts)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    return np.interp((np.arange(size) + 0.5) / size * share[-1], share, edges)


def _borders(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Where in the ascending values each next entry of the table becomes the nearest."""
    import numpy as np

    return np.searchsorted(values, (table[1:] + table[:-1]) / 2)
