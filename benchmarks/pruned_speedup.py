"""How much faster a pruned int8 file is than the unpruned one, measured interleaved on a device.

    .venv/bin/python benchmarks/pruned_speedup.py UNPRUNED.tflite PRUNED.tflite
    .venv/bin/python benchmarks/pruned_speedup.py [--weights FILE] [--macs 0.47 0.44]
        [--round-to 4 8 16]

With files: those. Without: a network pruned by magnitude, with random weights if none are given.
The files run in turn: here in short bursts in one process; on another device in fresh processes.
Printed is the median ratio with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import _bursts
import numpy as np

from edgeres import devices, targets
from edgeres.compression import budgets, criteria
from edgeres.compression.prune import prune
from edgeres.disk import file_sha256, folder_size
from edgeres.measurement import latency_table
from edgeres.measurement.protocol import Candidate
from edgeres.models import resnet, spec, weights
from edgeres.stages import _latency


def main() -> None:
    """Make the files if there are none, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--network", default="resnet56-A")
    parser.add_argument("--weights", type=Path, help="akamaster's resnet56-4bfd9763.th, say")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.47])
    parser.add_argument("--round-to", type=int, nargs="+", default=[8])
    parser.add_argument("--device", default="host")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--rounds", type=int, default=200, help="on host")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.files:
            candidates = [_of_file(file.name, file) for file in given.files]
        else:
            candidates = _made(given, Path(folder))
        times = _times(candidates, given)
    first, *_ = times.values()
    for candidate in candidates:
        found = times[candidate.target]
        middle, low, high = _bursts.ratio(first, found)
        size_kb = candidate.size_bytes / 1e3
        print(f"{candidate.target:<16} {median(found):.4f} ms, {size_kb:.1f} kB, "
              f"{middle:.2f}x as fast as the first (95 % interval {low:.2f}-{high:.2f}, "
              f"{len(found)} times in turn)")  # fmt: skip


def _times(candidates: Sequence[Candidate], given: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each file, per round or session."""
    if given.device == "host":
        sessions = {c.target: _bursts.session(c.path) for c in candidates}
        return _bursts.in_turn(sessions, given.rounds)
    latencies = latency_table.whole_files(candidates, devices.load(given.device), given.preset)
    return {n: [ns / 1e6 for ns in found["session_medians_ns"]] for n, found in latencies.items()}


def _made(given: argparse.Namespace, folder: Path) -> list[Candidate]:
    described = spec.parse(given.network, 10, spec.default_preprocess(32))
    model = resnet.build(described)
    if given.weights:
        model = weights.from_checkpoint(given.weights, described)
    judge = criteria.magnitude()
    networks = {"unpruned": model.eval()}
    for share, count in itertools.product(given.macs, given.round_to):
        budget = budgets.macs(_latency.layers_of(model), share)
        slim = prune(model, budget, round_to=count, criterion=lambda _: judge)
        networks[f"{share:g}x in {count}s"] = slim
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
