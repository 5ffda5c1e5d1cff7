"""Does `edgeres compare` tell what is the same from what isn't? To be run on a quiet machine.

    .venv/bin/python benchmarks/compare_repeats.py --data cifar10 --weights akamaster-cifar10

About eight minutes for 20 repeats; --repeats 0 --images 2000 for the other two comparisons only.

A pretrained ResNet-20 with post-training quantization: 20 times the same int8 file twice, in
alternating sessions (must be the same each time); float against int8 (must be better in latency);
and int8 with 2 % of its weights zeroed, drawn at random (must be worse in accuracy).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _cifar_networks import arguments, calibration, network, splits

from edgeres import devices, targets
from edgeres.compression import ptq
from edgeres.disk import file_sha256
from edgeres.measurement import protocol
from edgeres.measurement.compare import Row, Tolerance, compare
from edgeres.models.resnet import fold_batchnorm
from edgeres.training.inference import prepared

_SHARE = 0.02


def main() -> None:
    """Export, measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    model = network(given.weights, "resnet20")
    train, _, test = splits(given.data)
    folded, scales = ptq.quantize(model, calibration(train))
    images = test.images[: given.images]
    x = prepared(images, folded.spec.preprocess).contiguous().numpy()
    labels = test.labels[: given.images].numpy()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {
            "int8": targets.Source(folded, scales),
            "float": targets.Source(fold_batchnorm(model), None),
            "zeroed": targets.Source(*_zeroed(folded, scales)),
        }  # fmt: skip
        files = {name: _candidate(name, folder, source, x, labels)
                 for name, source in sources.items()}  # fmt: skip
        quick = {name: replace(file, accuracy_inputs=None, judge=None)
                 for name, file in files.items()}  # fmt: skip
        same: Counter[str] = Counter()
        for number in range(given.repeats):
            again = replace(quick["int8"], target="again")
            rows = _compared(quick["int8"], again, given.preset)
            verdicts = {row.verdict for row in rows}
            same["same" if verdicts == {"same"} else "not"] += 1
            print(f"repeat {number + 1}: {', '.join(sorted(verdicts))}", flush=True)
            for row in rows:
                if row.verdict != "same":
                    print(f"  {row.measure} is {row.verdict}: {row.change:.3f} "
                          f"{row.interval}")  # fmt: skip
        print(f"the same file twice: same in {same['same']} of {given.repeats} repeats")
        for name, first, second in (
            ("float, then int8", quick["float"], quick["int8"]),
            ("int8, then 2 % zeroed", files["int8"], files["zeroed"]),
        ):
            for row in _compared(first, second, given.preset):
                print(f"{name}: {row.measure} is {row.verdict} ({row.change:.4g}; {row.evidence})")


def _compared(a: protocol.Candidate, b: protocol.Candidate, preset: str) -> list[Row]:
    with devices.open_device(devices.load("host")) as device:
        reports = protocol.measure([a, b], device, preset, threads=1).reports
    named: dict[str, dict[str, Any]] = {r["target"]: {**r, "target": "file"} for r in reports}
    return compare([named[a.target]], [named[b.target]], Tolerance(), allow_invalid=True)


def _candidate(
    name: str, folder: Path, source: targets.Source, x: np.ndarray, labels: np.ndarray,
) -> protocol.Candidate:  # fmt: skip
    target, precision = targets.load("tflite-int8" if source.scales else "tflite-fp32")
    path = folder / f"{name}.tflite"
    first, last = target.export(source, precision, path)
    codes = targets.encode(x, first)

    def judge(outputs: np.ndarray) -> dict[str, Any]:
        right = targets.decode(outputs, last).argmax(1) == labels
        return {"correct": int(right.sum()), "n": len(labels), "samples": "test",
                "right": np.packbits(right).tobytes().hex()}  # fmt: skip

    return protocol.Candidate(
        name, path, file_sha256(path), path.stat().st_size, first, last, codes[:16],
        codes, judge,
    )  # fmt: skip


def _zeroed(folded: Any, scales: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A copy with a random 2 % of each layer's weights at zero."""
    damaged = fold_batchnorm(folded)
    damaged.load_state_dict(folded.state_dict())
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in damaged.state_dict().items():
            if name.endswith(".weight"):
                weight[torch.rand(weight.shape, generator=random) < _SHARE] = 0
    return damaged.eval(), scales  # a zero is on any grid


if __name__ == "__main__":
    main()
