"""ONNX int8 files in onnxruntime with and without its graph optimizer: codes, and time to load.

    .venv/bin/python benchmarks/optimizer_off.py --data data/cifar10 \\
        --weights data/weights [--network resnet20]

PTQ of akamaster's network with 512 training images, all 10,000 test images, one thread. Codes are
compared with those of `onnx-int8` with optimizations; files are loaded in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from _cifar_networks import arguments, calibration, network, splits

from edgeres import targets
from edgeres.compression import ptq
from edgeres.targets import onnx
from edgeres.training.inference import prepared

_LOADS = 21


def main() -> None:
    """Export, run, compare, print."""
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    given = parser.parse_args()
    train, _, test = splits(given.data)
    model = network(given.weights, given.network)
    source = targets.Source(*ptq.quantize(model, calibration(train)))
    with tempfile.TemporaryDirectory() as folder:
        forms = {}
        for name in ("onnx-int8", "qoperator-int8"):
            target, precision = targets.load(name)
            path = Path(folder) / f"model{target.SUFFIX}"
            first, _ = target.export(source, precision, path)
            forms[f"{name}, on"] = path, {}
            forms[f"{name}, off"] = path, onnx.as_written()
        x = prepared(test.images, model.spec.preprocess).contiguous().numpy()
        codes = targets.encode(x, first)
        wanted = _answers(*forms["onnx-int8, on"], codes)
        for name, (path, settings) in forms.items():
            apart = np.abs(_answers(path, settings, codes) - wanted).max(1)
            counts = np.bincount(apart).tolist()
            print(f"{name}: images by worst difference in codes (0, 1, ..): {counts}")
        loads = [{n: _load_ms(*form) for n, form in forms.items()} for _ in range(_LOADS)]
    for name in forms:
        print(f"{name}: loaded in {statistics.median(turn[name] for turn in loads):.1f} ms")


def _answers(path: Path, settings: dict, codes: np.ndarray) -> np.ndarray:
    session = onnx.Runner(path, onnx.inference_session(path, str(path), 1, settings))
    return session.run(codes).astype(int)


def _load_ms(path: Path, settings: dict) -> float:
    begin = time.perf_counter()
    onnx.inference_session(path, str(path), 1, settings)
    return 1e3 * (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
