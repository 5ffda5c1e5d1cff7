"""Latency budgets: a network, a device and a limit in; a table that hits the limit there out.

The table of single layers finds the widths; the whole file, exported and measured, corrects the
table, until what is measured is what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edgeres import devices, scratch, targets
from edgeres.models.latency import LatencyTable
from edgeres.models.shapes import LayerShape, shapes_of
from edgeres.types import tensor_spec

if TYPE_CHECKING:
    from edgeres.measurement.protocol import Candidate
    from edgeres.models.modules import Classifier
    from edgeres.records import Medians, Paced

_CLOSE = 0.05  # of the limit: no further correction
_ROUNDS = 3
_SAMPLES = 4


@dataclass
class Meter:
    """Measures whole networks on a device, each shape once.

    A machine is faster at one time than at another: its clock, its heat, its neighbours. So every
    network is run in turn with the first one, and compared at the pace which that one had first.

    Attributes:
        first: the first network that was measured, and its latency then.
        seen: what was measured: shapes -> the latency part of a report.
    """

    device: str
    target: str
    tick: Callable[[str], None]
    preset: str = "quick"
    first: tuple[Classifier, Medians] | None = None
    seen: dict[tuple[LayerShape, ...], Paced] = field(default_factory=dict)

    def measure(self, model: Classifier) -> Paced:
        """Latency of the network's int8 file (docs/results.md), its scales made up.

        Beside what was measured it holds `paced_ns`, the median at the first network's first pace.
        """
        shapes = tuple(layers_of(model))
        if shapes not in self.seen:
            self.seen[shapes] = found = self._measured(model)
            self.first = self.first or (model, found)
        return self.seen[shapes]

    def _measured(self, model: Classifier) -> Paced:
        networks = {"network": model} | ({"first": self.first[0]} if self.first else {})
        found = in_turn(networks, self.device, self.target, self.preset, self.tick)
        latency = found["network"]
        if self.first is None:
            return {**latency, "paced_ns": latency["median_ns"]}
        share = share_of(latency, found["first"])
        return {**latency, "paced_ns": share * self.first[1]["median_ns"]}

    def table(self, shapes: Sequence[LayerShape], round_to: int) -> LatencyTable:
        """The measured layers of a network and of all its slimmer forms."""
        from edgeres.measurement import latency_table

        return latency_table.build(
            shapes, self.target, devices.load(self.device), round_to=round_to, on_event=self.tick
        )


def in_turn(
    networks: Mapping[str, Classifier], device: str, target: str, preset: str,
    tick: Callable[[str], None], exclude: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, Medians]:  # fmt: skip
    """The latency of networks' int8 files, their scales made up, by name; run in turn.

    Args:
        exclude: of which networks which layers stay float.
    """
    from edgeres.measurement import latency_table

    with scratch.folder("work") as folder:
        candidates = []
        for name, network in networks.items():
            own = Path(folder, name)
            own.mkdir()
            kept = (exclude or {}).get(name, ())
            candidates.append(exported(network, target, own, tick, name, kept))
        return latency_table.whole_files(candidates, devices.load(device), target, preset, tick)


def share_of(latency: Medians, other: Medians) -> float:
    """What one file takes of another's time, of two run in turn: the median over sessions."""
    sessions = (each["session_medians_ns"] for each in (latency, other))
    return median(a / b for a, b in zip(*sessions, strict=True))


def corrected(
    table: LatencyTable,
    meter: Meter,
    model: Classifier,
    limit_ns: float,
    slim_to: Callable[[LatencyTable], Classifier],
) -> tuple[LatencyTable, list[dict[str, float]]]:
    """The table as whole files correct it, and what each of them said.

    Args:
        slim_to: the network as a table would have it pruned; raises BadInput if the limit is out
            of reach.
    """
    table = table.corrected(layers_of(model), meter.measure(model)["paced_ns"])
    rounds = []
    for _ in range(_ROUNDS):
        slim = slim_to(table)
        shapes = layers_of(slim)
        predicted, measured = table.predict(shapes), float(meter.measure(slim)["paced_ns"])
        rounds.append({"predicted_ns": predicted, "measured_ns": measured})
        if abs(measured / limit_ns - 1) <= _CLOSE:
            break
        better = table.corrected(shapes, measured)
        if layers_of(slim_to(better)) == shapes:  # the next step of widths would be too far
            break
        table = better
    return table, rounds


def layers_of(model: Classifier) -> list[LayerShape]:
    """The layers of a network at its own image size."""
    return shapes_of(model, model.spec.preprocess.size_px)


def exported(
    model: Classifier, target: str, folder: Path, tick: Callable[[str], None],
    name: str | None = None, exclude: Sequence[str] = (),
) -> Candidate:  # fmt: skip
    """An int8 file of the network, its scales made up, ready to be measured (as `name`)."""
    import numpy as np

    from edgeres.compression import uncalibrated
    from edgeres.disk import file_sha256, folder_size
    from edgeres.measurement.protocol import Candidate
    from edgeres.models import weights
    from edgeres.targets._conversion import convert

    folded, scales = uncalibrated.quantized(model, exclude)
    (folder / "model").mkdir()
    weights.save(folder / "model", folded)
    module, _ = targets.load(target)
    path = folder / f"{model.spec.name}-int8{module.SUFFIX}"
    found = convert(
        folder / "model", targets.scales_for(target, scales), target, path, {},
        lambda: tick(f"writing {path.name}"),
    )  # fmt: skip
    first, last = tensor_spec(found["input"]), tensor_spec(found["output"])
    limits = np.iinfo(first.dtype)
    codes = np.random.default_rng(0).integers(
        limits.min, limits.max + 1, (_SAMPLES, *first.shape[1:])
    )
    return Candidate(name or target, path, file_sha256(path), folder_size(path), first, last,
                     codes.astype(first.dtype))  # fmt: skip
