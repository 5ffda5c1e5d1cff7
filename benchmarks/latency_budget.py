"""Latency budgets on a device: asked, predicted by the table, measured on the whole file.

    .venv/bin/python benchmarks/latency_budget.py [--weights resnet20-12fca82f.th] [--device host]

ResNet-20 for CIFAR-10, random weights if none are given (latency doesn't depend on them), pruned to
three budgets as the prune stage does it, and to one that is out of reach. No training. The files
that come out are then measured anew, in turn with the unpruned one: what was asked and what was got
are compared as shares of it, since a machine's pace changes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import _bursts

from edgeres.compression import budgets, criteria
from edgeres.compression.prune import prune
from edgeres.errors import BadInput
from edgeres.models import resnet, spec, weights
from edgeres.models.latency import LatencyTable
from edgeres.stages import _latency

_SHARES = (0.8, 0.65, 0.55)
_IMPOSSIBLE = 0.02


def main() -> None:
    """Measure the table, solve, measure the files, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--network", default="resnet20-A")
    parser.add_argument("--device", default="host")
    parser.add_argument("--target", default="tflite-int8")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--rounds", type=int, default=200, help="of the last measurement, on host")
    given = parser.parse_args()
    described = spec.parse(given.network, 10, spec.default_preprocess(32))
    model = resnet.build(described)
    if given.weights:
        model = weights.from_checkpoint(given.weights, described)
    meter = _latency.Meter(given.device, given.target, note, given.preset)
    table = meter.table(_latency.layers_of(model), 8)
    whole = meter.measure(model)
    layers = sum(len(points) for points in table.points.values())
    untouched = table.predict(_latency.layers_of(model))
    print(f"{given.network} on {given.device}, {given.target}: {shown(whole)} ms; "
          f"the table of {layers} layers says {untouched / 1e6:.4f} ms")  # fmt: skip
    print(f"{'asked ms':>9} {'predicted':>9} {'solved for':>10}  rounds")
    networks = {"unpruned": model}
    for share in (*_SHARES, _IMPOSSIBLE):
        limit = share * whole["median_ns"]
        try:
            corrected, rounds = _latency.corrected(
                table, meter, model, limit, slim_to(model, limit)
            )
        except BadInput as refused:
            print(f"{limit / 1e6:>9.4f} refused: {refused}")
            continue
        slim = slim_to(model, limit)(corrected)
        predicted = corrected.predict(_latency.layers_of(slim)) / 1e6
        found = meter.measure(slim)["paced_ns"] / 1e6
        print(f"{limit / 1e6:>9.4f} {predicted:>9.4f} {found:>10.4f}  {len(rounds)}", flush=True)
        networks[f"{share:g}"] = slim
    confirm(networks, given)


def confirm(networks: dict[str, resnet.ResNet], given: argparse.Namespace) -> None:
    """Measure all files once more, in turn: the widths were chosen by the measurements before."""
    if given.device == "host":
        times = bursts_of(networks, given.target, given.rounds)
    else:
        found = _latency.in_turn(networks, given.device, given.target, given.preset, note)
        times = {name: latency["session_medians_ns"] for name, latency in found.items()}
    unpruned = times.pop("unpruned")
    print(f"all files anew, {len(unpruned)} times in turn; asked and got as shares of the unpruned "
          "file's time:")  # fmt: skip
    for name, found in times.items():
        share, low, high = _bursts.ratio(found, unpruned)
        print(f"{name:>9} {share:.4f} ({low:.4f}-{high:.4f})  off {share / float(name) - 1:+.1%}")


def bursts_of(
    networks: dict[str, resnet.ResNet], target: str, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each network's int8 file on this machine, per round."""
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            own = Path(folder, name)
            own.mkdir()
            written = _latency.exported(network, target, own, note, name)
            sessions[name] = _bursts.session(written.path)
        return _bursts.in_turn(sessions, rounds)


def slim_to(model: resnet.ResNet, limit_ns: float):
    """What the stage does with a table."""

    def slim(table: LatencyTable) -> resnet.ResNet:
        judge = criteria.magnitude()
        budget = budgets.latency(table, limit_ns)
        return prune(model, budget, round_to=8, criterion=lambda _: judge)

    return slim


def shown(latency: dict) -> str:
    """`0.2250 (0.2210-0.2290), n = 4000`."""
    low, high = latency["median_ci_ns"]
    median = latency["median_ns"]
    return f"{median / 1e6:.4f} ({low / 1e6:.4f}-{high / 1e6:.4f}), n = {latency['n']}"


def note(text: str) -> None:
    """Progress, on a line of its own that is overwritten."""
    print(f"\r{text[:78]:<78}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
