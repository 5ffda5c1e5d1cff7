"""Whole arrays of images to another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def resized(images: np.ndarray, size_px: int) -> np.ndarray:
    """Bilinear (antialiased when shrinking): uint8 (N, H, W[, 3]) -> (N, size_px, size_px[, 3])."""
    import numpy as np
    from PIL import Image

    if images.shape[1:3] == (size_px, size_px):
        return images
    out = np.empty((len(images), size_px, size_px, *images.shape[3:]), np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
        out[i] = np.asarray(picture)
    return out


def rgb(grey: np.ndarray) -> np.ndarray:
    """Grey uint8 (N, H, W) -> (N, H, W, 3) with equal channels."""
    import numpy as np

    return np.repeat(grey[..., None], 3, axis=3)
