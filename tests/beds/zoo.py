"""torchvision and timm as they are published, beside whatever PyTorch the tests have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_FOLDER = Path(__file__).parents[2] / ".venv-zoo"
# torchvision's compiled operators, which need the CUDA that its wheel was built for. No network
# calls one; that they are declared is enough to import it.
_COMPILED = ("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward",
             "ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward",
             "deform_conv2d", "_deform_conv2d_backward")  # fmt: skip


@pytest.fixture(scope="session")
def zoo() -> Iterator[None]:
    """Both can be imported; skips where they aren't installed."""
    if not (_FOLDER / ".installed").exists():
        pytest.skip("torchvision and timm are not installed: `make test` brings them")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _COMPILED:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    sys.path.append(str(_FOLDER))
    yield
    sys.path.remove(str(_FOLDER))
