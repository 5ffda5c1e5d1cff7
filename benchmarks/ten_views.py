"""What quantization costs, asked on ten views of each test image of a run.

    .venv/bin/python benchmarks/ten_views.py RUN [RUN ...]

A few hundred test images can't show a few tenths of a point: one image is a quarter of a point of
400. Each is shown as it is, shifted by 4 pixels in four directions (the border mirrored), and each
of these mirrored, to the float network and to the integer graph that the files are (to the bit).
Printed: top-1 of both on the images and on the views, and the difference in points with its 95 %
interval by a bootstrap over images, whose views aren't independent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from edgeres import runs
from edgeres.compression.integers import integer_graph
from edgeres.models import weights
from edgeres.stages import _checkpoint
from edgeres.stages.benchmark import test_images
from edgeres.training.inference import predict

_SHIFT, _DRAWS = 4, 10_000
_CORNERS = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))  # of a frame that is wider by _SHIFT


def views(images: torch.Tensor) -> list[torch.Tensor]:
    """Ten of (N, 3, H, H) uint8, the first as they are."""
    side = images.shape[-1]
    wide = pad(images.float(), (_SHIFT,) * 4, mode="reflect").to(torch.uint8)
    shifted = [wide[..., _SHIFT * y : _SHIFT * y + side, _SHIFT * x : _SHIFT * x + side]
               for y, x in _CORNERS]  # fmt: skip
    return [view for one in shifted for view in (one, one.flip(-1))]


def main() -> None:
    """Ask both and print."""
    for path in sys.argv[1:]:
        run = runs.open_run(Path(path))
        origin = run.artifacts["quantize"]
        last = next(s for s in ("prune", "distill", "teacher") if s in run.artifacts)
        float_network = weights.load(run.artifacts[last].folder())
        folded, scales = weights.load(origin.folder()), _checkpoint.read_scales(origin)
        networks = (float_network, integer_graph(folded, scales))
        images, labels = test_images(run.artifacts["data"])
        right = np.array([
            [predict(one, view, folded.spec.preprocess).argmax(1).numpy() == labels
             for view in views(images)] for one in networks
        ])  # fmt: skip
        drop = 100 * (right[1].mean(0) - right[0].mean(0))  # of each image, over its views
        draws = np.random.default_rng(0).integers(0, len(labels), (_DRAWS, len(labels)))
        low, high = np.quantile(drop[draws].mean(1), (0.025, 0.975))
        as_is, all_ = right[:, 0].mean(1), right.mean((1, 2))
        print(f"{run.name}: {as_is[0]:.2%} and {as_is[1]:.2%} of {len(labels)} images; "
              f"{all_[0]:.2%} and {all_[1]:.2%} of {right[0].size} views: "
              f"{drop.mean():+.2f} points ({low:+.2f} to {high:+.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
