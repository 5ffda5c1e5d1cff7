"""Folders of small photographs for tests: noise that was enlarged, no two alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fox")


def folder(path: Path, train: int = 12, test: int = 4) -> Path:
    """`train/<class>/…` and `test/<class>/…` with so many JPEGs a class, of several sizes."""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            (path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (9, 11, 3), dtype=np.uint8)
                size = (60 + 3 * i, 50 + 2 * i) if i % 2 else (48, 80 - i)
                image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
                image.save(path / split / name / f"{i:02}.jpg", quality=92)
    return path


def cut(file: Path) -> None:
    """Leave half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
