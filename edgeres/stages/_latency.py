"""Latency budgets: a network, a device and a limit in; a table that hits the limit there out.

The table of single layers finds the widths; the whole file, exported and measured, corrects the
table, until what is measured is what was asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import devices, targets
from edgeres.models.latency import LatencyTable
from edgeres.models.shapes import LayerShape, shapes_of
from edgeres.types import tensor_spec

if TYPE_CHECKING:
    from edgeres.models.resnet import ResNet

_CLOSE = 0.05  # of the limit: no further correction
_ROUNDS = 3
_SAMPLES = 4


@dataclass
class Meter:
    """Measures whole networks on a device, each shape once.

    Attributes:
        seen: what was measured: shapes -> the latency part of a report.
    """

    device: str
    target: str
    tick: Callable[[str], None]
    preset: str = "quick"
    seen: dict[tuple[LayerShape, ...], dict[str, Any]] = field(default_factory=dict)

    def measure(self, model: ResNet) -> dict[str, Any]:
        """Latency of the network's int8 file (docs/results.md), its scales made up."""
        shapes = tuple(layers_of(model))
        if shapes not in self.seen:
            with tempfile.TemporaryDirectory() as folder:
                candidate = exported(model, self.target, Path(folder), self.tick)
                self.seen[shapes] = self._run(candidate)
        return self.seen[shapes]

    def _run(self, candidate: Any) -> dict[str, Any]:
        from edgeres.measurement import latency_table

        return latency_table.whole_file(
            candidate, devices.load(self.device), self.preset, self.tick
        )

    def table(self, shapes: Sequence[LayerShape], round_to: int) -> LatencyTable:
        """The measured layers of a network and of all its slimmer forms."""
        from edgeres.measurement import latency_table

        return latency_table.build(
            shapes, self.target, devices.load(self.device), round_to=round_to, on_event=self.tick
        )


def corrected(
    table: LatencyTable,
    meter: Meter,
    model: ResNet,
    limit_ns: float,
    slim_to: Callable[[LatencyTable], ResNet],
) -> tuple[LatencyTable, list[dict[str, float]]]:
    """The table as whole files correct it, and what each of them said.

    Args:
        slim_to: the network as a table would have it pruned; raises BadInput if the limit is out
            of reach.
    """
    table = table.corrected(layers_of(model), meter.measure(model)["median_ns"])
    rounds = []
    for _ in range(_ROUNDS):
        slim = slim_to(table)
        shapes = layers_of(slim)
        predicted, measured = table.predict(shapes), float(meter.measure(slim)["median_ns"])
        rounds.append({"predicted_ns": predicted, "measured_ns": measured})
        if abs(measured / limit_ns - 1) <= _CLOSE:
            break
        better = table.corrected(shapes, measured)
        if layers_of(slim_to(better)) == shapes:  # the next step of widths would be too far
            break
        table = better
    return table, rounds


def layers_of(model: ResNet) -> list[LayerShape]:
    """The layers of a network at its own image size."""
    return shapes_of(model, model.spec.preprocess.size_px)


def exported(
    model: ResNet, target: str, folder: Path, tick: Callable[[str], None], name: str | None = None
) -> Any:
    """An int8 file of the network, its scales made up, ready to be measured (as `name`)."""
    import numpy as np

    from edgeres.compression import uncalibrated
    from edgeres.disk import file_sha256, folder_size
    from edgeres.measurement.protocol import Candidate
    from edgeres.models import weights
    from edgeres.targets._conversion import convert

    folded, scales = uncalibrated.quantized(model)
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
