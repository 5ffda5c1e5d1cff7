"""`edgeres quantize`: what each layer would lose, and which layers to leave float."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import devices
from edgeres.artifact import load
from edgeres.commands import chain
from edgeres.errors import BadInput, GateFailed
from edgeres.pipeline import Given
from edgeres.progress import Progress
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.compression.sensitivity import Probe, Sensitivity, Tick
    from edgeres.models.modules import Classifier
    from edgeres.recipe import Recipe
    from edgeres.text import chain as chain_text

_TARGET = "tflite-int8"  # its runtime is the same on every device


def sensitivity(recipe: Recipe, given: Given, runs: Path, quiet: bool) -> chain_text.Sensitivity:
    """A row per layer, quantized alone, on the validation images; the most sensitive first.

    Args:
        given: of the model, as `chain.continued` has it.
    """
    probe, rows = _measured(recipe, given, runs, quiet)
    return _described(probe, rows)


def auto(
    recipe: Recipe, given: Given, runs: Path, accuracy_drop: float, device: str, quiet: bool
) -> chain_text.Auto:
    """Quantize with the fewest layers float that keep the loss of top-1 within a budget.

    Args:
        given: of the model, as `chain.continued` has it.
        accuracy_drop: percentage points on the validation images.
        device: where what the float layers cost in latency is measured.

    Raises:
        BadInput: not a budget; an unknown device, or an emulated one.
        GateFailed: the budget isn't met with every convolution float.
        DeviceError: the device can't run the files.
    """
    from edgeres.compression.sensitivity import fewest_float

    if not accuracy_drop >= 0:
        raise BadInput(f"--accuracy-drop {accuracy_drop:g}: give percentage points, 0 or more")
    _require_device(device)
    probe, rows = _measured(recipe, given, runs, quiet)
    with _told("float layers", quiet) as tick:
        choice = fewest_float(probe, rows, accuracy_drop, tick)
    if not choice.met:
        raise GateFailed(
            f"--accuracy-drop {accuracy_drop:g}: {choice.lost_points:.2f} points are lost even "
            "with every convolution but the first float; allow more, or use --method qat"
        )
    assert recipe.quantize
    names = tuple(re.escape(name) for name in choice.layers)
    section = recipe.quantize.model_copy(update={"exclude": names})
    exact = recipe.model_copy(update={"quantize": section})
    result = chain.perform(exact, runs, "quantize", quiet, given=given)
    latency = _cost(probe.model, names, device, quiet) if names else None
    chosen: chain_text.Kept = {
        "layers": list(choice.layers), "lost_points": choice.lost_points, "met": choice.met,
        "float_macs": choice.float_macs, "tried": choice.tried,
        "accuracy_drop": accuracy_drop, "latency": latency,
    }  # fmt: skip
    return {**result, "auto": chosen, "sensitivity": _described(probe, rows)}


def _require_device(name: str) -> None:
    """Before the work, not after it."""
    from edgeres.measurement import latency_table

    profile = devices.load(name)
    latency_table.require_real(profile)
    devices.open_device(profile).close()


def _cost(model: Classifier, exclude: Sequence[str], device: str, quiet: bool) -> chain_text.Slower:
    """What float layers cost: the time of the file with them, as a multiple of that without."""
    from edgeres.measurement.statistics import ratio_ci
    from edgeres.stages import _latency

    networks = {"with": model, "without": model}
    with _told("latency", quiet) as tick:
        found = _latency.in_turn(
            networks, device, _TARGET, "quick", lambda note: tick(0, 0, note), {"with": exclude}
        )
    sessions = [found[name]["session_medians_ns"] for name in networks]
    return {"device": device, "target": _TARGET, "interval": ratio_ci(sessions[0], sessions[1]),
            "ratio": _latency.share_of(found["with"], found["without"]),
            "with": found["with"], "without": found["without"]}  # fmt: skip


def _measured(
    recipe: Recipe, given: Given, runs: Path, quiet: bool
) -> tuple[Probe, list[Sensitivity]]:
    from edgeres.compression import bits, ptq
    from edgeres.compression.sensitivity import Probe, measured
    from edgeres.models import weights
    from edgeres.stages import _checkpoint

    assert recipe.quantize
    last = next(s for s in ("prune", "distill", "teacher") if getattr(recipe, s) is not None)
    made = chain.perform(recipe, runs, last, quiet, given=given)["artifacts"]
    data = load(Path(made["data"]["path"]))
    model = weights.load(Path(made[last]["path"]))
    train, validation, test = _checkpoint.splits(data)
    images = _checkpoint.calibration_images(data, train, test)
    section = recipe.quantize
    four = bits.four(model, section.keep_8bit) if section.scheme == bits.SCHEME else None
    _, scales = ptq.quantize(model, images, scheme=section.scheme, ranges=section.ranges, four=four)
    with _told("sensitivity", quiet) as tick:
        probe = Probe(model, scales, validation, section.scheme)
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


def _described(probe: Probe, rows: list[Sensitivity]) -> chain_text.Sensitivity:
    n = len(probe.split.labels)
    return {
        "images": n, "float_top1": probe.float_correct / n,
        "all_quantized_lost_points": probe.lost_points(()),
        "layers": to_json(rows),
    }  # fmt: skip
