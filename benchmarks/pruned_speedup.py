"""How much faster a pruned int8 file is than the unpruned one, measured interleaved on a device.

    .venv/bin/python benchmarks/pruned_speedup.py UNPRUNED.tflite PRUNED.tflite
    .venv/bin/python benchmarks/pruned_speedup.py [--network resnet56-A] [--macs 0.47]

With files: those. Without: random weights, pruned by magnitude (latency depends on widths only).
Each file runs in fresh processes, in turn; printed is the ratio of session medians with a 95 %
bootstrap interval.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from edgeres import devices, targets
from edgeres.compression import budgets, criteria
from edgeres.compression.prune import prune
from edgeres.disk import file_sha256, folder_size
from edgeres.measurement import farm, statistics
from edgeres.measurement.protocol import Candidate
from edgeres.models import resnet, spec
from edgeres.stages import _latency


def main() -> None:
    """Make the files if there are none, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--network", default="resnet56-A")
    parser.add_argument("--macs", type=float, default=0.47)
    parser.add_argument("--device", default="host")
    parser.add_argument("--preset", default="quick")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if len(given.files) == 2:
            names = ("unpruned", "pruned")
            candidates = [_of_file(n, f) for n, f in zip(names, given.files, strict=True)]
        else:
            candidates = _made(given.network, given.macs, Path(folder))
        (found,) = farm.measure(candidates, [devices.load(given.device)], given.preset)
    for failure in found.failures:
        print(failure["message"])
    medians = {r["target"]: r["latency"]["session_medians_ns"] for r in found.reports}
    for report in found.reports:
        valid = "valid" if report["valid"] else "; ".join(report["reasons"])
        print(f"{report['target']:<9} {report['latency']['median_ns'] / 1e6:.4f} ms, "
              f"{report['size_bytes'] / 1e3:.1f} kB  {valid}")  # fmt: skip
    low, high = statistics.ratio_ci(medians["unpruned"], medians["pruned"], seed=0)
    print(f"{median(medians['unpruned']) / median(medians['pruned']):.2f}x faster (95 % interval "
          f"{low:.2f}-{high:.2f}, {len(medians['pruned'])} sessions each)")  # fmt: skip


def _made(name: str, share: float, folder: Path) -> list[Candidate]:
    model = resnet.build(spec.parse(name, 10, spec.default_preprocess(32))).eval()
    judge = criteria.magnitude()
    budget = budgets.macs(_latency.layers_of(model), share)
    networks = {
        "unpruned": model,
        "pruned": prune(model, budget, round_to=8, criterion=lambda _: judge),
    }
    found = []
    for which, network in networks.items():
        (folder / which).mkdir()
        found.append(
            _latency.exported(network, "tflite-int8", folder / which, lambda _: None, which)
        )
    return found


def _of_file(name: str, path: Path) -> Candidate:
    graph = targets.of_file(path)[1].read(path)
    codes = np.zeros((4, *graph.input.shape[1:]), graph.input.dtype)
    return Candidate(
        name, path, file_sha256(path), folder_size(path), graph.input, graph.output, codes
    )


if __name__ == "__main__":
    main()
