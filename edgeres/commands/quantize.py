"""`edgeres quantize`: what each layer would lose, and which layers to leave float."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.artifact import load
from edgeres.commands import chain
from edgeres.errors import BadInput, GateFailed
from edgeres.progress import Progress
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.compression.sensitivity import Probe, Sensitivity, Tick
    from edgeres.recipe import Recipe


def sensitivity(recipe: Recipe, runs: Path, quiet: bool) -> dict[str, Any]:
    """A row per layer, quantized alone, on the validation images; the most sensitive first."""
    probe, rows = _measured(recipe, runs, quiet)
    return _described(probe, rows)


def auto(recipe: Recipe, runs: Path, accuracy_drop: float, quiet: bool) -> dict[str, Any]:
    """Quantize with the fewest layers float that keep the loss of top-1 within a budget.

    Args:
        accuracy_drop: percentage points on the validation images.

    Raises:
        BadInput: not a budget.
        GateFailed: it isn't met with every convolution float.
    """
    from edgeres.compression.sensitivity import fewest_float

    if not accuracy_drop >= 0:
        raise BadInput(f"--accuracy-drop {accuracy_drop:g}: give percentage points, 0 or more")
    probe, rows = _measured(recipe, runs, quiet)
    with _told("float layers", quiet) as tick:
        choice = fewest_float(probe, rows, accuracy_drop, tick)
    if not choice.met:
        raise GateFailed(
            f"--accuracy-drop {accuracy_drop:g}: {choice.lost_points:.2f} points are lost even "
            "with every convolution float; allow more, or use --method qat"
        )
    assert recipe.quantize
    names = tuple(re.escape(name) for name in choice.layers)
    section = recipe.quantize.model_copy(update={"exclude": names})
    result = chain.perform(recipe.model_copy(update={"quantize": section}), runs, "quantize", quiet)
    return {**result, "auto": {**to_json(choice), "accuracy_drop": accuracy_drop},
            "sensitivity": _described(probe, rows)}  # fmt: skip


def _measured(recipe: Recipe, runs: Path, quiet: bool) -> tuple[Probe, list[Sensitivity]]:
    from edgeres.compression import ptq
    from edgeres.compression.sensitivity import Probe, measured
    from edgeres.models import weights
    from edgeres.stages import _checkpoint

    assert recipe.quantize
    last = next(s for s in ("prune", "distill", "teacher") if getattr(recipe, s) is not None)
    made = chain.perform(recipe, runs, last, quiet)["artifacts"]
    data = load(Path(made["data"]["path"]))
    model = weights.load(Path(made[last]["path"]))
    train, validation, test = _checkpoint.splits(data)
    images = _checkpoint.calibration_images(data, train, test)
    section = recipe.quantize
    _, scales = ptq.quantize(model, images, scheme=section.scheme, ranges=section.ranges)
    with _told("sensitivity", quiet) as tick:
        probe = Probe(model, scales, validation)
        rows = measured(probe, tick)
    return probe, rows


@contextlib.contextmanager
def _told(what: str, quiet: bool) -> Iterator[Tick]:
    """Progress of work that is no step of a run."""
    progress, begin = Progress(quiet), time.monotonic()
    with contextlib.closing(progress):
        progress.started(what, "")
        yield progress.tick
        progress.finished(what, False, time.monotonic() - begin, "")


def _described(probe: Probe, rows: list[Sensitivity]) -> dict[str, Any]:
    n = len(probe.split.labels)
    return {
        "images": n, "float_top1": probe.float_correct / n,
        "all_quantized_lost_points": probe.lost_points(()),
        "layers": to_json(rows),
    }  # fmt: skip
