"""How much faster int8 is than float for the same network, measured interleaved on this machine.

    .venv/bin/python benchmarks/int8_speedup.py [--network resnet20] [--px 32] [--preset quick]

Random weights: latency doesn't depend on them. Each file runs in fresh processes, in turn;
printed is the ratio of session medians, float over int8, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgeres import devices, targets
from edgeres.compression import ptq
from edgeres.disk import file_sha256
from edgeres.measurement import protocol, statistics
from edgeres.models import resnet, spec
from edgeres.training.inference import prepared


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--preset", default="quick")
    given = parser.parse_args()
    preprocess = spec.default_preprocess(given.px)
    model = resnet.build(spec.parse(given.network, 10, preprocess)).eval()
    images = torch.randint(0, 256, (64, 3, given.px, given.px), dtype=torch.uint8)
    folded, scales = ptq.quantize(model, images)
    x = prepared(images, preprocess).contiguous().numpy()
    with tempfile.TemporaryDirectory() as folder:
        candidates = [
            _candidate(name, Path(folder), model, folded, scales, x)
            for name in ("tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8")
        ]
        with devices.open_device(devices.load("host")) as device:
            reports = protocol.measure(candidates, device, given.preset, threads=1).reports
    medians = {r["target"]: r["latency"]["session_medians_ns"] for r in reports}
    for report in reports:
        valid = "valid" if report["valid"] else "; ".join(report["reasons"])
        print(f"{report['target']:<12} {report['latency']['median_ns'] / 1e6:.3f} ms  {valid}")
    for runtime in ("tflite", "onnx"):
        floats, integers = medians[f"{runtime}-fp32"], medians[f"{runtime}-int8"]
        low, high = statistics.ratio_ci(floats, integers, seed=0)
        print(f"{runtime}: int8 is {np.median(floats) / np.median(integers):.2f}x faster "
              f"(95 % interval {low:.2f}-{high:.2f}, {len(floats)} sessions each)")  # fmt: skip


def _candidate(
    name: str,
    folder: Path,
    model: resnet.ResNet,
    folded: resnet.ResNet,
    scales: dict,
    x: np.ndarray,
) -> protocol.Candidate:
    target, precision = targets.load(name)
    path = folder / f"{name}{target.SUFFIX}"
    integer = targets.is_integer(precision)
    source = targets.Source(folded if integer else resnet.fold_batchnorm(model),
                            scales if integer else None)  # fmt: skip
    first, last = target.export(source, precision, path)
    return protocol.Candidate(
        target=name, path=path, sha256=file_sha256(path), size_bytes=path.stat().st_size,
        input=first, output=last, inputs=targets.encode(x, first)[:16], accuracy_inputs=None,
        judge=None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
