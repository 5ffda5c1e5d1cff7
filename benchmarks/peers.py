"""Our int8 files beside those of other tools: latency in one interleaved run, accuracy in full.

    .venv/bin/python benchmarks/peers.py --data data/cifar10 \\
        --weights data/weights [--network resnet20] [--qat RUN]

Networks: resnet20 and resnet56 with akamaster's CIFAR-10 weights (option A shortcuts), 512
training images to calibrate, accuracy on the 10,000 test images, p by McNemar against ours;
resnet18 at 224 px has random weights and is only timed. Files of one runtime run in turn, in random
order, one thread, batch 1. Printed is the median time of each, and the ratio to ours: its median
over rounds with the 2.5th and 97.5th percentile of 2,000 bootstrap samples of the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _bursts import in_turn, ratio, session
from _cifar_networks import calibration, network, splits
from _peer_files import PEERS

from edgeres import targets
from edgeres.compression import ptq
from edgeres.models import resnet, spec, weights
from edgeres.quiet import quiet
from edgeres.statistics import mcnemar, wilson
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.types import Preprocess, ScaleTable, quant_params


def main() -> None:
    """Make the files, time them, run the test set, print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--network", default="resnet20", help="resnet20, resnet56 or resnet18")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--qat", type=Path, help="what train_qat.py wrote, measured too")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="write every number here")
    given = parser.parse_args()
    torch.manual_seed(0)
    model, images, test = _network(given)
    result: dict[str, object] = {"network": given.network, "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in ("onnx", "tflite"):
            files = _files(runtime, model, images, Path(folder))
            if given.qat:
                files["edgeres, QAT"] = _exported(
                    runtime, *_trained(given.qat), Path(folder), "qat"
                )
            rows = _measured(files, given.rounds)
            if test is not None:
                _add_accuracy(rows, files, model.spec.preprocess, test)
            result[runtime] = rows
            _show(runtime, rows)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1), "utf-8")


def _network(given: argparse.Namespace) -> tuple[resnet.ResNet, torch.Tensor, Labelled | None]:
    """The float network, uint8 calibration images, and the test set."""
    if given.network == "resnet18":
        model = resnet.build(spec.parse("resnet18", 1000, spec.default_preprocess(224))).eval()
        return model, torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8), None
    train, _, test = splits(given.data)
    return network(given.weights, given.network), calibration(train), test


def _files(
    runtime: str, model: resnet.ResNet, images: torch.Tensor, folder: Path
) -> dict[str, Path]:
    """Our file first, then each peer's, all from the same weights and images."""
    folded, scales = ptq.quantize(model, images)
    files = {"edgeres": _exported(runtime, folded, scales, folder, "ours")}
    x = prepared(images, model.spec.preprocess).contiguous()
    for number, (tool, make) in enumerate(PEERS[runtime].items()):
        begin = time.monotonic()
        with quiet(f"quantizing with {tool}"):
            plain = resnet.fold_batchnorm(model)
            files[tool] = make(plain, x, folder / f"peer{number}-{runtime}")
        print(f"  made by {tool} in {time.monotonic() - begin:.0f} s", flush=True)
    return files


def _exported(
    runtime: str, folded: resnet.ResNet, scales: ScaleTable, folder: Path, name: str
) -> Path:
    target, precision = targets.load(f"{runtime}-int8")
    path = folder / f"{name}{target.SUFFIX}"
    target.export(targets.Source(folded, scales), precision, path)
    return path


def _trained(folder: Path) -> tuple[resnet.ResNet, ScaleTable]:
    table = json.loads((folder / "scales.json").read_text("utf-8"))
    return weights.load(folder), {k: p for k, v in table.items() if (p := quant_params(v))}


def _measured(files: dict[str, Path], rounds: int) -> dict[str, dict]:
    sessions = {tool: session(path) for tool, path in files.items()}
    times = in_turn(sessions, rounds)
    rows = {}
    for tool, path in files.items():
        middle, low, high = ratio(times[tool], times["edgeres"])
        graph = sessions[tool].graph
        rows[tool] = {
            "ms": float(np.median(times[tool])), "ratio": middle,
            "ratio_low": low, "ratio_high": high, "rounds": rounds,
            "size_bytes": path.stat().st_size, "operators": len(graph.ops),
            "float_operators": len(graph.float_operators()),
        }  # fmt: skip
    return rows


def _add_accuracy(
    rows: dict[str, dict], files: dict[str, Path], preprocess: Preprocess, test: Labelled
) -> None:
    labels = test.labels.numpy()
    right = {}
    for tool, path in files.items():
        loaded = session(path)
        parts = [loaded.logits(prepared(part, preprocess).contiguous().numpy())
                 for part in test.images.split(1000)]  # fmt: skip
        right[tool] = np.concatenate(parts).argmax(1) == labels
        low, high = wilson(int(right[tool].sum()), len(labels))
        lost = int((right["edgeres"] & ~right[tool]).sum())
        won = int((right[tool] & ~right["edgeres"]).sum())
        rows[tool] |= {"correct": int(right[tool].sum()), "n": len(labels), "low": low,
                       "high": high, "p": mcnemar(lost, won)}  # fmt: skip


def _show(runtime: str, rows: dict[str, dict]) -> None:
    print(f"\n{runtime:<22}{'ms':>8}{'ratio to ours':>22}{'floats':>8}{'kB':>9}  top-1")
    for tool, row in rows.items():
        span = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        top1 = ""
        if "n" in row:
            top1 = (f"{row['correct'] / row['n']:.2%} ({row['low']:.1%}-{row['high']:.1%}), "
                    f"p {row['p']:.2g}")  # fmt: skip
        print(f"{tool:<22}{row['ms']:>8.3f}{span:>22}{row['float_operators']:>8}"
              f"{row['size_bytes'] / 1e3:>9.1f}  {top1}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
